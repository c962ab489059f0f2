/**
 * The nemesis: carries out a plan's faults, each from its time on for its length, and counts how often each kind struck,
 * and how often while somebody waited for an answer. One that has a probability strikes when it does something, not
 * when it begins. Most break what the cluster must bear; "powerLoss", "logRot" and "objectRot" take what was stored, and then it must
 * say so. A listing that is behind is not among them: whoever drops a collection relies on one that shows every object.
 */
import type { Cluster } from "./cluster.ts"
import type { Fault, FaultName } from "./plan.ts"
import type { SimNode } from "./world.ts"

/** How often a kind of fault struck, and how often while somebody waited for an answer. */
export interface Struck {
  readonly times: number
  readonly inFlight: number
}

/** Begins a fault; what comes back ends it. */
type Strike = (cluster: Cluster, fault: Fault) => (() => unknown) | void

/** Nodes play roles, or are clients. */
const nodeOf = (cluster: Cluster, name: string): SimNode => cluster.processes.get(name)?.node ?? cluster.client(name)

const STRAY_EVERY_MS = 2_000

/** Messages of the slow tail take up to so much longer. */
const TAIL_MS = 2_000

/** Raises a rate as long as the fault lasts; of several at once the strongest counts. */
const raises = <K extends string>(
  faultsOf: (cluster: Cluster) => { [N in K]: number },
  ...names: ReadonlyArray<K>
): Strike => {
  return (cluster, { strength = 0 }) => {
    const faults = faultsOf(cluster)
    const before = names.map((name) => faults[name])
    for (const name of names) faults[name] = Math.max(faults[name], strength)
    return () => {
      names.forEach((name, i) => {
        if (faults[name] === strength) faults[name] = before[i]!
      })
    }
  }
}

const strikes: { readonly [K in FaultName]: Strike } = {
  crash: (cluster, { target }) => {
    const process = cluster.process(target)
    process.crash()
    return () => process.start()
  },
  restarts: (cluster, { lengthMs, strength = 1_000, target }) => {
    const process = cluster.process(target)
    const { world } = cluster
    const until = world.now + lengthMs
    const again = () => {
      process.crash()
      process.start()
      if (world.now + strength < until) world.after(strength, again, undefined, 0, "restarts")
    }
    again()
  },
  pause: (cluster, { lengthMs, target }) => cluster.process(target).pause(lengthMs),
  slow: (cluster, { strength = 1, target }) => {
    const { node } = cluster.process(target)
    node.slowMs = strength
    return () => {
      node.slowMs = 0
    }
  },
  clockStep: (cluster, { strength = 0, target }) => {
    const { node } = cluster.process(target)
    node.skewMs += strength
    return () => {
      node.skewMs -= strength
    }
  },
  clockDrift: (cluster, { strength = 0, target }) => {
    const { node } = cluster.process(target)
    node.drift(strength)
    return () => node.drift(0)
  },

  disconnect: (cluster, { target }) => cluster.broker.network.disconnect(nodeOf(cluster, target)),
  partition: (cluster, { target, ways = "both" }) => {
    const node = nodeOf(cluster, target)
    const { network } = cluster.broker
    network.block(node, ways)
    return () => network.mend(node)
  },
  slowLink: (cluster, { strength = 1, target }) => {
    const node = nodeOf(cluster, target)
    const { network } = cluster.broker
    network.slow(node, strength)
    return () => network.slow(node, 1)
  },
  delay: (cluster, fault) => {
    const { faults } = cluster.broker.network
    faults.tailMs = TAIL_MS
    return raises(() => faults, "tail")(cluster, fault)
  },
  late: (cluster, fault) => {
    const { broker, processes, world } = cluster
    const { network } = broker
    const end = raises(() => network.faults, "late")(cluster, fault)
    const nodes = [...processes.values()]
    const until = world.now + fault.lengthMs
    let turn = fault.id
    // Nothing is late on a connection that holds.
    const stray = () => {
      if (world.now >= until) return
      network.stray(nodes[turn++ % nodes.length]!.node)
      world.after(STRAY_EVERY_MS, stray, undefined, 0, "late")
    }
    stray()
    return end
  },

  election: (cluster, { how = "step down", id, lengthMs }) => {
    const { broker } = cluster
    const { servers } = broker
    const machine = servers.all[id % servers.all.length]!
    // A leader can go in several ways, and each looks different from outside.
    if (how === "step down") broker.elect(how, lengthMs)
    else if (how === "crash") servers.crash(machine, lengthMs)
    else if (how === "pause") servers.pause(machine, lengthMs)
    else servers.cutOff(machine, lengthMs)
  },
  lostAnswer: raises(({ broker }) => broker.faults, "lostAnswer"),
  lostRequest: raises(({ broker }) => broker.faults, "lostRequest"),
  lateRequest: raises(({ broker }) => broker.faults, "late"),
  staleRead: raises(({ broker }) => broker.faults, "oldLeader", "behind"),
  streamCut: (cluster, { target }) => {
    const { streams } = cluster.broker
    const { node } = cluster.process(target)
    streams.cut(node)
    return () => streams.mend(node)
  },
  broken: raises(({ broker }) => broker.faults, "broken"),
  powerLoss: ({ broker }, { lengthMs, strength = 0 }) => broker.losePower(lengthMs, strength),
  logRot: ({ broker }) => broker.rot(),
  logFull: ({ broker: { faults } }, { strength = Infinity }) => {
    faults.channelBytesMax = strength
    return () => {
      faults.channelBytesMax = Infinity
    }
  },

  objectError: raises(({ objects }) => objects.faults, "error", "overloaded"),
  objectTimeout: raises(({ objects }) => objects.faults, "timeout"),
  objectAway: raises(({ objects }) => objects.faults, "away"),
  objectSlow: raises(({ objects }) => objects.faults, "slow"),
  objectDamage: raises(({ objects }) => objects.faults, "truncated", "flipped"),
  objectUnseen: raises(({ objects }) => objects.faults, "unseen"),
  objectCut: (cluster, { target }) => {
    const { objects } = cluster
    const { node } = cluster.process(target)
    objects.cut.add(node)
    return () => objects.cut.delete(node)
  },
  objectRot: ({ chance, objects }) => {
    const keys = [...objects.held.keys()]
    if (keys.length > 0) objects.rot(chance.pick(keys))
  },

  computeSlow: raises(({ compute }) => compute.faults, "slow"),
  computeDied: raises(({ compute }) => compute.faults, "died")
}

/** What the world says when a fault that has a probability does something. All others strike when they begin, or never. */
const said = {
  "late connection": "late",
  lostAnswer: "lostAnswer",
  lostRequest: "lostRequest",
  late: "lateRequest",
  oldLeader: "staleRead",
  behind: "staleRead",
  "stream cut": "streamCut",
  broken: "broken",
  full: "logFull",
  rot: "logRot",
  "objects.error": "objectError",
  "objects.overloaded": "objectError",
  "objects.timeout": "objectTimeout",
  "objects.away": "objectAway",
  "objects.slow": "objectSlow",
  "objects.truncated": "objectDamage",
  "objects.flipped": "objectDamage",
  "objects.unseen": "objectUnseen",
  "objects.cut": "objectCut",
  "objects.rot": "objectRot",
  "compute.slow": "computeSlow",
  "compute.died": "computeDied"
} as const satisfies { readonly [what: string]: FaultName }
const kindOf: { readonly [what: string]: FaultName | undefined } = said
type SaysItself = (typeof said)[keyof typeof said]

const killed = (cluster: Cluster, { target }: Fault) => cluster.process(target).killed
const told =
  (...what: ReadonlyArray<string>) =>
  ({ broker: { counts } }: Cluster) =>
    what.reduce((total, name) => total + (counts[name] ?? 0), 0)

/**
 * What is another value when one of these did something. Who is down cannot crash, and a cluster of one server cannot be
 * cut: what is counted is what happened, and not what was meant to.
 */
const marks: { readonly [K in Exclude<FaultName, SaysItself>]: (cluster: Cluster, fault: Fault) => number } = {
  crash: killed,
  restarts: killed,
  pause: (cluster, { target }) => {
    const { node, state } = cluster.process(target)
    return state === "down" ? 0 : node.pausedUntil
  },
  slow: (cluster, { target }) => cluster.process(target).node.slowMs,
  clockStep: (cluster, { target }) => cluster.process(target).node.skewMs,
  clockDrift: (cluster, { target }) => cluster.process(target).node.driftPpm,
  disconnect: told("disconnect"),
  partition: told("blocked up", "blocked down", "blocked both"),
  slowLink: told("slow link"),
  delay: ({ broker }) => broker.network.faults.tail,
  election: told("election", "server crash", "server pause", "server cut off"),
  powerLoss: told("power loss")
}
const markOf: { readonly [K in FaultName]?: (cluster: Cluster, fault: Fault) => number } = marks

/** Lets a plan's faults happen, and counts them as they do. */
export class Nemesis {
  readonly struck: { [K in FaultName]?: Struck } = {}
  private readonly cluster: Cluster
  private readonly somebodyWaits: () => boolean

  constructor(cluster: Cluster, somebodyWaits: () => boolean) {
    this.cluster = cluster
    this.somebodyWaits = somebodyWaits
    cluster.world.struck = (what) => {
      const kind = kindOf[what]
      if (kind !== undefined) this.count(kind)
    }
  }

  /** Each at its time, counted from now. */
  strike(faults: ReadonlyArray<Fault>): void {
    const { cluster } = this
    const { world } = cluster
    for (const fault of faults) {
      const { at, kind, lengthMs } = fault
      const strikeOf = strikes[kind]
      const begin = () => {
        const mark = markOf[kind]
        const before = mark?.(cluster, fault)
        const end = strikeOf(cluster, fault)
        if (mark?.(cluster, fault) !== before) this.count(kind)
        if (end !== undefined) world.after(lengthMs, end, undefined, 0, `${kind} ends`)
      }
      world.after(at, begin, undefined, 0, kind)
    }
  }

  private count(kind: FaultName): void {
    const { inFlight = 0, times = 0 } = this.struck[kind] ?? {}
    this.struck[kind] = { times: times + 1, inFlight: inFlight + (this.somebodyWaits() ? 1 : 0) }
  }
}

/**
 * What must be true of the simulator itself, or its passes mean nothing: things do go wrong in it, at any moment, and
 * whoever looks does see. Each guard is small, and fails if what it guards is hollowed out (hollow.ts does so on purpose).
 *
 * A guard says what is wrong; nothing, if all is well.
 */
import { Clock, Effect, Exit, Random } from "effect"
import { consistencies } from "../protocols/client.ts"
import { leaseKey } from "../protocols/metadata.ts"
import { buggify } from "../runtime/buggify.ts"
import { allRoles } from "../runtime/roles.ts"
import { Leases } from "../storage/leases.ts"
import { Log } from "../storage/log.ts"
import { Objects } from "../storage/objects.ts"
import { type Broker, simBroker } from "./broker.ts"
import { Cluster } from "./cluster.ts"
import { Nemesis } from "./faults.ts"
import { SIGHT } from "./hollow.ts"
import { ledgerOf, notAfter } from "./ledger.ts"
import { calmNetwork, type Connection, Network, type Ways } from "./network.ts"
import { noObjectFaults, type ObjectFaults, simObjects } from "./objects.ts"
import { planOf } from "./draw.ts"
import { type Fault, faultKinds, type FaultName, faultNames, type Plan } from "./plan.ts"
import { runPlan } from "./run.ts"
import { sealed } from "./sealed.ts"
import { Servers } from "./servers.ts"
import { chanceOf, on, type SimNode, World } from "./world.ts"

export interface Guard {
  readonly name: string
  readonly problems: () => ReadonlyArray<string>
}

/** What is wrong, of all that may be. */
const unless = (all: { readonly [what: string]: boolean }): ReadonlyArray<string> =>
  Object.entries(all).flatMap(([what, isTrue]) => (isTrue ? [] : [what]))

const nothing = new Uint8Array(0)
const TRIES = 50

// ---- time and chance

const chance: Guard = {
  name: "chance",
  problems: () => {
    const draws = Array.from({ length: TRIES }, (_, i) => chanceOf(`${i}`))
    return unless({
      "a stream of chance repeats itself": new Set(Array.from({ length: TRIES }, draws[0]!.next)).size === TRIES,
      "two streams of chance are the same": new Set(draws.map(({ next }) => next())).size === TRIES,
      "what is likely as not always happens, or never": new Set(draws.map(({ happens }) => happens(0.5))).size === 2,
      "one of several is picked, always the same": new Set(draws.map(({ pick }) => pick([1, 2, 3]))).size === 3
    })
  }
}

/** In which order fibers that are ready at once go on, and between which of their operations. */
const turns: Guard = {
  name: "turns",
  problems: () => {
    const orders = new Set<string>()
    let races = 0
    for (let seed = 0; seed < TRIES; seed++) {
      const world = new World(`turns ${seed}`, { preempt: 0.2 })
      const seen: Array<string> = []
      let taken = 0
      const race = Effect.gen(function* () {
        const before = yield* Effect.sync(() => taken)
        yield* Effect.sync(() => {
          taken = before + 1
        })
      })
      world.run(
        Effect.gen(function* () {
          for (const name of ["a", "b", "c"]) world.node(name).start(Effect.sync(() => seen.push(name)))
          for (const name of ["d", "e"]) world.node(name).start(race)
          yield* Effect.sleep(1)
        })
      )
      orders.add(seen.join(""))
      if (taken === 1) races++
    }
    return unless({
      [`of six orders ${orders.size} were seen`]: orders.size === 6,
      "nobody ever lost its turn between a look and a step": races > 0
    })
  }
}

/** What the code does in a run and not in another, and then not always: each about a quarter of the time. */
const sites: Guard = {
  name: "sites",
  problems: () => {
    const passes = Array.from({ length: 100 }, () => buggify("site of a guard"))
    const firedIn = (seed: number, isOn: boolean): number => {
      const world = new World(`sites ${seed}`, { buggify: isOn })
      return world.run(Effect.all(passes)).filter((fires) => fires).length
    }
    const fired = Array.from({ length: 200 }, (_, seed) => firedIn(seed, true)).filter((times) => times > 0)
    const usual = fired.reduce((total, times) => total + times, 0) / fired.length
    return unless({
      [`a site fired in ${fired.length} of 200 runs`]: fired.length > 30 && fired.length < 70,
      [`where it is active, a site fired at ${usual} of 100 passes`]: usual > 20 && usual < 30,
      "a site fires in a world that has none": Array.from({ length: 20 }, (_, seed) => firedIn(seed, false)).every(
        (times) => times === 0
      )
    })
  }
}

const clocks: Guard = {
  name: "clocks",
  problems: () => {
    const world = new World("clocks")
    const node = world.node("node")
    const read = Effect.map(Effect.flatten(on(node, Clock.currentTimeMillis)), Number)
    return world.run(
      Effect.gen(function* () {
        const first = yield* read
        node.skewMs += 3_600_000
        const ahead = (yield* read) - first
        node.skewMs -= 7_200_000
        const behind = (yield* read) - first
        node.skewMs += 3_600_000
        node.drift(100_000)
        yield* Effect.sleep(10_000)
        const drifted = (yield* read) - first
        return unless({
          "a clock that was put forward shows no other time": ahead > 3_500_000,
          "a clock that was put back shows no other time": behind < -3_500_000,
          "a clock that drifts does not": drifted > 10_500
        })
      })
    )
  }
}

const repeats: Guard = {
  name: "repeats",
  problems: () => {
    const hashOf = (seed: number) => {
      const world = new World(seed, { preempt: 0.1 })
      const work = Effect.gen(function* () {
        for (let i = 0; i < 20; i++) yield* Effect.sleep(yield* Random.nextBetween(0, 10))
      })
      world.run(Effect.all([work, work], { concurrency: "unbounded" }))
      return world.trace.hash
    }
    return unless({
      "two runs of a seed are two runs": hashOf(1) === hashOf(1),
      "the runs of two seeds are one": hashOf(1) !== hashOf(2)
    })
  }
}

const seal: Guard = {
  name: "seal",
  problems: () => {
    const throws = (leak: () => unknown): boolean => {
      try {
        sealed(leak)
      } catch {
        return true
      }
      return false
    }
    return unless({
      "the machine's language can be asked for": throws(() => "a".localeCompare("b")),
      "something can be waited for": throws(() => Promise.resolve().then(() => {}))
    })
  }
}

// ---- lives of nodes

/** A node that counts for ever, and says when it is told to stop. */
const counting = (world: World, name: string) => {
  const node = world.node(name)
  const seen = { counted: 0, told: 0 }
  const count = Effect.andThen(
    Effect.sleep(10),
    Effect.sync(() => seen.counted++)
  )
  node.start(
    Effect.ensuring(
      Effect.forever(count),
      Effect.sync(() => seen.told++)
    )
  )
  return { node, seen }
}

const crashes: Guard = {
  name: "crashes",
  problems: () => {
    const world = new World("crashes", { preempt: 0 })
    const { node, seen } = counting(world, "node")
    return world.run(
      Effect.gen(function* () {
        // As whatever kills it does: in an event of its own, in which a fiber could still have its turn.
        world.after(105, () => node.crash())
        yield* Effect.sleep(110)
        const { counted } = seen
        yield* Effect.sleep(1_000)
        return unless({
          "it never ran": counted > 0,
          "what a node did before its crash goes on": seen.counted === counted,
          "a node that crashes is told to stop": seen.told === 0
        })
      })
    )
  }
}

const pauses: Guard = {
  name: "pauses",
  problems: () => {
    const world = new World("pauses")
    const { node, seen } = counting(world, "node")
    return world.run(
      Effect.gen(function* () {
        yield* Effect.sleep(105)
        node.pause(5_000)
        const { counted } = seen
        yield* Effect.sleep(4_990)
        const during = seen.counted
        yield* Effect.sleep(1_000)
        return unless({
          "a node that is paused goes on": during === counted,
          "a node that was paused does not go on": seen.counted > counted && seen.told === 0
        })
      })
    )
  }
}

/** A process that crashes says goodbye to nobody; who comes back is somebody else. */
const processes: Guard = {
  name: "processes",
  problems: () => {
    const world = new World("processes")
    const cluster = new Cluster(world, { nodes: [{ name: "a", roles: allRoles }] })
    const process = cluster.process("a")
    return world.run(
      Effect.gen(function* () {
        process.start()
        yield* cluster.ready
        const { id } = process
        process.crash()
        yield* Effect.sleep(5_000)
        const went = cluster.ledger.facts.some(
          (fact) => fact._tag === "Leased" && fact.key === leaseKey.node(id) && fact.value === undefined
        )
        process.start()
        yield* cluster.ready
        return unless({
          "a process that crashed took its lease back": !went,
          "a process that was begun again is the same one": process.id !== id
        })
      })
    )
  }
}

// ---- the network

const connected = (name: string) => {
  const world = new World(name)
  const servers = new Servers(world, 1, () => {})
  const network = new Network(servers, calmNetwork(), () => {})
  return { world, servers, network, node: world.node("node") }
}

const partitions: Guard = {
  name: "partitions",
  problems: () => {
    const { network, node, servers, world } = connected("partitions")
    const heard = (ways: Ways) =>
      Effect.gen(function* () {
        const connection: Connection = network.connect(node, servers.all[0]!)
        network.block(node, ways)
        let up = false
        let down = false
        connection.toBroker("up", 0, () => {
          up = true
        })
        connection.toNode("down", 0, () => {
          down = true
        })
        yield* Effect.sleep(1_000)
        network.mend(node)
        const before = { up, down }
        yield* Effect.sleep(1_000)
        return { before, after: up && down }
      })
    return world.run(
      Effect.gen(function* () {
        const both = yield* heard("both")
        const up = yield* heard("up")
        const down = yield* heard("down")
        return unless({
          "a node that is cut off is heard": !both.before.up && !up.before.up,
          "a node that is cut off hears": !both.before.down && !down.before.down,
          "a partition of one way has two": up.before.down && down.before.up,
          "a partition has no end": both.after && up.after && down.after
        })
      })
    )
  }
}

const delays: Guard = {
  name: "delays",
  problems: () => {
    const { network, node, servers, world } = connected("delays")
    const seen = new Map<number, number>()
    return world.run(
      Effect.gen(function* () {
        for (let i = 0; i < TRIES; i++) {
          const { now } = world
          network.connect(node, servers.all[0]!).toBroker("up", 0, () => seen.set(i, world.now - now))
        }
        yield* Effect.sleep(10_000)
        const usual = Math.max(...seen.values())
        network.slow(node, 100)
        const { now } = world
        let slow = 0
        network.connect(node, servers.all[0]!).toBroker("up", 0, () => {
          slow = world.now - now
        })
        yield* Effect.sleep(10_000)
        return unless({
          "messages take all the same time": new Set(seen.values()).size > TRIES / 2,
          "messages never overtake each other": [...seen.keys()].some((key, i) => key !== i),
          "a slow link is not slower than others": slow > 2 * usual
        })
      })
    )
  }
}

// ---- the stores

/** What a program sees that has a broker, and what it stored. */
const withBroker = <A>(
  name: string,
  program: (
    broker: Broker,
    as: <B, E>(node: SimNode, effect: Effect.Effect<B, E, Log | Leases>) => Effect.Effect<B>
  ) => Effect.Effect<A>
): A => {
  const world = new World(name)
  const broker = simBroker(world, { replicas: 3 })
  const as = <B, E>(node: SimNode, effect: Effect.Effect<B, E, Log | Leases>) =>
    Effect.flatMap(on(node, Effect.scoped(Effect.provide(effect, broker.layer))), (exit) =>
      Exit.isSuccess(exit) ? Effect.succeed(exit.value) : Effect.die(exit.cause)
    )
  return world.run(program(broker, as))
}

const appended = Effect.gen(function* () {
  const log = yield* Log
  const { last } = yield* log.open(0)
  return yield* yield* log.append(0, Uint8Array.of(1), last)
})

const answersLost: Guard = {
  name: "answers lost",
  problems: () =>
    withBroker("answers lost", (broker, as) =>
      Effect.gen(function* () {
        const node = broker.network.world.node("node")
        yield* as(
          node,
          Effect.flatMap(Log, (log) => log.create(0))
        )
        broker.faults.lostAnswer = 1
        const outcome = yield* as(node, appended)
        const stored = broker.entries(0).length
        broker.heal()
        broker.faults.lostRequest = 1
        const other = yield* as(node, appended)
        return unless({
          "an answer that is lost arrives": outcome._tag === "Ambiguous",
          "what nobody heard of was not stored": stored === 1,
          "a request that is lost arrives": other._tag === "Ambiguous" && broker.entries(0).length === 1
        })
      })
    )
}

const staleReads: Guard = {
  name: "stale reads",
  problems: () =>
    withBroker("stale reads", (broker, as) =>
      Effect.gen(function* () {
        const { world } = broker.network
        const [writer, reader] = [world.node("writer"), world.node("reader")]
        let lowest = Infinity
        const look = Effect.gen(function* () {
          const leases = yield* Leases
          for (let i = 0; i < TRIES; i++) {
            const found = yield* Effect.result(leases.get("key"))
            if (found._tag === "Success") lowest = Math.min(lowest, found.success._tag === "Some" ? 1 : 0)
            yield* Effect.sleep(10)
          }
        })
        const put = Effect.gen(function* () {
          const leases = yield* Leases
          broker.faults.oldLeader = 0.5
          // Somebody is asked who will be a leader no longer, and then there is news.
          for (let i = 0; i < TRIES; i++) yield* Effect.result(leases.get("key"))
          return yield* leases.put("key", nothing, 0)
        })
        const outcome = yield* as(writer, put)
        yield* as(reader, look)
        return unless({
          "nothing was written": outcome._tag === "Done",
          "whoever is asked knows the newest": lowest === 0
        })
      })
    )
}

const power: Guard = {
  name: "power",
  problems: () =>
    withBroker("power", (broker, as) =>
      Effect.gen(function* () {
        const node = broker.network.world.node("node")
        yield* as(
          node,
          Effect.flatMap(Log, (log) => log.create(0))
        )
        for (let i = 0; i < TRIES; i++) yield* as(node, appended)
        broker.losePower(100, TRIES)
        const left = broker.entries(0).length
        return unless({
          "who loses power loses nothing": left < TRIES,
          "what is lost is not written down": broker.ledger.facts.some(({ _tag }) => _tag === "Lost")
        })
      })
    )
}

const objects: Guard = {
  name: "objects",
  problems: () => {
    const world = new World("objects")
    const store = simObjects(world, ledgerOf(world))
    const data = Uint8Array.from({ length: 100 }, (_, i) => i)
    const during = <A>(faults: Partial<ObjectFaults>, effect: Effect.Effect<A, unknown, Objects>) =>
      Effect.gen(function* () {
        Object.assign(store.faults, noObjectFaults(), faults)
        return yield* Effect.result(Effect.provideService(effect, Objects, store.objects))
      })
    const put = (key: string) => Effect.flatMap(Objects, (port) => port.put(key, [data]))
    const get = Effect.flatMap(Objects, (port) => port.get("there"))
    return world.run(
      Effect.gen(function* () {
        yield* during({}, put("there"))
        const tags: Array<string> = []
        for (const name of ["overloaded", "error", "timeout", "away"] as const) {
          const outcome = yield* during({ [name]: 1 }, put(name))
          tags.push(outcome._tag === "Success" ? outcome.success._tag : outcome._tag)
        }
        const refused = yield* during({}, put("there"))
        const lost = yield* during({ error: 1 }, get)
        const short = yield* during({ truncated: 1 }, get)
        const other = yield* during({ flipped: 1 }, get)
        return unless({
          [`a store that fails says ${tags.join(", ")}`]:
            tags.join() === "Unavailable,Ambiguous,Ambiguous,Unavailable" ||
            tags.join() === "Unavailable,Unavailable,Ambiguous,Unavailable",
          "a name can be taken twice": refused._tag === "Success" && refused.success._tag === "Refused",
          "a read that fails does not": lost._tag === "Failure",
          "what was cut off is whole": short._tag === "Success" && short.success.length < data.length,
          "a flipped bit is not": other._tag === "Success" && other.success.some((byte, i) => byte !== data[i])
        })
      })
    )
  }
}

// ---- the nemesis

const FAULT_FIRST_MS = 20_000
const FAULT_EVERY_MS = 40_000
const FAULT_LENGTH_MS = 20_000
const HOW = ["step down", "crash", "pause", "cut off"] as const

/** One of each kind, as hard as it can be, and each way of an election, one after the other. */
const allFaults = (target: string): ReadonlyArray<Fault> =>
  faultNames
    .flatMap((kind): ReadonlyArray<Pick<Fault, "kind" | "how">> =>
      kind === "election" ? HOW.map((how) => ({ kind, how })) : [{ kind }]
    )
    .map((fault, id) => {
      const {
        lengthMs,
        strength,
        target: where
      }: (typeof faultKinds)[FaultName] & { strength?: readonly number[] } = faultKinds[fault.kind]
      return {
        ...fault,
        id,
        target: where === "node" ? target : where,
        at: FAULT_FIRST_MS + id * FAULT_EVERY_MS,
        lengthMs: lengthMs[1] === 0 ? 0 : FAULT_LENGTH_MS,
        ...(strength === undefined ? {} : { strength: strength[1]! })
      }
    })

/** What is another while a fault lasts, and again as it was when it has ended. */
const lasting = ({ broker, compute, objects, processes }: Cluster): string =>
  JSON.stringify([
    [broker.faults, { ...broker.network.faults, tailMs: 0 }, objects.faults, compute.faults],
    broker.servers.all.map(({ cutOffSince, isPaused, isUp }) => [cutOffSince !== undefined, isPaused, isUp]),
    [...processes.values()].map(({ node }) => [
      node.slowMs,
      // What a drift left of seconds is not a step.
      Math.round(node.skewMs / 60_000),
      node.driftPpm,
      objects.cut.has(node),
      broker.streams.isCut(node)
    ])
  ])

/** All that is another when a fault has begun. */
const standing = (cluster: Cluster): string => {
  const { broker, ledger, processes } = cluster
  return JSON.stringify([
    lasting(cluster),
    ["disconnect", "blocked both", "slow link", "election"].map((name) => broker.counts[name]),
    [...processes.values()].map(({ node }) => [node.life, node.pausedUntil]),
    ledger.facts.filter(({ _tag }) => _tag === "Lost" || _tag === "Rotten" || _tag === "Damaged").length
  ])
}

/** Each kind of fault, to a cluster that nobody asks: it strikes at its time and for its length. */
const nemesis: Guard = {
  name: "nemesis",
  problems: () => {
    const world = new World("nemesis")
    const cluster = new Cluster(world, { nodes: [{ name: "a", roles: allRoles }], broker: { replicas: 3 } })
    const striking = new Nemesis(cluster, () => false)
    const faults = allFaults("a")
    const { struck } = striking
    let reads = 0
    const ask = <A, E>(effect: Effect.Effect<A, E, Objects>) =>
      Effect.flatMap(
        on(cluster.client("client"), Effect.provideService(effect, Objects, cluster.objects.objects)),
        (exit) => Effect.sync(() => Exit.isSuccess(exit))
      )
    return world.run(
      Effect.gen(function* () {
        cluster.start()
        yield* cluster.ready
        yield* ask(Effect.flatMap(Objects, (port) => port.put("there", [Uint8Array.of(1)])))
        const begun = world.now
        striking.strike(faults)
        const until = (at: number) => Effect.sleep(begun + at - world.now)
        const wrong: Array<string> = []
        for (const { at, kind, lengthMs } of faults) {
          yield* until(at - 1)
          const before = { lasting: lasting(cluster), standing: standing(cluster) }
          yield* until(at + 1)
          const during = lasting(cluster)
          if (standing(cluster) === before.standing) wrong.push(`${kind} does nothing at its time`)
          for (let i = 0; kind === "objectError" && i < TRIES; i++) {
            if (!(yield* ask(Effect.flatMap(Objects, (port) => port.get("there"))))) reads++
          }
          yield* until(at + lengthMs - 1)
          if (lengthMs > 0 && lasting(cluster) !== during) wrong.push(`${kind} ends before its time`)
          yield* until(at + lengthMs + 1)
          if (lasting(cluster) !== before.lasting) wrong.push(`${kind} does not end`)
        }
        const counted = [...COUNTED].filter((kind) => (struck[kind]?.times ?? 0) === 0)
        return [
          ...wrong,
          ...unless({
            [`nobody counted ${counted.join(", ")}`]: counted.length === 0,
            "the store answers everything": reads > 0
          })
        ]
      })
    )
  }
}
/** Those that need nobody who asks for something, and two others. */
const COUNTED: ReadonlySet<FaultName> = new Set<FaultName>([
  ...([
    "crash",
    "restarts",
    "pause",
    "slow",
    "clockStep",
    "clockDrift",
    "disconnect",
    "partition",
    "slowLink"
  ] as const),
  ...(["delay", "election", "powerLoss", "objectRot", "objectError", "lostAnswer"] as const)
])

// ---- whole runs

const RUNS = 10
const KINDS = ["Create", "Drop", "Flush", "List", "Stats", "Upsert", "Delete", "Get", "Count", "Search"] as const
const AUDIT: ReadonlyArray<string> = ["Upsert", "Flush", "Get", "Count", "Search"]

/** A third of a run shows as well whether things happen in it. */
const shorter = (plan: Plan): Plan => {
  const { chaosMs, warmUpMs } = plan.phases
  const end = warmUpMs + chaosMs / 3
  return {
    ...plan,
    clients: plan.clients.map((client) => ({ ...client, ops: client.ops.filter(({ at }) => at < end) })),
    faults: plan.faults.map((fault) => {
      const at = warmUpMs + Math.floor((fault.at - warmUpMs) / 3)
      return { ...fault, at, lengthMs: Math.min(fault.lengthMs, end - at) }
    }),
    phases: { ...plan.phases, chaosMs: end - warmUpMs }
  }
}

/** What many runs of the database as it is come to together. */
const runs: Guard = {
  name: "runs",
  problems: () => {
    const all = Array.from({ length: RUNS }, (_, seed) => {
      const plan = shorter(planOf(seed + 1))
      return { plan, result: sealed(() => runPlan(plan)) }
    })
    const ended = all.filter(({ result }) => result.died === undefined)
    const operations = ended.flatMap(({ result }) => result.evidence.observed.operations)
    const ok = operations.filter(({ outcome }) => outcome?._tag === "Ok")
    const reads = ok.filter(({ asked }) => asked._tag === "Get" || asked._tag === "Count" || asked._tag === "Search")
    const times = reads.map(({ outcome }) => (outcome?._tag === "Ok" ? outcome.timestamp : 0n))
    const latencies = new Set(ok.map(({ completed, invoked }) => Math.round((completed!.at - invoked.at) * 1_000)))
    const levels = new Set(reads.map(({ asked }) => ("level" in asked ? asked.level.consistency : "")))
    const wrong = all.filter(({ result }) => result.died !== undefined || result.violations.length > 0)
    const strong = ended.filter(({ plan }) => plan.topology.nodes.length > plan.topology.core.length)
    const leavesCore = ({ plan, result }: (typeof all)[number]) => {
      const { observed } = result.evidence
      const then = observed.crashes.filter(({ event }) => event === observed.phases.core?.event)
      return then.length === plan.topology.nodes.length - plan.topology.core.length
    }
    const audited = ended.filter(({ result }) => (result.evidence.observed.probes ?? []).length > 0)
    const isAudited = ({ result }: (typeof all)[number]) => {
      const { phases, probes } = result.evidence.observed
      const last = probes!.filter(({ invoked }) => phases.healed !== undefined && notAfter(phases.healed, invoked))
      return AUDIT.every((kind) => last.some(({ asked }) => asked._tag === kind))
    }
    const struck = new Set(
      ended.flatMap(({ result }) => faultNames.filter((kind) => (result.struck[kind]?.inFlight ?? 0) > 0))
    )
    return unless({
      [`runs of the right database fail: ${wrong.map(({ plan }) => plan.seed).join(", ")}`]: wrong.length === 0,
      [`${ok.length} of ${operations.length} operations were carried out`]:
        ok.length > 0.6 * operations.length && ok.length > 50 * RUNS,
      "a kind of operation was never carried out": KINDS.every((kind) => ok.some(({ asked }) => asked._tag === kind)),
      "a level of consistency was never used": consistencies.every((level) => levels.has(level)),
      "everybody always knew what became of a write": operations.some(({ outcome }) => outcome?._tag === "Unknown"),
      "nothing was ever refused": operations.some(({ outcome }) => outcome?._tag === "Refused"),
      [`operations took one of ${latencies.size} times`]: latencies.size > RUNS * 10,
      "answers are of no time": new Set(times).size > times.length / 10,
      "the core was not left alone": strong.length > 0 && strong.every(leavesCore),
      "nobody looked what was left in the end": audited.length > RUNS / 2 && audited.every(isAudited),
      "the quiet of the end was not measured": ended.every(
        ({ result }) =>
          result.evidence.observed.quiet?.some((seconds) => seconds.every((events) => events > 0)) ?? false
      ),
      [`of ${faultNames.length} kinds of fault ${struck.size} struck while somebody waited`]:
        struck.size > faultNames.length / 2,
      "most runs show nothing": ended.filter(({ result }) => result.vacuous.length > 0).length < RUNS / 4
    })
  }
}

/** Whether anybody sees what is wrong: for a process in which something is. */
export const sight: Guard = {
  name: "sight",
  problems: () => {
    const isSeen = SIGHT.seeds.some((seed) =>
      sealed(() => runPlan(shorter(planOf(seed)))).violations.some(({ property }) => property === SIGHT.property)
    )
    return unless({ "a bug that is there is not seen": isSeen })
  }
}

/** Of the simulator as it is, with the database as it is. */
export const guards: ReadonlyArray<Guard> = [
  runs,
  chance,
  turns,
  sites,
  clocks,
  repeats,
  seal,
  crashes,
  pauses,
  processes,
  partitions,
  delays,
  answersLost,
  staleReads,
  power,
  objects,
  nemesis
]

/**
 * From a seed to a plan.
 *
 * Swarm testing: every kind of operation and of fault is there or not, each with a probability of about a half, and if
 * it is, often or seldom; for what is always there hides what it suppresses. On top of that come shapes that mistakes
 * need and chance seldom makes: bursts, readers, a name that comes back at once, cuts that outlive a lease, flushes just
 * before power is lost (test/sim/plan.test.ts says how many).
 */
import { consistencies } from "../protocols/client.ts"
import { type Role, roles } from "../protocols/metadata.ts"
import { defaultSettings } from "../runtime/node.ts"
import {
  type Client,
  type Fault,
  type FaultKind,
  faultKinds,
  faultNames,
  type Level,
  losses,
  type Op,
  type OpKind,
  type Plan,
  PLAN_FORMAT,
  type PlanNode
} from "./plan.ts"
import { type Chance, chanceOf } from "./world.ts"

/** Between the two, each power of ten as likely as the next. */
const logBetween = (chance: Chance, low: number, high: number): number => low * (high / low) ** chance.between(0, 1)

const logInt = (chance: Chance, low: number, high: number): number => Math.round(logBetween(chance, low, high))

/** Three digits are enough for a strength, and easier to read. */
const rounded = (value: number): number => Number(value.toPrecision(3))

/** The last two are over as soon as all is well; a question to the object store that got no answer takes a minute. */
const PHASES: Plan["phases"] = { warmUpMs: 10_000, chaosMs: 150_000, convergeMs: 150_000, healMs: 100_000 }
const CHAOS_ENDS_MS = PHASES.warmUpMs + PHASES.chaosMs

export const planOf = (seed: string | number): Plan => {
  const chance = (domain: string) => chanceOf(`${seed} ${domain}`)
  const whole = drawTopology(chance("topology"))
  const topology = whole.profile === "power loss" && chance("door").happens(0.5) ? withOneDoor(whole) : whole
  const drawn = drawClients(chance)
  const settings = drawSettings(chance("settings"))
  const world = chance("world")
  const names = drawn.map(({ name }) => name)
  const faults = drawFaults(chance, topology, names, settings.leaseTtlMs)
  const clients = flushingBefore(faults, chance("flushes"), drawn)
  return {
    format: PLAN_FORMAT,
    seed: String(seed),
    topology,
    settings,
    // Without faults all must succeed, and not every site lets it.
    world: { preempt: world.pick([0, 0.01, 0.02, 0.05, 0.2]), buggify: faults.length > 0 && world.happens(0.85) },
    clients,
    faults,
    phases: PHASES
  }
}

const drawTopology = (chance: Chance): Plan["topology"] => {
  const shape = chance.pick(["one", "equals", "equals", "apart", "apart", "mixed"] as const)
  const nodes: Array<PlanNode> = []
  const add = (name: string, played: ReadonlyArray<(typeof roles)[number]>) => nodes.push({ name, roles: played })
  if (shape === "one") add("a", roles)
  else if (shape === "equals") for (const name of ["a", "b", "c"].slice(0, 2 + chance.below(2))) add(name, roles)
  else if (shape === "apart") {
    const counts = { proxy: 2, coordinator: 2, "streaming-node": 3, "query-node": 2, "data-node": 1 }
    for (const role of roles) {
      for (let i = 0; i < Math.max(1, counts[role] - chance.below(2)); i++) add(`${role}-${i}`, [role])
    }
  } else {
    const count = 3 + chance.below(3)
    const played = Array.from({ length: count }, () => new Set<(typeof roles)[number]>())
    for (const role of roles) for (let i = 0; i <= chance.below(3); i++) played[chance.below(count)]!.add(role)
    played.forEach((each, i) => {
      if (each.size > 0)
        add(
          `n${i}`,
          roles.filter((role) => each.has(role))
        )
    })
  }
  const core = new Set<string>()
  for (const role of roles) {
    const able = nodes.filter((node) => node.roles.includes(role))
    if (!able.some(({ name }) => core.has(name))) core.add(chance.pick(able).name)
  }
  return {
    profile: chance.happens(0.25) ? "power loss" : "as specified",
    replicas: chance.pick([1, 3]),
    nodes,
    core: nodes.map(({ name }) => name).filter((name) => core.has(name))
  }
}

/** Of one proxy everybody knows which acknowledgements it brought: all. So what a log lost it must miss. */
const withOneDoor = (topology: Plan["topology"]): Plan["topology"] => {
  const door = topology.nodes.find(({ name, roles }) => topology.core.includes(name) && roles.includes("proxy"))!
  const nodes = topology.nodes
    .map((node) => (node === door ? node : { ...node, roles: node.roles.filter((role) => role !== "proxy") }))
    .filter(({ roles }) => roles.length > 0)
  return { ...topology, nodes, core: topology.core.filter((core) => nodes.some(({ name }) => name === core)) }
}

/** Small, so that everything that happens at a limit of size or age happens in a run. */
const drawSettings = (chance: Chance): Plan["settings"] => ({
  ...defaultSettings,
  segmentBytesMax: logInt(chance, 1_000, 40_000),
  segmentAgeMaxMs: logInt(chance, 6_000, 120_000),
  indexRowsMin: logInt(chance, 4, 400),
  leaseTtlMs: 1_000 * logInt(chance, 3, 20),
  growingBytesMax: chance.happens(0.2) ? logInt(chance, 4_000, 200_000) : defaultSettings.growingBytesMax,
  channels: chance.pick([1, 2, 3, 4, 16])
})

type Shape = Pick<Extract<Op, { readonly kind: "create" }>, "dimension" | "metric" | "keyType" | "shards">

const drawShape = (chance: Chance): Shape => ({
  dimension: chance.pick([2, 4, 5, 8]),
  metric: chance.pick(["L2", "L2", "IP", "COSINE"]),
  keyType: chance.pick(["Int64", "VarChar"]),
  shards: chance.pick([1, 1, 1, 2, 3, 4])
})

/** How a run asks: what kinds, how often each, of how many keys. */
interface Swarm {
  /** What most collections are like. */
  readonly usual: Shape
  readonly names: ReadonlyArray<string>
  readonly weights: ReadonlyArray<readonly [OpKind, number]>
  readonly keys: number
  readonly rowsMax: number
  readonly travel: number
  readonly consistencies: ReadonlyArray<Level["consistency"]>
}

const opKinds: ReadonlyArray<readonly [kind: OpKind, most: number]> = [
  ["insert", 1],
  ["upsert", 1],
  ["delete", 0.7],
  ["flush", 0.15],
  ["search", 1],
  ["get", 1],
  ["count", 0.7],
  ["drop", 0.12],
  ["create", 0.04],
  ["list", 0.3],
  ["stats", 0.1]
]

const drawSwarm = (chance: Chance): Swarm => {
  const drawn = opKinds.flatMap(([kind, most]) => {
    const there = chance.happens(0.6)
    const weight = logBetween(chance, most / 10, most)
    return there ? [[kind, rounded(weight)] as const] : []
  })
  const has = (...kinds: ReadonlyArray<OpKind>) => drawn.some(([kind]) => kinds.includes(kind))
  // More of the strictest: it alone is held against all that was acknowledged.
  const levels = consistencies.filter((level) => chance.happens(level === "Strong" ? 0.9 : 0.5))
  const drops = drawn.find(([kind]) => kind === "drop")?.[1] ?? 0
  return {
    usual: drawShape(chance),
    names: ["books", "films", "songs"].slice(0, 1 + chance.below(3)),
    weights: [
      ...drawn,
      // What was dropped comes back soon, or there is nobody to ask any more.
      ...(drops > 0 ? ([["create", rounded(3 * drops)]] as const) : []),
      // Without writes there is nothing to see, and without reads nobody who sees it.
      ...(has("insert", "upsert") ? [] : ([["upsert", 0.5]] as const)),
      ...(has("search", "get", "count") ? [] : ([[chance.pick(["search", "get"] as const), 0.5]] as const))
    ],
    keys: logInt(chance, 4, 300),
    rowsMax: logInt(chance, 1, 40),
    travel: chance.happens(0.5) ? rounded(logBetween(chance, 0.02, 0.4)) : 0,
    consistencies: levels.length > 0 ? levels : consistencies
  }
}

const weighted = <A>(chance: Chance, from: ReadonlyArray<readonly [A, number]>): A => {
  let left = chance.next() * from.reduce((total, [, weight]) => total + weight, 0)
  for (const [value, weight] of from) if ((left -= weight) < 0) return value
  return from[from.length - 1]![0]
}

const MARGIN_MS = 2_000
const readKinds: ReadonlySet<OpKind> = new Set<OpKind>(["search", "get", "count"])
/** What many ask several times at one time. */
const inBursts: ReadonlySet<OpKind> = new Set<OpKind>(["insert", "upsert", "delete", ...readKinds])

const drawClients = (chance: (domain: string) => Chance): ReadonlyArray<Client> => {
  const general = chance("workload")
  const swarm = drawSwarm(general)
  const last = CHAOS_ENDS_MS - MARGIN_MS
  const count = 2 + general.below(4)
  const everyMs = logBetween(general, 800, 2_400) * (count / 3)
  let id = 0
  const drawn = Array.from({ length: count }, (_, which): Client => {
    const mine = chance(`client ${which}`)
    const ops: Array<Op> = []
    // The first makes the collections; the others are refused if they come too early, as they would be.
    if (which === 0) {
      for (const name of swarm.names) ops.push(drawOp(chance(`op ${id}`), swarm, id++, 100, name, "create"))
    }
    let at = 1_500
    /** What it dropped just before: many make that anew at once, while what was asked of the one before is on its way. */
    let dropped: string | undefined
    /** Many ask several at one time, of one kind: then an owner has more than one append on its way. */
    const burst = mine.happens(0.5) ? 2 + mine.below(5) : 1
    /** Some only read: they never wait for a write, and mostly nothing that they bring says how far they are. */
    const isReader = which > 0 && mine.happens(0.4)
    const weights = isReader ? swarm.weights.filter(([kind]) => readKinds.has(kind)) : swarm.weights
    let left = 0
    let name = ""
    let kind: OpKind = "get"
    while (left > 0 || (at += Math.round(mine.between(0.1, 1.9) * everyMs * burst)) < last) {
      const draw = chance(`op ${id}`)
      if (left === 0) {
        left = burst
        name = draw.pick(swarm.names)
        kind = weighted(draw, weights)
        if (!inBursts.has(kind)) left = 1
      }
      left--
      const again = dropped !== undefined && draw.happens(0.7) ? dropped : undefined
      const op = drawOp(draw, swarm, id++, at, again ?? name, again === undefined ? kind : "create")
      dropped = op.kind === "drop" ? op.collection : undefined
      ops.push(op)
    }
    return {
      name: `client-${which}`,
      manner: which > 0 && mine.happens(isReader ? 0.8 : 0.3) ? "plain" : "library",
      form: mine.pick(["binary", "json"]),
      depth: burst > 1 ? 8 : mine.pick([1, 1, 2]),
      timeoutMs: mine.pick([10_000, 10_000, 2_000, 30_000]),
      ops
    }
  })
  return lookingAtWrites(chance("looks"), drawn)
}

const LOOKS_BACK = 3

/** Of those that get rows, many look at what somebody wrote just before: there a mistake shows first. */
const lookingAtWrites = (chance: Chance, clients: ReadonlyArray<Client>): ReadonlyArray<Client> => {
  const writes = clients
    .flatMap(({ ops }) => ops)
    .flatMap((op) => (op.kind === "insert" || op.kind === "upsert" || op.kind === "delete" ? [op] : []))
    .toSorted((a, b) => a.at - b.at)
  const look = (op: Op): Op => {
    if (op.kind !== "get" || !chance.happens(0.7)) return op
    const before = writes.filter(({ at, collection }) => collection === op.collection && at < op.at).slice(-LOOKS_BACK)
    return before.length === 0 ? op : { ...op, keys: chance.pick(before).keys }
  }
  return clients.map((client) => ({ ...client, ops: client.ops.map(look) }))
}

const FLUSHED_BEFORE_MS: readonly [number, number] = [100, 5_000]
const WRITTEN_BEFORE_MS = 200
const WRITTEN_LAST_MS: readonly [number, number] = [30, 300]

/** Much is written and flushed just before power is lost: what the log loses is then in a manifest, or nearly. */
const flushingBefore = (
  faults: ReadonlyArray<Fault>,
  chance: Chance,
  clients: ReadonlyArray<Client>
): ReadonlyArray<Client> => {
  let id = clients.reduce((most, { ops }) => ops.reduce((most, op) => Math.max(most, op.id), most), 0)
  const collections = [...new Set(clients.flatMap(({ ops }) => ops.map(({ collection }) => collection)))]
  const asked = new Map(clients.map(({ name, ops }) => [name, [...ops]]))
  const writers = clients.filter(({ ops }, which) => which === 0 || ops.some(({ kind }) => !readKinds.has(kind)))
  for (const { at, kind } of faults) {
    if (kind !== "powerLoss") continue
    // What is not flushed holds back the checkpoint of what is, if they are of one channel.
    const isAlone = chance.happens(0.7)
    const flushed = chance.pick(collections)
    for (const collection of collections) {
      const before = Math.round(logBetween(chance, ...FLUSHED_BEFORE_MS))
      const ops = asked.get(chance.pick(writers).name)!
      const upsert = (at: number) => {
        const keys = Array.from({ length: 8 }, () => chance.below(100))
        ops.push({ kind: "upsert", id: ++id, at, collection, keys })
      }
      upsert(at - before - WRITTEN_BEFORE_MS)
      if (!isAlone || collection === flushed) ops.push({ kind: "flush", id: ++id, at: at - before, collection })
      // Somebody knows of what the log loses first.
      upsert(at - logInt(chance, ...WRITTEN_LAST_MS))
    }
  }
  return clients.map((client) => ({ ...client, ops: asked.get(client.name)!.toSorted((a, b) => a.at - b.at) }))
}

const drawLevel = (chance: Chance, swarm: Swarm): Level => {
  const consistency = chance.pick(swarm.consistencies)
  return chance.happens(swarm.travel) ? { consistency, travel: rounded(chance.next()) } : { consistency }
}

const drawOp = (chance: Chance, swarm: Swarm, id: number, at: number, collection: string, kind: OpKind): Op => {
  const base = { id, at, collection }
  const keys = (most: number) => Array.from({ length: logInt(chance, 1, most) }, () => chance.below(swarm.keys))
  const output = () => chance.pick(["keys", "fields", "vector", "all", "all"] as const)
  switch (kind) {
    case "create":
      // Mostly as it was before: then what was meant for the one before fits.
      return { kind, ...base, ...(chance.happens(0.7) ? swarm.usual : drawShape(chance)) }
    case "insert":
    case "upsert":
    case "delete":
      return { kind, ...base, keys: keys(swarm.rowsMax) }
    case "get":
      return { kind, ...base, keys: keys(20), output: output(), level: drawLevel(chance, swarm) }
    case "count":
      return { kind, ...base, level: drawLevel(chance, swarm) }
    case "search":
      return {
        kind,
        ...base,
        vectors: chance.pick([1, 1, 1, 2, 5]),
        limit: chance.pick([1, 3, 10, 10, 1_000]),
        offset: chance.pick([0, 0, 0, 2, 7]),
        output: output(),
        level: drawLevel(chance, swarm)
      }
    default:
      return { kind, ...base }
  }
}

/**
 * A node that writes logs, and mostly one more that lets clients in, if there is another to take the logs: through the
 * second the first is still asked when it was replaced.
 */
const sideOf = ({ nodes }: Plan["topology"], chance: Chance): ReadonlyArray<string> => {
  const having = (role: Role) => nodes.filter(({ roles }) => roles.includes(role)).map(({ name }) => name)
  const owners = having("streaming-node")
  const owner = chance.pick(owners)
  const proxy = chance.pick(having("proxy"))
  const isReplaced = owners.some((name) => name !== owner && name !== proxy)
  return proxy !== owner && isReplaced && chance.happens(0.7) ? [owner, proxy] : [owner]
}

const drawFaults = (
  chance: (domain: string) => Chance,
  topology: Plan["topology"],
  clients: ReadonlyArray<string>,
  leaseTtlMs: number
): ReadonlyArray<Fault> => {
  // Some runs have none: then nothing may be refused.
  if (chance("faults").happens(0.05)) return []
  const faults: Array<Fault> = []
  const nodes = topology.nodes.map(({ name }) => name)
  let id = 0
  for (const kind of faultNames) {
    const mine = chance(`fault ${kind}`)
    const { lengthMs, most, strength, target }: FaultKind = faultKinds[kind]
    const isLoss = losses.has(kind)
    const isCut = kind === "streamCut"
    // A log with a rotten record stands still, whatever else it lost: not in all of them.
    const there = mine.happens(isCut || kind === "logRot" ? 0.6 : isLoss ? 0.9 : 0.4)
    if (!there || (isLoss && topology.profile !== "power loss")) continue
    const count = logInt(mine, 1, most)
    // A network treats clients like everybody; they are not killed, for then nobody could say what they saw.
    const able = kind === "partition" || kind === "disconnect" || kind === "slowLink" ? [...nodes, ...clients] : nodes
    for (let i = 0; i < count; i++) {
      const [shortest, longest] = lengthMs
      // Many a cut is so long that another takes the node's place, of which it hears nothing.
      const isReplaced = isCut && mine.happens(0.6)
      const drawnMs = longest === 0 ? 0 : logInt(mine, isReplaced ? 3 * leaseTtlMs : shortest, longest)
      // What was lost stays lost, and little can be done with it: that comes when there is much to lose.
      const from = isLoss ? PHASES.chaosMs / 2 : 0
      const at = PHASES.warmUpMs + from + mine.below(PHASES.chaosMs - from)
      const sign = (kind === "clockStep" || kind === "clockDrift") && mine.happens(0.5) ? -1 : 1
      const struck = target !== "node" ? [target] : isReplaced ? sideOf(topology, mine) : [mine.pick(able)]
      const fault = {
        kind,
        at,
        lengthMs: Math.min(drawnMs, CHAOS_ENDS_MS - at),
        ...(strength === undefined ? {} : { strength: sign * rounded(logBetween(mine, ...strength)) }),
        ...(kind === "partition" ? { ways: mine.pick(["up", "down", "both", "both"] as const) } : {}),
        ...(kind === "election" ? { how: mine.pick(["step down", "crash", "pause", "cut off"] as const) } : {})
      }
      for (const one of struck) faults.push({ id: id++, target: one, ...fault })
    }
  }
  // The servers lose power alone, or with all nodes, or with all but the proxies: who remembers what is lost?
  const crashes = (at: number, lengthMs: number, falls: (node: PlanNode) => boolean) => {
    for (const node of topology.nodes.filter(falls))
      faults.push({ id: id++, kind: "crash", target: node.name, at, lengthMs })
  }
  const crowd = chance("power")
  for (const { at, kind, lengthMs } of [...faults]) {
    if (kind !== "powerLoss") continue
    const who = crowd.pick(["nobody", "all", "all", "others", "others"] as const)
    crashes(at, lengthMs, ({ roles }) => who === "all" || (who === "others" && !roles.includes("proxy")))
  }
  // What rots is noticed when somebody reads it: mostly soon, as the owner of a log begins anew.
  const reader = chance("rot")
  for (const { at, kind } of [...faults]) {
    if (kind !== "logRot" || reader.happens(0.3)) continue
    const after = Math.min(at + logInt(reader, 50, 3_000), CHAOS_ENDS_MS)
    const lengthMs = Math.min(logInt(reader, 200, 5_000), CHAOS_ENDS_MS - after)
    crashes(after, lengthMs, ({ roles }) => roles.includes("streaming-node"))
  }
  return faults.toSorted((a, b) => a.at - b.at)
}

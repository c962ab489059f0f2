/**
 * A run as data: who is there, what is asked and when, what fails and when. A seed only draws one; what is kept, run
 * again and made smaller is the plan, and nothing in it depends on what comes before it: an operation or a fault that
 * is taken out does not change the others.
 *
 * Swarm testing: every kind of operation and of fault is there or not, each with a probability of about a half, and if
 * it is, often or seldom; for what is always there hides what it suppresses.
 */
import { Schema } from "effect"
import { consistencies } from "../protocols/client.ts"
import { Metric, Role, roles } from "../protocols/metadata.ts"
import { nameProblem } from "../protocols/subjects.ts"
import { defaultSettings } from "../runtime/node.ts"
import { type Chance, chanceOf } from "./world.ts"

export const PLAN_FORMAT = 1

// ---- operations

const Base = {
  /** Never two of one number; what is written tells it, so that what is read tells who wrote it. */
  id: Schema.Int,
  /** Virtual milliseconds; later if the client is still busy. */
  at: Schema.Int,
  /** A name: it may be another collection by then, or none. */
  collection: Schema.String
}

export const Level = Schema.Struct({
  consistency: Schema.Literals(consistencies),
  /** Where between the oldest and the newest timestamp that the client has seen; without it, now. */
  travel: Schema.optionalKey(Schema.Number)
})
export type Level = typeof Level.Type

/** What comes back of a row beside its key. */
export const Output = Schema.Literals(["keys", "fields", "vector", "all"])
export type Output = typeof Output.Type

export const Op = Schema.Union([
  Schema.Struct({
    kind: Schema.Literal("create"),
    ...Base,
    dimension: Schema.Int,
    metric: Metric,
    keyType: Schema.Literals(["Int64", "VarChar"]),
    shards: Schema.Int
  }),
  Schema.Struct({ kind: Schema.Literals(["drop", "flush", "list", "stats"]), ...Base }),
  /** `keys`: numbers of keys, of which a row may have one that another has too. Vectors and fields come of the id. */
  Schema.Struct({ kind: Schema.Literals(["insert", "upsert", "delete"]), ...Base, keys: Schema.Array(Schema.Int) }),
  Schema.Struct({
    kind: Schema.Literal("get"),
    ...Base,
    keys: Schema.Array(Schema.Int),
    output: Output,
    level: Level
  }),
  Schema.Struct({ kind: Schema.Literal("count"), ...Base, level: Level }),
  Schema.Struct({
    kind: Schema.Literal("search"),
    ...Base,
    vectors: Schema.Int,
    limit: Schema.Int,
    offset: Schema.Int,
    output: Output,
    level: Level
  })
])
export type Op = typeof Op.Type
export type OpKind = Op["kind"]

export const Client = Schema.Struct({
  name: Schema.String,
  /** `library`: a session that asks again. `plain`: what any NATS client could send, once, without id and token. */
  manner: Schema.Literals(["library", "plain"]),
  form: Schema.Literals(["binary", "json"]),
  /** Requests that it may have on their way at once. */
  depth: Schema.Int,
  /** Of a request. */
  timeoutMs: Schema.Int,
  ops: Schema.Array(Op)
})
export type Client = typeof Client.Type

// ---- faults

/** Where a kind of fault strikes, how long, and how hard (in which unit says the comment). */
interface FaultKind {
  readonly target: "node" | "log" | "broker" | "network" | "objects" | "compute"
  readonly lengthMs: readonly [number, number]
  readonly strength?: readonly [number, number]
  /** At most so many in a run. */
  readonly most: number
}

const kind = (
  target: FaultKind["target"],
  most: number,
  lengthMs: FaultKind["lengthMs"],
  strength?: FaultKind["strength"]
): FaultKind => ({ target, most, lengthMs, ...(strength === undefined ? {} : { strength }) })

/** Probabilities are of one message or request. The nemesis (faults.ts) carries them out. */
export const faultKinds = {
  /** Dead for its length, then begun anew with empty memory. */
  crash: kind("node", 12, [10, 30_000]),
  /** Crashed again and again, every `strength` ms. */
  restarts: kind("node", 3, [1_000, 20_000], [50, 5_000]),
  pause: kind("node", 10, [100, 60_000]),
  /** Every turn of a fiber comes up to `strength` ms later. */
  slow: kind("node", 5, [1_000, 40_000], [1, 200]),
  /** Its clock jumps by so many ms, and back at the end. */
  clockStep: kind("node", 5, [1_000, 60_000], [100, 3_600_000]),
  /** Parts in a million. */
  clockDrift: kind("node", 3, [5_000, 100_000], [100, 100_000]),
  disconnect: kind("node", 12, [0, 0]),
  /** Cut off from the broker; `ways` says in which direction. */
  partition: kind("node", 8, [200, 40_000]),
  /** Its messages take so many times as long. */
  slowLink: kind("node", 5, [1_000, 40_000], [2, 500]),
  /** Probability of a message that takes long. */
  delay: kind("network", 4, [1_000, 60_000], [0.001, 0.3]),
  /** Connections break, and what was sent on them stays on its way, with this probability. */
  late: kind("network", 4, [5_000, 100_000], [0.05, 1]),
  /** Nobody decides for the length: an election. */
  election: kind("broker", 6, [500, 10_000]),
  lostAnswer: kind("broker", 4, [1_000, 60_000], [0.001, 0.3]),
  lostRequest: kind("broker", 4, [1_000, 60_000], [0.01, 0.3]),
  /** Comes to its stream seconds later, as a straggler; more often where others are on the way too. */
  lateRequest: kind("broker", 4, [5_000, 100_000], [0.003, 0.1]),
  /** A question is answered by a leader that is none any more. */
  staleRead: kind("broker", 4, [1_000, 60_000], [0.01, 0.5]),
  /** No stream hears the node, and its watches bring nothing; what it asks of others, and they of it, comes as ever. */
  streamCut: kind("node", 8, [2_000, 60_000]),
  /** A read ends in the middle; a watch breaks and begins anew. */
  broken: kind("broker", 4, [1_000, 60_000], [0.001, 0.2]),
  /** All servers lose what they had not synced: profile "power loss" alone. */
  powerLoss: kind("broker", 3, [500, 10_000], [3, 200]),
  /** Past so many bytes a channel refuses everything. */
  logFull: kind("log", 2, [5_000, 40_000], [1_000, 100_000]),
  objectError: kind("objects", 4, [1_000, 60_000], [0.01, 0.7]),
  objectTimeout: kind("objects", 4, [1_000, 60_000], [0.01, 0.5]),
  objectAway: kind("objects", 3, [1_000, 60_000], [0.1, 1]),
  objectSlow: kind("objects", 4, [1_000, 60_000], [0.05, 1]),
  objectDamage: kind("objects", 8, [5_000, 100_000], [0.05, 0.5]),
  /** An object that was just written is not found yet. */
  objectUnseen: kind("objects", 3, [5_000, 60_000], [0.1, 1]),
  /** The store does not hear the node. */
  objectCut: kind("node", 12, [2_000, 60_000]),
  /** A bit of an object is another one, for good: profile "power loss" alone. */
  objectRot: kind("objects", 10, [0, 0]),
  /** A task takes a hundred times as long. */
  computeSlow: kind("compute", 3, [1_000, 60_000], [0.05, 1]),
  /** A task kills its thread. */
  computeDied: kind("compute", 3, [1_000, 60_000], [0.02, 0.5])
} as const satisfies { readonly [name: string]: FaultKind }
export type FaultName = keyof typeof faultKinds
/** What was stored is lost: with the profile "power loss" alone. */
const losses: ReadonlySet<FaultName> = new Set<FaultName>(["powerLoss", "objectRot"])
export const faultNames = Object.keys(faultKinds) as [FaultName, ...Array<FaultName>]

export const Fault = Schema.Struct({
  id: Schema.Int,
  kind: Schema.Literals(faultNames),
  /** The name of a node, or the word that `faultKinds` has for it. */
  target: Schema.String,
  at: Schema.Int,
  lengthMs: Schema.Int,
  strength: Schema.optionalKey(Schema.Number),
  ways: Schema.optionalKey(Schema.Literals(["up", "down", "both"])),
  /** Of an election: what becomes of a server. */
  how: Schema.optionalKey(Schema.Literals(["step down", "crash", "pause", "cut off"]))
})
export type Fault = typeof Fault.Type

// ---- the whole

export const PlanNode = Schema.Struct({ name: Schema.String, roles: Schema.Array(Role) })
export type PlanNode = typeof PlanNode.Type

const settingNames = Object.keys(defaultSettings) as Array<keyof typeof defaultSettings>

export const Plan = Schema.Struct({
  format: Schema.Literal(PLAN_FORMAT),
  seed: Schema.String,
  topology: Schema.Struct({
    /** What is promised of what is stored: all, or that its loss is noticed (protocols/README.md, 1.13). */
    profile: Schema.Literals(["as specified", "power loss"]),
    replicas: Schema.Literals([1, 3]),
    nodes: Schema.Array(PlanNode),
    /** One node of each kind at least: those that live when the faults are over, and must do alone. */
    core: Schema.Array(Schema.String)
  }),
  settings: Schema.Struct(
    Object.fromEntries(settingNames.map((name) => [name, Schema.Int])) as {
      readonly [K in (typeof settingNames)[number]]: typeof Schema.Int
    }
  ),
  world: Schema.Struct({ preempt: Schema.Number, buggify: Schema.Boolean }),
  clients: Schema.Array(Client),
  faults: Schema.Array(Fault),
  /** In this order, in virtual milliseconds. */
  phases: Schema.Struct({
    /** No fault strikes, and nothing may fail. */
    warmUpMs: Schema.Int,
    chaosMs: Schema.Int,
    /** Within it the core alone, healed, must have ended all that was asked and serve again. */
    convergeMs: Schema.Int,
    /** Then all are back. */
    healMs: Schema.Int
  })
})
export type Plan = typeof Plan.Type

const toJson = Schema.encodeSync(Plan)
const ofJson = Schema.decodeUnknownSync(Plan)

const LINE_MAX = 140

/** JSON with whatever fits into a line on one, for people who read and edit it. */
const printed = (value: unknown, indent: string): string => {
  const flat = JSON.stringify(value)
  if (typeof value !== "object" || value === null || indent.length + flat.length <= LINE_MAX) return flat
  const inner = `${indent} `
  const lines = Array.isArray(value)
    ? value.map((each) => `${inner}${printed(each, inner)}`)
    : Object.entries(value).map(([name, each]) => `${inner}${JSON.stringify(name)}: ${printed(each, inner)}`)
  const [open, close] = Array.isArray(value) ? "[]" : "{}"
  return `${open}\n${lines.join(",\n")}\n${indent}${close}`
}

export const encodePlan = (plan: Plan): string => `${printed(toJson(plan), "")}\n`

/** Throws an Error that says what is wrong. */
export const decodePlan = (text: string): Plan => {
  const plan = ofJson(JSON.parse(text))
  const problem = planProblem(plan)
  if (problem !== undefined) throw new Error(problem)
  return plan
}

/** What no schema says. Undefined if a run can begin. */
export const planProblem = (plan: Plan): string | undefined => {
  const { core, nodes } = plan.topology
  const names = nodes.map(({ name }) => name)
  const all = [...names, ...plan.clients.map(({ name }) => name)]
  if (new Set(all).size !== all.length) return "two nodes or clients have one name"
  for (const name of core) if (!names.includes(name)) return `the core has a node ${name} that is not there`
  for (const role of roles) {
    if (!nodes.some((node) => core.includes(node.name) && node.roles.includes(role))) return `the core has no ${role}`
  }
  const ids = plan.clients.flatMap(({ ops }) => ops.map(({ id }) => id))
  if (new Set(ids).size !== ids.length) return "two operations have one id"
  for (const { ops } of plan.clients) {
    for (const { collection } of ops) {
      const wrong = nameProblem(collection)
      if (wrong !== undefined) return wrong
    }
  }
  for (const { kind, target } of plan.faults) {
    const wanted: FaultKind = faultKinds[kind]
    if (wanted.target === "node" ? !all.includes(target) : target !== wanted.target) {
      return `${kind} cannot strike ${target}`
    }
    if (losses.has(kind) && plan.topology.profile !== "power loss") return `${kind} is not as specified`
  }
  return undefined
}

// ---- drawing

/** Between the two, each power of ten as likely as the next. */
export const logBetween = (chance: Chance, low: number, high: number): number =>
  low * (high / low) ** chance.between(0, 1)

const logInt = (chance: Chance, low: number, high: number): number => Math.round(logBetween(chance, low, high))

/** Three digits are enough for a strength, and easier to read. */
const rounded = (value: number): number => Number(value.toPrecision(3))

/** The last two are over as soon as all is well; a question to the object store that got no answer takes a minute. */
const PHASES: Plan["phases"] = { warmUpMs: 10_000, chaosMs: 150_000, convergeMs: 150_000, healMs: 100_000 }

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
  const last = PHASES.warmUpMs + PHASES.chaosMs - MARGIN_MS
  const count = 2 + general.below(4)
  const everyMs = logBetween(general, 840, 2_500) * (count / 3)
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

const FLUSHED_BEFORE_MS: readonly [number, number] = [50, 3_000]

/** Much is flushed just before power is lost: what the log loses is then in a manifest, or nearly. */
const flushingBefore = (
  faults: ReadonlyArray<Fault>,
  chance: Chance,
  clients: ReadonlyArray<Client>
): ReadonlyArray<Client> => {
  let id = clients.reduce((most, { ops }) => ops.reduce((most, op) => Math.max(most, op.id), most), 0)
  const collections = [...new Set(clients.flatMap(({ ops }) => ops.map(({ collection }) => collection)))]
  const flushes = faults
    .filter(({ kind }) => kind === "powerLoss")
    .flatMap(({ at }) =>
      collections.map((collection): Op => {
        const before = Math.round(logBetween(chance, ...FLUSHED_BEFORE_MS))
        return { kind: "flush", id: ++id, at: at - before, collection }
      })
    )
  const inOrder = (ops: ReadonlyArray<Op>) => [...ops, ...flushes].toSorted((a, b) => a.at - b.at)
  return clients.map((client, which) => (which === 0 ? { ...client, ops: inOrder(client.ops) } : client))
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
    const there = mine.happens(isLoss ? 0.9 : isCut ? 0.6 : 0.4)
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
        lengthMs: Math.min(drawnMs, PHASES.warmUpMs + PHASES.chaosMs - at),
        ...(strength === undefined ? {} : { strength: sign * rounded(logBetween(mine, ...strength)) }),
        ...(kind === "partition" ? { ways: mine.pick(["up", "down", "both", "both"] as const) } : {}),
        ...(kind === "election" ? { how: mine.pick(["step down", "crash", "pause", "cut off"] as const) } : {})
      }
      for (const one of struck) faults.push({ id: id++, target: one, ...fault })
    }
  }
  // The servers lose power alone, or with all nodes, or with all but the proxies: who remembers what is lost?
  const crowd = chance("power")
  for (const { at, kind, lengthMs } of [...faults]) {
    if (kind !== "powerLoss") continue
    const who = crowd.pick(["nobody", "all", "all", "others"] as const)
    for (const { name, roles } of topology.nodes) {
      const falls = who === "all" || (who === "others" && !roles.includes("proxy"))
      if (falls) faults.push({ id: id++, kind: "crash", target: name, at, lengthMs })
    }
  }
  return faults.toSorted((a, b) => a.at - b.at)
}

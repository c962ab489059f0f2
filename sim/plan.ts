/**
 * A run as data: who is there, what is asked and when, what fails and when. A seed only draws one (draw.ts); what is
 * kept, run again and made smaller is the plan, and nothing in it depends on what comes before it: an operation or a
 * fault that is taken out does not change the others.
 */
import { Schema } from "effect"
import { consistencies } from "../protocols/client.ts"
import { Metric, Role, roles } from "../protocols/metadata.ts"
import { nameProblem } from "../protocols/subjects.ts"
import { defaultSettings } from "../runtime/node.ts"

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
export interface FaultKind {
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
  powerLoss: kind("broker", 3, [500, 10_000], [10, 400]),
  /** A bit of what is stored in a log is another one, for good: profile "power loss" alone. */
  logRot: kind("log", 2, [0, 0]),
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
export const losses: ReadonlySet<FaultName> = new Set<FaultName>(["powerLoss", "logRot", "objectRot"])
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

/**
 * All that is known of a run when it is over: what clients saw, what the stores accepted, and what the log says. Each
 * check of a property is a pure function of it.
 */
import type { Key } from "../../protocols/keys.ts"
import type { Operation, Skipped } from "../history.ts"
import { type Fact, type Moment, notAfter } from "../ledger.ts"
import { brokenBy, damagesOf, type Life, livesOf, type Step, Steps } from "../metadata.ts"
import { Model } from "../model.ts"

/** What must hold, always: section 5 of the design, in its order. */
export const properties = {
  acknowledged:
    "an acknowledged write is never lost; a refused one never appears; an ambiguous one appears at most once",
  deleted: "a deleted row never comes back",
  fresh: "a strong read sees what was acknowledged before; a session sees its own writes and never goes back",
  "one-timestamp": "a query reads all shards at one timestamp",
  answers: "no key twice in an answer; right order, right distances, right k",
  timestamps: "timestamps only grow",
  "one-writer": "one writer per channel, one effective coordinator; a stale one has no effect",
  "kept-rows": "flush, index build and handoff keep the set of rows",
  needed: "the log is purged, and an object deleted, only when nothing can need it",
  damage: "damage is detected and said, never answered wrongly",
  convergence: "after faults heal, everything converges; with one node of each kind it still serves",
  limits: "every queue, batch, cache and retry has a limit; past it, a clear error and no loss"
} as const
export type Property = keyof typeof properties

export interface Violation {
  readonly property: Property
  /** The operations that show it. */
  readonly operations: ReadonlyArray<number>
  readonly keys: ReadonlyArray<string>
  /** In words. */
  readonly detail: string
}

export interface Check {
  readonly property: Property
  readonly check: (evidence: Evidence) => ReadonlyArray<Violation>
}

/** A node lost its memory. */
export interface Crash extends Moment {
  readonly isProxy: boolean
}

/** A node wrote into its log that a channel is damaged. */
export interface Alarm {
  readonly moment: Moment
  readonly channel: number
  readonly detail: string
}

/** When the parts of a run began. Absent: it did not come so far. */
export interface Phases {
  readonly chaos?: Moment
  /** The core is healed, and the rest is dead. */
  readonly core?: Moment
  /** By then it must have converged. */
  readonly deadline?: Moment
  readonly healed?: Moment
  readonly end: Moment
}

/**
 * What a node did by itself in each of the seconds in which nobody asked anything, in events; turns of fibers are not
 * among them.
 */
export type Quiet = ReadonlyArray<number>

export interface Observed {
  readonly operations: ReadonlyArray<Operation>
  readonly facts: ReadonlyArray<Fact>
  /** What the facts come to, for whoever has that already. */
  readonly steps?: ReadonlyArray<Step>
  readonly phases: Phases
  /** Neither a fault was to strike, nor a site in the code to fire: then nothing may be refused. */
  readonly isCalm: boolean
  /** How many nodes are proxies. */
  readonly proxies: number
  readonly crashes: ReadonlyArray<Crash>
  readonly alarms: ReadonlyArray<Alarm>
  /** Whether all clocks went right, so that what is said of milliseconds can be held against the world's. */
  readonly clocksAgree: boolean
  /** Asked by nobody but the audit, after the cluster was healed. */
  readonly probes?: ReadonlyArray<Operation>
  /** What came to nothing before it was asked: of the clients, and of the audit. */
  readonly skipped?: ReadonlyArray<Skipped>
  readonly unasked?: ReadonlyArray<Skipped>
  /** Whether every node that was alive counted as such, and every channel was one's: of the core, and of all. */
  readonly owned?: { readonly core: boolean; readonly all: boolean }
  /** Of each node. */
  readonly quiet?: ReadonlyArray<Quiet>
}

export class Evidence {
  readonly operations: ReadonlyArray<Operation>
  readonly facts: ReadonlyArray<Fact>
  readonly steps: ReadonlyArray<Step>
  readonly lives: ReadonlyArray<Life>
  readonly model: Model
  readonly phases: Phases
  readonly observed: Observed
  /** Channels of which something is not, or not as it was stored, and since when: they stand still as soon as somebody notices. */
  readonly broken: ReadonlyMap<number, Moment>
  private readonly damages: ReadonlyMap<string, ReadonlyArray<Moment>>
  private readonly flushes = new Map<string, Array<{ readonly moment: Moment; readonly to: number }>>()
  private readonly memory = new Map<unknown, unknown>()

  constructor(observed: Observed) {
    this.observed = observed
    this.operations = [...observed.operations, ...(observed.probes ?? [])]
    this.facts = observed.facts
    this.phases = observed.phases
    this.steps = observed.steps ?? new Steps().of(observed.facts)
    this.lives = livesOf(this.steps)
    this.model = new Model(observed.facts)
    this.broken = brokenBy(observed.facts)
    this.damages = damagesOf(observed.facts)
    for (const step of this.steps) {
      if (step._tag !== "Decided") continue
      for (const change of step.changes) {
        if (change.kind !== "manifest" || change.value === undefined) continue
        const { collection, flushedTo, shard } = change.value
        const key = `${collection}.${shard}`
        const known = this.flushes.get(key) ?? []
        this.flushes.set(key, [...known, { moment: step.moment, to: flushedTo }])
      }
    }
  }

  /** What the logs said before each power failure: who was there then and has not died may know it still. */
  get pasts(): ReadonlyArray<Past> {
    return this.once(allPasts)
  }

  /** What whoever owns a channel may take for its log: what is there, and what was before it lost something. */
  logsOf(channel: number): ReadonlyArray<Model> {
    return [this.model, ...this.pasts.filter(({ lost }) => lost.has(channel)).map(({ model }) => model)]
  }

  /** Whether a shard of the operation's collection is on a channel that was broken when it ended. */
  isBereft({ collection, completed }: Ended): boolean {
    const isLost = (channel: number) => isBy(this.broken.get(channel), completed)
    return this.lives.some(({ channels, name }) => name === collection && channels.some(isLost))
  }

  /** Whether an object of the operation's collection was not any more what was written when it ended. */
  isRotten({ collection, completed }: Ended): boolean {
    return this.lives
      .filter(({ name }) => name === collection)
      .some(({ id }) => (this.damages.get(id) ?? []).some((moment) => isBy(moment, completed)))
  }

  /** What a shard was flushed to by then. */
  flushedTo(collection: string, shard: number, by: Moment): number {
    let to = 0
    for (const flush of this.flushes.get(`${collection}.${shard}`) ?? []) {
      if (notAfter(flush.moment, by)) to = Math.max(to, flush.to)
    }
    return to
  }

  /** Worked out once, for all checks that ask. */
  once<A>(of: (evidence: Evidence) => A): A {
    if (!this.memory.has(of)) this.memory.set(of, of(this))
    return this.memory.get(of) as A
  }
}

/** What an operation was about, and when it was over. */
type Ended = Pick<Operation, "collection" | "completed">

const isBy = (moment: Moment | undefined, end: Moment | undefined): boolean =>
  moment !== undefined && (end === undefined || notAfter(moment, end))

/** The logs as they were just before a power failure. */
interface Past {
  /** The channels that lost something then, and when. */
  readonly lost: ReadonlyMap<number, Moment>
  readonly model: Model
}

const allPasts = ({ facts }: Evidence): ReadonlyArray<Past> =>
  facts.flatMap((fact, at) => {
    // All channels lose what they lose at once.
    if (fact._tag !== "Lost" || facts[at - 1]?._tag === "Lost") return []
    const lost = new Map<number, Moment>()
    for (let next: Fact | undefined = fact, i = at; next?._tag === "Lost"; next = facts[++i])
      lost.set(next.channel, next.moment)
    return [{ lost, model: new Model(facts.slice(0, at)) }]
  })

/**
 * A key as the collection has it that was asked: a huge integer travels in JSON as text, and a client that does not know
 * yet that the collection is another one by now may mean that, where texts are keys.
 */
export const keyIn = ({ spec }: Life, key: Key): Key =>
  spec.keyType === "VarChar" && typeof key === "bigint" ? String(key) : key

export const keyText = (key: Key): string => (typeof key === "string" ? JSON.stringify(key) : String(key))

export const violation = (
  property: Property,
  detail: string,
  where: { readonly operations?: ReadonlyArray<number>; readonly keys?: ReadonlyArray<Key> } = {}
): Violation => ({
  property,
  detail,
  operations: where.operations ?? [],
  keys: (where.keys ?? []).map(keyText)
})

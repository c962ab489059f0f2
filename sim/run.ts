/**
 * One run: from a plan to what it shows. A cluster begins, clients ask, faults strike; then a core of it is healed and
 * must do alone, then all of it; what is left is read out to the last row, and everything is held against the checks.
 */
import { Effect, Exit, Fiber } from "effect"
import type { ClusterStatus } from "../protocols/coordinator.ts"
import { limits } from "../protocols/limits.ts"
import { databaseSubject, DEFAULT_DATABASE } from "../protocols/subjects.ts"
import { utf8 } from "../protocols/wire.ts"
import { Bus } from "../runtime/bus.ts"
import { violationsOf } from "./checks/all.ts"
import {
  type Alarm,
  type Crash,
  Evidence,
  type Observed,
  type Phases,
  type Quiet,
  type Violation
} from "./checks/evidence.ts"
import { vacuous } from "./checks/vacuity.ts"
import { Cluster } from "./cluster.ts"
import { debtsOf, owedBy } from "./duties.ts"
import { Nemesis, type Struck } from "./faults.ts"
import { History } from "./history.ts"
import { type Moment, momentOf } from "./ledger.ts"
import { damagesOf, livesOf, Steps } from "./metadata.ts"
import type { Client, FaultName, Op, Plan } from "./plan.ts"
import type { Keep, TraceEvent } from "./trace.ts"
import { runClient } from "./workload.ts"
import { on, World } from "./world.ts"

export interface RunOptions {
  /** Events of the trace to keep as they are. */
  readonly keep?: Keep | undefined
}

export interface Result {
  readonly seed: string
  readonly violations: ReadonlyArray<Violation>
  /** Why the run is no pass, though nothing is wrong. */
  readonly vacuous: ReadonlyArray<string>
  /** Set if the world itself came to an end: a defect, a deadlock, a loop. */
  readonly died: string | undefined
  readonly hash: string
  /** Of the trace, after every thousand events. */
  readonly checkpoints: ReadonlyArray<string>
  readonly events: number
  /** Virtual milliseconds. */
  readonly ms: number
  readonly operations: { readonly asked: number; readonly done: number; readonly unknown: number }
  readonly struck: { readonly [K in FaultName]?: Struck }
  /** How often sites in the code fired, by their names. */
  readonly fired: { readonly [site: string]: number }
  readonly evidence: Evidence
  /** Those of the trace that were to be kept. */
  readonly kept: ReadonlyArray<TraceEvent>
}

/** A cluster that cannot even begin has no run. */
const BOOT_MAX_MS = 60_000
const LOOK_MS = 250
/** As a streaming node writes it into its log. */
const ALARM = /^channel (\d+): damaged: (.*)$/
const QUIET_SECONDS = 5
const ALL = { concurrency: "unbounded" } as const
const AUDITOR = "audit"
/** Far from those of a plan. */
const PROBE_IDS = 1_000_000
/** Longer than a node waits for the object store: what it asked before the faults were over it may have to ask again. */
const PROBE_TIMEOUT_MS = limits.objectTimeoutMs + 30_000
/** Long enough to be told that an object is not what it was. */
const ROTTEN_TIMEOUT_MS = 15_000
/** Most are answered when their time is over, and none depends on another. */
const ROTTEN_AT_ONCE = 16

export const runPlan = (plan: Plan, options: RunOptions = {}): Result => {
  const world = new World(plan.seed, { ...plan.world, keep: options.keep })
  const run = new Run(world, plan)
  let died: string | undefined
  try {
    world.run(run.whole)
  } catch (cause) {
    died = cause instanceof Error ? cause.message : String(cause)
  }
  const evidence = new Evidence(run.observed())
  const { operations } = run.history
  const count = (tag: string) => operations.filter(({ outcome }) => outcome?._tag === tag).length
  return {
    seed: plan.seed,
    violations: died === undefined ? violationsOf(evidence) : [],
    vacuous: vacuous(evidence),
    died,
    hash: world.trace.hash,
    checkpoints: world.trace.checkpoints,
    events: world.events,
    ms: world.now,
    operations: { asked: operations.length, done: count("Ok"), unknown: count("Unknown") },
    struck: run.nemesis.struck,
    fired: Object.fromEntries(world.fired),
    evidence,
    kept: world.trace.kept
  }
}

class Run {
  readonly history: History
  readonly nemesis: Nemesis
  private readonly probes: History
  private readonly world: World
  private readonly plan: Plan
  private readonly cluster: Cluster
  private readonly steps = new Steps()
  private readonly crashes: Array<Crash> = []
  private readonly alarms: Array<Alarm> = []
  private phases: Omit<Phases, "end"> = {}
  private quiet: ReadonlyArray<Quiet> | undefined
  private probeIds = PROBE_IDS
  private auditors = 0
  private readonly owned = { core: false, all: false }

  constructor(world: World, plan: Plan) {
    this.world = world
    this.plan = plan
    const { settings, topology } = plan
    this.cluster = new Cluster(world, {
      nodes: topology.nodes,
      settings,
      broker: { replicas: topology.replicas }
    })
    for (const { node, roles } of this.cluster.processes.values()) {
      node.onCrash(() => this.crashes.push({ ...this.now(), isProxy: roles.includes("proxy") }))
    }
    world.heard = ({ message }) => {
      const [, channel, detail] = ALARM.exec(message) ?? []
      if (detail !== undefined) this.alarms.push({ moment: this.now(), channel: Number(channel), detail })
    }
    this.history = new History(() => this.now())
    this.probes = new History(() => this.now())
    this.nemesis = new Nemesis(this.cluster, () => this.history.awaited > 0)
  }

  private now(): Moment {
    return momentOf(this.world)
  }

  observed(): Observed {
    const { alarms, cluster, crashes, history, plan, probes, quiet } = this
    return {
      operations: history.operations,
      probes: probes.operations,
      facts: cluster.ledger.facts,
      steps: this.steps.of(cluster.ledger.facts),
      phases: { ...this.phases, end: this.now() },
      isCalm: plan.faults.length === 0 && !plan.world.buggify,
      proxies: plan.topology.nodes.filter(({ roles }) => roles.includes("proxy")).length,
      crashes,
      alarms,
      skipped: history.skipped,
      unasked: probes.skipped,
      owned: this.owned,
      clocksAgree: !plan.faults.some(({ kind }) => kind === "clockStep" || kind === "clockDrift"),
      ...(quiet === undefined ? {} : { quiet })
    }
  }

  readonly whole: Effect.Effect<void> = Effect.suspend(() => this.run())

  private readonly run = Effect.fnUntraced({ self: this }, function* (this: Run) {
    const { cluster, plan } = this
    const { chaosMs, convergeMs, healMs, warmUpMs } = plan.phases
    cluster.start()
    yield* this.booted
    const clients = yield* Effect.forEach(plan.clients, (client) =>
      Effect.forkChild(this.client(client, this.history, warmUpMs + chaosMs))
    )
    this.nemesis.strike(plan.faults)
    yield* Effect.sleep(warmUpMs)
    this.phases = { ...this.phases, chaos: this.now() }
    yield* Effect.sleep(chaosMs + 1)

    cluster.heal()
    const core = new Set(plan.topology.core)
    for (const [name, process] of cluster.processes) {
      if (core.has(name)) process.start()
      else process.crash()
    }
    this.phases = { ...this.phases, core: this.now() }
    yield* this.within(
      convergeMs,
      Effect.all([this.owns("core", core.size), this.serves("audit_core"), Effect.forEach(clients, Fiber.await)], ALL)
    )
    this.phases = { ...this.phases, deadline: this.now() }

    for (const process of cluster.processes.values()) process.start()
    const healed = this.now()
    this.phases = { ...this.phases, healed }
    yield* this.within(
      healMs,
      Effect.all([this.owns("all", cluster.processes.size), this.serves("audit_all"), this.settled(healed)], ALL)
    )
    const nodes = [...cluster.processes.values()].map(({ node }) => node)
    const seen = [nodes.map(({ events }) => events)]
    for (let second = 0; second < QUIET_SECONDS; second++) {
      yield* Effect.sleep(1_000)
      seen.push(nodes.map(({ events }) => events))
    }
    this.quiet = nodes.map((_, node) => seen.slice(1).map((events, i) => events[node]! - seen[i]![node]!))
    yield* this.readsOut
  })

  /** Until the time is over; what is not done by then the checks see. */
  private within<A>(ms: number, effect: Effect.Effect<A>): Effect.Effect<void> {
    return Effect.asVoid(Effect.timeoutOption(effect, ms))
  }

  /** Clients begin when every channel has an owner, as whoever sets up a cluster waits for it. */
  private get booted(): Effect.Effect<void> {
    return this.shows(
      ({ channels, warnings }) => channels.every(({ epoch }) => epoch !== "") && warnings.length === 0,
      BOOT_MAX_MS
    ).pipe(Effect.flatMap((isThere) => (isThere ? Effect.void : Effect.die(new Error("the cluster did not begin")))))
  }

  /**
   * Every channel is owned by a node that lives, and so many nodes count as living as there are: a process that began
   * anew leaves the node behind that it was, whose channels are still to move when nobody pings it in vain any more. Of a
   * cluster without collections nothing else tells that it is back.
   */
  private owns(who: "core" | "all", processes: number): Effect.Effect<void> {
    const { convergeMs, healMs } = this.plan.phases
    const isSo = this.shows(
      ({ channels, nodes }) => {
        const alive = new Set(nodes.filter((node) => node.alive).map(({ id }) => id))
        return alive.size === processes && channels.every(({ node }) => alive.has(node))
      },
      who === "core" ? convergeMs : healMs
    )
    return Effect.map(isSo, (is) => {
      this.owned[who] = is
    })
  }

  /** Until nothing is owed any more of what was owed by then. */
  private settled(by: Moment): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { facts } = this.cluster.ledger
      while (owedBy(debtsOf(this.steps.of(facts), facts), by).length > 0) yield* Effect.sleep(LOOK_MS)
    })
  }

  /** Asks for the status until it is as `wanted`; false if it was not in time. */
  private shows(wanted: (status: ClusterStatus) => boolean, ms: number): Effect.Effect<boolean> {
    const { cluster } = this
    const asks = Effect.gen(function* () {
      const bus = yield* Bus
      while (true) {
        const asked = yield* Effect.result(
          bus.request(databaseSubject(DEFAULT_DATABASE, "status"), new Uint8Array(0), { timeoutMs: 5_000 })
        )
        if (asked._tag === "Success" && asked.success.headers === undefined) {
          const { data } = JSON.parse(utf8.decode(asked.success.data)) as { readonly data: ClusterStatus }
          if (wanted(data)) return true
        }
        yield* Effect.sleep(LOOK_MS)
      }
    })
    const program = Effect.scoped(Effect.provide(asks, cluster.broker.layer))
    // The time is over where it is asked: who waits here for the answer could stop waiting, and not the asking.
    const timed = Effect.timeoutOrElse(program, { duration: ms, orElse: () => Effect.succeed(false) })
    return on(cluster.client(AUDITOR), timed).pipe(
      Effect.flatMap((exit) => (Exit.isSuccess(exit) ? Effect.succeed(exit.value) : Effect.failCause(exit.cause))),
      Effect.orDie
    )
  }

  private client(plan: Client, history: History, forMs: number): Effect.Effect<void> {
    const { cluster } = this
    const program = Effect.gen({ self: this }, function* () {
      yield* runClient(this.plan.seed, plan, yield* Bus, history, forMs)
    })
    return on(cluster.client(plan.name), Effect.scoped(Effect.provide(program, cluster.broker.layer))).pipe(
      Effect.flatMap((exit) => (Exit.isSuccess(exit) ? Effect.void : Effect.failCause(exit.cause))),
      Effect.orDie
    )
  }

  /**
   * Asks now: of every collection somebody with a session of its own, one after the other, and all of them side by side,
   * as they have nothing to do with each other and each may take as long as a client waits. Last, and without much
   * patience, for what may not be served any more.
   */
  private asks(
    ops: (name: string) => ReadonlyArray<Unnumbered>,
    before: ReadonlyArray<Unnumbered> = []
  ): Effect.Effect<void> {
    const ask = (all: ReadonlyArray<Unnumbered>, timeoutMs: number, depth = 1) => {
      const plan: Client = {
        name: `${AUDITOR}-${++this.auditors}`,
        manner: "library",
        form: "binary",
        depth,
        timeoutMs,
        ops: all.map((op) => ({ ...op, id: this.probeIds++, at: 0 }) as Op)
      }
      return this.client(plan, this.probes, Infinity)
    }
    return Effect.suspend(() => {
      const { names, rotten } = this.collections()
      const whole = [before, ...names.filter((name) => !rotten.has(name)).map(ops)].filter((all) => all.length > 0)
      const asked = Effect.all(
        whole.map((all) => ask(all, PROBE_TIMEOUT_MS)),
        ALL
      )
      if (rotten.size === 0) return asked
      const rest = ask(names.filter((name) => rotten.has(name)).flatMap(ops), ROTTEN_TIMEOUT_MS, ROTTEN_AT_ONCE)
      return Effect.andThen(asked, rest)
    })
  }

  /** Those that are made and there now, as nobody in the world can know it. */
  private collections() {
    const { facts } = this.cluster.ledger
    const lives = livesOf(this.steps.of(facts))
    const there = lives.filter(({ dropped, ready }) => ready !== undefined && dropped === undefined)
    const names = [...new Set(there.map(({ name }) => name))]
    const damages = damagesOf(facts)
    const rotten = new Set(lives.filter(({ id }) => damages.has(id)).map(({ name }) => name))
    return { names, rotten }
  }

  /** It takes a write of every collection, and of one that is made just now, shows it, and seals it. */
  private serves(own: string): Effect.Effect<void> {
    const ops = (collection: string): ReadonlyArray<Unnumbered> => [
      { kind: "upsert", collection, keys: [0, 1, 2, 3] },
      { kind: "get", collection, keys: [0, 1, 2, 3], output: "all", level: STRONG },
      { kind: "flush", collection },
      { kind: "search", collection, vectors: 1, limit: 10, offset: 0, output: "all", level: STRONG }
    ]
    return this.asks(ops, [{ kind: "create", collection: own, ...OWN_SHAPE }, ...ops(own)])
  }

  /** Every row of every collection, by each kind of read. */
  private get readsOut(): Effect.Effect<void> {
    const numbers = new Set(this.plan.clients.flatMap(({ ops }) => ops.flatMap((op) => ("keys" in op ? op.keys : []))))
    const keys = [0, 1, 2, 3, ...[...numbers].toSorted((a, b) => a - b)]
    return this.asks((collection) => [
      { kind: "count", collection, level: STRONG },
      { kind: "get", collection, keys, output: "all", level: STRONG },
      { kind: "search", collection, vectors: 2, limit: 10_000, offset: 0, output: "fields", level: STRONG },
      { kind: "count", collection, level: { consistency: "Eventually" } }
    ])
  }
}

type Unnumbered = Op extends infer O ? (O extends Op ? Omit<O, "id" | "at"> : never) : never

const OWN_SHAPE = { dimension: 2, metric: "L2", keyType: "Int64", shards: 2 } as const
const STRONG = { consistency: "Strong" } as const

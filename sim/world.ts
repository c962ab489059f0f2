/**
 * A small world to try actors in: one thread, one queue of events, time that jumps to the next of them, and chance
 * that comes from a seed alone, so that a run is the same every time. It must never ask the real world for
 * anything: a promise or a timer that sneaks in never resolves here, and is reported as a deadlock.
 *
 * 1. Events run in the order of (virtual time, sequence); what is ready at one time is drawn by the seed.
 * 2. Everything that happens to a node is an event with its name and its life on it. A crash ends the life: fibers,
 *    timers and answers of it are dropped, and no finalizer runs.
 * 3. A fiber can lose its turn before any operation, with the probability `preempt`. One that another fiber wakes or
 *    begins always does: Effect would run it inside of the other, where nothing could come between.
 * 4. A site in the code fires only if it is active in this run, which its name and the seed decide.
 * 5. Every event that ran is in the trace: same seed, same hash, in every process.
 */
import { Cause, Clock, Context, Duration, Effect, Exit, Logger, Random, Scheduler } from "effect"
import { hashKey } from "../protocols/keys.ts"
import { Sites } from "../runtime/buggify.ts"
import { type Keep, nameHash, Trace } from "./trace.ts"

/** One stream of chance. Each use has its own, so that a draw more in one does not shift the others. */
export interface Chance {
  readonly next: () => number
  readonly below: (end: number) => number
  readonly between: (low: number, high: number) => number
  readonly happens: (probability: number) => boolean
  readonly pick: <A>(from: ReadonlyArray<A>) => A
}

/** Mulberry32 (public domain). */
export const chanceOf = (seed: string): Chance => {
  let state = hashKey(seed)
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
  const below = (end: number) => Math.floor(next() * end)
  return {
    next,
    below,
    between: (low, high) => low + next() * (high - low),
    happens: (probability) => probability > 0 && next() < probability,
    pick: (from) => from[below(from.length)]!
  }
}

/** Something that will happen, unless it is cancelled or the life that it belongs to ends before. */
export class Scheduled {
  at: number
  readonly sequence: number
  readonly node: SimNode | undefined
  readonly life: number
  readonly label: string
  run: (() => void) | undefined

  constructor(at: number, sequence: number, run: () => void, node: SimNode | undefined, life: number, label: string) {
    this.at = at
    this.sequence = sequence
    this.node = node
    this.life = life
    this.label = label
    this.run = run
  }

  cancel(): void {
    this.run = undefined
  }
}

const before = (a: Scheduled, b: Scheduled) => a.at < b.at || (a.at === b.at && a.sequence < b.sequence)

/** What a node said that somebody should read. */
export interface Line {
  readonly at: number
  readonly node: string
  readonly level: string
  readonly message: string
  readonly cause: Cause.Cause<unknown>
}

export interface WorldOptions {
  readonly preempt?: number
  /** Whether sites in the code fire: runtime/buggify.ts. */
  readonly buggify?: boolean
  /** More events than this are taken for a loop that never ends. */
  readonly eventsMax?: number
  /** Events of the trace to keep as they are. */
  readonly keep?: Keep | undefined
}

/** Milliseconds since 1970 at which every world begins. */
export const BEGINNING = 1_700_000_000_000
/** So many of the sites are active in a run, and one that is fires at so many of its passes. FoundationDB's numbers. */
const SITE_ACTIVE = 0.25
const SITE_FIRES = 0.25
const TURN = "turn"
/** Of a fiber in one turn. */
const OPERATIONS_MAX = 100_000
/** Of the lines that nodes logged, the newest. */
const LINES_MAX = 1_000

export class World {
  readonly seed: string
  readonly preempt: number
  /** Virtual milliseconds since the beginning. */
  now = 0
  events = 0
  /** Called after every event: to check what must always hold, or to crash somebody just here. */
  afterEach: () => void = () => {}
  /** Called by every part of the world that makes something go wrong, when it does: what it was, and for which node. */
  struck: (kind: string, node?: SimNode) => void = () => {}
  /** Called with every warning and worse that a node logs. */
  heard: (line: Line) => void = () => {}
  readonly trace: Trace
  /** The newest warnings and worse that nodes logged. */
  readonly lines: Array<Line> = []
  /** What died, or logged that something did: a run with any has failed. */
  readonly faults: Array<string> = []
  /** How often each site in the code fired. */
  readonly fired = new Map<string, number>()
  /** Whether a fiber had its turn in the event that runs. */
  taken = false
  private readonly buggify: boolean
  private readonly active = new Map<string, boolean>()
  private readonly eventsMax: number
  private readonly order: Chance
  private readonly labels = new Map<string, Map<string, string>>()
  private readonly heap: Array<Scheduled> = []
  private readonly ready: Array<Scheduled> = []
  private sequence = 0

  constructor(seed: string | number, options: WorldOptions = {}) {
    this.seed = String(seed)
    this.preempt = options.preempt ?? 0.1
    this.buggify = options.buggify ?? false
    this.eventsMax = options.eventsMax ?? 2_000_000
    this.trace = new Trace(options.keep)
    this.order = this.chance("order")
  }

  /** A label of two parts, put together once: most are of a few, and a text that is new is read letter by letter. */
  label(first: string, second: string): string {
    let known = this.labels.get(first)
    if (known === undefined) this.labels.set(first, (known = new Map()))
    let label = known.get(second)
    if (label === undefined) known.set(second, (label = first + second))
    return label
  }

  chance(use: string): Chance {
    return chanceOf(`${this.seed} ${use}`)
  }

  node(name: string): SimNode {
    return new SimNode(this, name)
  }

  /**
   * Lets `run` happen after `delayMs`; to `node`, in its life `life`, if they are given. `label` says in the trace what
   * it is: the same text in every process.
   */
  after(delayMs: number, run: () => void, node?: SimNode, life = node?.life ?? 0, label = "event"): Scheduled {
    const at = delayMs > 0 ? this.now + delayMs : this.now
    const event = new Scheduled(at, this.sequence++, run, node, life, label)
    if (at <= this.now) this.ready.push(event)
    else this.push(event)
    return event
  }

  /** Runs `program` on a node of its own, and everything that comes of it, until it ends. Throws what went wrong. */
  run<A, E>(program: Effect.Effect<A, E>): A {
    const ended: Array<Exit.Exit<A, E>> = []
    this.node("main").start(program, (exit) => ended.push(exit))
    while (ended.length === 0) {
      if (!this.step()) throw this.failed("deadlock: nothing is left that could happen")
      if (this.events > this.eventsMax) throw this.failed(`no end after ${this.events} events`)
      if (this.faults.length > 0) throw this.failed(this.faults.join("\n"))
    }
    const [exit] = ended
    if (Exit.isSuccess(exit!)) return exit.value
    throw this.failed((exit as Exit.Failure<A, E>).cause)
  }

  /** Whether a site fires at this pass, by the chance of the node that passes it. */
  fires(site: string, chance: Chance): boolean {
    if (!this.buggify) return false
    let isActive = this.active.get(site)
    if (isActive === undefined) {
      isActive = this.chance(`site ${site}`).happens(SITE_ACTIVE)
      this.active.set(site, isActive)
    }
    if (!isActive || !chance.happens(SITE_FIRES)) return false
    this.fired.set(site, (this.fired.get(site) ?? 0) + 1)
    return true
  }

  /** Remembers what a node logged. A defect is a bug, whatever level it was found worth: a handler that died, say. */
  log(line: Line): void {
    if (this.lines.push(line) >= 2 * LINES_MAX) this.lines.splice(0, LINES_MAX)
    this.heard(line)
    const isDefect = line.cause.reasons.some(({ _tag }) => _tag === "Die")
    if (line.level === "Fatal" || isDefect) this.faults.push(textOf(line))
  }

  private failed(what: string | Cause.Cause<unknown>): Error {
    const text = typeof what === "string" ? what : Cause.pretty(what)
    return new Error(
      `seed ${this.seed}, at ${this.now.toFixed(3)} ms: ${text}\n${this.lines.slice(-20).map(textOf).join("\n")}`
    )
  }

  /** One event; false if there is none. */
  private step(): boolean {
    const { heap, ready } = this
    while (true) {
      while (heap.length > 0 && heap[0]!.at <= this.now) ready.push(this.pop())
      if (ready.length === 0) {
        if (heap.length === 0) return false
        this.now = heap[0]!.at
        continue
      }
      const index = ready.length === 1 ? 0 : this.order.below(ready.length)
      const event = ready[index]!
      const last = ready.pop()!
      if (event !== last) ready[index] = last
      const { label, life, node, run } = event
      if (run === undefined) continue
      if (node === undefined) this.trace.add(this.now, "", 0, 0, label)
      else {
        if (node.life !== life) continue
        if (node.pausedUntil > this.now) {
          event.at = node.pausedUntil
          this.push(event)
          continue
        }
        this.trace.add(this.now, node.name, node.hash, life, label)
        if (label !== TURN) node.events++
      }
      this.events++
      this.taken = false
      run()
      this.afterEach()
      return true
    }
  }

  private push(event: Scheduled): void {
    const { heap } = this
    let at = heap.push(event) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!before(event, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = event
  }

  private pop(): Scheduled {
    const { heap } = this
    const top = heap[0]!
    const last = heap.pop()!
    if (heap.length === 0) return top
    let at = 0
    while (true) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
    return top
  }
}

const textOf = ({ at, cause, level, message, node }: Line): string => {
  const why = cause.reasons.length === 0 ? "" : ` ${Cause.pretty(cause)}`
  return `${at.toFixed(3)} ${node} ${level} ${message}${why}`
}

/** The node whose code is running. */
const Here = Context.Reference<SimNode | undefined>("elanus/sim/Here", { defaultValue: () => undefined })

/** A process of the simulated world: it can stand still for a while, and it can be killed and started again. */
export class SimNode {
  readonly world: World
  readonly name: string
  readonly hash: number
  life = 0
  pausedUntil = 0
  /** What happened to it; the turns of fibers are not among it, for their number is the preemption's. */
  events = 0
  /** How far its clock is from the world's: a step when it is changed. */
  skewMs = 0
  /** Every turn of a fiber comes up to so much later: 0 is a machine that is fast enough. */
  slowMs = 0
  /** What its clock gains. */
  driftPpm = 0
  private driftSince = 0
  private readonly crashes: Array<() => void> = []
  private context: Context.Context<never> = Context.empty()

  constructor(world: World, name: string) {
    this.world = world
    this.name = name
    this.hash = nameHash(name)
    this.begin()
  }

  /** Runs `effect` in the present life; `ended` hears of it unless the node crashes before. */
  start<A, E>(effect: Effect.Effect<A, E>, ended: (exit: Exit.Exit<A, E>) => void = () => {}): void {
    const { context } = this
    const begin = () => Effect.runForkWith(context)(effect).addObserver(ended)
    this.world.after(0, begin, this, this.life, "start")
  }

  /** Calls back at every crash, just before the life ends: for whoever else is touched by it. */
  onCrash(callback: () => void): void {
    this.crashes.push(callback)
  }

  /** Everything in it is gone, at once, and nothing of it runs any more; what it sent is on its way still. */
  crash(): void {
    for (const callback of this.crashes) callback()
    this.life++
    this.pausedUntil = 0
    this.begin()
  }

  /** It stands still: what reaches it meanwhile it finds afterwards, in any order. */
  pause(forMs: number): void {
    this.pausedUntil = Math.max(this.pausedUntil, this.world.now + forMs)
  }

  /** From now on its clock gains so many microseconds a second, or loses them. */
  drift(ppm: number): void {
    this.skewMs += this.drifted()
    this.driftSince = this.world.now
    this.driftPpm = ppm
  }

  /** It is fast enough, and its clock goes right from here on, from where it is. */
  heal(): void {
    this.slowMs = 0
    this.drift(0)
  }

  private drifted(): number {
    return ((this.world.now - this.driftSince) * this.driftPpm) / 1e6
  }

  private begin(): void {
    const { life, world } = this
    const turns = world.chance(`turns of ${this.name} ${life}`)
    const draws = world.chance(`draws of ${this.name} ${life}`)
    const sites = world.chance(`sites of ${this.name} ${life}`)
    const wall = () => BEGINNING + Math.floor(world.now + this.skewMs + this.drifted())
    const nanos = () => BigInt(Math.floor(world.now * 1_000)) * 1_000n
    const sleep = (duration: Duration.Duration): Effect.Effect<void> => {
      const ms = Duration.toMillis(duration)
      if (!Number.isFinite(ms)) return Effect.never
      return Effect.callback((resume) => {
        const timer = world.after(ms, () => resume(Effect.void), this, life, "timer")
        return Effect.sync(() => timer.cancel())
      })
    }
    const clock: Clock.Clock = {
      currentTimeMillisUnsafe: wall,
      currentTimeMillis: Effect.sync(wall),
      currentTimeNanosUnsafe: () => BigInt(wall()) * 1_000_000n,
      currentTimeNanos: Effect.sync(() => BigInt(wall()) * 1_000_000n),
      monotonicTimeNanosUnsafe: nanos,
      monotonicTimeNanos: Effect.sync(nanos),
      sleep
    }
    const dispatcher: Scheduler.SchedulerDispatcher = {
      scheduleTask: (task) => {
        world.after(this.slowMs > 0 ? turns.next() * this.slowMs : 0, task, this, life, TURN)
      },
      flush: () => {}
    }
    // How many operations come before the next that loses its turn: one draw, and not one for each of half a million.
    const drawn = () =>
      world.preempt > 0 ? Math.floor(Math.log(1 - turns.next()) / Math.log(1 - world.preempt)) : Infinity
    let untilLost = drawn()
    const scheduler: Scheduler.Scheduler = {
      executionMode: "async",
      shouldYield: (fiber) => {
        // Its first operation since it was woken: only one fiber can be woken by the event itself.
        if (fiber.currentOpCount === 1) {
          if (world.taken) return true
          world.taken = true
        }
        if (fiber.currentOpCount > OPERATIONS_MAX) {
          world.faults.push(`${this.name}: a fiber goes round in a circle, and nobody else has a turn`)
          return true
        }
        if (untilLost-- > 0) return false
        untilLost = drawn()
        return true
      },
      makeDispatcher: () => dispatcher
    }
    const logger = Logger.make(({ cause, logLevel, message }) => {
      if (logLevel !== "Warn" && logLevel !== "Error" && logLevel !== "Fatal") return
      world.log({ at: world.now, node: this.name, level: logLevel, message: String(message), cause })
    })
    this.context = Context.empty().pipe(
      Context.add(Scheduler.Scheduler, scheduler),
      Context.add(Clock.Clock, clock),
      Context.add(Random.Random, {
        nextDoubleUnsafe: draws.next,
        nextIntUnsafe: () => Math.floor(draws.between(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER))
      }),
      Context.add(Logger.CurrentLoggers, new Set([logger])),
      Context.add(Sites, {
        fires: (site) => world.fires(site, sites),
        time: (most) => most ** sites.next()
      }),
      Context.add(Here, this)
    )
  }
}

/** A value that reaches the node that waits for it as an event of its own. The first one given counts. */
export class Reply<A> {
  private readonly node: SimNode
  private readonly life: number
  private given: { readonly value: A } | undefined
  private readonly waiting = new Set<() => void>()
  private readonly coming: Array<Scheduled> = []

  constructor(node: SimNode) {
    this.node = node
    this.life = node.life
  }

  give(value: A, delayMs = 0, label = "reply"): void {
    const arrive = () => {
      if (this.given !== undefined) return
      this.given = { value }
      for (const other of this.coming) other.cancel()
      for (const wake of this.waiting) wake()
    }
    this.coming.push(this.node.world.after(delayMs, arrive, this.node, this.life, label))
  }

  readonly wait: Effect.Effect<A> = Effect.callback((resume) => {
    const wake = () => resume(Effect.succeed(this.given!.value))
    if (this.given !== undefined) return wake()
    this.waiting.add(wake)
    return Effect.sync(() => this.waiting.delete(wake))
  })
}

/** Does something as the node whose code is running. */
export const here = <A, E, R = never>(use: (node: SimNode) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => use(fiber.getRef(Here)!))

/** Asks the world: `register` gets the node that asks, and answers whenever it likes, or never. */
export const ask = <A>(register: (node: SimNode, reply: Reply<A>) => void): Effect.Effect<A> =>
  here((node) => {
    const reply = new Reply<A>(node)
    register(node, reply)
    return reply.wait
  })

/** Runs `effect` on another node, and waits for its end; for ever, if that node crashes. */
export const on = <A, E>(node: SimNode, effect: Effect.Effect<A, E>): Effect.Effect<Exit.Exit<A, E>> =>
  ask((_, reply) => node.start(effect, (exit) => reply.give(exit)))

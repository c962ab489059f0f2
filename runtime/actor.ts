/**
 * The kernel: keeps an actor at its table. After every move, and after every start, it runs exactly the duties
 * that the present state owes and interrupts the rest; so recovering from a crash is nothing that an actor writes.
 *
 * 1. Moves happen one at a time. Handlers do not wait for each other, only for moves.
 * 2. A standing is saved before anybody can see it.
 * 3. A duty's event counts only while this very run of it is still owed: not if the state was left since, and neither
 *    if it was entered again. There is no race between a message and a duty.
 * 4. A move that the table lacks is a bug and dies; it is never ignored.
 * 5. A duty that ends, or dies, and is still owed runs again, with back-off until the state changes.
 */
import { Deferred, Effect, Exit, Fiber, Semaphore } from "effect"
import type { AnyStateMachine, EventFrom } from "xstate"
import { stall } from "./buggify.ts"
import { type DutyName, lifecycleOf, type Standing } from "./lifecycle.ts"

/** What an actor's own code may do to itself. */
export interface Self<M extends AnyStateMachine> {
  readonly standing: () => Standing<M>
  /** Makes a move, and returns when its standing is saved and its duties have begun. */
  readonly advance: (event: EventFrom<M>) => Effect.Effect<Standing<M>>
  /** As `advance`, if the table has that move from where the actor stands when its turn comes. */
  readonly tryAdvance: (event: EventFrom<M>) => Effect.Effect<boolean>
  /** Waits until the actor stands where `test` holds. The caller brings the deadline. */
  readonly until: (test: (standing: Standing<M>) => boolean) => Effect.Effect<Standing<M>>
}

/** One Effect for each duty of the table, whose result is the event that it amounts to. It does not fail. */
export type Duties<M extends AnyStateMachine> = {
  readonly [D in DutyName<M>]: Effect.Effect<EventFrom<M>>
}

/**
 * Where a kept actor's standing survives. `save` answers "stale" if somebody else has written it since
 * (this activation then ends); ambiguity is settled before it answers.
 */
export interface Keep<M extends AnyStateMachine> {
  readonly load: Effect.Effect<Standing<M> | undefined>
  readonly save: (standing: Standing<M>) => Effect.Effect<"saved" | "stale">
}

export interface Actor<M extends AnyStateMachine, Handlers> extends Self<M> {
  readonly on: Handlers
  /** Ends when the actor reached a final state, or found itself stale. */
  readonly ended: Effect.Effect<"final" | "stale">
}

/** One run of a duty, from when it is owed until it is not: what it is compared by. */
interface Run {
  fiber: Fiber.Fiber<unknown, unknown> | undefined
}

const BACK_OFF_FIRST_MS = 50
const BACK_OFF_MAX_MS = 10_000

/** Brings an actor to life in the present scope. Its duties run until the scope closes. */
export const activate = Effect.fnUntraced(function* <M extends AnyStateMachine, Handlers, E, R>(
  machine: M,
  behaviour: (self: Self<M>) => Effect.Effect<{ readonly on: Handlers; readonly duties: Duties<M> }, E, R>,
  keep?: Keep<M>
) {
  const lifecycle = lifecycleOf(machine)
  const scope = yield* Effect.scope
  const moves = Semaphore.makeUnsafe(1)
  const ended = Deferred.makeUnsafe<"final" | "stale">()
  const running = new Map<DutyName<M>, Run>()
  const watchers = new Set<() => void>()
  let standing = (keep === undefined ? undefined : yield* keep.load) ?? lifecycle.initial()
  let owed = lifecycle.duties(standing)
  let stateChanges = 0
  let stale = false
  /** Absent while the behaviour is being made: it may move already, and what is owed then begins afterwards. */
  let duties: Duties<M> | undefined

  const dutyLoop = Effect.fnUntraced(function* (
    duty: DutyName<M>,
    run: Run,
    body: Effect.Effect<EventFrom<M>>
  ): Effect.fn.Return<void> {
    const isOwed = () => running.get(duty) === run
    let waitMs = BACK_OFF_FIRST_MS
    let seen = stateChanges
    while (true) {
      yield* stall("before a duty", 1_000)
      const ended = yield* Effect.exit(body)
      // A duty that died is a bug, which is said; but it is still owed, and an actor that stands still helps nobody.
      if (Exit.isFailure(ended)) {
        if (Exit.hasInterrupts(ended)) return yield* Effect.interrupt
        yield* Effect.logFatal(`duty ${duty} of ${machine.id} died`, ended.cause)
      } else {
        const event = ended.value
        yield* stall("between a duty's end and its move", 1_000)
        yield* moves.withPermits(1)(Effect.suspend(() => (isOwed() ? move(event, duty) : Effect.void)))
      }
      if (!isOwed()) return
      if (stateChanges !== seen) waitMs = BACK_OFF_FIRST_MS
      seen = stateChanges
      yield* Effect.sleep(waitMs)
      if (!isOwed()) return
      waitMs = Math.min(waitMs * 2, BACK_OFF_MAX_MS)
    }
  })

  const start = (duty: DutyName<M>, run: Run, body: Effect.Effect<EventFrom<M>>): Effect.Effect<Fiber.Fiber<unknown>> =>
    dutyLoop(duty, run, body).pipe(
      Effect.onExit((exit) =>
        Exit.isFailure(exit) && !Exit.hasInterrupts(exit)
          ? Effect.logFatal(`duty ${duty} of ${machine.id} died`, exit.cause)
          : Effect.void
      ),
      Effect.forkIn(scope)
    )

  /** Runs what is owed and nothing else. `current` is the duty that is just making the move: it ends by itself. */
  const reconcile = Effect.fnUntraced(function* (current: DutyName<M> | undefined): Effect.fn.Return<void> {
    if (duties === undefined) return
    for (const [duty, { fiber }] of running) {
      if (owed.has(duty)) continue
      running.delete(duty)
      // Not awaited: a duty may be in the middle of a call to this very actor.
      if (duty !== current && fiber !== undefined) yield* Effect.forkIn(Fiber.interrupt(fiber), scope)
    }
    for (const duty of owed) {
      if (running.has(duty)) continue
      const run: Run = { fiber: undefined }
      running.set(duty, run)
      run.fiber = yield* start(duty, run, duties[duty])
    }
  })

  const move = Effect.fnUntraced(function* (
    event: EventFrom<M>,
    current: DutyName<M> | undefined
  ): Effect.fn.Return<Standing<M>> {
    if (stale) return standing
    const next = lifecycle.step(standing, event)
    if (next === undefined) {
      return yield* Effect.die(
        new NoSuchMove(machine.id, JSON.stringify(standing.value), (event as { type: string }).type)
      )
    }
    if (keep !== undefined) yield* stall("before a standing is saved", 1_000)
    if (keep !== undefined && (yield* keep.save(next)) === "stale") {
      stale = true
      owed = new Set()
      yield* reconcile(current)
      yield* Deferred.succeed(ended, "stale")
      return standing
    }
    if (JSON.stringify(next.value) !== JSON.stringify(standing.value)) stateChanges++
    standing = next
    owed = lifecycle.duties(next)
    yield* reconcile(current)
    for (const wake of watchers) wake()
    if (lifecycle.final(next)) yield* Deferred.succeed(ended, "final")
    return next
  })

  const self: Self<M> = {
    standing: () => standing,
    advance: (event) => Effect.uninterruptible(moves.withPermits(1)(move(event, undefined))),
    tryAdvance: (event) =>
      Effect.uninterruptible(
        moves.withPermits(1)(
          Effect.suspend(() =>
            stale || lifecycle.step(standing, event) === undefined
              ? Effect.succeed(false)
              : Effect.as(move(event, undefined), true)
          )
        )
      ),
    until: (test) =>
      Effect.callback<Standing<M>>((resume) => {
        const wake = () => {
          if (!test(standing)) return
          watchers.delete(wake)
          resume(Effect.succeed(standing))
        }
        watchers.add(wake)
        wake()
        return Effect.sync(() => watchers.delete(wake))
      })
  }

  const made = yield* behaviour(self)
  duties = made.duties
  yield* moves.withPermits(1)(Effect.suspend(() => reconcile(undefined)))
  if (lifecycle.final(standing)) yield* Deferred.succeed(ended, "final")
  const actor: Actor<M, Handlers> = { ...self, on: made.on, ended: Deferred.await(ended) }
  return actor
})

/** A move that the table lacks: a bug in the actor. */
export class NoSuchMove extends Error {
  override readonly name = "NoSuchMove"
  constructor(actor: string, state: string, event: string) {
    super(`${actor} has no move ${event} from ${state}`)
  }
}

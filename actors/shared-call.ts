/**
 * One call for all who wait for it. Whoever asks while a call is on its way gets the next one, not that: what it
 * answers must have been looked up after the question was asked.
 */
import { Deferred, Effect } from "effect"
import { stall } from "../runtime/buggify.ts"

export const sharedCall = <A, E>(call: Effect.Effect<A, E>): Effect.Effect<A, E> => {
  let running = false
  let next: Deferred.Deferred<A, E> | undefined

  const run = (mine: Deferred.Deferred<A, E>): Effect.Effect<void> =>
    Effect.andThen(stall("before a call for many", 200), call).pipe(
      Effect.tap(() => stall("between a call for many and its answer", 5_000)),
      Effect.onExit((exit) =>
        Effect.suspend(() => {
          Deferred.doneUnsafe(mine, exit)
          const waiting = next
          next = undefined
          if (waiting === undefined) {
            running = false
            return Effect.void
          }
          return Effect.asVoid(Effect.forkDetach(run(waiting)))
        })
      ),
      Effect.exit,
      Effect.asVoid
    )

  // Who gives up between the two would leave a call that is said to run and never does, and all after it would wait for it.
  return Effect.uninterruptibleMask((restore) => {
    if (running) {
      next ??= Deferred.makeUnsafe<A, E>()
      return restore(Deferred.await(next))
    }
    running = true
    const mine = Deferred.makeUnsafe<A, E>()
    // A fiber of its own: whoever asked first may give up while others still wait.
    return Effect.andThen(Effect.forkDetach(run(mine)), restore(Deferred.await(mine)))
  })
}

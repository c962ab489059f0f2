/**
 * "Something changed": wakes those who wait for a condition, which they test themselves. Nothing is queued, so a
 * wake-up can neither be lost (the test comes first) nor pile up.
 */
import { Effect } from "effect"

export interface Signal {
  readonly notify: () => void
  /** Returns once `test` holds: at once, or after a notification. The caller brings the deadline. */
  readonly until: (test: () => boolean) => Effect.Effect<void>
  /** As `until`, giving up after `timeoutMs`; says whether it held. */
  readonly within: (timeoutMs: number, test: () => boolean) => Effect.Effect<boolean>
}

export const makeSignal = (): Signal => {
  const waiters = new Set<() => void>()
  const until = (test: () => boolean) =>
    Effect.suspend(() => {
      if (test()) return Effect.void
      return Effect.callback<void>((resume) => {
        const wake = () => {
          if (!test()) return
          waiters.delete(wake)
          resume(Effect.void)
        }
        waiters.add(wake)
        // Again: this fiber may have lost its turn since the first look, and a notification with it.
        wake()
        return Effect.sync(() => waiters.delete(wake))
      })
    })
  return {
    notify: () => {
      for (const wake of waiters) wake()
    },
    until,
    within: (timeoutMs, test) =>
      Effect.suspend(() =>
        test()
          ? Effect.succeed(true)
          : Effect.map(Effect.timeoutOption(until(test), timeoutMs), (waited) => waited._tag === "Some")
      )
  }
}

/**
 * "Something changed": wakes those who wait for a condition, which they test themselves. Nothing is queued, so a
 * wake-up can neither be lost (the test comes first) nor pile up.
 */
import { Effect } from "effect"

export interface Waits {
  /** Returns once `test` holds: at once, or after a notification. The caller brings the deadline. */
  readonly until: (test: () => boolean) => Effect.Effect<void>
  /** As `until`, giving up after `timeoutMs`; says whether it held. */
  readonly within: (timeoutMs: number, test: () => boolean) => Effect.Effect<boolean>
}

export interface Signal extends Waits {
  readonly notify: () => void
  /** Calls `wake` at every notification, until the answer is called. */
  readonly listen: (wake: () => void) => () => void
}

/** Waits for `test` to hold, looking again whenever `listen` says; `end` hears of it once. The answer gives up. */
const wait = (listen: Signal["listen"], test: () => boolean, end: () => void): (() => void) => {
  const look = () => {
    if (!test()) return
    forget()
    end()
  }
  const forget = listen(look)
  // Again: this fiber may have lost its turn since the first look, and a notification with it.
  look()
  return forget
}

const waitsOn = (listen: Signal["listen"]): Waits => ({
  until: (test) =>
    Effect.suspend(() =>
      test()
        ? Effect.void
        : Effect.callback<void>((resume) => Effect.sync(wait(listen, test, () => resume(Effect.void))))
    ),
  // Not `Effect.timeout`: that would run the waiting in a fiber of its own too, for twice the price.
  within: (timeoutMs, test) =>
    Effect.suspend(() => {
      if (test()) return Effect.succeed(true)
      return Effect.withFiber((self) =>
        Effect.callback<boolean>((resume) => {
          const timer = Effect.runForkWith(self.context)(Effect.sleep(timeoutMs))
          const stopTimer = () => {
            stop()
            timer.interruptUnsafe()
          }
          const stop = timer.addObserver(() => {
            forget()
            resume(Effect.succeed(false))
          })
          const forget = wait(listen, test, () => {
            stopTimer()
            resume(Effect.succeed(true))
          })
          return Effect.sync(() => {
            forget()
            stopTimer()
          })
        })
      )
    })
})

export const makeSignal = (): Signal => {
  const waiters = new Set<() => void>()
  const listen = (wake: () => void) => {
    waiters.add(wake)
    return () => {
      waiters.delete(wake)
    }
  }
  return {
    notify: () => {
      for (const wake of waiters) wake()
    },
    listen,
    ...waitsOn(listen)
  }
}

/** Who waits on it looks whenever one of the two says that something changed. */
export const either = (one: Signal, other: Signal): Waits =>
  waitsOn((wake) => {
    const forgets = [one.listen(wake), other.listen(wake)]
    return () => forgets.forEach((forget) => forget())
  })

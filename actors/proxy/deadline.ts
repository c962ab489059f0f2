/**
 * Until when somebody waits for an answer. What is asked on the way to it, one thing after the other, has what is left, and
 * not the whole time each: else whoever asked first gives up before it hears why.
 */
import type { Clock } from "effect"

export interface Deadline {
  /** Whole milliseconds; 1 at least, so that it can be waited for. */
  readonly leftMs: () => number
}

/** Of what is left, so long at most. */
export const atMost = (clock: Clock.Clock, timeoutMs: number, deadline: Deadline): Deadline =>
  deadlineIn(clock, Math.min(timeoutMs, deadline.leftMs()))

/** Half of what is left: for what would be better known, and can be done without. */
export const halfOf = (clock: Clock.Clock, deadline: Deadline): Deadline => deadlineIn(clock, deadline.leftMs() / 2)

/** By a clock that nobody sets back. */
export const deadlineIn = (clock: Clock.Clock, timeoutMs: number): Deadline => {
  const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000n) / 1_000
  const end = now() + timeoutMs
  return { leftMs: () => Math.max(1, Math.ceil(end - now())) }
}

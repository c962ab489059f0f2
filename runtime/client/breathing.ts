/**
 * Answers of this very process need no turn of the event loop. Who asks one after the other would then stop all else
 * in the process, the duties of its own roles too, so now and then an answer waits for a turn.
 */

/** Without a turn, at most. */
const BREATH_MS = 8

/** What there is to wait for now, if anything. */
export const makeBreathing = () => {
  let last = 0
  return (): Promise<void> | undefined => {
    const now = performance.now()
    if (now - last < BREATH_MS) return undefined
    last = Infinity // one at a time is enough for all
    return new Promise((resolve) =>
      setImmediate(() => {
        last = performance.now()
        resolve()
      })
    )
  }
}

/** Ctrl-C: it ends the work, and what is known by then is still to be said. */

/** npm hands on the signal that the terminal gave to all: two that come together are one. */
const TOGETHER_MS = 1_000

/** With which code to end then, as shells have it. */
export const INTERRUPTED = 130

/** Waits for the work; true if somebody ended it. A signal that comes later ends the process, as ever. */
export const isInterrupted = async (work: Promise<unknown>): Promise<boolean> => {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const leave = () => process.off("SIGINT", stop)
  const stop = () => {
    resolve(true)
    setTimeout(leave, TOGETHER_MS).unref()
  }
  process.on("SIGINT", stop)
  try {
    const is = await Promise.race([work.then(() => false), promise])
    if (!is) leave()
    return is
  } catch (cause) {
    leave()
    throw cause
  }
}

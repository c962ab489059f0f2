/** How a client of the library shares its patience out among its tries. */
import { afterEach, assert, describe, it, vi } from "vitest"
import { ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { makeAsk } from "../../runtime/client/ask.ts"

/** The times of the tries of a request to which nobody answers, and what it ends in. */
const triesOf = async (verb: string, timeoutMs: number) => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] })
  const tries: Array<number> = []
  const ask = makeAsk((subject, _data, _headers, tryMs) => {
    tries.push(Math.round(tryMs))
    return new Promise((_resolve, reject) => {
      setTimeout(() => reject(failure("timeout", subject)), tryMs)
    })
  })
  const asked = Promise.resolve(ask(`elanus.v1.default.books.${verb}`, new Uint8Array(0), {}, timeoutMs))
  const ended = asked.then(
    () => "answered",
    (cause: unknown) => (cause instanceof ElanusError ? cause.code : String(cause))
  )
  await vi.advanceTimersByTimeAsync(timeoutMs + 1_000)
  return { tries, ended: await ended }
}

describe("asking again", () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  it("gives a try of a read half of what is left, so that one that got lost is not all", async () => {
    const { ended, tries } = await triesOf("search", 60_000)
    assert.strictEqual(ended, "timeout")
    // Less the pauses, of 20 ms and twice as long each time; and none is shorter than a write's, as long as there is time.
    assert.deepStrictEqual(tries, [30_000, 14_990, 7_475, limits.tryTimeoutMs, 2_235])
  })

  it("gives no try of a write more than the usual, for it may be sent again", async () => {
    const { tries } = await triesOf("insert", 60_000)
    assert.deepStrictEqual(tries.slice(0, 4), Array(4).fill(limits.tryTimeoutMs))
  })
})

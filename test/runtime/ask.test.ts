/** How a client of the library shares its patience out among its tries. */
import { afterEach, assert, describe, it, vi } from "vitest"
import { binary } from "../../protocols/client.ts"
import { ElanusError, type ErrorCode, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { makeAsk } from "../../runtime/client/ask.ts"
import { type Client, makeCollection } from "../../runtime/client/collection.ts"
import { makeSession } from "../../runtime/client/session.ts"

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

describe("several questions for one answer", () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  /** What each question was given, of a cluster without a coordinator that takes `eachMs` to describe a collection. */
  const givenTo = async (act: "delete" | "drop", timeoutMs: number, eachMs: number) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] })
    const given: Array<number> = []
    const description = {
      createdTimestamp: "1",
      fields: [
        { name: "id", type: "Int64", primaryKey: true },
        { name: "vector", type: "FloatVector", params: { dim: 2 } }
      ]
    }
    const client: Pick<Client, "ask" | "askAbout" | "session" | "database" | "payloadMax"> = {
      ask: () => assert.fail("it was written without a date"),
      askAbout: (_subject, _body, options) => {
        const { timeoutMs: mine = limits.requestTimeoutMs } = options ?? {}
        given.push(mine)
        return new Promise((resolve, reject) => {
          if (mine >= eachMs) setTimeout(() => resolve(description), eachMs)
          else setTimeout(() => reject(failure("unavailable", "no coordinator")), mine)
        })
      },
      session: makeSession({ now: () => performance.now(), unique: () => 1n }),
      database: "default",
      payloadMax: 1_000_000
    }
    const books = makeCollection(client as Client, "books")
    const asked: Promise<unknown> = act === "delete" ? books.delete([1], { timeoutMs }) : books.drop({ timeoutMs })
    const began = performance.now()
    const ended = asked.then(
      () => assert.fail("it has no date"),
      (cause: unknown) => ({ code: (cause as ElanusError).code, tookMs: performance.now() - began })
    )
    await vi.advanceTimersByTimeAsync(3 * timeoutMs)
    return { given, ...(await ended) }
  }

  it("have one deadline, that of the whole", async () => {
    for (const act of ["delete", "drop"] as const) {
      const { code, given, tookMs } = await givenTo(act, 10_000, 3_000)
      assert.strictEqual(code, "unavailable")
      assert.isAtMost(tookMs, 10_000)
      assert.deepStrictEqual(given, [10_000, 7_000, 3_800, 600])
    }
  })
})

describe("a large insert", () => {
  /** Of parts whose answers come after 20 ms each: what it ends in, and the parts that were begun and stored then and later. */
  const insert = async (outcomeOf: (part: number) => ErrorCode | undefined) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] })
    let begun = 0
    let stored = 0
    const description = {
      createdTimestamp: "1",
      fields: [
        { name: "id", type: "Int64", primaryKey: true },
        { name: "vector", type: "FloatVector", params: { dim: 64 } }
      ]
    }
    const session = makeSession({ now: () => performance.now(), unique: () => 1n })
    session.learn(5n)
    const client: Pick<Client, "ask" | "askAbout" | "session" | "database" | "payloadMax"> = {
      ask: async (_subject, data) => {
        const code = outcomeOf(begun++)
        await new Promise((resolve) => setTimeout(resolve, code === undefined ? 20 : 1))
        if (code !== undefined) throw failure(code, "by the script")
        stored++
        return { data: binary.written.encode({ timestamp: 6n, count: binary.write.decode(data).keys.count }) }
      },
      askAbout: () => Promise.resolve(description),
      session,
      database: "default",
      payloadMax: 40_000
    }
    const rows = {
      ids: BigInt64Array.from({ length: 10_000 }, (_, i) => BigInt(i)),
      vectors: new Float32Array(640_000)
    }
    const inserted = makeCollection(client as Client, "books").insert(rows)
    const ended = inserted.then(
      ({ count }) => ({ said: `${count} rows`, begun, stored }),
      ({ code }: ElanusError) => ({ said: code as string, begun, stored })
    )
    await vi.advanceTimersByTimeAsync(5_000)
    return { ...(await ended), later: { begun, stored } }
  }

  afterEach(() => {
    vi.useRealTimers()
  })

  it("writes nothing any more once it has said how it ended", async () => {
    const right = await insert(() => undefined)
    assert.strictEqual(right.said, "10000 rows")
    assert.isAbove(right.begun, 3 * limits.insertsAtOnce)
    const { begun, later, said, stored } = await insert((part) => (part === 2 ? "damaged" : undefined))
    assert.strictEqual(said, "outcome-unknown")
    assert.deepStrictEqual([begun, stored], [limits.insertsAtOnce, limits.insertsAtOnce - 1])
    assert.deepStrictEqual(later, { begun, stored })
  })

  it("is refused only if no part of it is stored, or may be", async () => {
    const said = async (outcomeOf: (part: number) => ErrorCode | undefined) => (await insert(outcomeOf)).said
    assert.strictEqual(await said(() => "overloaded"), "overloaded")
    assert.strictEqual(await said((part) => (part === 5 ? "overloaded" : undefined)), "ambiguous")
    assert.strictEqual(await said((part) => (part === 5 ? "ambiguous" : "overloaded")), "ambiguous")
    assert.strictEqual(await said((part) => (part === 5 ? "outcome-unknown" : "overloaded")), "outcome-unknown")
  })
})

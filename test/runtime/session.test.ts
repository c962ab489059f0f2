/** What a client's session dates a request by. */
import { assert, describe, it } from "vitest"
import { limits } from "../../protocols/limits.ts"
import { makeSession } from "../../runtime/client/session.ts"

describe("a session", () => {
  it("dates requests by the newest answer, and by none that is old", () => {
    let now = 0
    const session = makeSession({ now: () => now, unique: () => 7n })
    assert.deepStrictEqual(session.requestId(), { issued: 0n, unique: 7n })
    session.learn(5n)
    assert.deepStrictEqual([session.isDated(), session.isDated(5n), session.isDated(6n)], [true, true, false])
    assert.deepStrictEqual(session.requestId(), { issued: 5n, unique: 7n })
    now = limits.requestDateAgeMs + 1
    assert.isFalse(session.isDated())
    assert.deepStrictEqual(session.requestId(), { issued: 0n, unique: 7n })
    session.saw(6n)
    session.outdate()
    assert.strictEqual(session.requestId().issued, 0n)
  })
})

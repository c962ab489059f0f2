/** What comes of a question to the coordinator that was asked more than once. */
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { makeCoordinator } from "../../actors/coordinator-client.ts"
import { type ErrorCode, failure } from "../../protocols/errors.ts"
import { encodeFailure } from "../../protocols/protocol.ts"
import { Bus } from "../../runtime/bus.ts"
import { Sites } from "../../runtime/buggify.ts"
import { Node } from "../../runtime/node.ts"
import { on, World } from "../../sim/world.ts"

/** The code with which a call ends whose tries end with these, one after the other. */
const codeAfter = (
  tries: ReadonlyArray<ErrorCode>,
  name: "DropCollection" | "ListCollections",
  { fires = false, jumpMs = 0, timeoutMs = 10_000 } = {}
) => {
  let asked = 0
  const world = new World(1)
  const node = world.node("a")
  const bus = Bus.of({
    request: () =>
      Effect.sync(() => {
        node.skewMs += jumpMs
        return { data: encodeFailure(failure(tries[asked++]!, "")) }
      }),
    serve: () => Effect.void
  } as unknown as Bus["Service"])
  const program = Effect.gen(function* () {
    const coordinator = yield* makeCoordinator
    return yield* coordinator.call(name, { collection: "1", database: "default" }, timeoutMs)
  })
  const asking = Effect.flip(program).pipe(
    Effect.provideService(Bus, bus),
    Effect.provideService(Sites, { fires: () => fires, time: () => 0 }),
    Effect.provide(Node.layer("0.0.0", {}))
  )
  const error = world.run(Effect.flatten(on(node, asking)))
  assert.strictEqual(asked, tries.length)
  return error.code
}

describe("a question to the coordinator", () => {
  it("that may have been carried out by an earlier try stays ambiguous, whatever the last one said", () => {
    assert.strictEqual(codeAfter(["ambiguous", "collection-not-found"], "DropCollection"), "ambiguous")
    assert.strictEqual(codeAfter(["unavailable", "ambiguous", "deposed", "overloaded"], "DropCollection"), "ambiguous")
  })

  it("of which every try was refused is refused", () => {
    assert.strictEqual(codeAfter(["collection-not-found"], "DropCollection"), "collection-not-found")
    assert.strictEqual(codeAfter(["unavailable", "overloaded"], "DropCollection"), "overloaded")
  })

  it("to which one that was deposed answers first may be carried out by the other, which heard it too", () => {
    assert.strictEqual(codeAfter(["deposed", "overloaded"], "DropCollection"), "ambiguous")
    assert.strictEqual(codeAfter(["deposed"], "DropCollection", { timeoutMs: 5 }), "ambiguous")
  })

  it("that is refused was asked once, also where answers are asked for twice", () => {
    assert.strictEqual(codeAfter(["unavailable", "overloaded"], "DropCollection", { fires: true }), "overloaded")
  })

  it("for which no coordinator came in time finds none, and hears nothing of the one before", () => {
    assert.strictEqual(codeAfter(["deposed"], "ListCollections", { timeoutMs: 5 }), "unavailable")
    assert.strictEqual(codeAfter(["unavailable"], "DropCollection", { timeoutMs: 5 }), "unavailable")
    assert.strictEqual(codeAfter(["ambiguous", "deposed"], "DropCollection", { timeoutMs: 15 }), "ambiguous")
  })

  it("is asked for as long as it may take, though the clock is set meanwhile", () => {
    for (const jumpMs of [-3_600_000, 3_600_000]) {
      const tries = ["unavailable", "unavailable"] as const
      assert.strictEqual(codeAfter(tries, "ListCollections", { jumpMs, timeoutMs: 25 }), "unavailable")
    }
  })

  it("that changes nothing has no doubt", () => {
    assert.strictEqual(codeAfter(["ambiguous", "overloaded"], "ListCollections"), "overloaded")
  })
})

/** One call for many: whoever gives up, and whenever, nobody after it waits for a call that nobody makes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Scheduler } from "effect"
import { sharedCall } from "../../actors/shared-call.ts"

describe("a shared call", () => {
  it.live("is made again, at whichever of its steps the one who asked first gave up", () =>
    Effect.gen(function* () {
      // A fiber has a turn of so many operations, so that its turns end everywhere.
      for (let operations = 3; operations <= 12; operations++) {
        for (let turns = 0; turns < 12; turns++) {
          const call = sharedCall(Effect.yieldNow)
          const asks = Effect.provideService(call, Scheduler.MaxOpsBeforeYield, operations)
          const first = yield* Effect.forkChild(asks)
          for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
          yield* Fiber.interrupt(first)
          const again = yield* Effect.timeoutOption(call, 500)
          assert.strictEqual(again._tag, "Some", `after ${turns} turns of ${operations} operations`)
        }
      }
    })
  )

  it.live("is one for all who ask while another is on its way, and begins after they asked", () =>
    Effect.gen(function* () {
      let begun = 0
      const call = sharedCall(
        Effect.suspend(() => {
          const mine = ++begun
          return Effect.as(Effect.sleep(20), mine)
        })
      )
      const first = yield* Effect.forkChild(call)
      yield* Effect.sleep(5)
      const others = yield* Effect.all([call, call, call], { concurrency: 3 })
      assert.strictEqual(yield* Fiber.join(first), 1)
      assert.deepStrictEqual(others, [2, 2, 2])
    })
  )
})

/** A process and its lease. */
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { Bus } from "../../runtime/bus.ts"
import { Sites } from "../../runtime/buggify.ts"
import { join } from "../../runtime/membership.ts"
import { Node } from "../../runtime/node.ts"
import { World } from "../../sim/world.ts"
import { Leases } from "../../storage/leases.ts"

describe("a process", () => {
  it("that gives its lease back takes it again at once, and keeps it long enough for others to settle", () => {
    const world = new World("leases")
    const givenBack: Array<number> = []
    let isHeld = false
    const leases = {
      get: () => Effect.succeedNone,
      put: () =>
        Effect.sync(() => {
          isHeld = true
          return { _tag: "Done", value: 1 } as const
        }),
      remove: () =>
        Effect.sync(() => {
          isHeld = false
          givenBack.push(world.now)
          return { _tag: "Done", value: undefined } as const
        })
    }
    const program = Effect.gen(function* () {
      yield* join(["streaming-node"])
      yield* Effect.sleep("5 minutes")
      assert.isTrue(isHeld)
    })
    world.run(
      Effect.scoped(program).pipe(
        Effect.provideService(Bus, { payloadMax: 1_000_000, serve: () => Effect.void } as unknown as Bus["Service"]),
        Effect.provideService(Leases, leases as unknown as Leases["Service"]),
        Effect.provideService(Sites, { fires: (site) => site === "a lease is given back", time: () => 0 }),
        Effect.provide(Node.layer("0.0.0", { settings: { leaseTtlMs: 3_000 } }))
      )
    )
    // The last time is when it ends.
    const apart = givenBack.slice(1, -1).map((at, i) => at - givenBack[i]!)
    assert.isAbove(apart.length, 2)
    for (const ms of apart) assert.isAtLeast(ms, 60_000)
  })
})

/** The nemesis counts what it struck, and not what it meant to strike. */
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { allRoles } from "../../runtime/roles.ts"
import { Cluster } from "../../sim/cluster.ts"
import { Nemesis } from "../../sim/faults.ts"
import type { Fault } from "../../sim/plan.ts"
import { World } from "../../sim/world.ts"

const struckBy = (faults: ReadonlyArray<Omit<Fault, "id" | "lengthMs">>) => {
  const world = new World("faults")
  const cluster = new Cluster(world, { nodes: [{ name: "a", roles: allRoles }], broker: { replicas: 1 } })
  const nemesis = new Nemesis(cluster, () => false)
  world.run(
    Effect.gen(function* () {
      cluster.start()
      yield* cluster.ready
      nemesis.strike(faults.map((fault, id) => ({ ...fault, id, lengthMs: 10_000 })))
      yield* Effect.sleep(60_000)
    })
  )
  return Object.fromEntries(Object.entries(nemesis.struck).map(([kind, { times }]) => [kind, times]))
}

describe("the nemesis", () => {
  it("counts what it strikes", () => {
    assert.deepStrictEqual(
      struckBy([
        { kind: "crash", target: "a", at: 1_000 },
        { kind: "pause", target: "a", at: 20_000 },
        { kind: "disconnect", target: "a", at: 32_000 },
        { kind: "election", target: "broker", at: 40_000, how: "crash" },
        { kind: "powerLoss", target: "broker", at: 55_000, strength: 200 }
      ]),
      { crash: 1, pause: 1, disconnect: 1, election: 1, powerLoss: 1 }
    )
  })

  it("does not count what finds nothing to strike", () => {
    assert.deepStrictEqual(
      struckBy([
        { kind: "crash", target: "a", at: 1_000 },
        { kind: "crash", target: "a", at: 2_000 },
        { kind: "pause", target: "a", at: 3_000 },
        { kind: "disconnect", target: "a", at: 4_000 },
        { kind: "election", target: "broker", at: 20_000, how: "cut off" },
        { kind: "powerLoss", target: "broker", at: 40_000, strength: 0 }
      ]),
      { crash: 1 }
    )
  })
})

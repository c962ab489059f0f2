/** Plans are made smaller to what is needed and no further, in any order of what ends first, and within their time. */
import { assert, describe, it } from "vitest"
import { type Fault, type Op, type Plan, planOf, planProblem } from "../../sim/plan.ts"
import { shrink, sizeOf } from "../../sim/shrink.ts"

const opsOf = (plan: Plan): ReadonlyArray<Op> => plan.clients.flatMap(({ ops }) => ops)
const has = <A extends { readonly id: number }>(all: ReadonlyArray<A>, id: number) => all.some((each) => each.id === id)

/** Each answer comes after another while, so that those of one batch end in any order. */
const slowly = (test: (plan: Plan) => boolean) => {
  let turn = 0
  return async (plan: Plan): Promise<boolean> => {
    for (let i = 0; i < ++turn % 5; i++) await undefined
    return test(plan)
  }
}

const never = () => false

/** A plan with enough of everything. */
const plan = Array.from({ length: 100 }, (_, seed) => planOf(seed)).find(
  (each) => each.faults.length > 20 && each.clients.length > 3 && each.topology.nodes.length > 3
)!
const crash: Fault = plan.faults[10]!
const [, , create, , write] = opsOf(plan)
const last = opsOf(plan).at(-1)!

describe("a plan that fails", () => {
  it("is made as small as what makes it fail", async () => {
    let seen = 0
    const fails = (each: Plan) => {
      assert.isUndefined(planProblem(each))
      return has(opsOf(each), create!.id) && has(opsOf(each), last.id) && has(each.faults, crash.id)
    }
    const small = await shrink(plan, { fails: slowly(fails), width: 2, isOver: never, smaller: () => seen++ })
    assert.isTrue(fails(small))
    assert.isAbove(seen, 5)
    const { clients, faults, nodes, operations } = sizeOf(small)
    const owners = new Set([create!, last].map(({ id }) => plan.clients.findIndex(({ ops }) => has(ops, id))))
    assert.deepStrictEqual([faults, operations, clients], [1, 2, owners.size])
    assert.isAtMost(nodes, 2)
    assert.strictEqual(small.world.preempt, 0)
    assert.strictEqual(small.topology.replicas, 1)
    for (const op of opsOf(small)) if ("keys" in op) assert.strictEqual(op.keys.length, 1)
  })

  it("is made the same whichever of its runs ends first", async () => {
    const fails = (each: Plan) => has(opsOf(each), write!.id) && each.faults.length >= 3
    const ways = [1, 2, 3].map((width) => shrink(plan, { fails: slowly(fails), width, isOver: never }))
    const [one, two, three] = await Promise.all(ways)
    assert.strictEqual(one!.faults.length, 3)
    assert.deepStrictEqual(two, one)
    assert.deepStrictEqual(three, one)
  })

  it("that only fails by chance is tried with other chances", async () => {
    // Of its whole it fails with its seed, of a part of it with another one alone.
    const fails = (each: Plan) => each === plan || (each.seed !== plan.seed && has(opsOf(each), write!.id))
    const small = await shrink(plan, { fails: slowly(fails), width: 2, isOver: never })
    assert.strictEqual(small.seed, `${plan.seed}~1`)
    assert.deepStrictEqual([sizeOf(small).faults, sizeOf(small).operations], [0, 1])
  })

  it("stays as it is when nothing can be left out, and when the time is over", async () => {
    const asItIs = await shrink(plan, { fails: async () => false, width: 2, isOver: never })
    assert.strictEqual(asItIs, plan)
    let tried = 0
    const inTime = await shrink(plan, { fails: async () => ++tried > 0, width: 2, isOver: () => tried >= 4 })
    assert.isAtMost(tried, 4)
    assert.isBelow(sizeOf(inTime).operations, sizeOf(plan).operations)
  })
})

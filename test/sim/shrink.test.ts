/** Plans are made smaller to what is needed and no further, in any order of what ends first, and within their time. */
import { assert, describe, it } from "vitest"
import { onlyOps, opsOf } from "../../sim/cuts.ts"
import { planOf } from "../../sim/draw.ts"
import { encodePlan, type Fault, type Plan, planProblem } from "../../sim/plan.ts"
import type { Shown } from "../../sim/search.ts"
import { Pool } from "../../sim/cli/pool.ts"
import { sameAs, shrink, sizeOf } from "../../sim/shrink.ts"
import { type Failure, failuresOf } from "../../sim/summary.ts"
import { chanceOf } from "../../sim/world.ts"

const has = <A extends { readonly id: number }>(all: ReadonlyArray<A>, id: number) => all.some((each) => each.id === id)

/** Each answer comes after another while, so that those of one batch end in any order. */
const slowly = (test: (plan: Plan) => boolean, shown: Shown = []) => {
  let turn = 0
  return async (plan: Plan): Promise<Shown | undefined> => {
    for (let i = 0; i < ++turn % 5; i++) await undefined
    return test(plan) ? shown : undefined
  }
}

const never = () => false

/** A plan with enough of everything. */
const plan = Array.from({ length: 100 }, (_, seed) => planOf(seed)).find(
  (each) => each.faults.length > 20 && each.clients.length > 3 && each.topology.nodes.length > 3
)!
const crash: Fault = plan.faults[10]!
const [, , create, , write] = plan.clients.flatMap(({ ops }) => ops)
const last = plan.clients.at(-1)!.ops.at(-1)!

describe("the same failure", () => {
  const failure = (fault: Failure["fault"], detail: string): Failure => ({ fault, detail, operations: [] })
  const isSame = (first: Failure, ...others: ReadonlyArray<Failure>) =>
    others.map((other) => sameAs(plan, [first])({ ...other }))

  it("is that of one property, with other operations, rows, collections and times", () => {
    const [name = "", another = ""] = new Set(opsOf(plan).map(({ collection }) => collection))
    const silence = failure("convergence", `after the faults: Get of ${name}: nobody answered`)
    const same = failure("convergence", `after the faults: Search of ${another}: nobody answered`)
    const other = failure("convergence", "operation 17 (Get) has not ended")
    assert.deepStrictEqual(isSame(silence, same, other, { ...same, fault: "limits" }), [true, false, false])
    const came = failure(
      "deleted",
      "at 4456448092: k12 came, and was deleted by record 55 of channel 0 (delete, 44564)"
    )
    const went = failure("deleted", "at 44580: 1152921 came, and was deleted by record 3 of channel 11 (delete, 9)")
    assert.deepStrictEqual(isSame(came, went), [true])
    // All that the whole plan shows of it will do.
    assert.isTrue(sameAs(plan, [silence, other])(failure("convergence", "operation 4 (Flush) has not ended")))
  })

  it("is no longer one when a run is only late", async () => {
    const died = failure("died", "seed 1, at 30.000 ms: deadlock: nothing is left that could happen\nsomething")
    const again = failure("died", "seed 1~2, at 410.250 ms: deadlock: nothing is left that could happen\nother")
    const pool = new Pool({ patienceMs: 1 })
    try {
      const { summary } = await pool.run("1")
      const [late] = failuresOf(summary)
      assert.strictEqual(late?.fault, "late")
      assert.deepStrictEqual(isSame(died, again, late!), [true, false])
      assert.deepStrictEqual(isSame(late!, late!), [false])
    } finally {
      pool.close()
    }
  })
})

describe("a plan that fails", () => {
  it("is made as small as what makes it fail", async () => {
    let seen = 0
    const fails = (each: Plan) => {
      assert.isUndefined(planProblem(each))
      assert.isNotEmpty(encodePlan(each))
      return has(opsOf(each), create!.id) && has(opsOf(each), last.id) && has(each.faults, crash.id)
    }
    const small = await shrink(plan, [], { fails: slowly(fails), width: 2, isOver: never, smaller: () => seen++ })
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

  it("is first cut down to what came shortly before the operation that shows it", async () => {
    const late = opsOf(plan).filter(({ at }) => at > 60_000)
    const [before, shows] = [late[0]!, late[1]!]
    const tried: Array<Plan> = []
    const fails = (each: Plan) => {
      tried.push(each)
      return has(opsOf(each), before.id) && has(opsOf(each), shows.id)
    }
    await shrink(plan, [shows.id], { fails: slowly(fails, [shows.id]), width: 1, isOver: () => tried.length === 2 })
    const [first] = tried
    const { chaosMs, warmUpMs } = first!.phases
    assert.isTrue(has(opsOf(first!), before.id) && has(opsOf(first!), shows.id))
    assert.isBelow(sizeOf(first!).operations, sizeOf(plan).operations / 10)
    assert.isBelow(chaosMs, plan.phases.chaosMs / 10)
    for (const { at, kind } of opsOf(first!)) {
      assert.isAtMost(at, warmUpMs + chaosMs)
      if (kind !== "create") assert.isAtLeast(at, warmUpMs)
    }
    for (const { at, lengthMs } of first!.faults) assert.isAtMost(at + lengthMs, warmUpMs + chaosMs)
  })

  it("is made the same whichever of its runs ends first", async () => {
    const fails = (each: Plan) => has(opsOf(each), write!.id) && each.faults.length >= 3
    const ways = [1, 2, 3].map((width) => shrink(plan, [write!.id], { fails: slowly(fails), width, isOver: never }))
    const [one, two, three] = await Promise.all(ways)
    assert.strictEqual(one!.faults.length, 3)
    assert.deepStrictEqual(two, one)
    assert.deepStrictEqual(three, one)
  })

  it("that only fails by chance is tried with other chances", async () => {
    // Of its whole it fails with its seed, of a part of it with another one alone.
    const fails = (each: Plan) => each === plan || (each.seed !== plan.seed && has(opsOf(each), write!.id))
    const small = await shrink(plan, [], { fails: slowly(fails), width: 2, isOver: never })
    assert.strictEqual(small.seed, `${plan.seed}~1`)
    assert.deepStrictEqual([sizeOf(small).faults, sizeOf(small).operations], [0, 1])
  })

  it("that seldom fails is made small all the same: if one in ten runs does, always; if one in fifty, often", async () => {
    const isSmall = async (whole: Plan, probability: number) => {
      const one = opsOf(whole)[4]!
      const { id } = whole.faults[10]!
      let tried = 0
      const fails = (each: Plan) => {
        tried++
        return has(opsOf(each), one.id) && has(each.faults, id) && chanceOf(encodePlan(each)).happens(probability)
      }
      const small = await shrink(whole, [], { fails: slowly(fails), width: 1, isOver: () => tried >= 1_500 })
      const { faults, operations } = sizeOf(small)
      return small !== whole && faults <= 5 && operations <= 30
    }
    const large = Array.from({ length: 100 }, (_, seed) => planOf(seed)).filter(({ faults }) => faults.length > 20)
    const some = large.slice(0, 12)
    assert.strictEqual(some.length, 12)
    const counts = { always: 0, often: 0 }
    for (const each of some) {
      if (await isSmall(each, 0.1)) counts.always++
      if (await isSmall(each, 0.02)) counts.often++
    }
    assert.strictEqual(counts.always, some.length)
    // Each step needs some fifty runs, and there are no more than thirty steps in 1,500.
    assert.isAtLeast(counts.often, some.length / 3)
  })

  it("is not tried twice", async () => {
    const seen = new Set<string>()
    const fails = (each: Plan) => {
      const text = encodePlan(each)
      assert.isFalse(seen.has(text))
      seen.add(text)
      return false
    }
    const part = onlyOps(plan, opsOf(plan).slice(0, 50))
    await shrink(part, [], { fails: slowly(fails), width: 2, isOver: never })
    assert.isAbove(seen.size, 10)
  })

  it("stays as it is when nothing can be left out, and when the time is over", async () => {
    const part = onlyOps(plan, opsOf(plan).slice(0, 50))
    const asItIs = await shrink(part, [], { fails: async () => undefined, width: 2, isOver: never })
    assert.strictEqual(asItIs, part)
    let tried = 0
    const fails = async () => (++tried > 0 ? [] : undefined)
    const inTime = await shrink(plan, [], { fails, width: 2, isOver: () => tried >= 4 })
    assert.isAtMost(tried, 4)
    assert.isBelow(sizeOf(inTime).operations, sizeOf(plan).operations)
  })
})

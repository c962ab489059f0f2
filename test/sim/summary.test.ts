/** What many runs come to together, and when that is nothing. */
import { assert, describe, it } from "vitest"
import { codeOf, failureLines, seedsText } from "../../sim/cli/seeds.ts"
import { faultNames } from "../../sim/plan.ts"
import { doubtsOf, lost, type Summary, totalsOf } from "../../sim/summary.ts"

const struck = Object.fromEntries(faultNames.map((kind) => [kind, { times: 1, inFlight: 1 }]))
const passed: Summary = { ...lost("1", {}), struck }
const vacuous: Summary = { ...passed, vacuous: ["nothing was flushed"] }
const failed: Summary = { ...passed, died: "it died" }

const many = (...some: ReadonlyArray<readonly [count: number, each: Summary]>) =>
  totalsOf(
    some.flatMap(([count, each]) => Array.from({ length: count }, () => each)),
    []
  )

describe("many runs", () => {
  it("prove something if most pass and each kind of fault strikes", () => {
    assert.deepStrictEqual(doubtsOf(many([150, passed], [50, vacuous])), [])
    assert.deepStrictEqual(doubtsOf(many([1, passed])), [])
  })

  it("prove nothing if none passes, be they few or many", () => {
    assert.deepStrictEqual(doubtsOf(many([3, vacuous])), ["no run passed"])
    assert.include(doubtsOf(many([150, vacuous], [50, failed])), "no run passed")
  })

  it("prove nothing if more than a quarter are vacuous, of those that are many", () => {
    assert.deepStrictEqual(doubtsOf(many([149, passed], [51, vacuous])), [
      "more than a quarter of the runs are vacuous: 51 of 200"
    ])
    assert.deepStrictEqual(doubtsOf(many([1, passed], [198, vacuous])), [])
  })

  it("prove nothing if a kind of fault never strikes, of those that are many", () => {
    const { crash: _, ...others } = struck
    assert.deepStrictEqual(doubtsOf(many([200, { ...passed, struck: others }])), ["never struck: crash"])
    assert.deepStrictEqual(doubtsOf(many([199, { ...passed, struck: others }])), [])
    // Its times are all that counts: the table shows it, in however few.
    assert.deepStrictEqual(doubtsOf(many([199, { ...passed, struck: others }], [1, passed])), [])
  })

  it("are vacuous for reasons in words", () => {
    const why = [
      "too few writes were acknowledged: 3 of 40",
      "too few operations were carried out: 1",
      "nothing was flushed"
    ]
    const others = ["too few writes were acknowledged: 0 of 2"]
    assert.deepStrictEqual(many([1, { ...passed, vacuous: why }], [2, { ...passed, vacuous: others }]).vacuous, [
      ["too few writes were acknowledged", 3],
      ["too few operations were carried out", 1],
      ["nothing was flushed", 1]
    ])
  })

  it("name the operations that show a failure, and do not count them", () => {
    const lineOf = (...operations: ReadonlyArray<number>) =>
      failureLines({ ...passed, violations: [{ property: "fresh", detail: "old", operations, keys: [] }] }).join()
    assert.strictEqual(lineOf(), "  fresh: old")
    assert.strictEqual(lineOf(4), "  fresh: old (operation 4)")
    assert.strictEqual(lineOf(4, 7), "  fresh: old (operations 4 and 7)")
    assert.strictEqual(lineOf(1, 2, 3, 4, 5), "  fresh: old (operations 1, 2, 3, 4 and 5)")
    assert.strictEqual(lineOf(1, 2, 3, 4, 5, 6), "  fresh: old (operations 1, 2, 3, 4, 5 and others)")
  })

  it("say so, and are red", () => {
    const totals = many([2, vacuous])
    const report = {
      totals,
      runs: [vacuous, vacuous],
      failed: [],
      doubts: doubtsOf(totals),
      seconds: 1,
      interrupted: false,
      left: 0,
      twice: 0,
      bug: undefined
    }
    assert.strictEqual(codeOf(report), 1)
    assert.strictEqual(codeOf({ ...report, doubts: [] }), 0)
    assert.match(seedsText(report), /0 passed, 2 vacuous, 0 failed\nTHIS PROVES NOTHING: no run passed$/)
  })
})

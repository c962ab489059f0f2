/** Sites in the code: which fire and how often, and that none does in production. */
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { buggify, late, Sites, stall } from "../../runtime/buggify.ts"
import { seedsText } from "../../sim/cli/seeds.ts"
import { sitesInSources } from "../../sim/cli/sites.ts"
import { type Summary, totalsOf } from "../../sim/summary.ts"
import { World } from "../../sim/world.ts"

const PASSES = 400
const passes = Effect.all(Array.from({ length: PASSES }, () => buggify("a")))

describe("a site", () => {
  it("never fires where nobody says so", async () => {
    assert.isFalse((await Effect.runPromise(passes)).includes(true))
    await Effect.runPromise(Effect.andThen(stall("b", 1_000), late("c", 1_000)))
    assert.isFalse((await Effect.runPromise(Sites)).fires("d"))
  })

  it("is active in a quarter of the runs, and then fires at a quarter of its passes, on every node and in every life", () => {
    const counts: Array<number> = []
    for (let seed = 0; seed < 400; seed++) {
      const world = new World(seed, { buggify: true })
      const fired = world.run(passes).filter((fires) => fires).length
      assert.strictEqual(world.fired.get("a") ?? 0, fired)
      if (fired > 0) counts.push(fired / PASSES)
    }
    assert.approximately(counts.length / 400, 0.25, 0.08)
    for (const rate of counts) assert.approximately(rate, 0.25, 0.1)
    assert.isAbove(new Set(counts).size, 10)
  })

  it("is active or not whatever others are, and does not change what else is drawn", () => {
    const alone = new World("alone", { buggify: true })
    const other = new World("alone", { buggify: true })
    const names = Array.from({ length: 100 }, (_, i) => `site ${i}`)
    const activeIn = (world: World, asked: ReadonlyArray<string>) => {
      const sure = { ...world.chance("any"), happens: () => true }
      return asked.filter((site) => world.fires(site, sure))
    }
    assert.deepStrictEqual(activeIn(alone, names.toReversed()).toReversed(), activeIn(other, names))
    const none = new World("alone", { buggify: false })
    assert.strictEqual(none.chance("order").next(), alone.chance("order").next())
  })

  it("that stalls does so in virtual time, no longer than it says", () => {
    const took: Array<number> = []
    for (let seed = 0; seed < 100; seed++) {
      const world = new World(seed, { buggify: true, preempt: 0 })
      world.run(stall("b", 2_000))
      if (world.fired.has("b")) took.push(world.now)
    }
    assert.isAbove(took.length, 1)
    for (const ms of took) assert.isTrue(ms >= 1 && ms <= 2_000, `${ms}`)
  })

  it("that is late is so by what it says, and by nothing where it does not fire", () => {
    const took = new Set<number>()
    for (let seed = 0; seed < 100; seed++) {
      const world = new World(seed, { buggify: true, preempt: 0 })
      world.run(late("b", 2_000))
      took.add(world.fired.has("b") ? world.now : -world.now)
    }
    assert.deepStrictEqual(took, new Set([0, 2_000]))
  })

  it("has a name of its own", async () => {
    const sites = await sitesInSources()
    assert.isAtLeast(sites.length, 25)
    assert.deepStrictEqual(sites, [...new Set(sites)])
  })

  it("is in the table of many seeds, also if it never fired", () => {
    const summary = (fired: Summary["fired"]): Summary => ({
      seed: "1",
      violations: [],
      vacuous: [],
      hash: "x",
      checkpoints: [],
      events: 1,
      ms: 1,
      operations: { asked: 0, done: 0, unknown: 0 },
      struck: {},
      fired
    })
    const runs = [summary({ b: 3 }), summary({ a: 1, b: 4 })]
    const totals = totalsOf(runs, ["a", "b", "never"])
    assert.deepStrictEqual(totals.sites, [
      { site: "a", times: 1, seeds: 1 },
      { site: "b", times: 7, seeds: 2 },
      { site: "never", times: 0, seeds: 0 }
    ])
    const text = seedsText({
      totals,
      runs,
      failed: [],
      doubts: [],
      interrupted: false,
      seconds: 1,
      left: 0,
      twice: 0,
      bug: undefined
    })
    assert.match(text, /never +0 +0/)
  })
})

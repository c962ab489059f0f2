/** The page of a run says what is wrong and shows who did what when, and needs nothing that is not in it. */
import { assert, describe, it } from "vitest"
import { violation } from "../../sim/checks/evidence.ts"
import { planOf } from "../../sim/draw.ts"
import { report } from "../../sim/report.ts"
import { runPlan } from "../../sim/run.ts"

const plan = Array.from({ length: 20 }, (_, seed) => planOf(seed)).find(({ faults }) => faults.length > 5)!
const result = runPlan(plan, { keep: { from: 1, to: Infinity } })
const read = result.evidence.operations.find(({ asked, outcome }) => asked._tag === "Get" && outcome?._tag === "Ok")!
const written = result.evidence.operations.find(
  ({ asked, outcome }) => asked._tag === "Upsert" && outcome?._tag === "Ok"
)!
const key = written.asked._tag === "Upsert" ? written.asked.rows[0]!.key : 0
const bad = violation("fresh", 'a <row> & "more"', { operations: [written.id, read.id], keys: [key] })
const page = report(plan, { ...result, violations: [bad] }, "npm run sim -- replay a.json")

/** All that is opened is closed, in that order. */
const unbalanced = (html: string): ReadonlyArray<string> => {
  const open: Array<string> = []
  const wrong: Array<string> = []
  for (const [, slash, name, rest] of html.matchAll(/<(\/?)([a-zA-Z][a-zA-Z0-9]*)((?:"[^"]*"|[^>"])*)>/g)) {
    if (name === "meta" || rest!.endsWith("/")) continue
    if (slash === "") open.push(name!)
    else if (open.pop() !== name) wrong.push(name!)
  }
  return [...wrong, ...open]
}

const titles = [...page.matchAll(/<title>([^<]*)<\/title>/g)].map(([, text]) => text!)

describe("the page of a run", () => {
  it("is whole, and needs nothing from elsewhere", () => {
    assert.isTrue(page.startsWith("<!doctype html>"))
    assert.deepStrictEqual(unbalanced(page), [])
    assert.notMatch(page, /\b(?:src|href)=|https?:|@import|url\(|<script/)
    assert.notMatch(page, /NaN|undefined|\[object/)
  })

  it("says what must hold and does not, with the rows and operations concerned", () => {
    assert.include(page, "npm run sim -- replay a.json")
    assert.include(page, "a &lt;row&gt; &amp; &quot;more&quot;")
    assert.include(page, "a strong read sees what was acknowledged before")
    assert.include(page, "The rows concerned")
    assert.include(page, `{&quot;op&quot;:${written.id},&quot;row&quot;:0}`)
    assert.match(page, /class="ok concerned"/)
  })

  it("has a lane for each node and client, and each operation and fault in it", () => {
    const lanes = [...plan.topology.nodes, ...plan.clients].map(({ name }) => name)
    for (const name of lanes) assert.include(page, `>${name}</text>`)
    const { faults, operations } = { faults: plan.faults, operations: result.evidence.operations }
    for (const { id } of operations) assert.isTrue(titles.some((title) => title.startsWith(`operation ${id}: `)))
    for (const { id } of faults) assert.isTrue(titles.some((title) => title.startsWith(`fault ${id}: `)))
    assert.isAbove(faults.length, 5)
  })

  it("draws messages between those who sent and got them, not more than can be looked at", () => {
    const messages = titles.filter((title) => title.startsWith("elanus."))
    assert.isAbove(messages.length, 100)
    assert.isBelow((page.match(/class="message"/g) ?? []).length, 2_000)
    const parties = new Set([...plan.topology.nodes, ...plan.clients].map(({ name }) => name))
    const between = messages.filter((title) => {
      const [, from, to] = /: (\S+) to (\S+), /.exec(title)!
      return parties.has(from!) && parties.has(to!)
    })
    assert.isAbove(between.length, 50)
  })

  it("says of a run without a violation that nothing is wrong, and of one that died how", () => {
    assert.include(report(plan, { ...result, violations: [] }, ""), "nothing is wrong")
    assert.include(report(plan, { ...result, died: "deadlock" }, ""), "deadlock")
  })
})

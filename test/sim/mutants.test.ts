/** The tables of planted bugs: each must fit the source as it is, or nobody would notice that it plants nothing. */
import { readFileSync } from "node:fs"
import { stripTypeScriptTypes } from "node:module"
import { assert, describe, it } from "vitest"
import { properties } from "../../sim/checks/evidence.ts"
import { edited, urlOf } from "../../sim/mutate.ts"
import { mutants } from "../../sim/mutants.ts"

describe("planted bugs", () => {
  it("fit the sources, once each, and leave them readable", () => {
    for (const mutant of mutants) {
      const source = readFileSync(urlOf(mutant), "utf8")
      assert.doesNotThrow(() => stripTypeScriptTypes(edited(mutant, source)), undefined, mutant.name)
    }
  })

  it("are said to be wrong when they do not", () => {
    const [mutant] = mutants
    assert.throws(() => edited(mutant!, "something else"), mutant!.name)
    assert.throws(() => edited(mutant!, mutant!.find.repeat(2)), mutant!.name)
  })

  it("are thirty at least, two at least for each property, and no two of one name", () => {
    assert.isAtLeast(mutants.length, 30)
    for (const property of Object.keys(properties)) {
      assert.isAtLeast(mutants.filter(({ breaks }) => breaks === property).length, 2, property)
    }
    assert.strictEqual(new Set(mutants.map(({ name }) => name)).size, mutants.length)
  })
})

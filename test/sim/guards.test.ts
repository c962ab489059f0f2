/** The simulator watched: its guards have nothing against it as it is, and something against it hollowed out. */
import { readFileSync } from "node:fs"
import { stripTypeScriptTypes } from "node:module"
import { assert, describe, it } from "vitest"
import { problemsOf } from "../../sim/cli/hollows.ts"
import { guards } from "../../sim/guards.ts"
import { hollows } from "../../sim/hollow.ts"
import { edited, urlOf } from "../../sim/mutate.ts"

describe("the guards", () => {
  for (const guard of guards) {
    it(`have nothing to say of ${guard.name}`, () => {
      assert.deepStrictEqual(guard.problems(), [])
    })
  }

  it("see what is wrong, where something is", async () => {
    assert.deepStrictEqual(await problemsOf(undefined, "sight"), [])
  })
})

describe("hollow simulators", () => {
  it("are twelve at least, and fit the sources", () => {
    assert.isAtLeast(hollows.length, 12)
    for (const hollow of hollows) {
      const source = readFileSync(urlOf(hollow), "utf8")
      assert.doesNotThrow(() => stripTypeScriptTypes(edited(hollow, source)), undefined, hollow.name)
    }
  })

  /** Those that take a moment; the others are for `npm run sim -- mutants`. */
  const quick = hollows.filter(({ guard }) => guard !== "runs" && guard !== "sight")
  for (const hollow of quick) {
    it(`are noticed: ${hollow.name}`, async () => {
      assert.isNotEmpty(await problemsOf(hollow, hollow.guard))
    })
  }
})

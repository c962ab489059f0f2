/** A run that is another one in another process is seen where one run is asked for, and not only among many. */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { runOne } from "../../sim/cli/one.ts"
import { shrinkPlan } from "../../sim/cli/shrink.ts"
import { planOf } from "../../sim/draw.ts"
import { lost } from "../../sim/summary.ts"

const plan = planOf(1)

describe("one run", () => {
  let folder = ""
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "elanus-twice-"))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  /** A process for which every run is what `hash`, an expression, says. */
  const program = async (name: string, hash: string): Promise<string> => {
    const file = join(folder, `${name}.mjs`)
    const summary = { ...lost(plan.seed, {}), events: 1 }
    const answer = `{ summary: { ...${JSON.stringify(summary)}, hash: ${hash} }, kept: [] }`
    await writeFile(file, `process.on("message", () => process.send(${answer}))\n`)
    return file
  }
  const one = async (hash: string) => {
    const said: Array<string> = []
    const file = await program("one", hash)
    const code = await runOne(plan, { program: file }, (_, text) => said.push(text), { file: "plan.json" })
    return { code, said: said.join("\n") }
  }

  it("that is the same in two processes is a pass", async () => {
    const { code, said } = await one('"same"')
    assert.strictEqual(code, 0)
    assert.include(said, "nothing is wrong, and it was the same in two processes")
  })

  it("that is not has failed, by determinism", async () => {
    const { code, said } = await one("String(process.pid)")
    assert.strictEqual(code, 1)
    assert.match(said, /FAILED\n {2}determinism: the traces part/)
  })

  it("that is not can be made smaller", async () => {
    let answer: { readonly fault?: string; readonly tried?: number } = {}
    const out = join(folder, "small.json")
    const options = { program: await program("small", "String(process.pid)"), out }
    const code = await shrinkPlan(plan, options, (given) => {
      answer = given
    })
    assert.deepStrictEqual([code, answer.fault], [0, "determinism"])
    assert.isAbove(answer.tried!, 5)
  })
})

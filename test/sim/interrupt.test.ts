/** Whoever presses Ctrl-C is told what is known by then. */
import { spawn } from "node:child_process"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as after } from "node:timers/promises"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { codeOf, runSeeds, seedsText } from "../../sim/cli/seeds.ts"
import { shrinkPlan } from "../../sim/cli/shrink.ts"
import { planOf } from "../../sim/draw.ts"
import { decodePlan, encodePlan } from "../../sim/plan.ts"
import { type Size, sizeOf } from "../../sim/shrink.ts"
import { lost } from "../../sim/summary.ts"

const main = join(import.meta.dirname, "../../sim/main.ts")

describe("an interrupted simulator", { timeout: 120_000 }, () => {
  let folder = ""
  let program = ""
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "elanus-interrupt-"))
    program = join(folder, "fails.mjs")
    // Every seed fails, after a while, and every plan with so many faults: others are tried for long.
    const summary = JSON.stringify({ ...lost("", {}), hash: "same" })
    const died = 'job.plan === undefined || JSON.parse(job.plan).faults.length > 3 ? "it fell" : undefined'
    const answer = `process.send({ summary: { ...${summary}, seed: job.seed ?? "", died: ${died} }, kept: [] })`
    await writeFile(program, `process.on("message", (job) => setTimeout(() => ${answer}, 50))\n`)
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  const interruptAfter = (ms: number) => after(ms).then(() => process.emit("SIGINT"))

  it("says what many seeds showed so far, and keeps the plans of those that failed", async () => {
    const out = join(folder, "plans")
    const seeds = Array.from({ length: 1_000 }, (_, i) => String(i))
    const [report] = await Promise.all([runSeeds({ program, seeds, out }), interruptAfter(2_000)])
    assert.strictEqual(codeOf(report), 130)
    assert.isAbove(report.runs.length, 0)
    assert.isBelow(report.runs.length, 1_000)
    // Those that were on their way have not failed.
    assert.isTrue(report.runs.every(({ died }) => died === "it fell"))
    assert.strictEqual((await readdir(out)).length, report.failed.length)
    const text = seedsText(report)
    assert.include(text, `${1_000 - report.runs.length} seeds had not ended when it was interrupted`)
    assert.include(text, "seed 0 FAILED")
  })

  it("writes the smallest plan so far", async () => {
    const out = join(folder, "small.json")
    const plan = planOf(42)
    let after: Size | undefined
    const say = (answer: object) => {
      ;({ after } = answer as { readonly after: Size })
    }
    const [code] = await Promise.all([shrinkPlan(plan, { program, out }, say), interruptAfter(1_000)])
    assert.strictEqual(code, 130)
    const small = decodePlan(await readFile(out, "utf8"))
    assert.deepStrictEqual(sizeOf(small), after)
    assert.isBelow(encodePlan(small).length, encodePlan(plan).length)
  })

  it("ends with 130 and leaves nobody behind, though the signal reaches every process", async () => {
    const args = [main, "--seeds", "1000", "--canary", "--out", join(folder, "canary")]
    // A group of its own, as a terminal has it.
    const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", "pipe", "inherit"] })
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve))
    let text = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
    await after(8_000)
    process.kill(-child.pid!, "SIGINT")
    assert.strictEqual(await ended, 130)
    assert.match(text, /had not ended when it was interrupted/)
    assert.notMatch(text, /its process ended/)
    const plans = await readdir(join(folder, "canary"))
    assert.match(text, new RegExp(`0 passed, 0 vacuous, ${plans.length} failed`))
    assert.throws(() => process.kill(-child.pid!, 0), "ESRCH")
  })
})

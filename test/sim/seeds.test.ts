/** A seed is a run, the same one everywhere: in any process, on any machine, however Node was started. */
import { execFile } from "node:child_process"
import { mkdtemp, rm, symlink } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"
import { goldenDifferences } from "../../sim/cli/golden.ts"
import { Pool } from "../../sim/cli/pool.ts"
import { planOf } from "../../sim/draw.ts"
import type { Plan } from "../../sim/plan.ts"

const root = join(import.meta.dirname, "../..")
const run = promisify(execFile)

/** Its first seconds: without a compiler Node takes twenty times as long. */
const beginningOf = (plan: Plan): Plan => {
  const lastMs = plan.phases.warmUpMs + 10_000
  return {
    ...plan,
    clients: plan.clients.map((client) => ({ ...client, ops: client.ops.filter(({ at }) => at < lastMs) })),
    faults: plan.faults.filter(({ at, lengthMs }) => at + lengthMs < lastMs),
    phases: { ...plan.phases, chaosMs: 10_000 }
  }
}

describe("a seed", () => {
  // If the database is another one now, so are its traces: `npm run sim -- golden`.
  it("has the trace that it had when test/sim/golden.json was written", { timeout: 300_000 }, async () => {
    assert.deepStrictEqual(await goldenDifferences(), [])
  })

  it("gives the same trace with another hash seed, heap, time zone, language and folder", async () => {
    const traceOf = async (flags: ReadonlyArray<string>, env: object, cwd: string) => {
      const { stdout } = await run(process.execPath, [...flags, join(root, "sim/main.ts"), "--seed", "7", "--json"], {
        cwd,
        env: { ...process.env, ...env }
      })
      const { events, hash } = JSON.parse(stdout) as { readonly hash: string; readonly events: number }
      return { events, hash }
    }
    const here = await traceOf([], {}, root)
    assert.isAbove(here.events, 1_000)
    const there = { TZ: "Asia/Kathmandu", LC_ALL: "tr_TR.UTF-8", LANG: "tr_TR.UTF-8" }
    assert.deepStrictEqual(await traceOf([], there, tmpdir()), here)
  })

  it("gives the same trace without a compiler, as tsc builds it", { timeout: 300_000 }, async () => {
    const plan = beginningOf(planOf(3))
    const folder = await mkdtemp(join(tmpdir(), "elanus-build-"))
    const here = new Pool({ flags: ["--hash-seed=4711", "--max-old-space-size=300", "--no-opt"] })
    const bare = new Pool({ program: join(folder, "sim/cli/process.js"), flags: ["--jitless"] })
    try {
      // Node without a compiler cannot strip types either.
      const tsc = join(root, "node_modules/typescript/bin/tsc")
      const build = ["--noEmit", "false", "--rewriteRelativeImportExtensions", "--outDir", folder]
      await run(process.execPath, [tsc, "-p", root, ...build])
      for (const name of ["node_modules", "package.json"]) await symlink(join(root, name), join(folder, name))
      const [one, other] = await Promise.all([here.run(plan), bare.run(plan)])
      assert.isUndefined(one.summary.died)
      assert.isAbove(one.summary.events, 1_000)
      assert.deepStrictEqual(other.summary, one.summary)
    } finally {
      here.close()
      bare.close()
      await rm(folder, { recursive: true, force: true })
    }
  })
})

/** A seed is a run, the same one everywhere: in any process, on any machine, however Node was started. */
import { execFile, fork } from "node:child_process"
import { once } from "node:events"
import { realpathSync } from "node:fs"
import { mkdtemp, rm, symlink } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"
import { goldenDifferences } from "../../sim/cli/golden.ts"
import { Pool } from "../../sim/cli/pool.ts"
import { planOf } from "../../sim/draw.ts"
import type { Plan } from "../../sim/plan.ts"
import type { Summary } from "../../sim/summary.ts"

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
    /** The process that runs seeds, begun as is said here; and what it says of itself. */
    const traceOf = async (flags: ReadonlyArray<string>, env: object, cwd: string) => {
      const preload = `data:text/javascript,import v8 from "node:v8";process.send({
        heap: v8.getHeapStatistics().heap_size_limit, zone: new Intl.DateTimeFormat().resolvedOptions().timeZone,
        language: process.env.LC_ALL, folder: process.cwd(), flags: process.execArgv })`
      const child = fork(join(root, "sim/cli/process.ts"), [], {
        cwd,
        env: { ...process.env, ...env },
        execArgv: [...flags, "--import", preload.replaceAll(/\s+/g, " ")],
        stdio: ["ignore", "ignore", "inherit", "ipc"]
      })
      try {
        const [self] = (await once(child, "message")) as [{ readonly [what: string]: unknown }]
        child.send({ seed: "7" })
        const [{ summary }] = (await once(child, "message")) as [{ readonly summary: Summary }]
        return { self, trace: { events: summary.events, hash: summary.hash } }
      } finally {
        child.kill("SIGKILL")
      }
    }
    const here = await traceOf(["--hash-seed=1", "--max-old-space-size=4000"], { TZ: "UTC", LC_ALL: "C" }, root)
    assert.isAbove(here.trace.events, 1_000)
    const there = await traceOf(
      ["--hash-seed=4711", "--max-old-space-size=400", "--max-semi-space-size=1"],
      { TZ: "Asia/Kathmandu", LC_ALL: "tr_TR.UTF-8", LANG: "tr_TR.UTF-8" },
      tmpdir()
    )
    // They are not like each other, or it would prove nothing.
    const [one, other] = [here.self, there.self]
    assert.strictEqual(one["zone"], "UTC")
    assert.match(String(other["zone"]), /^Asia\/Kath?mandu$/)
    assert.isBelow(Number(other["heap"]), Number(one["heap"]) / 2)
    assert.deepStrictEqual([one["language"], other["language"]], ["C", "tr_TR.UTF-8"])
    assert.deepStrictEqual([one["folder"], other["folder"]], [realpathSync(root), realpathSync(tmpdir())])
    assert.include(one["flags"] as ReadonlyArray<string>, "--hash-seed=1")
    assert.include(other["flags"] as ReadonlyArray<string>, "--hash-seed=4711")
    assert.deepStrictEqual(there.trace, here.trace)
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

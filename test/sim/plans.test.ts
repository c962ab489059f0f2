/**
 * Runs that showed a bug once, kept for ever as plans in test/sim/plans/, small where they could be made small. They are
 * numbered in the order in which they came: the newest always run, and the rest as far as the time goes, from another one
 * on with each commit. As a change elsewhere changes what chance does to a run, each runs under a few seeds.
 */
import { execFileSync } from "node:child_process"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "vitest"
import { Pool } from "../../sim/cli/pool.ts"
import { decodePlan } from "../../sim/plan.ts"
import { failuresOf } from "../../sim/summary.ts"

const folder = join(import.meta.dirname, "plans")
const NEWEST = 20
const SEEDS = 3
const BUDGET_MS = 45_000

/** Differs from commit to commit; where there is no repository, nothing turns. */
const commitNumber = (): number => {
  try {
    return Number.parseInt(
      execFileSync("git", ["rev-parse", "HEAD"], { cwd: folder, encoding: "utf8" }).slice(0, 8),
      16
    )
  } catch {
    return 0
  }
}

describe("kept plans", async () => {
  const files = (await readdir(folder))
    .filter((name) => name.endsWith(".json"))
    .toSorted()
    .toReversed()
  const rest = files.slice(NEWEST)
  const turn = rest.length === 0 ? 0 : commitNumber() % rest.length
  const inTurn = [...files.slice(0, NEWEST), ...rest.slice(turn), ...rest.slice(0, turn)]
  const pool = new Pool()
  afterAll(() => pool.close())

  it("are numbered, and can be read", async () => {
    for (const name of files) {
      assert.match(name, /^\d{3}-[a-z0-9-]+\.json$/)
      decodePlan(await readFile(join(folder, name), "utf8"))
    }
    assert.strictEqual(new Set(files.map((name) => name.slice(0, 3))).size, files.length)
  })

  it("fail no more", { timeout: 10 * 60_000 }, async () => {
    const end = performance.now() + BUDGET_MS
    const failed: Array<string> = []
    let next = 0
    const work = async () => {
      while (next < inTurn.length && (next < NEWEST || performance.now() < end)) {
        const name = inTurn[next++]!
        const plan = decodePlan(await readFile(join(folder, name), "utf8"))
        for (let i = 0; i < SEEDS; i++) {
          const seed = i === 0 ? plan.seed : `${plan.seed}~${i}`
          const { summary } = await pool.run({ ...plan, seed })
          for (const { detail, fault } of failuresOf(summary)) failed.push(`${name}, seed ${seed}: ${fault}: ${detail}`)
        }
      }
    }
    await Promise.all(Array.from({ length: pool.size }, work))
    assert.deepStrictEqual(failed, [])
  })
})

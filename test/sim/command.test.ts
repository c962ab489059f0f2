/** `npm run sim` as people and CI use it: what it prints, what it writes, and how it ends. */
import { execFile } from "node:child_process"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import type { SeedsReport } from "../../sim/cli/seeds.ts"
import { planOf } from "../../sim/draw.ts"
import { decodePlan, encodePlan, faultNames } from "../../sim/plan.ts"
import type { Size } from "../../sim/shrink.ts"
import type { Summary } from "../../sim/summary.ts"

const program = join(import.meta.dirname, "../../sim/main.ts")

describe("npm run sim", { timeout: 300_000 }, () => {
  let folder = ""
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "elanus-sim-"))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  const sim = (...args: ReadonlyArray<string>) =>
    new Promise<{ readonly code: number; readonly out: string; readonly err: string }>((resolve) => {
      execFile(process.execPath, [program, ...args], { maxBuffer: 64 * 1024 * 1024, cwd: folder }, (error, out, err) =>
        resolve({ code: error === null ? 0 : Number(error.code), out, err })
      )
    })

  it("runs seeds, counts what struck, and runs some of them twice", async () => {
    const { code, err, out } = await sim("--seeds", "3", "--from", "100", "--json", "--out", join(folder, "none"))
    assert.strictEqual(err, "")
    const { failed, runs, totals, twice } = JSON.parse(out) as SeedsReport
    assert.deepStrictEqual([code, failed], [0, []])
    assert.deepStrictEqual(
      runs.map(({ seed }) => seed),
      ["100", "101", "102"]
    )
    assert.strictEqual(twice, 1)
    assert.isAbove(totals.done, 100)
    assert.deepStrictEqual(
      totals.faults.map(({ kind }) => kind),
      [...faultNames]
    )
    // What these three planned is what struck.
    const planned = new Set(["100", "101", "102"].flatMap((seed) => planOf(seed).faults.map(({ kind }) => kind)))
    assert.isAbove(planned.size, 5)
    const struck = totals.faults.filter(({ times }) => times > 0).map(({ kind }) => kind)
    assert.includeMembers([...planned], struck)
    assert.isAbove(struck.length, 3)
  })

  it("leaves out what has not begun when the time is over, and says so", async () => {
    const { out } = await sim("--seeds", "1000", "--within", "1", "--json", "--out", join(folder, "none"))
    const { left, runs } = JSON.parse(out) as SeedsReport
    assert.isAbove(runs.length, 0)
    assert.strictEqual(left, 1000 - runs.length)
    assert.isAbove(left, 0)
  })

  it("is red when a bug is planted that every seed shows: the canary", async () => {
    const out = join(folder, "canary")
    const seeds = await sim("--seeds", "4", "--canary", "--out", out)
    assert.strictEqual(seeds.code, 1)
    assert.match(seeds.out, /0 passed, 0 vacuous, 4 failed/)
    assert.match(
      seeds.out,
      /seed 2 FAILED\n {2}acknowledged, \d+ times: .*\n[^]*npm run sim -- --seed 2 --bug canary\n {2}its plan: \S+seed-2\.json/
    )
    assert.deepStrictEqual(
      (await readdir(out)).toSorted(),
      [0, 1, 2, 3].map((seed) => `seed-${seed}.json`)
    )
    const plan = join(out, "seed-2.json")
    assert.deepStrictEqual(decodePlan(await readFile(plan, "utf8")), planOf("2"))

    const again = await sim("replay", plan, "--bug", "canary", "--json")
    const { hash, violations } = JSON.parse(again.out) as Summary
    assert.strictEqual(again.code, 1)
    assert.strictEqual(violations[0]!.property, "acknowledged")
    const one = await sim("--seed", "2", "--bug", "canary", "--out", join(folder, "one"))
    assert.strictEqual(one.code, 1)
    assert.include(one.out, `seed 2: trace ${hash},`)
    assert.include(one.out, `its plan: ${join(folder, "one", "seed-2.json")}`)
    // Whoever follows what is printed sees it again, and is told why not who leaves the bug out.
    const lines = (path: string) =>
      ["replay", "shrink", "report"].map((verb) => `  npm run sim -- ${verb} ${path} --bug canary`).join("\n")
    assert.include(seeds.out, lines(join("canary", "seed-2.json")))
    assert.include(one.out, lines(join("one", "seed-2.json")))
    assert.include((await sim("replay", plan, "--bug", "canary")).out, lines(join("canary", "seed-2.json")))
    const other = await sim("shrink", plan)
    assert.strictEqual(other.code, 1)
    assert.include(other.out, "say which: --bug NAME")
    assert.strictEqual(await readFile(join(folder, "one", "seed-2.json"), "utf8"), await readFile(plan, "utf8"))

    const { code, out: said } = await sim("shrink", plan, "--bug", "canary", "--json")
    const { after, file } = JSON.parse(said) as { readonly after: Size; readonly file: string }
    assert.strictEqual(code, 0)
    assert.strictEqual(file, join(out, "seed-2.small.json"))
    // Nothing at all: what looks at it afterwards makes a collection of its own, and writes to it.
    assert.deepStrictEqual([after.faults, after.operations, after.clients, after.nodes], [0, 0, 0, 1])

    const page = await sim("report", file, "--bug", "canary")
    assert.deepStrictEqual([page.code, page.out.trim()], [0, join(out, "seed-2.small.html")])
    assert.include(await readFile(join(out, "seed-2.small.html"), "utf8"), "an acknowledged write is never lost")
  })

  it("says what is wrong with a command line, or with a plan", async () => {
    const broken = join(folder, "broken.json")
    await writeFile(broken, encodePlan({ ...planOf(1), topology: { ...planOf(1).topology, core: [] } }))
    for (const [said, ...args] of [
      ["there is no command nix", "nix"],
      ["--seeds takes a number, not x", "--seeds", "x"],
      ["--seeds must be at least 1", "--seeds", "0"],
      ["--within must be at least 1", "--within", "0"],
      ["Unknown option '--nix'", "--nix"],
      ["which plan?", "replay"],
      ["--processes must be at least 1", "--processes", "0"],
      ["--seed cannot do with --seeds", "--seed", "42", "--seeds", "10"],
      ["--seed cannot do with --from", "--seed", "42", "--from", "3"],
      ["many seeds cannot do with --drawn", "--drawn", "x"],
      ["--bug or --canary?", "--canary", "--bug", "nix"],
      ["there is no planted bug nix", "--seed", "1", "--bug", "nix"],
      ["there is no planted bug nix", "mutants", "nix"],
      ["what is more?", "replay", broken, "more"]
    ] as const) {
      const { code, err, out } = await sim(...args)
      assert.deepStrictEqual([code, out], [2, ""], args.join(" "))
      assert.include(err, said)
      assert.include(err, "npm run sim -- --seed S")
    }
    await writeFile(join(folder, "plan.json"), encodePlan(planOf(1)))
    for (const [said, ...args] of [
      ["nix.json is no plan: ENOENT: no such file", "replay", "nix.json"],
      ["nix.json is no plan: ENOENT: no such file", "report", "nix.json"],
      ["broken.json is no plan: the core has no proxy", "shrink", "broken.json"],
      ['package.json is no plan: Missing key at ["format"]', "report", join(import.meta.dirname, "../../package.json")],
      ["/nope is no folder", "report", "plan.json", "--out", "/nope/x.html"],
      ["it is a folder", "shrink", "plan.json", "--out", folder],
      ["plan.json is no folder", "--seeds", "3", "--canary", "--out", "plan.json"],
      ["plan.json is no folder", "--seed", "3", "--out", "plan.json/more"]
    ] as const) {
      const { code, err, out } = await sim(...args)
      assert.deepStrictEqual([code, out], [2, ""], args.join(" "))
      assert.match(err, /^sim: .*\n$/, args.join(" "))
      assert.include(err, said)
    }
    const help = await sim("--help")
    assert.strictEqual(help.code, 0)
    assert.include(help.out, "npm run sim -- shrink PLAN.json")
  })
})

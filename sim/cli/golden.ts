/**
 * The traces that twenty seeds had when somebody last looked, in test/sim/golden.json: where one is another now, the
 * simulator is not what it was, or this machine is not like the others. A change of the database changes them too;
 * `npm run sim -- golden` writes them anew, to be committed with it.
 */
import { execFile } from "node:child_process"
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { firstDifference, type Keep, type Passed, parting, type TraceEvent } from "../trace.ts"
import { Pool } from "./pool.ts"

export interface Golden {
  readonly [seed: string]: {
    readonly hash: string
    /** The first eight digits of each checkpoint, with spaces between. */
    readonly checkpoints: string
  }
}

const SEEDS: ReadonlyArray<string> = Array.from({ length: 20 }, (_, i) => `golden-${i + 1}`)
const FILE = "test/sim/golden.json"
const root = fileURLToPath(new URL("../..", import.meta.url))
const run = promisify(execFile)

const shortOf = (checkpoints: ReadonlyArray<string>) => checkpoints.map((each) => each.slice(0, 8))

export const readGolden = async (): Promise<Golden> => JSON.parse(await readFile(join(root, FILE), "utf8")) as Golden

const tracesNow = async (pool: Pool, seeds: ReadonlyArray<string>): Promise<ReadonlyArray<Passed>> =>
  (await Promise.all(seeds.map((seed) => pool.run(seed)))).map(({ summary }) => summary)

export const writeGolden = async (): Promise<readonly [answer: object, text: string]> => {
  const pool = new Pool()
  try {
    const traces = await tracesNow(pool, SEEDS)
    const golden: Golden = Object.fromEntries(
      traces.map(({ checkpoints, hash }, i) => [SEEDS[i]!, { hash, checkpoints: shortOf(checkpoints).join(" ") }])
    )
    await writeFile(join(root, FILE), `${JSON.stringify(golden, undefined, 2)}\n`)
    return [golden, `${FILE}: ${SEEDS.length} traces`]
  } finally {
    pool.close()
  }
}

/** Each seed whose trace is another one, with the event from which on it is. */
export const goldenDifferences = async (): Promise<ReadonlyArray<string>> => {
  const golden = await readGolden()
  const seeds = Object.keys(golden)
  const pool = new Pool()
  try {
    const traces = await tracesNow(pool, seeds)
    const found: Array<string> = []
    for (const [i, seed] of seeds.entries()) {
      const { checkpoints, hash } = golden[seed]!
      const { checkpoints: now, hash: hashNow } = traces[i]!
      if (hash === hashNow) continue
      const before = { hash, checkpoints: checkpoints.split(" ") }
      const keep = parting(before, { hash: hashNow, checkpoints: shortOf(now) })!
      // It costs a checkout: one is enough to look at.
      const where = found.length > 0 ? "" : `: ${await differenceFromThen(pool, seed, keep)}`
      found.push(`${seed}: trace ${hashNow} instead of ${hash}, from the events ${keep.from} to ${keep.to} on${where}`)
    }
    return found
  } finally {
    pool.close()
  }
}

/** The code as it was when the traces were written runs the seed once more, with the events that are of interest. */
const differenceFromThen = async (pool: Pool, seed: string, keep: Keep): Promise<string> => {
  const now = await pool.run(seed, { keep })
  const then = await keptThen(seed, keep).catch((cause: unknown) => String(cause))
  if (typeof then === "string") return `now it begins with ${JSON.stringify(now.kept[0])} (${then})`
  return firstDifference(then, now.kept) ?? "the code that wrote them gives other traces here too"
}

const keptThen = async (seed: string, keep: Keep): Promise<ReadonlyArray<TraceEvent>> => {
  const git = async (...args: ReadonlyArray<string>) => (await run("git", [...args], { cwd: root })).stdout.trim()
  const commit = await git("log", "-1", "--format=%H", "--", FILE)
  const folder = join(await mkdtemp(join(tmpdir(), "elanus-golden-")), "then")
  try {
    await git("worktree", "add", "--detach", folder, commit)
    await symlink(join(root, "node_modules"), join(folder, "node_modules"))
    const pool = new Pool({ program: join(folder, "sim/cli/process.ts") })
    try {
      return (await pool.run(seed, { keep })).kept
    } finally {
      pool.close()
    }
  } finally {
    await git("worktree", "remove", "--force", folder).catch(() => undefined)
    await rm(join(folder, ".."), { recursive: true, force: true })
  }
}

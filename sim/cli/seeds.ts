/** Many seeds on all cores: a bar while they run, then what they come to together, and each that failed. */
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { count, table } from "../../runtime/cli/output.ts"
import { planOf } from "../draw.ts"
import { encodePlan, type Plan } from "../plan.ts"
import { doubtsOf, failuresOf, type Summary, type Totals, totalsOf } from "../summary.ts"
import { bar } from "./bar.ts"
import { INTERRUPTED, isInterrupted } from "./interrupt.ts"
import { Pool, type PoolOptions, type Ran } from "./pool.ts"
import { sitesInSources } from "./sites.ts"
import { partedAt } from "./twice.ts"
import { commandLine, planLines } from "./usage.ts"

export interface SeedsOptions extends PoolOptions {
  readonly seeds: ReadonlyArray<string>
  /** Plans of runs that failed are written there. */
  readonly out: string
  /** Of the real world: seeds that have not begun by then are left out. */
  readonly withinMs?: number | undefined
}

export interface FailedRun {
  readonly summary: Summary
  /** Of its plan. */
  readonly file: string
}

export interface SeedsReport {
  readonly totals: Totals
  readonly runs: ReadonlyArray<Summary>
  readonly failed: ReadonlyArray<FailedRun>
  /** Why all together they prove nothing. Not of those with a planted bug. */
  readonly doubts: ReadonlyArray<string>
  /** Of the real world. */
  readonly seconds: number
  /** Somebody ended it. */
  readonly interrupted: boolean
  /** How many had not begun when the time was over, or had not ended when it was interrupted. */
  readonly left: number
  /** How many were run a second time, in another process. */
  readonly twice: number
  readonly bug: string | undefined
}

/** Every one of so many is run a second time. */
const TWICE_EVERY = 20

/** Writes it into a folder, for whoever replays, shrinks or edits it; answers with the file. */
export const keepPlan = async (folder: string, plan: Plan): Promise<string> => {
  await mkdir(folder, { recursive: true })
  const file = join(folder, `seed-${plan.seed}.json`)
  await writeFile(file, encodePlan(plan))
  return file
}

export const runSeeds = async (options: SeedsOptions): Promise<SeedsReport> => {
  const { bug, out, seeds, withinMs } = options
  const pool = new Pool(options)
  const started = performance.now()
  const progress = bar(seeds.length)
  let failing = 0
  let ended = 0
  let twice = 0
  const again = async (seed: string, ran: Ran): Promise<Summary> => {
    twice++
    return { ...ran.summary, parted: await partedAt(pool, seed, ran) }
  }
  const ran: Array<Summary | undefined> = []
  let isStopped = false
  let next = 0
  const work = async () => {
    while (next < seeds.length && performance.now() - started < (withinMs ?? Infinity)) {
      const index = next++
      const seed = seeds[index]!
      const one = await pool.run(seed)
      const isTwice = index % TWICE_EVERY === 0 && one.summary.hash !== ""
      const summary = isTwice ? await again(seed, one) : one.summary
      // Its process was killed.
      if (isStopped) return
      ran[index] = summary
      if (failuresOf(summary).length > 0) failing++
      progress.show(++ended, `${failing} failed`)
    }
  }
  try {
    // More than there are processes: while one runs again what another did, that one has something to do.
    isStopped = await isInterrupted(Promise.all(Array.from({ length: 2 * pool.size }, work)))
    const interrupted = isStopped
    const runs = ran.filter((each) => each !== undefined)
    const seconds = (performance.now() - started) / 1_000
    const failed: Array<FailedRun> = []
    for (const summary of runs.filter((each) => failuresOf(each).length > 0)) {
      failed.push({ summary, file: await keepPlan(out, planOf(summary.seed)) })
    }
    const totals = totalsOf(runs, await sitesInSources())
    const doubts = bug === undefined && !interrupted ? doubtsOf(totals) : []
    return { totals, runs, failed, doubts, seconds, interrupted, left: seeds.length - runs.length, twice, bug }
  } finally {
    progress.end()
    pool.close()
  }
}

/** With which code to end. */
export const codeOf = ({ doubts, failed, interrupted }: SeedsReport): number => {
  if (interrupted) return INTERRUPTED
  return failed.length > 0 || doubts.length > 0 ? 1 : 0
}

// ---- for people

const DETAIL_MAX = 300
const OPERATIONS_MAX = 5

const short = (text: string): string => {
  const line = text.replaceAll(/\s+/g, " ")
  return line.length > DETAIL_MAX ? `${line.slice(0, DETAIL_MAX)}...` : line
}

/** Their numbers, of which nobody should think that they say how many. */
const operationsText = (operations: ReadonlyArray<number>): string => {
  const some = operations.slice(0, OPERATIONS_MAX)
  if (some.length === 1) return `operation ${some[0]}`
  if (some.length < operations.length) return `operations ${some.join(", ")} and others`
  return `operations ${some.slice(0, -1).join(", ")} and ${some.at(-1)}`
}

/** A line for each property, with the first that is to say of it. */
export const failureLines = (summary: Summary): ReadonlyArray<string> => {
  const failures = failuresOf(summary)
  return [...new Set(failures.map(({ fault }) => fault))].map((fault) => {
    const mine = failures.filter((each) => each.fault === fault)
    const { detail, operations } = mine[0]!
    const where = operations.length === 0 ? "" : ` (${operationsText(operations)})`
    return `  ${fault}${mine.length > 1 ? `, ${mine.length} times` : ""}: ${short(detail)}${where}`
  })
}

const some = (runs: number) => `${count(runs)} ${runs === 1 ? "seed" : "seeds"}`

export const seedsText = ({
  bug,
  doubts,
  failed,
  interrupted,
  left,
  runs,
  seconds,
  totals,
  twice
}: SeedsReport): string => {
  const { asked, done, events, faults, hours, passed, sites, unknown, vacuous } = totals
  const lines = [
    table(
      ["fault", "struck", "in flight", "seeds", "in flight"],
      faults.map(({ inFlight, kind, seeds, seedsInFlight, times }) => [kind, times, inFlight, seeds, seedsInFlight])
    ),
    "",
    table(
      ["site", "fired", "seeds"],
      sites.map(({ seeds, site, times }) => [site, times, seeds])
    ),
    "",
    `${some(runs.length)} in ${seconds.toFixed(1)} s (${(runs.length / seconds).toFixed(2)} a second): ${hours.toFixed(1)} simulated hours, ${count(events)} events`,
    `${count(asked)} operations asked, ${count(done)} carried out (${count(done / runs.length)} a seed), ${count(unknown)} ended unknown`,
    `${some(twice)} run twice, in two processes`,
    ...(left === 0
      ? []
      : [`${some(left)} had not ${interrupted ? "ended when it was interrupted" : "begun when the time was over"}`]),
    ...vacuous.map(([why, times]) => `vacuous, ${some(times)}: ${why}`),
    ...failed.flatMap(({ file, summary }) => [
      "",
      `seed ${summary.seed} FAILED`,
      ...failureLines(summary),
      `  ${commandLine(bug, "--seed", summary.seed)}`,
      `  its plan: ${file}`,
      ...planLines(file, bug)
    ]),
    "",
    `${passed} passed, ${totals.runs - passed - totals.failed} vacuous, ${totals.failed} failed`,
    ...doubts.map((doubt) => `THIS PROVES NOTHING: ${doubt}`)
  ]
  return lines.join("\n")
}

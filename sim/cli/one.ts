/** One run: what it shows, and what it was, and whether in two processes it is the same one. */
import { count } from "../../runtime/cli/output.ts"
import type { Plan } from "../plan.ts"
import { failuresOf, type Summary } from "../summary.ts"
import { Pool, type PoolOptions } from "./pool.ts"
import { failureLines, keepPlan } from "./seeds.ts"
import { runTwice } from "./twice.ts"
import { planLines } from "./usage.ts"

export type Say = (answer: object, text: string) => void

const summaryText = (summary: Summary): string => {
  const { events, fired, hash, ms, operations, seed, struck, vacuous } = summary
  const failures = failureLines(summary)
  return [
    `seed ${seed}: trace ${hash}, ${count(events)} events in ${(ms / 1_000).toFixed(1)} simulated seconds`,
    `${operations.asked} operations asked, ${operations.done} carried out, ${operations.unknown} ended unknown`,
    ...Object.entries(struck).map(
      ([kind, { inFlight, times }]) => `${kind}: struck ${times} times, ${inFlight} in flight`
    ),
    ...Object.entries(fired).map(([site, times]) => `${site}: fired ${times} times`),
    ...vacuous.map((why) => `vacuous: ${why}`),
    ...(failures.length === 0 ? ["nothing is wrong, and it was the same in two processes"] : ["FAILED", ...failures])
  ].join("\n")
}

/** Where the plan is, or into which folder it goes if it fails. */
export type Where = { readonly file: string } | { readonly folder: string }

/** Says it, and answers with which code to end. */
export const runOne = async (plan: Plan, options: PoolOptions, say: Say, where: Where): Promise<number> => {
  const pool = new Pool(options)
  try {
    const summary = await runTwice(pool, plan)
    const isFailed = failuresOf(summary).length > 0
    if (!isFailed) {
      say(summary, summaryText(summary))
      return 0
    }
    const file = "file" in where ? where.file : await keepPlan(where.folder, plan)
    say(summary, [summaryText(summary), `  its plan: ${file}`, ...planLines(file, options.bug)].join("\n"))
    return 1
  } finally {
    pool.close()
  }
}

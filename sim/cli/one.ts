/** One run, in a process of its own: what it shows, and what it was. */
import { count } from "../../runtime/cli/output.ts"
import type { Plan } from "../plan.ts"
import { failuresOf, type Summary } from "../summary.ts"
import { Pool, type PoolOptions } from "./pool.ts"
import { failureLines, keepPlan } from "./seeds.ts"

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
    ...(failures.length === 0 ? ["nothing is wrong"] : ["FAILED", ...failures])
  ].join("\n")
}

/** Says it, and answers with which code to end. With `out`, a folder, the plan of one that failed is kept there. */
export const runOne = async (plan: Plan, options: PoolOptions, say: Say, out?: string): Promise<number> => {
  const pool = new Pool(options)
  try {
    const { summary } = await pool.run(plan)
    const isFailed = failuresOf(summary).length > 0
    const file = isFailed && out !== undefined ? await keepPlan(out, plan) : undefined
    say(summary, summaryText(summary) + (file === undefined ? "" : `\n  its plan: ${file}`))
    return isFailed ? 1 : 0
  } finally {
    pool.close()
  }
}

/**
 * The page of a run: the one command that runs a world in this process, as it needs all that is known of it. Whoever calls
 * has planted the bug.
 */
import type { Plan } from "../plan.ts"
import { commandLine } from "./usage.ts"

export const reportOf = async (plan: Plan, file: string, bug: string | undefined) => {
  const { report } = await import("../report.ts")
  const { runPlan } = await import("../run.ts")
  const { sealed } = await import("../sealed.ts")
  const { summaryOf } = await import("../summary.ts")
  const result = sealed(() => runPlan(plan, { keep: { from: 1, to: Infinity } }))
  return { html: report(plan, result, commandLine(bug, "replay", file)), summary: summaryOf(result) }
}

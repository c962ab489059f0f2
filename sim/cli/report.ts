/** The page of a run: the one command that runs a world in this process, as it needs all that is known of it. */
import { readFile } from "node:fs/promises"
import { plantBug } from "./bugs.ts"
import { commandLine } from "./usage.ts"

export const reportOf = async (file: string, bug: string | undefined) => {
  await plantBug(bug)
  const { decodePlan } = await import("../plan.ts")
  const { report } = await import("../report.ts")
  const { runPlan } = await import("../run.ts")
  const { sealed } = await import("../sealed.ts")
  const { summaryOf } = await import("../summary.ts")
  const plan = decodePlan(await readFile(file, "utf8"))
  const result = sealed(() => runPlan(plan, { keep: { from: 1, to: Infinity } }))
  return { html: report(plan, result, commandLine(bug, "replay", file)), summary: summaryOf(result) }
}

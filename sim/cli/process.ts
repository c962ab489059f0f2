/** A process that carries out runs, one after the other as they come; with a planted bug, if it is told one. */
import { enableCompileCache } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { plantBug } from "./bugs.ts"
import type { Keep } from "../trace.ts"

/** A seed, or a plan as text. */
export interface Job {
  readonly seed?: string | undefined
  readonly plan?: string | undefined
  /** Events of the trace to answer with. */
  readonly keep?: Keep | undefined
}

// Ctrl-C reaches everybody: whoever asked for the runs ends this process, when nothing more is to be had of it.
process.on("SIGINT", () => {})
enableCompileCache(join(tmpdir(), "elanus-sim-compiled"))
// Effect keeps an AsyncResource of every fiber that yields, for debuggers: a third of what a turn costs, a million times.
const { getBuiltinModule } = process
process.getBuiltinModule = ((name: string) =>
  name === "node:async_hooks" ? undefined : getBuiltinModule(name)) as typeof getBuiltinModule
await plantBug(process.argv[2])
// Only now: what was imported before would be without the bug.
const { planOf } = await import("../draw.ts")
const { decodePlan } = await import("../plan.ts")
const { runPlan } = await import("../run.ts")
const { sealed } = await import("../sealed.ts")
const { summaryOf } = await import("../summary.ts")

// Nobody reads the stacks of a thousand runs, and to write them down takes a fifth of the time.
Error.stackTraceLimit = 0

process.on("message", ({ keep, plan, seed }: Job) => {
  const decoded = plan === undefined ? planOf(seed!) : decodePlan(plan)
  const result = sealed(() => runPlan(decoded, { keep }))
  process.send!({ summary: summaryOf(result), kept: result.kept })
})
process.on("disconnect", () => process.exit())

/** A process with one planted bug, or none: it runs the seeds that it is told to, and says what each run shows. */
import { plant } from "./mutate.ts"
import { mutants } from "./mutants.ts"

/** What a run showed. */
export interface Shown {
  readonly seed: string
  readonly properties: ReadonlyArray<string>
  /** The first violation, in words, or what ended the world. */
  readonly detail: string
  readonly died: boolean
}

const name = process.argv[2]
if (name !== undefined) {
  const mutant = mutants.find((one) => one.name === name)
  if (mutant === undefined) throw new Error(`there is no mutant ${name}`)
  plant(mutant)
}
// Only now: what was imported before would be without the bug.
const { planOf } = await import("./plan.ts")
const { runPlan } = await import("./run.ts")
const { sealed } = await import("./sealed.ts")

process.on("message", (seed: string) => {
  const { died, violations } = sealed(() => runPlan(planOf(seed)))
  const shown: Shown = {
    seed,
    properties: [...new Set(violations.map(({ property }) => property))],
    detail: died?.split("\n", 1)[0] ?? violations[0]?.detail ?? "",
    died: died !== undefined
  }
  process.send!(shown)
})

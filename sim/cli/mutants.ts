/** Planted bugs, each hunted until the property that it breaks says so. */
import { availableParallelism } from "node:os"
import { runMutants, verdictText } from "../hunt.ts"
import { mutants } from "../mutants.ts"
import type { Say } from "./one.ts"
import { UsageError } from "./usage.ts"

export interface HuntOptions {
  /** For each, at most. */
  readonly seeds: number
  readonly processes: number | undefined
}

/** All of them, without names. Says it, and answers with which code to end. */
export const huntBugs = async (
  names: ReadonlyArray<string>,
  { processes = availableParallelism(), seeds }: HuntOptions,
  say: Say
): Promise<number> => {
  const unknown = names.find((name) => !mutants.some((each) => each.name === name))
  if (unknown !== undefined) throw new UsageError(`there is no planted bug ${unknown}`)
  const verdicts = await runMutants({
    mutants: mutants.filter(({ name }) => names.length === 0 || names.includes(name)),
    seeds,
    jobs: processes,
    said: (verdict) => process.stderr.write(`${verdictText(verdict)}\n`)
  })
  const survived = verdicts.filter(({ caught }) => caught === undefined)
  const tried = verdicts.flatMap((each) => (each.caught === undefined ? [] : [each.tried])).toSorted((a, b) => a - b)
  const median = tried[Math.floor(tried.length / 2)] ?? 0
  say(verdicts, `${tried.length} of ${verdicts.length} planted bugs were caught, half of them within ${median} seeds`)
  return survived.length > 0 ? 1 : 0
}

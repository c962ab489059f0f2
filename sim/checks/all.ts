/** The twelve properties of section 5 of the design, in their order, each with the check that holds a run against it. */
import { acknowledged } from "./01-acknowledged.ts"
import { deleted } from "./02-deleted.ts"
import { fresh } from "./03-fresh.ts"
import { oneTimestamp } from "./04-one-timestamp.ts"
import { answers } from "./05-answers.ts"
import { timestamps } from "./06-timestamps.ts"
import { oneWriter } from "./07-one-writer.ts"
import { keptRows } from "./08-kept-rows.ts"
import { needed } from "./09-needed.ts"
import { damage } from "./10-damage.ts"
import { convergence } from "./11-convergence.ts"
import { limited } from "./12-limits.ts"
import type { Check, Evidence, Violation } from "./evidence.ts"

export const checks: ReadonlyArray<Check> = [
  acknowledged,
  deleted,
  fresh,
  oneTimestamp,
  answers,
  timestamps,
  oneWriter,
  keptRows,
  needed,
  damage,
  convergence,
  limited
]

export const violationsOf = (evidence: Evidence): ReadonlyArray<Violation> =>
  checks.flatMap(({ check }) => check(evidence))

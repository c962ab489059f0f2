/**
 * Whether a run shows anything at all: one in which most writes were refused, or nothing was sealed, is no pass. Not a
 * property of the database, but of the run.
 */
import type { Evidence } from "./evidence.ts"
import { isRowWrite, own } from "./writes.ts"

const OPERATIONS_LEAST = 20
const WRITTEN_LEAST = 0.5
const WRITTEN_LEAST_CALM = 0.95

/** Why the run does not count; empty if it does. What differs from run to run stands behind a colon. */
export const vacuous = (evidence: Evidence): ReadonlyArray<string> => {
  const { observed, operations, steps } = evidence
  const why: Array<string> = []
  const done = operations.filter(({ outcome }) => outcome?._tag === "Ok").length
  if (done < OPERATIONS_LEAST) why.push(`too few operations were carried out: ${done}`)

  const tried = operations.filter((operation) => {
    const { outcome } = operation
    if (!isRowWrite(operation) || outcome?._tag === "Ok") return isRowWrite(operation)
    // What lost something should take nothing more.
    if (evidence.isBereft(operation) || evidence.isRotten(operation)) return false
    return !(outcome?._tag === "Refused" && own.has(outcome.code))
  })
  const written = tried.filter(({ outcome }) => outcome?._tag === "Ok").length
  const least = observed.isCalm ? WRITTEN_LEAST_CALM : WRITTEN_LEAST
  if (written === 0 || written < least * tried.length)
    why.push(`too few writes were acknowledged: ${written} of ${tried.length}`)

  const isSealed = steps.some(
    (step) =>
      step._tag === "Decided" &&
      step.changes.some((change) => change.kind === "manifest" && (change.value?.flushedTo ?? 0) > 0)
  )
  if (!isSealed) why.push("nothing was flushed")

  const isSeen = operations.some(({ outcome }) => {
    if (outcome?._tag !== "Ok") return false
    const { answer } = outcome
    if (answer._tag === "Rows") return answer.rows.length > 0
    if (answer._tag === "Hits") return answer.lists.some((hits) => hits.length > 0)
    return answer._tag === "Counted" && answer.rows > 0
  })
  if (!isSeen) why.push("no read showed a row")
  return why
}

/** No key twice in an answer; right order, right distances, and exactly the k best, as a sum by hand has them. */
import { type Check, violation } from "./evidence.ts"
import { type DifferenceKind, reads } from "./reads.ts"

const mine: ReadonlySet<DifferenceKind> = new Set<DifferenceKind>([
  "twice",
  "order",
  "distance",
  "fewer",
  "more",
  "farther"
])

export const answers: Check = {
  property: "answers",
  check: (evidence) =>
    reads(evidence).flatMap(({ differences, operation, timestamp }) =>
      differences
        .filter(({ kind }) => mine.has(kind))
        .map(({ detail, key }) =>
          violation("answers", `at ${timestamp}: ${detail}`, {
            operations: [operation.id],
            ...(key === undefined ? {} : { keys: [key] })
          })
        )
    )
}

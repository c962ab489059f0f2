/**
 * A query reads all shards at one timestamp: nothing in an answer is from after the one that it states, whichever
 * shard it is of. (What a shard has by then and does not show is missing, and is said so.)
 */
import { type Check, violation } from "./evidence.ts"
import { reads } from "./reads.ts"

export const oneTimestamp: Check = {
  property: "one-timestamp",
  check: (evidence) =>
    reads(evidence).flatMap(({ differences, operation, timestamp }) =>
      differences
        .filter(({ kind }) => kind === "future")
        .map(({ detail, key }) =>
          violation("one-timestamp", `at ${timestamp}: ${detail}`, {
            operations: [operation.id],
            ...(key === undefined ? {} : { keys: [key] })
          })
        )
    )
}

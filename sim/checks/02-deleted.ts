/** A deleted row never comes back, nor one that was overwritten: by the model at the answer's time, and by what clients know alone. */
import { type Check, keyText, violation } from "./evidence.ts"
import { reads } from "./reads.ts"
import { overtaken, sightings } from "./sightings.ts"
import { timestampOf } from "./writes.ts"

export const deleted: Check = {
  property: "deleted",
  check: (evidence) => [
    ...reads(evidence).flatMap(({ differences, operation, timestamp }) =>
      differences
        // Of a count that is too high nobody can say which row it was: one that is back, or one that is there twice.
        .filter(({ kind }) => kind === "deleted" || kind === "stale" || kind === "counted-more")
        .map(({ detail, key }) =>
          violation("deleted", `at ${timestamp}: ${detail}`, {
            operations: [operation.id],
            ...(key === undefined ? {} : { keys: [key] })
          })
        )
    ),
    ...sightings(evidence).flatMap((sighting) => {
      const { key, read, timestamp, writer } = sighting
      const over = overtaken(evidence, sighting).find(({ asked }) => asked._tag === "Delete")
      if (over === undefined || writer === undefined) return []
      const detail = `at ${timestamp} ${keyText(key)} came as operation ${writer.id} wrote it; operation ${over.id} deleted it later, and was acknowledged at ${timestampOf(over)}`
      return [violation("deleted", detail, { operations: [read.id, writer.id, over.id], keys: [key] })]
    })
  ]
}

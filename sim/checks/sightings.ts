/**
 * What clients saw of single keys, and what they may conclude from it without anybody's help: no log, no model, only
 * what was asked, when it began and ended, and what was said of it.
 */
import type { Key } from "../../protocols/keys.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import type { AnswerRow, Operation } from "../history.ts"
import { notAfter } from "../ledger.ts"
import type { Applied } from "../model.ts"
import type { Evidence } from "./evidence.ts"
import { isBefore, isOk, isPossible, timestampOf, writes } from "./writes.ts"

/** At T a key was a row that some operation wrote, or it was not there. */
export interface Sighting {
  readonly read: Operation
  readonly key: Key
  readonly timestamp: Timestamp
  /** The id that the row tells; undefined if there was no row. */
  readonly by: number | undefined
  /** The operation of that id, if it wrote just this row. */
  readonly writer: Operation | undefined
}

export const sightings = (evidence: Evidence): ReadonlyArray<Sighting> => evidence.once(allSightings)

const allSightings = (evidence: Evidence): ReadonlyArray<Sighting> => {
  const byId = new Map(evidence.operations.map((operation) => [operation.id, operation]))
  const ofRow = (read: Operation, timestamp: Timestamp, row: AnswerRow): ReadonlyArray<Sighting> => {
    const { fields, key, vector } = row
    if (fields === undefined) return []
    const by = Number(fields["op"])
    const writer = byId.get(by)
    const asked = writer?.asked._tag === "Upsert" ? writer.asked.rows[Number(fields["row"])] : undefined
    const isIts =
      asked !== undefined &&
      writer!.collection === read.collection &&
      // Where texts are keys by now, a huge integer that was sent as one is such a text (evidence.ts, keyIn).
      (asked.key === key || (typeof asked.key === "bigint" && String(asked.key) === key)) &&
      notAfter(writer!.invoked, read.completed!) &&
      (vector === undefined || vector.every((value, i) => value === asked.vector[i]))
    return [{ read, key, timestamp, by, writer: isIts ? writer : undefined }]
  }
  return evidence.operations.flatMap((read): ReadonlyArray<Sighting> => {
    const { asked, outcome } = read
    if (outcome?._tag !== "Ok") return []
    const { answer, timestamp } = outcome
    if (asked._tag === "Search" && answer._tag === "Hits") {
      return answer.lists.flatMap((hits) => hits.flatMap((hit) => ofRow(read, timestamp, hit)))
    }
    if (asked._tag !== "Get" || answer._tag !== "Rows") return []
    const came = new Set(answer.rows.map(({ key }) => key))
    const absent = [...new Set(asked.keys)]
      .filter((key) => !came.has(key))
      .map((key): Sighting => ({ read, key, timestamp, by: undefined, writer: undefined }))
    return [...answer.rows.flatMap((row) => ofRow(read, timestamp, row)), ...absent]
  })
}

/**
 * Acknowledged writes of the key, at or before T, that are certainly later than what was seen: it should have been
 * one of them, or something later still.
 */
export const overtaken = (
  evidence: Evidence,
  { by, key, read, timestamp, writer }: Sighting
): ReadonlyArray<Operation> => {
  const { collection } = read
  const all = writes(evidence).ofKey(collection, key)
  const drops = evidence.once(allDrops).filter((drop) => drop.collection === collection)
  return all
    .filter(({ lost }) => !isGone(lost, key, read))
    .map(({ operation }) => operation)
    .filter((write) => {
      const at = timestampOf(write)
      if (!isOk(write) || at === undefined || at > timestamp) return false
      // A collection of that name that was dropped meanwhile took the row with it.
      if (drops.some((drop) => !isBefore(drop, write) && notAfter(drop.invoked, read.completed!))) return false
      if (writer !== undefined) return writer !== write && isOk(writer) && isBefore(writer, write)
      // Nothing was there: then somebody must have deleted it after.
      return (
        by === undefined &&
        write.asked._tag === "Upsert" &&
        !all.some(
          ({ operation }) =>
            operation.asked._tag === "Delete" &&
            isPossible(operation) &&
            notAfter(operation.invoked, read.completed!) &&
            !(isOk(operation) && isBefore(operation, write))
        )
      )
    })
}

/** The one thing that no client can know: a log lost it. If anybody should have said so is for `damage` to ask. */
const isGone = (lost: ReadonlyArray<Applied>, key: Key, read: Operation): boolean =>
  lost.some(
    ({ message, versions }) =>
      notAfter(message.lost!, read.completed!) && versions.some((version) => String(version.key) === String(key))
  )

const allDrops = (evidence: Evidence): ReadonlyArray<Operation> =>
  evidence.operations.filter((operation) => operation.asked._tag === "Drop" && isPossible(operation))

/**
 * A strong read sees every write acknowledged before it began, and whatever anybody had seen by then; a session sees
 * its own writes, and reads in a session never go back. That an answer is right at its timestamp is for other checks:
 * this one asks whether the timestamp is late enough.
 */
import type { ReadLevel } from "../../protocols/client.ts"
import { toMillis } from "../../protocols/timestamp.ts"
import type { Operation } from "../history.ts"
import { notAfter } from "../ledger.ts"
import { BEGINNING } from "../world.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"
import { type Read, reads } from "./reads.ts"
import { isOk, timestampOf, writes } from "./writes.ts"

/** A bounded read is at most so old: protocols/README.md, 3.4, and the step that it is rounded down to. */
const BOUNDED_MS = 5_000 + 100

const bad = (detail: string, ...operations: ReadonlyArray<Operation>): Violation =>
  violation("fresh", detail, { operations: operations.map(({ id }) => id) })

/** Statistics count the rows as whoever brings no token would be told them. */
const STATS: ReadLevel = { consistency: "Session", token: 0n, at: undefined }

const levelOf = ({ asked }: Operation): ReadLevel | undefined => {
  if (asked._tag === "Stats") return STATS
  return asked._tag === "Get" || asked._tag === "Count" || asked._tag === "Search" ? asked.level : undefined
}

/** All that was acknowledged when it began: Strong, and whoever brings no token. */
const isStrong = ({ at, consistency, token }: ReadLevel): boolean =>
  at === undefined && (consistency === "Strong" || (consistency === "Session" && token === 0n))

const strong = (evidence: Evidence, { life, operation, timestamp }: Read): ReadonlyArray<Violation> => {
  if (life === undefined) return []
  const found: Array<Violation> = []
  for (const write of writes(evidence).all) {
    const { applied, operation: writer } = write
    if (!isOk(writer) || writer.collection !== operation.collection) continue
    if (!notAfter(writer.completed!, operation.invoked)) continue
    const [first] = applied
    if (first === undefined) continue
    if (first.collection === life.id) {
      const at = timestampOf(writer)!
      if (at > timestamp) {
        found.push(bad(`a strong read at ${timestamp} began when ${at} was acknowledged`, operation, writer))
      }
    } else if (life.dropped !== undefined && notAfter(life.dropped, writer.invoked)) {
      const detail = `a strong read of a collection that was dropped, after a write to its successor was acknowledged`
      found.push(bad(detail, operation, writer))
    }
  }
  for (const read of reads(evidence)) {
    if (read.life !== life || !notAfter(read.operation.completed!, operation.invoked)) continue
    const seen = newestSeen(evidence, read)
    if (seen > timestamp) {
      found.push(
        bad(`a strong read at ${timestamp} began when a row of ${seen} had been seen`, operation, read.operation)
      )
    }
  }
  return found
}

/** The timestamp of the newest row that an answer showed. */
const newestSeen = ({ model }: Evidence, { life, operation, timestamp }: Read): bigint => {
  const { outcome } = operation
  if (outcome?._tag !== "Ok" || life === undefined) return 0n
  const { answer } = outcome
  const rows = answer._tag === "Rows" ? answer.rows : answer._tag === "Hits" ? answer.lists.flat() : []
  return rows.reduce((newest, { key }) => {
    const version = model.at(life.id, key, timestamp)
    return version?.row !== undefined && version.timestamp > newest ? version.timestamp : newest
  }, 0n)
}

/** Operations whose timestamp a session takes over. */
const isOfRows = ({ asked }: Operation): boolean =>
  asked._tag === "Upsert" ||
  asked._tag === "Delete" ||
  asked._tag === "Stats" ||
  levelOf({ asked } as Operation) !== undefined

const session = (evidence: Evidence, { operation, timestamp }: Read): ReadonlyArray<Violation> => {
  // Statistics are asked for without a token.
  if (!operation.session || operation.asked._tag === "Stats") return []
  return evidence.operations
    .filter((one) => one.client === operation.client && isOk(one) && isOfRows(one))
    .filter((one) => notAfter(one.completed!, operation.invoked) && timestampOf(one)! > timestamp)
    .map((one) => bad(`a session that was at ${timestampOf(one)} reads at ${timestamp}`, operation, one))
}

const ofLevel = (evidence: Evidence, read: Read): ReadonlyArray<Violation> => {
  const { operation, timestamp } = read
  const level = levelOf(operation)!
  if (level.at !== undefined) {
    return level.at === timestamp ? [] : [bad(`asked for ${level.at}, and read at ${timestamp}`, operation)]
  }
  const found = [...session(evidence, read)]
  if (timestamp < level.token) found.push(bad(`read at ${timestamp}, below its token ${level.token}`, operation))
  if (isStrong(level)) found.push(...strong(evidence, read))
  if (level.consistency === "Bounded" && evidence.observed.clocksAgree) {
    const oldest = BEGINNING + operation.invoked.at - BOUNDED_MS
    if (toMillis(timestamp) < Math.floor(oldest)) {
      const age = BEGINNING + operation.invoked.at - toMillis(timestamp)
      found.push(bad(`a bounded read is ${Math.round(age)} ms old`, operation))
    }
  }
  return found
}

export const fresh: Check = {
  property: "fresh",
  check: (evidence) => reads(evidence).flatMap((read) => ofLevel(evidence, read))
}

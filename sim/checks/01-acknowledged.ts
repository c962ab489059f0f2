/**
 * An acknowledged write is never lost; a refused one never appears; an ambiguous one appears at most once. Of the log,
 * request by request, and once more of what clients saw alone, without a look at the log.
 */
import { requestKey } from "../../protocols/record.ts"
import type { Operation } from "../history.ts"
import { notAfter } from "../ledger.ts"
import type { Life } from "../metadata.ts"
import { type Check, type Evidence, keyText, type Violation, violation } from "./evidence.ts"
import { reads } from "./reads.ts"
import { overtaken, sightings } from "./sightings.ts"
import {
  isOk,
  isPart,
  isPossible,
  isBefore,
  keysWritten,
  makingOf,
  partsOf,
  timestampOf,
  type Write,
  writes
} from "./writes.ts"

const bad = (detail: string, where?: Parameters<typeof violation>[2]) => violation("acknowledged", detail, where)

/**
 * Whether a collection is younger than what was asked. The library dates what it asks: however late it comes, it means no
 * collection that was made since.
 */
const isOver = ({ completed, outcome, session }: Operation, { created }: Life): boolean =>
  completed !== undefined && (session || outcome?._tag === "Ok") && notAfter(completed, created)

/** Every write that was acknowledged is in the log, once, as it was asked, and was there before it was acknowledged. */
const stored = ({ lives }: Evidence, { applied, lost, operation }: Write): ReadonlyArray<Violation> => {
  const { completed, id, outcome } = operation
  const where = { operations: [id] }
  if (outcome?._tag === "Refused") {
    return applied.map(({ message, shard }) =>
      bad(
        `refused ("${outcome.code}"), and shard ${shard} has it: record ${message.record.header.lsn} of channel ${message.channel}`,
        where
      )
    )
  }
  const found: Array<Violation> = []
  for (const each of applied) {
    const life = lives.find((one) => one.id === each.collection)
    if (life === undefined || !isPart(operation, life, each)) {
      found.push(bad(`shard ${each.shard} has something else than was asked`, where))
    } else if (isOver(operation, life)) {
      found.push(bad(`shard ${each.shard} of ${life.id} has it, a collection that was made when it was over`, where))
    }
  }
  if (outcome?._tag !== "Ok") return found
  const named = lives.filter(({ created, name }) => name === operation.collection && notAfter(created, completed!))
  const isWhole = named.some((life) =>
    [...partsOf(operation, life).keys()].every((shard) =>
      [...applied, ...lost].some(
        (each) => each.collection === life.id && each.shard === shard && notAfter(each.message.stored, completed!)
      )
    )
  )
  if (!isWhole) found.push(bad("acknowledged, and not all of it was in the log by then", where))
  return found
}

const twice = (evidence: Evidence): ReadonlyArray<Violation> => {
  const seen = new Map<string, { readonly lsn: number; readonly channel: number }>()
  const found: Array<Violation> = []
  for (const { collection, message, request, shard } of evidence.model.applied) {
    if (message.lost !== undefined) continue
    const { lsn } = message.record.header
    const key = `${collection}.${shard} ${requestKey(request)}`
    const before = seen.get(key)
    if (before === undefined) seen.set(key, { lsn, channel: message.channel })
    else {
      const who = writes(evidence).all.find(({ applied }) => applied.some((each) => each.message === message))
      const operations = who === undefined ? [] : [who.operation.id]
      const detail = `one request is in shard ${collection}.${shard} twice: records ${before.lsn} and ${lsn} of channel ${message.channel}`
      found.push(bad(detail, { operations }))
    }
  }
  // Under two ids, which its client never gave.
  for (const { applied, operation } of writes(evidence).all) {
    const { asked } = operation
    if (asked._tag !== "Upsert" || asked.request !== undefined) continue
    if (new Set(applied.map(({ request }) => requestKey(request))).size > 1) {
      found.push(bad("asked once, and applied under two ids", { operations: [operation.id] }))
    }
  }
  return found
}

const collections = ({ lives, operations }: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const drops = operations.filter(({ asked }) => asked._tag === "Drop")
  for (const operation of operations) {
    const { asked, collection, completed, id, invoked, outcome } = operation
    const where = { operations: [id] }
    if (asked._tag === "Create") {
      const making = makingOf(operation)
      const made = lives.filter(({ request }) => making !== undefined && request === making)
      if (made.length > 1)
        found.push(bad(`collection ${collection} was made ${made.length} times by one request`, where))
      if (outcome?._tag === "Refused" && made.length > 0) {
        found.push(bad(`collection ${collection} was made by a request that was refused ("${outcome.code}")`, where))
      }
      if (outcome?._tag === "Ok" && outcome.answer._tag === "Made") {
        const answer = outcome.answer.id
        const life = lives.find((one) => one.id === answer)
        if (life === undefined || !notAfter(life.created, completed!)) {
          found.push(bad(`collection ${collection} was acknowledged, and not made`, where))
        }
      }
    }
    if (asked._tag === "Drop" && outcome?._tag === "Ok") {
      const gone = lives.some(
        ({ dropped, name }) => name === collection && dropped !== undefined && notAfter(dropped, completed!)
      )
      if (!gone) found.push(bad(`collection ${collection} was dropped, and is there`, where))
    }
    if (asked._tag === "List" && outcome?._tag === "Ok" && outcome.answer._tag === "Named") {
      const { names } = outcome.answer
      for (const name of new Set(lives.map((life) => life.name))) {
        const mine = drops.filter((drop) => drop.collection === name && isPossible(drop))
        const made = operations.filter((one) => one.asked._tag === "Create" && one.collection === name && isOk(one))
        const isSure = made.some(
          (create) =>
            isBefore(create, operation) &&
            mine.every((drop) => isBefore(drop, create) || !notAfter(drop.invoked, completed!))
        )
        if (isSure && !names.includes(name)) found.push(bad(`collection ${name} was made, and is not listed`, where))
      }
      for (const name of names) {
        const isThere = lives.some(
          (life) =>
            life.name === name &&
            notAfter(life.created, completed!) &&
            (life.dropped === undefined || !notAfter(life.dropped, invoked))
        )
        if (!isThere) found.push(bad(`collection ${name} is listed, and was not there`, where))
      }
    }
  }
  for (const life of lives) {
    const { dropped, name } = life
    if (dropped === undefined) continue
    const asked = drops.some(
      (drop) => drop.collection === name && isPossible(drop) && notAfter(drop.invoked, dropped) && !isOver(drop, life)
    )
    if (!asked) found.push(bad(`collection ${name} went, and nobody asked for that`))
  }
  return found
}

/** How many rows or keys an acknowledgement says there were. */
const counted = (operation: Operation): ReadonlyArray<Violation> => {
  const { id, outcome } = operation
  if (outcome?._tag !== "Ok" || outcome.answer._tag !== "Written") return []
  const { count } = outcome.answer
  const asked = keysWritten(operation).length
  return count === asked ? [] : [bad(`${count} of ${asked} are said to be written`, { operations: [id] })]
}

/** What the model has and an answer has not, and what no log has. Of sealed rows `kept-rows` speaks. */
const answered = (evidence: Evidence): ReadonlyArray<Violation> =>
  reads(evidence).flatMap(({ differences, life, operation, timestamp }) => {
    const where = { operations: [operation.id] }
    if (life === undefined) return [bad(`an answer of a collection ${operation.collection} that nobody made`, where)]
    return differences
      .filter(
        ({ flushed, kind }) => kind === "unknown" || (!flushed && (kind === "missing" || kind === "counted-less"))
      )
      .map(({ detail, key }) =>
        bad(`at ${timestamp}: ${detail}`, { ...where, ...(key === undefined ? {} : { keys: [key] }) })
      )
  })

/** Clients alone: what comes was asked and not refused, and what was acknowledged by T is not overtaken by older. */
const seen = (evidence: Evidence): ReadonlyArray<Violation> =>
  sightings(evidence).flatMap((sighting): ReadonlyArray<Violation> => {
    const { by, key, read, timestamp, writer } = sighting
    const where = (more: ReadonlyArray<Operation>) => ({
      operations: [read.id, ...more.map(({ id }) => id)],
      keys: [key]
    })
    if (by !== undefined && writer === undefined) {
      return [bad(`${keyText(key)} came as operation ${by} wrote it, which wrote no such row`, where([]))]
    }
    if (writer !== undefined && !isPossible(writer)) {
      return [bad(`${keyText(key)} came as operation ${writer.id} wrote it, which was refused`, where([writer]))]
    }
    const over = overtaken(evidence, sighting).find(({ asked }) => asked._tag === "Upsert")
    if (over === undefined) return []
    const came = writer === undefined ? "did not come" : `came as operation ${writer.id} wrote it`
    const detail = `at ${timestamp} ${keyText(key)} ${came}; operation ${over.id} wrote it later, and was acknowledged at ${timestampOf(over)}`
    return [bad(detail, where(writer === undefined ? [over] : [writer, over]))]
  })

export const acknowledged: Check = {
  property: "acknowledged",
  check: (evidence) => [
    ...writes(evidence).all.flatMap((write) => stored(evidence, write)),
    ...twice(evidence),
    ...writes(evidence).strange.map(({ collection, message, shard }) =>
      bad(
        `record ${message.record.header.lsn} of channel ${message.channel} has a write for ${collection}.${shard} that nobody asked for`
      )
    ),
    ...collections(evidence),
    ...evidence.operations.flatMap(counted),
    ...answered(evidence),
    ...seen(evidence)
  ]
}

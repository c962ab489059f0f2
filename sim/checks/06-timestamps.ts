/**
 * Timestamps only grow, over failover and clock steps: the oracle's bound is ahead of everything that is given out, a
 * term begins where the one before ends, a channel's records grow, nothing is written at or below a time that was
 * answered, and a write that began after another ended is later.
 */
import type { Operation } from "../history.ts"
import { type Moment, notAfter } from "../ledger.ts"
import { Standing } from "../metadata.ts"
import type { Message } from "../model.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"
import { reads } from "./reads.ts"
import { isOk, timestampOf, writes } from "./writes.ts"

const bad = (detail: string, ...operations: ReadonlyArray<Operation>): Violation =>
  violation("timestamps", detail, { operations: operations.map(({ id }) => id) })

/** The oracle's bound over time, and what is wrong about how it moved. */
const oracle = (evidence: Evidence) => {
  const bounds: Array<{ readonly moment: Moment; readonly bound: bigint }> = []
  const found: Array<Violation> = []
  const standing = new Standing()
  let term = 0
  for (const step of evidence.steps) {
    const before = standing.oracle
    standing.apply(step)
    const now = standing.oracle
    if (now === undefined || now === before) continue
    bounds.push({ moment: step.moment, bound: now.bound })
    if (before !== undefined) {
      if (now.bound < before.bound) found.push(bad(`the oracle's bound goes back from ${before.bound} to ${now.bound}`))
      const floor = standing.epoch === term ? before.floor : before.bound
      if (now.floor !== floor) found.push(bad(`the oracle's floor is ${now.floor}, and should be ${floor}`))
    }
    term = standing.epoch
  }
  return { bounds, found }
}

/** Every timestamp was below the bound that was persisted by then. */
const persisted = (evidence: Evidence): ReadonlyArray<Violation> => {
  const { bounds, found } = oracle(evidence)
  const boundAt = (moment: Moment) => {
    let bound = 0n
    for (const each of bounds) if (notAfter(each.moment, moment)) bound = each.bound
    return bound
  }
  const ahead = evidence.model.messages
    .filter(({ record, standing, stored }) => standing === "record" && record.header.timestamp >= boundAt(stored))
    .filter(({ record }) => record.header.timestamp > 0n)
    .map(({ channel, record }) =>
      bad(
        `record ${record.header.lsn} of channel ${channel} is of ${record.header.timestamp}, above the oracle's bound`
      )
    )
  const answered = evidence.operations
    .filter((operation) => isOk(operation) && timestampOf(operation)! >= boundAt(operation.completed!))
    .filter((operation) => timestampOf(operation)! > 0n)
    .map((operation) => bad(`answered at ${timestampOf(operation)}, above the oracle's bound`, operation))
  return [...found, ...ahead, ...answered]
}

const channels = (evidence: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const last = new Map<number, Message>()
  for (const message of evidence.model.messages) {
    if (message.standing !== "record" || message.lost !== undefined) continue
    const { channel, record } = message
    const { floor, kind, lsn, timestamp } = record.header
    const before = last.get(channel)?.record.header
    last.set(channel, message)
    if (before === undefined) continue
    if (timestamp < before.timestamp || (kind === "rows" && timestamp === before.timestamp)) {
      found.push(
        bad(`record ${lsn} of channel ${channel} is of ${timestamp}, and the one before of ${before.timestamp}`)
      )
    }
    if (floor < before.floor) found.push(bad(`the floor goes back at record ${lsn} of channel ${channel}`))
    if (kind !== "fence" && timestamp < floor) {
      found.push(bad(`record ${lsn} of channel ${channel} is of ${timestamp}, below the floor ${floor}`))
    }
  }
  return found
}

/** A write is answered with the time of its record; what it left in a collection that was dropped by then is not spoken of. */
const stated = (evidence: Evidence): ReadonlyArray<Violation> => {
  const lives = new Map(evidence.lives.map((life) => [life.id, life]))
  return writes(evidence).all.flatMap(({ applied, lost, operation }) => {
    const stated = timestampOf(operation)
    const all = [...applied, ...lost].filter(({ collection }) => {
      const dropped = lives.get(collection)?.dropped
      return dropped === undefined || !notAfter(dropped, operation.completed!)
    })
    if (stated === undefined || all.length === 0) return []
    const newest = all.reduce(
      (newest, { message }) => (message.record.header.timestamp > newest ? message.record.header.timestamp : newest),
      0n
    )
    return newest === stated ? [] : [bad(`answered at ${stated}, and stored at ${newest}`, operation)]
  })
}

/** Nothing is written at or below a time at which somebody was answered. */
const closed = (evidence: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const byChannel = new Map<number, Array<Message>>()
  for (const message of evidence.model.messages) {
    if (message.standing !== "record" || message.record.header.kind !== "rows") continue
    byChannel.set(message.channel, [...(byChannel.get(message.channel) ?? []), message])
  }
  for (const { life, operation, timestamp } of reads(evidence)) {
    for (const channel of new Set(life?.channels)) {
      const late = byChannel
        .get(channel)
        ?.find(({ record, stored }) => record.header.timestamp <= timestamp && !notAfter(stored, operation.completed!))
      if (late === undefined) continue
      const { lsn, timestamp: at } = late.record.header
      found.push(
        bad(`answered at ${timestamp}; record ${lsn} of channel ${channel} came after, and is of ${at}`, operation)
      )
    }
  }
  return found
}

/** Of two writes to one shard the one that began when the other was over is later. */
const realTime = (evidence: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const shards = new Map<string, Array<{ readonly operation: Operation; readonly at: bigint }>>()
  for (const { applied, operation } of writes(evidence).all) {
    if (!isOk(operation)) continue
    for (const { collection, message, shard } of applied) {
      const key = `${collection}.${shard}`
      shards.set(key, [...(shards.get(key) ?? []), { operation, at: message.record.header.timestamp }])
    }
  }
  for (const [shard, all] of shards) {
    for (const a of all) {
      for (const b of all) {
        if (a === b || a.at < b.at || !notAfter(a.operation.completed!, b.operation.invoked)) continue
        found.push(
          bad(`shard ${shard}: a write at ${b.at} began when one at ${a.at} was over`, b.operation, a.operation)
        )
      }
    }
  }
  return found
}

export const timestamps: Check = {
  property: "timestamps",
  check: (evidence) => [
    ...persisted(evidence),
    ...channels(evidence),
    ...stated(evidence),
    ...closed(evidence),
    ...realTime(evidence)
  ]
}

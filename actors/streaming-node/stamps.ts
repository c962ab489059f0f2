/**
 * The timestamps that a channel's owner may still give to records (protocols/README.md, section 3). Each is above
 * every one before it; all come from grants of the oracle, or from the gap that it leaves behind a reader's T. Pure.
 */
import type { Grant } from "../../protocols/coordinator.ts"
import { limits } from "../../protocols/limits.ts"
import { later, type Timestamp } from "../../protocols/timestamp.ts"

/** A grant is for now: one that lay about for longer would date records far from when they were written. */
const GRANT_AGE_MS = 1_000

export class Stamps {
  /** Given to a record, or below one that was. */
  last: Timestamp
  /** Grants below it may be a deposed oracle's. */
  floor: Timestamp
  /** The newest that any grant has shown: a T at or below it is no forgery. */
  seen: Timestamp
  private next: Timestamp = 1n
  private end: Timestamp = 0n
  private grantedAt = -Infinity
  private gapNext: Timestamp = 1n
  private gapEnd: Timestamp = 0n
  private gapAt = -Infinity

  constructor(last: Timestamp, floor: Timestamp) {
    this.last = last
    this.floor = floor
    this.seen = last
  }

  /** False if the grant is of a term that is over. */
  accept(grant: Grant, nowMs: number): boolean {
    this.seen = later(this.seen, grant.last)
    if (grant.first < this.floor || grant.floor < this.floor) return false
    this.floor = grant.floor
    this.next = grant.first
    this.end = grant.last
    this.grantedAt = nowMs
    return true
  }

  /** The next timestamp for a record; undefined if a grant is needed first. */
  take(nowMs: number): Timestamp | undefined {
    const gap = later(this.gapNext, this.last + 1n)
    const granted = later(this.next, this.last + 1n)
    let chosen: Timestamp
    if (gap <= this.gapEnd && gap >= this.floor && nowMs - this.gapAt < GRANT_AGE_MS) chosen = gap
    else if (granted <= this.end && granted >= this.floor && nowMs - this.grantedAt < GRANT_AGE_MS) chosen = granted
    else return undefined
    this.last = chosen
    return chosen
  }

  /** A record closes T: from here on records come after it. */
  close(at: Timestamp): void {
    if (at <= this.last) return
    this.last = at
    this.seen = later(this.seen, at)
  }

  /** It only grows: a fence may be older than the grant that the next record is of. */
  learnFloor(floor: Timestamp): void {
    this.floor = later(this.floor, floor)
  }

  /** A reader's grant that was ours: the gap that the oracle left behind it is nobody else's. */
  learn({ first, floor }: Grant, nowMs: number): void {
    if (first <= this.seen) return
    this.seen = first
    this.learnFloor(floor)
    this.gapNext = first + 1n
    this.gapEnd = first + BigInt(limits.readerGap)
    this.gapAt = nowMs
  }
}

/**
 * The requests that a channel has applied lately, so that one asked twice is applied once (protocols/README.md,
 * section 5). What is below the floor is not remembered, and so never applied. Pure data.
 */
import { limits } from "../../protocols/limits.ts"
import { type RequestId, requestKey } from "../../protocols/record.ts"
import type { Written } from "../../protocols/streaming-node.ts"
import { fromMillis, type Timestamp } from "../../protocols/timestamp.ts"

const AGE = fromMillis(limits.dedupeAgeMs)
/** To forget costs a look at everything, and log time goes on with every record: so it is done only so often. */
const SWEEP = AGE / 64n

interface Remembered extends Written {
  readonly id: RequestId
}

export class Requests {
  /** Ids issued before it are answered "outcome unknown". Durable in the checkpoint; only grows. */
  floor: Timestamp
  /** What `floor` should become at the next checkpoint, for there are too many ids. */
  floorWanted: Timestamp = 0n
  private readonly shards = new Map<string, Map<string, Remembered>>()
  private count = 0
  /** Nothing below it is remembered any more. */
  private swept: Timestamp = 0n
  private readonly idsMax: number

  constructor(floor: Timestamp, idsMax: number = limits.dedupeIdsMax) {
    this.floor = floor
    this.idsMax = idsMax
  }

  find(shard: string, id: RequestId): Written | undefined {
    return this.shards.get(shard)?.get(requestKey(id))
  }

  remember(shard: string, id: RequestId, outcome: Written): void {
    let known = this.shards.get(shard)
    if (known === undefined) this.shards.set(shard, (known = new Map()))
    const key = requestKey(id)
    if (!known.has(key)) this.count++
    known.set(key, { id, ...outcome })
    if (this.count > this.idsMax && this.floorWanted <= this.floor) {
      this.sweep()
      this.floorWanted = this.middle()
    }
  }

  /** Log time went on, or a checkpoint made a higher floor durable: forgets what is below, sooner or later. */
  advance(newest: Timestamp, durableFloor: Timestamp): void {
    const byAge = newest > AGE ? newest - AGE : 0n
    const floor = durableFloor > byAge ? durableFloor : byAge
    if (floor <= this.floor) return
    this.floor = floor
    if (floor === durableFloor || floor - this.swept >= SWEEP) this.sweep()
  }

  private sweep(): void {
    this.swept = this.floor
    for (const [shard, known] of this.shards) {
      for (const [key, { id }] of known) {
        if (id.issued >= this.floor) continue
        known.delete(key)
        this.count--
      }
      if (known.size === 0) this.shards.delete(shard)
    }
  }

  /** The young ids of a shard that came with records in (from, to], for its flush. */
  of(shard: string, from: number, to: number): ReadonlyArray<Remembered> {
    return [...(this.shards.get(shard)?.values() ?? [])].filter(({ lsn }) => lsn > from && lsn <= to)
  }

  private middle(): Timestamp {
    const issued = [...this.shards.values()].flatMap((known) => [...known.values()].map(({ id }) => id.issued))
    issued.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
    return issued[issued.length >> 1] ?? 0n
  }
}

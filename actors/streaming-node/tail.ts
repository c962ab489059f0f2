/**
 * The keys of a shard's records above the flushed lsn that its view stands on: every entry, an upsert's too, for each
 * hides older versions in sealed segments. Only of records that are acknowledged. Pure data.
 */
import {
  hashAt,
  type KeyColumn,
  keyColumn,
  keyColumnBytes,
  keysOf,
  type KeyType,
  pickKeys
} from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import { noTail, type TailKeys } from "../../protocols/query-node.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"

export interface TailBatch {
  readonly lsn: number
  readonly timestamp: Timestamp
  readonly keys: KeyColumn
  readonly kind: "Upsert" | "Delete"
}

export class Tail {
  /** Complete above this lsn. */
  base: number
  private batches: Array<TailBatch> = []

  constructor(base: number) {
    this.base = base
  }

  get keys(): number {
    return this.batches.reduce((total, batch) => total + batch.keys.count, 0)
  }

  add(batch: TailBatch): void {
    this.batches.push(batch)
  }

  /** The lsn of the first batch above `after`; undefined if there is none. */
  firstAbove(after: number): number | undefined {
    return this.batches[firstAbove(this.batches, after)]?.lsn
  }

  /** Those with `after` < lsn <= `upTo`, in order. */
  between(after: number, upTo: number): ReadonlyArray<TailBatch> {
    const { batches } = this
    const first = firstAbove(batches, after)
    const end = firstAbove(batches, upTo)
    return first === 0 && end === batches.length ? batches : batches.slice(first, end)
  }

  /**
   * As a query node takes them, in parts of at most `bytesMax` of which only the last moves its position;
   * without those that `mayHold` rules out by their hash.
   */
  keysFor(
    type: KeyType,
    after: number,
    upTo: number,
    mayHold: (hash: number) => boolean,
    bytesMax: number = limits.tailBytesMax
  ): ReadonlyArray<TailKeys> {
    const batches = this.between(after, upTo)
    if (batches.length === 0) return [noTail(after, upTo)]
    const { keys, timestamps } = collect(type, batches, mayHold)
    const bytes = keyColumnBytes(keys) + timestamps.byteLength
    if (bytes <= bytesMax) return [{ after, upTo, keys, timestamps }]
    const rows = Math.max(1, Math.floor((keys.count * bytesMax) / bytes))
    const parts: Array<TailKeys> = []
    for (let from = 0; from < keys.count; from += rows) {
      const to = Math.min(keys.count, from + rows)
      const picked = Array.from({ length: to - from }, (_, i) => from + i)
      const last = to === keys.count
      parts.push({
        after,
        upTo: last ? upTo : after,
        keys: pickKeys(keys, picked),
        timestamps: timestamps.slice(from, to)
      })
    }
    return parts
  }

  drop(flushedTo: number): void {
    if (flushedTo <= this.base) return
    this.base = flushedTo
    this.batches = this.batches.slice(firstAbove(this.batches, flushedTo))
  }
}

const firstAbove = (batches: ReadonlyArray<TailBatch>, lsn: number): number => {
  let low = 0
  let high = batches.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (batches[middle]!.lsn <= lsn) low = middle + 1
    else high = middle
  }
  return low
}

/** Keys with the timestamps from which they hide what is older. */
export const collect = (
  type: KeyType,
  batches: ReadonlyArray<TailBatch>,
  wanted: (hash: number, batch: TailBatch) => boolean
): { readonly keys: KeyColumn; readonly timestamps: BigUint64Array } => {
  const timestamps: Array<bigint> = []
  if (type === "Int64") {
    const values: Array<bigint> = []
    for (const batch of batches) {
      const { keys, timestamp } = batch
      if (keys.type !== "Int64") continue
      for (let i = 0; i < keys.count; i++) {
        if (!wanted(hashAt(keys, i), batch)) continue
        values.push(keys.values[i]!)
        timestamps.push(timestamp)
      }
    }
    const column = BigInt64Array.from(values)
    return {
      keys: { type: "Int64", count: column.length, values: column },
      timestamps: BigUint64Array.from(timestamps)
    }
  }
  const keys: Array<string> = []
  for (const batch of batches) {
    const all = keysOf(batch.keys)
    for (let i = 0; i < all.length; i++) {
      if (!wanted(hashAt(batch.keys, i), batch)) continue
      keys.push(all[i] as string)
      timestamps.push(batch.timestamp)
    }
  }
  return { keys: keyColumn("VarChar", keys), timestamps: BigUint64Array.from(timestamps) }
}

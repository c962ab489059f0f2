/**
 * A sealed segment in the memory of a query node: its rows ordered by key, what hides them and since when, and the
 * index that searches them. Hides are facts of acknowledged records: once set they stay, and only an older one can
 * replace one. Pure, but for the native index.
 */
import { compareKeys, type Key, keyAt } from "../../protocols/keys.ts"
import type { Metric, Segment as Description } from "../../protocols/metadata.ts"
import type { TailKeys } from "../../protocols/query-node.ts"
import { fieldBytesAt } from "../../protocols/rows.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import { scanRows } from "../../storage/distance.ts"
import { type FlatIndex, flatIndex } from "../../storage/index-flat.ts"
import type { VectorIndex } from "../../storage/index.ts"
import type { SegmentColumns } from "../../storage/segment-file.ts"
import { type Hits, TopK } from "../../storage/top-k.ts"

export class Segment {
  readonly id: string
  readonly columns: SegmentColumns
  readonly metric: Metric
  /** Of what was fetched of it. */
  bytes: number
  /** The keys of the shard's records up to here have been applied. */
  applied: number
  /** The newest record that an owner has told us of, and whose it is. What hides rows may be of it. */
  knownEpoch = 0n
  knownLsn = 0
  /** It was let go of: its index is gone. */
  isDisposed = false
  private readonly maxTimestamp: Timestamp
  private flat: FlatIndex | undefined
  private hnsw: VectorIndex | undefined
  /** Row -> the first timestamp at which it is hidden. */
  private readonly hidden = new Map<number, Timestamp>()
  /** The same, in the order of the timestamps: a read at T looks at the end of it only. */
  private hides: Array<{ readonly row: number; readonly at: Timestamp }> = []

  constructor(description: Description, metric: Metric, columns: SegmentColumns) {
    this.id = description.id
    this.columns = columns
    this.metric = metric
    this.applied = description.deletesThrough
    this.maxTimestamp = description.maxTimestamp
    this.bytes = description.data.bytes
    this.flat = flatIndex(metric, columns.dimension, columns.vectors)
    this.hideOverwritten()
  }

  get rows(): number {
    return this.columns.keys.count
  }

  get indexed(): boolean {
    return this.hnsw !== undefined
  }

  /** From now on searches go through the index. */
  useIndex(index: VectorIndex, bytes: number): void {
    this.bytes += bytes
    for (const row of this.hidden.keys()) index.hide(row)
    this.hnsw?.dispose()
    this.hnsw = index
    this.flat = undefined
  }

  dispose(): void {
    this.hnsw?.dispose()
    this.hnsw = undefined
    this.isDisposed = true
  }

  /** Rows lie by (key, timestamp): of one key, each version hides the one before it. */
  private hideOverwritten(): void {
    const { keys, timestamps } = this.columns
    if (this.rows === 0) return
    let before = keyAt(keys, 0)
    for (let row = 1; row < this.rows; row++) {
      const key = keyAt(keys, row)
      if (key === before) this.hide(row - 1, timestamps[row]!)
      before = key
    }
    this.hides.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : a.row - b.row))
  }

  private hide(row: number, at: Timestamp): void {
    const known = this.hidden.get(row)
    if (known !== undefined) {
      if (known <= at) return
      this.hides = this.hides.filter((each) => each.row !== row)
    }
    this.hidden.set(row, at)
    let place = this.hides.length
    while (place > 0 && this.hides[place - 1]!.at > at) place--
    if (place === this.hides.length) this.hides.push({ row, at })
    else this.hides.splice(place, 0, { row, at })
    this.flat?.hide(row)
    this.hnsw?.hide(row)
  }

  /** Each key hides its versions that are older than its timestamp. */
  apply({ keys, timestamps }: Pick<TailKeys, "keys" | "timestamps">): void {
    for (let i = 0; i < keys.count; i++) {
      const key = keyAt(keys, i)
      const at = timestamps[i]!
      for (let row = this.firstRow(key); row < this.rows && keyAt(this.columns.keys, row) === key; row++) {
        if (this.columns.timestamps[row]! < at) this.hide(row, at)
      }
    }
  }

  /** The first row whose key is not below `key`. */
  private firstRow(key: Key): number {
    const { keys } = this.columns
    let low = 0
    let high = keys.count
    while (low < high) {
      const middle = (low + high) >> 1
      if (compareKeys(keyAt(keys, middle), key) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  private visible(row: number, at: Timestamp): boolean {
    if (this.columns.timestamps[row]! > at) return false
    const hidden = this.hidden.get(row)
    return hidden === undefined || hidden > at
  }

  /** The row that a read at T sees for a key; undefined if none. */
  find(key: Key, at: Timestamp): number | undefined {
    for (let row = this.firstRow(key); row < this.rows && keyAt(this.columns.keys, row) === key; row++) {
      if (this.visible(row, at)) return row
    }
    return undefined
  }

  count(at: Timestamp): number {
    const { timestamps } = this.columns
    let seen = this.rows
    if (at < this.maxTimestamp) {
      seen = 0
      for (let row = 0; row < this.rows; row++) if (timestamps[row]! <= at) seen++
    }
    return seen - (this.hides.length - this.hiddenAfter(at).length)
  }

  /** Rows that are hidden, but not yet at T. */
  private hiddenAfter(at: Timestamp): ReadonlyArray<number> {
    const { hides } = this
    let from = hides.length
    while (from > 0 && hides[from - 1]!.at > at) from--
    return from === hides.length ? NONE : hides.slice(from).map(({ row }) => row)
  }

  fields(row: number): Uint8Array {
    return fieldBytesAt(this.columns.fields, row)
  }

  vector(row: number): Float32Array {
    const { dimension, vectors } = this.columns
    return vectors.subarray(row * dimension, (row + 1) * dimension)
  }

  /** The nearest `k` rows that a read at T sees, in one go. */
  search(query: Float32Array, k: number, ef: number, at: Timestamp): Hits {
    const index = this.hnsw ?? this.flat!
    return this.withHiddenAfter(index.search(query, k, ef, this.allowed(at)), query, k, at)
  }

  /** The same, where a scan is long: the event loop may turn at every yield. */
  *searchSliced(query: Float32Array, k: number, ef: number, at: Timestamp): Generator<void, Hits, void> {
    const { flat } = this
    if (flat === undefined) return this.search(query, k, ef, at)
    const hits = yield* flat.searchSliced(query, k, this.allowed(at))
    return this.withHiddenAfter(hits, query, k, at)
  }

  /** A read at an old T asks of every candidate whether it was there already. */
  private allowed(at: Timestamp): ((row: number) => boolean) | undefined {
    if (at >= this.maxTimestamp) return undefined
    const { timestamps } = this.columns
    return (row) => timestamps[row]! <= at
  }

  /** The index leaves out every hidden row; those that T still sees are few, and are scanned. */
  private withHiddenAfter(hits: Hits, query: Float32Array, k: number, at: Timestamp): Hits {
    const later = this.hiddenAfter(at)
    if (later.length === 0) return hits
    const { dimension, timestamps, vectors } = this.columns
    const seen = later.filter((row) => timestamps[row]! <= at)
    const top = new TopK(k)
    for (let i = 0; i < hits.rows.length; i++) top.offer(hits.ranks[i]!, hits.rows[i]!)
    scanRows(this.metric, query, { vectors, dimension }, seen, top)
    return top.finish()
  }
}

const NONE: ReadonlyArray<number> = []

/**
 * The rows of a shard that are in no sealed segment that queries use yet: in memory only, for the log has them.
 * Pure data, in the order of the log. Visibility is by lsn: a read at T sees the records up to some lsn, and a row
 * is seen if it is at or below it and nothing that hides it is.
 */
import {
  concatKeys,
  type Key,
  keyColumnBytes,
  pickKeys,
  keyAt,
  type KeyColumn,
  type KeyType
} from "../../protocols/keys.ts"
import type { Metric } from "../../protocols/metadata.ts"
import { concatFields, fieldBytesAt, pickFields, type FieldColumn, type RowBatch } from "../../protocols/rows.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import { inverseNorm, scanBlock } from "../../storage/distance.ts"
import type { BlockColumns } from "../../storage/segment-file.ts"
import type { TopK } from "../../storage/top-k.ts"

/** Vectors lie in shared memory of about this size, so that sealing hands them to a thread without a copy. */
const BLOCK_BYTES = 1024 * 1024
/** What a block has beside its vectors is as large for short ones: an empty shard must not take megabytes. */
const BLOCK_ROWS_MAX = 2048

interface Block {
  readonly vectors: Float32Array
  readonly dimension: number
  readonly inverseNorms: Float64Array | undefined
  /** Of the record that a row came with. */
  readonly lsn: Float64Array
  /** Of the first record that hides it; Infinity while nothing does. */
  readonly hidden: Float64Array
}

/** What came with one record: where its rows begin, and what of them is not numbers. */
interface Batch {
  readonly first: number
  readonly timestamp: Timestamp
  readonly lsn: number
  readonly keys: KeyColumn
  readonly fields: FieldColumn | undefined
}

/** One run of rows between two seals. */
export class GrowingSegment {
  readonly dimension: number
  readonly metric: Metric
  /** Its rows come from records above this lsn ... */
  readonly from: number
  /** ... and up to this one, once it is sealed. */
  to = Infinity
  /** When its first row came, by the node's clock; undefined while it is empty. */
  born: number | undefined
  rows = 0
  readonly rowsPerBlock: number
  readonly blocks: Array<Block> = []
  private readonly batches: Array<Batch> = []
  private otherBytes = 0

  constructor(dimension: number, metric: Metric, from: number) {
    this.dimension = dimension
    this.metric = metric
    this.from = from
    this.rowsPerBlock = Math.min(BLOCK_ROWS_MAX, Math.max(1, Math.floor(BLOCK_BYTES / (dimension * 4))))
  }

  /** Of its vectors, keys and fields. */
  get bytes(): number {
    return this.rows * this.dimension * 4 + this.otherBytes
  }

  /** Adds the rows of one record, whose keys the caller gives away, and returns the ordinal of the first. */
  append(batch: RowBatch, lsn: number, timestamp: Timestamp): number {
    const { dimension, rowsPerBlock } = this
    const first = this.rows
    const count = batch.keys.count
    for (let done = 0; done < count;) {
      const at = this.rows % rowsPerBlock
      if (at === 0) this.blocks.push(this.newBlock())
      const block = this.blocks[this.blocks.length - 1]!
      const room = Math.min(rowsPerBlock - at, count - done)
      block.vectors.set(batch.vectors.subarray(done * dimension, (done + room) * dimension), at * dimension)
      block.lsn.fill(lsn, at, at + room)
      if (block.inverseNorms !== undefined) {
        for (let i = at; i < at + room; i++)
          block.inverseNorms[i] = inverseNorm(block.vectors, i * dimension, dimension)
      }
      this.rows += room
      done += room
    }
    this.batches.push({ first, timestamp, lsn, keys: batch.keys, fields: ownFields(batch.fields) })
    this.otherBytes += keyColumnBytes(batch.keys) + (batch.fields?.bytes.length ?? 0)
    return first
  }

  private newBlock(): Block {
    const { dimension, rowsPerBlock } = this
    return {
      vectors: new Float32Array(new SharedArrayBuffer(rowsPerBlock * dimension * 4)),
      dimension,
      inverseNorms: this.metric === "COSINE" ? new Float64Array(rowsPerBlock) : undefined,
      lsn: new Float64Array(rowsPerBlock),
      hidden: new Float64Array(rowsPerBlock).fill(Infinity)
    }
  }

  private block(row: number): Block {
    return this.blocks[Math.floor(row / this.rowsPerBlock)]!
  }

  /** A record hides the row from now on, unless an earlier one does. */
  hide(row: number, lsn: number): void {
    const { hidden } = this.block(row)
    const at = row % this.rowsPerBlock
    if (lsn < hidden[at]!) hidden[at] = lsn
  }

  visible(row: number, lsn: number): boolean {
    const block = this.block(row)
    const at = row % this.rowsPerBlock
    return block.lsn[at]! <= lsn && block.hidden[at]! > lsn
  }

  /** The last batch whose first row is at or before `row`. */
  private batchOf(row: number): Batch {
    const { batches } = this
    let low = 0
    let high = batches.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (batches[middle]!.first <= row) low = middle
      else high = middle - 1
    }
    return batches[low]!
  }

  key(row: number): Key {
    const batch = this.batchOf(row)
    return keyAt(batch.keys, row - batch.first)
  }

  fields(row: number): Uint8Array {
    const batch = this.batchOf(row)
    return fieldBytesAt(batch.fields, row - batch.first)
  }

  vector(row: number): Float32Array {
    const at = (row % this.rowsPerBlock) * this.dimension
    return this.block(row).vectors.subarray(at, at + this.dimension)
  }

  /** How many of its rows a read up to `lsn` sees. */
  count(lsn: number): number {
    let seen = 0
    for (let b = 0, row = 0; row < this.rows; b++) {
      const block = this.blocks[b]!
      const rows = Math.min(this.rowsPerBlock, this.rows - row)
      for (let i = 0; i < rows; i++) if (block.lsn[i]! <= lsn && block.hidden[i]! > lsn) seen++
      row += rows
    }
    return seen
  }

  /** Offers every row of one block that a read up to `lsn` sees; its ordinals are those of the segment plus `base`. */
  scan(index: number, query: Float32Array, lsn: number, base: number, top: TopK): void {
    const block = this.blocks[index]!
    const first = base + index * this.rowsPerBlock
    const rows = Math.min(this.rowsPerBlock, base + this.rows - first)
    const { hidden, lsn: lsns } = block
    scanBlock(this.metric, query, block, 0, rows, top, first, (row) => {
      const at = row - first
      return lsns[at]! <= lsn && hidden[at]! > lsn
    })
  }

  /**
   * Its rows, as a sealing task takes them: overwritten versions too, for reads at an older T, but not those that were
   * overwritten or deleted within their own record. No read sees them at any T, and a file could not tell them from
   * the version that stands: both have one timestamp.
   */
  columns(keyType: KeyType): BlockColumns {
    const all = this.allColumns(keyType)
    const visible: Array<number> = []
    for (let row = 0; row < this.rows; row++) {
      const { hidden, lsn } = this.block(row)
      const at = row % this.rowsPerBlock
      if (hidden[at]! > lsn[at]!) visible.push(row)
    }
    if (visible.length === this.rows) return all
    const vectors = new Float32Array(visible.length * this.dimension)
    visible.forEach((row, i) => vectors.set(this.vector(row), i * this.dimension))
    return {
      keys: pickKeys(all.keys, visible),
      timestamps: BigUint64Array.from(visible, (row) => all.timestamps[row]!),
      dimension: this.dimension,
      vectorBlocks: [vectors],
      rowsPerBlock: Math.max(1, visible.length),
      fields: pickFields(all.fields, visible)
    }
  }

  private allColumns(keyType: KeyType): BlockColumns {
    const timestamps = new BigUint64Array(this.rows)
    for (const { first, keys, timestamp } of this.batches) timestamps.fill(timestamp, first, first + keys.count)
    return {
      keys: concatKeys(
        keyType,
        this.batches.map(({ keys }) => keys)
      ),
      timestamps,
      dimension: this.dimension,
      vectorBlocks: this.blocks.map(({ vectors }) => vectors),
      rowsPerBlock: this.rowsPerBlock,
      fields: concatFields(
        this.batches.map(({ fields }) => fields),
        this.batches.map(({ keys }) => keys.count)
      )
    }
  }

  /** The keys of its rows, in order. */
  *keyColumns(): Generator<KeyColumn> {
    for (const { keys } of this.batches) yield keys
  }
}

/** A copy: what came with a record is a view of all of it, and what is kept for long must not keep that alive. */
export const ownKeys = (keys: KeyColumn): KeyColumn =>
  keys.type === "Int64"
    ? { ...keys, values: keys.values.slice() }
    : { ...keys, offsets: keys.offsets.slice(), bytes: keys.bytes.slice() }

const ownFields = (fields: FieldColumn | undefined): FieldColumn | undefined =>
  fields === undefined ? undefined : { offsets: fields.offsets.slice(), bytes: fields.bytes.slice() }

/** Where one version of a key is, and the version before it that is still growing. */
interface Version {
  readonly segment: GrowingSegment
  readonly row: number
  previous: Version | undefined
}

/**
 * The growing segments of a shard and, for every key written in them, its versions: what an overwrite or a
 * delete hides. Nothing here asks what sealed segments hold.
 */
export class Growing {
  readonly dimension: number
  readonly metric: Metric
  segments: ReadonlyArray<GrowingSegment>
  private readonly newest = new Map<Key, Version>()

  constructor(dimension: number, metric: Metric, from: number) {
    this.dimension = dimension
    this.metric = metric
    this.segments = [new GrowingSegment(dimension, metric, from)]
  }

  get active(): GrowingSegment {
    return this.segments[this.segments.length - 1]!
  }

  get rows(): number {
    return this.segments.reduce((total, segment) => total + segment.rows, 0)
  }

  get bytes(): number {
    return this.segments.reduce((total, segment) => total + segment.bytes, 0)
  }

  upsert(batch: RowBatch, lsn: number, timestamp: Timestamp): void {
    const segment = this.active
    const first = segment.append(batch, lsn, timestamp)
    for (let i = 0; i < batch.keys.count; i++) {
      const key = keyAt(batch.keys, i)
      const previous = this.newest.get(key)
      previous?.segment.hide(previous.row, lsn)
      this.newest.set(key, { segment, row: first + i, previous })
    }
  }

  remove(keys: KeyColumn, lsn: number): void {
    for (let i = 0; i < keys.count; i++) {
      const newest = this.newest.get(keyAt(keys, i))
      newest?.segment.hide(newest.row, lsn)
    }
  }

  /** The version of a key that a read up to `lsn` sees, if it grows. */
  find(key: Key, lsn: number): { readonly segment: GrowingSegment; readonly row: number } | undefined {
    for (let version = this.newest.get(key); version !== undefined; version = version.previous) {
      if (version.segment.visible(version.row, lsn)) return version
    }
    return undefined
  }

  /** Whether a manifest that is flushed to this lsn ends where one of the segments does, and not in the middle of one. */
  fits(flushedTo: number): boolean {
    return flushedTo <= this.segments[0]!.from || this.segments.some(({ from }) => from === flushedTo)
  }

  /** Ends the active segment at `to` and begins another; undefined if there is nothing above its start. */
  seal(to: number): GrowingSegment | undefined {
    const sealed = this.active
    if (to <= sealed.from) return undefined
    sealed.to = to
    this.segments = [...this.segments, new GrowingSegment(this.dimension, this.metric, to)]
    return sealed
  }

  /** Lets go of what is at or below `flushedTo`: sealed segments serve it now. */
  drop(flushedTo: number): void {
    const gone = new Set(this.segments.filter((segment) => segment.to <= flushedTo))
    if (gone.size === 0) return
    this.segments = this.segments.filter((segment) => !gone.has(segment))
    for (const segment of gone) {
      for (const keys of segment.keyColumns()) {
        for (let i = 0; i < keys.count; i++) this.cut(keyAt(keys, i), gone)
      }
    }
  }

  /** Versions are in the order of the log, so those that go are the tail of their chain. */
  private cut(key: Key, gone: ReadonlySet<GrowingSegment>): void {
    let version = this.newest.get(key)
    if (version === undefined) return
    if (gone.has(version.segment)) {
      this.newest.delete(key)
      return
    }
    while (version.previous !== undefined && !gone.has(version.previous.segment)) version = version.previous
    version.previous = undefined
  }
}

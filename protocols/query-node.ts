/**
 * What a query node answers to the owners of shards, for the sealed segments that it holds. The owner sends along
 * the keys that were written since: a segment knows up to which lsn it has them, so a gap is seen and not guessed over.
 */
import { Schema } from "effect"
import { type KeyColumn, readKeys, writeKeys } from "./keys.ts"
import { type DeleteFile, Metric, type ObjectRef, type Segment } from "./metadata.ts"
import { call, hotCall, protocol } from "./protocol.ts"
import { type FoundRows, type Hits, readFound, readHits, writeFound, writeHits } from "./streaming-node.ts"
import type { Timestamp } from "./timestamp.ts"
import { among, type Codec, Reader, Writer } from "./wire.ts"

/**
 * The keys of a shard's records with `after` < lsn <= `upTo`, each hiding the older versions of its key from its
 * timestamp on. Keys that no segment of this node can have may be left out.
 */
export interface TailKeys {
  readonly after: number
  readonly upTo: number
  readonly keys: KeyColumn
  readonly timestamps: BigUint64Array
}

export interface SegmentRead {
  /** Whose question it is, and the newest record of its own that its log has acknowledged. */
  readonly knownEpoch: bigint
  readonly knownLsn: number
  readonly collection: string
  readonly shard: number
  readonly segments: ReadonlyArray<string>
  readonly timestamp: Timestamp
  readonly tail: TailKeys
}

const writeRead = (writer: Writer, read: SegmentRead): Writer => {
  writer.u64(read.knownEpoch).count(read.knownLsn)
  writer.u16(read.shard).u16(read.segments.length).u64(read.timestamp).text(read.collection)
  for (const segment of read.segments) writer.text(segment)
  return writeTail(writer, read.tail)
}
const readRead = (reader: Reader): SegmentRead => {
  const knownEpoch = reader.u64()
  const knownLsn = reader.count()
  const shard = reader.u16()
  const count = reader.u16()
  const timestamp = reader.u64()
  const collection = reader.text()
  const segments: Array<string> = []
  for (let i = 0; i < count; i++) segments.push(reader.text())
  return { knownEpoch, knownLsn, collection, shard, segments, timestamp, tail: readTail(reader) }
}
const writeTail = (writer: Writer, tail: TailKeys): Writer => {
  writer
    .count(tail.after)
    .count(tail.upTo)
    .u8(tail.keys.count === 0 ? 0 : 1)
  return tail.keys.count === 0 ? writer : writeKeys(writer, tail.keys).block(tail.timestamps)
}
const readTail = (reader: Reader): TailKeys => {
  const after = reader.count()
  const upTo = reader.count()
  if (reader.u8() === 0) return { after, upTo, keys: NO_KEYS, timestamps: NO_TIMESTAMPS }
  const keys = readKeys(reader)
  return { after, upTo, keys, timestamps: reader.u64s() }
}

const NO_TIMESTAMPS = new BigUint64Array(0)
const NO_KEYS: KeyColumn = { type: "Int64", count: 0, values: new BigInt64Array(0) }

export const noTail = (after: number, upTo: number): TailKeys => ({
  after,
  upTo,
  keys: NO_KEYS,
  timestamps: NO_TIMESTAMPS
})

export interface SegmentSearch {
  readonly read: SegmentRead
  readonly limit: number
  readonly ef: number
  readonly queries: Float32Array
}

const segmentSearch: Codec<SegmentSearch> = {
  encode: ({ ef, limit, queries, read }) =>
    writeRead(new Writer(queries.byteLength + 256).u32(limit).u32(ef).block(queries), read).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    const limit = reader.u32()
    const ef = reader.u32()
    const queries = reader.f32s()
    return { limit, ef, queries, read: readRead(reader) }
  }
}

const hitsCodec: Codec<Hits> = {
  encode: (hits, room) => writeHits(new Writer(hits.ranks.byteLength * 3 + 64, room), hits).finish(),
  decode: (bytes) => readHits(new Reader(bytes))
}

export interface SegmentGet {
  readonly read: SegmentRead
  readonly keys: KeyColumn
  readonly vectors: boolean
}

const segmentGet: Codec<SegmentGet> = {
  encode: ({ keys, read, vectors }) => writeKeys(writeRead(new Writer().u8(vectors ? 1 : 0), read), keys).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    const vectors = reader.u8() === 1
    const read = readRead(reader)
    return { vectors, read, keys: readKeys(reader) }
  }
}

const foundCodec: Codec<FoundRows> = {
  encode: (found, room) => writeFound(new Writer(1024, room), found).finish(),
  decode: (bytes) => readFound(new Reader(bytes))
}

const segmentRead: Codec<SegmentRead> = {
  encode: (read) => writeRead(new Writer(), read).finish(),
  decode: (bytes) => readRead(new Reader(bytes))
}

const rows: Codec<{ readonly rows: number }> = {
  encode: ({ rows }, room) => new Writer(8, room).count(rows).finish(),
  decode: (bytes) => ({ rows: new Reader(bytes).count() })
}

/** What an owner wants a node to hold of a shard. */
export interface SegmentLoad {
  readonly epoch: bigint
  readonly collection: string
  readonly metric: Metric
  readonly segments: ReadonlyArray<Segment>
  /** In the order of their records. */
  readonly deletes: ReadonlyArray<DeleteFile>
  readonly flushedTo: number
}

const writeObject = (writer: Writer, { bytes, crc32, key }: ObjectRef): Writer =>
  writer.text(key).count(bytes).u32(crc32)
const readObject = (reader: Reader): ObjectRef => ({ key: reader.text(), bytes: reader.count(), crc32: reader.u32() })

const writeSegment = (writer: Writer, segment: Segment): void => {
  const { data, deletesThrough, filter, id, index, maxTimestamp, minTimestamp, rows } = segment
  writer.text(id).count(rows).u64(minTimestamp).u64(maxTimestamp).count(deletesThrough)
  writeObject(writeObject(writer, data), filter).u8(index === null ? 0 : 1)
  if (index !== null) writeObject(writer, index)
}
const readSegment = (reader: Reader): Segment => {
  const id = reader.text()
  const rows = reader.count()
  const minTimestamp = reader.u64()
  const maxTimestamp = reader.u64()
  const deletesThrough = reader.count()
  const data = readObject(reader)
  const filter = readObject(reader)
  const index = reader.u8() === 0 ? null : readObject(reader)
  return { id, rows, minTimestamp, maxTimestamp, data, filter, deletesThrough, index }
}

const writeDeletes = (writer: Writer, { from, id, keys, newestRequest, object, to }: DeleteFile): void => {
  writeObject(writer.text(id), object).count(keys).count(from).count(to).u64(newestRequest)
}
const readDeletes = (reader: Reader): DeleteFile => ({
  id: reader.text(),
  object: readObject(reader),
  keys: reader.count(),
  from: reader.count(),
  to: reader.count(),
  newestRequest: reader.u64()
})

const listOf = <A>(reader: Reader, read: (reader: Reader) => A): ReadonlyArray<A> => {
  const all: Array<A> = []
  for (let left = reader.u32(); left > 0; left--) all.push(read(reader))
  return all
}
const METRICS = Metric.literals

const segmentLoad: Codec<SegmentLoad> = {
  encode: ({ collection, deletes, epoch, flushedTo, metric, segments }) => {
    const writer = new Writer(128 + 256 * (segments.length + deletes.length))
    writer.u64(epoch).text(collection).u8(METRICS.indexOf(metric)).count(flushedTo).u32(segments.length)
    for (const each of segments) writeSegment(writer, each)
    writer.u32(deletes.length)
    for (const each of deletes) writeDeletes(writer, each)
    return writer.finish()
  },
  decode: (bytes) => {
    const reader = new Reader(bytes)
    const epoch = reader.u64()
    const collection = reader.text()
    const metric = among(METRICS, reader.u8())
    const flushedTo = reader.count()
    return {
      epoch,
      collection,
      metric,
      flushedTo,
      segments: listOf(reader, readSegment),
      deletes: listOf(reader, readDeletes)
    }
  }
}

const LOAD_STATES = ["loading", "loaded", "no-memory", "failed"] as const
export type LoadState = (typeof LOAD_STATES)[number]

/** How far a node is with a segment. */
export interface LoadedSegment {
  readonly id: string
  readonly state: LoadState
  /** Keys of records up to here are applied. */
  readonly applied: number
  /** The newest record that an owner has told it of, and whose it is; 0 if none has. */
  readonly knownEpoch: bigint
  readonly knownLsn: number
  readonly indexed: boolean
  readonly detail: string
}

const loadedSegments: Codec<{ readonly segments: ReadonlyArray<LoadedSegment> }> = {
  encode: ({ segments }, room) => {
    const writer = new Writer(16 + 64 * segments.length, room).u32(segments.length)
    for (const { applied, detail, id, indexed, knownEpoch, knownLsn, state } of segments) {
      writer.text(id).u8(LOAD_STATES.indexOf(state)).count(applied).u64(knownEpoch).count(knownLsn)
      writer.u8(indexed ? 1 : 0).text(detail)
    }
    return writer.finish()
  },
  decode: (bytes) => ({
    segments: listOf(new Reader(bytes), (reader) => ({
      id: reader.text(),
      state: among(LOAD_STATES, reader.u8()),
      applied: reader.count(),
      knownEpoch: reader.u64(),
      knownLsn: reader.count(),
      indexed: reader.u8() === 1,
      detail: reader.text()
    }))
  })
}

export const QueryNodeProtocol = protocol("query-node", {
  /**
   * Searches segments; "not-here" if one is not loaded for this owner, or lacks keys that `tail` does not bring;
   * "moved" if it was loaded for a later one.
   */
  Search: hotCall(segmentSearch, hitsCodec),
  Get: hotCall(segmentGet, foundCodec),
  /**
   * Brings keys alone, for those that would make a question too long: a part with `upTo` equal to `after` moves no
   * position, which only the question itself does, with the last part.
   */
  Apply: hotCall(segmentRead, rows),
  /** Rows visible at the timestamp. */
  Count: hotCall(segmentRead, rows),
  /**
   * Loads segments, with the deletes that they have not applied; answers with how far each is once none is on its way any
   * more, or after `limits.loadPatienceMs`. The owner asks again until all are there, and then brings them up to date with
   * the keys of its tail. From the first time on they are this owner's, and no earlier one brings them keys.
   */
  Load: hotCall(segmentLoad, loadedSegments),
  /** Forgets all of a collection. */
  Release: call(Schema.Struct({ collection: Schema.String }), Schema.Struct({}))
})

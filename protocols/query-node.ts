/**
 * What a query node answers to the owners of shards, for the sealed segments that it holds. The owner sends along
 * the keys that were written since: a segment knows up to which lsn it has them, so a gap is seen and not guessed over.
 */
import { Schema } from "effect"
import { type KeyColumn, readKeys, writeKeys } from "./keys.ts"
import { DeleteFile, Metric, Segment } from "./metadata.ts"
import { call, hotCall, protocol } from "./protocol.ts"
import { type FoundRows, type Hits, readFound, readHits, writeFound, writeHits } from "./streaming-node.ts"
import type { Timestamp } from "./timestamp.ts"
import { type Codec, Reader, Writer } from "./wire.ts"

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
   * Loads segments, with the deletes that they have not applied; answers at once with how far each is. The owner
   * asks again until all are there, and then brings them up to date with the keys of its tail. From the first time on
   * they are this owner's, and no earlier one brings them keys.
   */
  Load: call(
    Schema.Struct({
      epoch: Schema.BigInt,
      collection: Schema.String,
      shard: Schema.Int,
      metric: Metric,
      segments: Schema.Array(Segment),
      deletes: Schema.Array(DeleteFile),
      /** Segments of the shard that are not in this list may go. */
      version: Schema.Int,
      flushedTo: Schema.Int
    }),
    Schema.Struct({
      segments: Schema.Array(
        Schema.Struct({
          id: Schema.String,
          state: Schema.Literals(["loading", "loaded", "no-memory", "failed"]),
          /** Keys of records up to here are applied. */
          applied: Schema.Int,
          /** The newest record that an owner has told it of, and whose it is; 0 if none has. */
          knownEpoch: Schema.BigInt,
          knownLsn: Schema.Int,
          indexed: Schema.Boolean,
          detail: Schema.String
        })
      )
    })
  ),
  /** Forgets all of a collection. */
  Release: call(Schema.Struct({ collection: Schema.String }), Schema.Struct({}))
})

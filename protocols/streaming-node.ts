/**
 * What a streaming node answers for the shards whose channels it owns. Every request names the channel and the
 * epoch that the sender believes in ("moved" otherwise), and the newest position of the channel that the sender
 * has seen acknowledged (a log that is behind it has lost something).
 */
import { Schema } from "effect"
import { type FieldColumn, readFields, readRows, type RowBatch, writeFields, writeRows } from "./rows.ts"
import { type KeyColumn, readKeys, writeKeys } from "./keys.ts"
import { hotCall, call, protocol } from "./protocol.ts"
import type { RequestId } from "./record.ts"
import type { Timestamp } from "./timestamp.ts"
import { type Codec, Reader, Writer } from "./wire.ts"

/** Where a request goes, and what its sender knows. */
export interface Route {
  readonly channel: number
  readonly epoch: bigint
  /** The newest record that the sender has seen acknowledged, and whose it is. */
  readonly knownEpoch: bigint
  readonly knownLsn: number
  readonly collection: string
  /** The revision of the metadata at which the sender knows the collection; 0: it has only been told of it. */
  readonly schema: number
  readonly shard: number
}

/**
 * `At`: exactly this T. `Fresh`: the same, and the oracle gave it out for this very read, which must see all that was
 * acknowledged before. `Latest`: that too, and the owner chooses T, not below this one, and proves it.
 */
export interface ReadTime {
  readonly _tag: (typeof READ_TIMES)[number]
  readonly timestamp: Timestamp
}

const READ_TIMES = ["At", "Fresh", "Latest"] as const

const writeRoute = (writer: Writer, route: Route): Writer =>
  writer
    .u16(route.channel)
    .u16(route.shard)
    .u64(route.epoch)
    .u64(route.knownEpoch)
    .count(route.knownLsn)
    .count(route.schema)
    .text(route.collection)
const readRoute = (reader: Reader): Route => {
  const channel = reader.u16()
  const shard = reader.u16()
  const epoch = reader.u64()
  const knownEpoch = reader.u64()
  const knownLsn = reader.count()
  const schema = reader.count()
  return { channel, shard, epoch, knownEpoch, knownLsn, schema, collection: reader.text() }
}
const writeTime = (writer: Writer, time: ReadTime): Writer =>
  writer.u64(time.timestamp).u8(READ_TIMES.indexOf(time._tag))
const readTime = (reader: Reader): ReadTime => {
  const timestamp = reader.u64()
  return { timestamp, _tag: READ_TIMES[reader.u8()] ?? "Latest" }
}

export interface Write {
  readonly route: Route
  readonly request: RequestId
  readonly body:
    { readonly _tag: "Upsert"; readonly rows: RowBatch } | { readonly _tag: "Delete"; readonly keys: KeyColumn }
}

const write: Codec<Write> = {
  encode: ({ body, request, route }) => {
    const writer = new Writer(body._tag === "Upsert" ? body.rows.vectors.byteLength + 4096 : 4096)
    writeRoute(writer, route).u64(request.issued).u64(request.unique)
    if (body._tag === "Upsert") writeRows(writer.u8(1), body.rows)
    else writeKeys(writer.u8(2), body.keys)
    return writer.finish()
  },
  decode: (bytes) => {
    const reader = new Reader(bytes)
    const route = readRoute(reader)
    const request = { issued: reader.u64(), unique: reader.u64() }
    return reader.u8() === 1
      ? { route, request, body: { _tag: "Upsert", rows: readRows(reader) } }
      : { route, request, body: { _tag: "Delete", keys: readKeys(reader) } }
  }
}

/** The timestamp that the write has, and a record of the owner that answers, not before the write. */
export interface Written {
  readonly timestamp: Timestamp
  readonly lsn: number
}

const written: Codec<Written> = {
  encode: ({ lsn, timestamp }, room) => new Writer(16, room).u64(timestamp).count(lsn).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    return { timestamp: reader.u64(), lsn: reader.count() }
  }
}

export interface ShardSearch {
  readonly route: Route
  readonly time: ReadTime
  /** Of the whole request, from its arrival at the owner. */
  readonly timeoutMs: number
  readonly limit: number
  readonly ef: number
  /** count x dimension */
  readonly queries: Float32Array
}

const shardSearch: Codec<ShardSearch> = {
  encode: ({ ef, limit, queries, route, time, timeoutMs }) => {
    const writer = writeTime(writeRoute(new Writer(queries.byteLength + 128), route), time)
    return writer.u32(timeoutMs).u32(limit).u32(ef).block(queries).finish()
  },
  decode: (bytes) => {
    const reader = new Reader(bytes)
    const route = readRoute(reader)
    const time = readTime(reader)
    return {
      route,
      time,
      timeoutMs: reader.u32(),
      limit: reader.u32(),
      ef: reader.u32(),
      queries: reader.f32s()
    }
  }
}

/** For each query its nearest, best first, one query behind the other. */
export interface Hits {
  /** How many each query has. */
  readonly counts: Uint32Array
  readonly keys: KeyColumn
  /** Smaller is nearer (storage/distance.ts). */
  readonly ranks: Float64Array
}

export const writeHits = (writer: Writer, hits: Hits): Writer =>
  writeKeys(writer.block(hits.counts), hits.keys).block(hits.ranks)
export const readHits = (reader: Reader): Hits => {
  const counts = reader.u32s()
  const keys = readKeys(reader)
  return { counts, keys, ranks: reader.f64s() }
}

/** An answer read at `timestamp`, from a channel that has acknowledged `lsn` to the owner that answers. */
export interface ReadAt {
  readonly timestamp: Timestamp
  readonly lsn: number
}

export type ShardHits = ReadAt & { readonly hits: Hits }

const shardHits: Codec<ShardHits> = {
  encode: ({ hits, lsn, timestamp }, room) =>
    writeHits(new Writer(hits.ranks.byteLength * 3 + 64, room).u64(timestamp).count(lsn), hits).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    return { timestamp: reader.u64(), lsn: reader.count(), hits: readHits(reader) }
  }
}

export interface ShardGet {
  readonly route: Route
  readonly time: ReadTime
  readonly timeoutMs: number
  readonly keys: KeyColumn
  readonly vectors: boolean
}

const shardGet: Codec<ShardGet> = {
  encode: ({ keys, route, time, timeoutMs, vectors }) =>
    writeKeys(
      writeTime(writeRoute(new Writer(), route), time)
        .u32(timeoutMs)
        .u8(vectors ? 1 : 0),
      keys
    ).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    const route = readRoute(reader)
    const time = readTime(reader)
    const timeoutMs = reader.u32()
    const vectors = reader.u8() === 1
    return { route, time, timeoutMs, vectors, keys: readKeys(reader) }
  }
}

/** The rows that are there, in no order; `vectors` is empty if they were not asked for. */
export interface FoundRows {
  readonly keys: KeyColumn
  readonly fields: FieldColumn | undefined
  readonly vectors: Float32Array
}

export const writeFound = (writer: Writer, found: FoundRows): Writer =>
  writeFields(writeKeys(writer, found.keys), found.fields).block(found.vectors)
export const readFound = (reader: Reader): FoundRows => {
  const keys = readKeys(reader)
  const fields = readFields(reader, keys.count)
  return { keys, fields, vectors: reader.f32s() }
}

export type ShardRows = ReadAt & { readonly found: FoundRows }

const shardRows: Codec<ShardRows> = {
  encode: ({ found, lsn, timestamp }, room) =>
    writeFound(new Writer(1024, room).u64(timestamp).count(lsn), found).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    return { timestamp: reader.u64(), lsn: reader.count(), found: readFound(reader) }
  }
}

export interface ShardCount {
  readonly route: Route
  readonly time: ReadTime
  readonly timeoutMs: number
}

const shardCount: Codec<ShardCount> = {
  encode: ({ route, time, timeoutMs }) => writeTime(writeRoute(new Writer(), route), time).u32(timeoutMs).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    const route = readRoute(reader)
    const time = readTime(reader)
    return { route, time, timeoutMs: reader.u32() }
  }
}

const counted: Codec<ReadAt & { readonly rows: number }> = {
  encode: ({ lsn, rows, timestamp }, room) => new Writer(24, room).u64(timestamp).count(lsn).count(rows).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    return { timestamp: reader.u64(), lsn: reader.count(), rows: reader.count() }
  }
}

const RouteSchema = Schema.Struct({
  channel: Schema.Int,
  epoch: Schema.BigInt,
  knownEpoch: Schema.BigInt,
  knownLsn: Schema.Int,
  collection: Schema.String,
  schema: Schema.Int,
  shard: Schema.Int
})

/** What a shard consists of now. */
export const ShardStats = Schema.Struct({
  node: Schema.String,
  epoch: Schema.BigInt,
  lsn: Schema.Int,
  flushedTo: Schema.Int,
  manifestVersion: Schema.Int,
  /** Of the manifest that queries use. */
  adoptedVersion: Schema.Int,
  growingRows: Schema.Int,
  growingBytes: Schema.Int,
  segments: Schema.Array(
    Schema.Struct({
      id: Schema.String,
      rows: Schema.Int,
      bytes: Schema.Int,
      indexed: Schema.Boolean,
      node: Schema.String
    })
  ),
  /** Why something waits, in words; empty if nothing does. */
  waiting: Schema.String
})
export type ShardStats = typeof ShardStats.Type

export const StreamingNodeProtocol = protocol("streaming-node", {
  Write: hotCall(write, written),
  Search: hotCall(shardSearch, shardHits),
  Get: hotCall(shardGet, shardRows),
  Count: hotCall(shardCount, counted),
  /** Seals what grows and answers when it is in the manifest, up to the lsn that was acknowledged when it came. */
  Flush: call(Schema.Struct({ route: RouteSchema, timeoutMs: Schema.Int }), Schema.Struct({ flushedTo: Schema.Int })),
  Stats: call(Schema.Struct({ route: RouteSchema }), ShardStats)
})

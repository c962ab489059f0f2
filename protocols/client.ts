/**
 * What a client may ask, after its body was read: by JSON (json.ts of the proxy) or by the binary frames below, which
 * a header chooses. Both ways end in the same requests, and the same checks.
 */
import { type KeyColumn, readKeys, writeKeys } from "./keys.ts"
import type { RequestId } from "./record.ts"
import { readFields, readRows, type FieldColumn, type RowBatch, writeFields, writeRows } from "./rows.ts"
import { parseTimestamp, type Timestamp } from "./timestamp.ts"
import { type Codec, Reader, Writer } from "./wire.ts"

export const headers = {
  /** "binary" chooses the frames of this file for body and answer. */
  format: "Elanus-Format",
  /** Names a write, so that the same one sent again is applied once: a timestamp of the cluster, "-", 16 hex digits. */
  request: "Elanus-Request",
  /** Milliseconds within which the client wants an answer. */
  timeout: "Elanus-Timeout",
  error: "Nats-Service-Error",
  errorCode: "Nats-Service-Error-Code"
} as const

export const BINARY = "binary"

export type Consistency = "Strong" | "Session" | "Bounded" | "Eventually"
export const consistencies: ReadonlyArray<Consistency> = ["Strong", "Session", "Bounded", "Eventually"]

/** When a read wants to be. */
export interface ReadLevel {
  readonly consistency: Consistency
  /** The `timestamp` of an earlier answer: the read is not before it. */
  readonly token: Timestamp
  /** Exactly this time, if it is given (time travel). */
  readonly at: Timestamp | undefined
}

export interface SearchRequest {
  readonly dimension: number
  /** count x dimension */
  readonly queries: Float32Array
  readonly limit: number
  readonly offset: number
  /** 0: the default for the limit. */
  readonly ef: number
  readonly outputFields: ReadonlyArray<string>
  readonly level: ReadLevel
}

/** Distances as users know them: L2 squared, IP and COSINE the larger the nearer. */
export interface SearchAnswer {
  readonly timestamp: Timestamp
  readonly counts: Uint32Array
  readonly keys: KeyColumn
  readonly distances: Float64Array
  /** The rows that outputFields asked for, by the same positions; absent if none were. */
  readonly fields: FieldColumn | undefined
  /** Empty unless the vector was asked for. */
  readonly vectors: Float32Array
}

export interface GetRequest {
  readonly keys: KeyColumn
  readonly outputFields: ReadonlyArray<string>
  readonly level: ReadLevel
}

export interface GetAnswer {
  readonly timestamp: Timestamp
  readonly keys: KeyColumn
  readonly fields: FieldColumn | undefined
  readonly vectors: Float32Array
}

export interface WriteAnswer {
  readonly timestamp: Timestamp
  readonly count: number
}

const writeLevel = (writer: Writer, { at, consistency, token }: ReadLevel): Writer =>
  writer
    .u8(consistencies.indexOf(consistency))
    .u64(token)
    .u64(at ?? 0n)
const readLevel = (reader: Reader): ReadLevel => {
  const consistency = consistencies[reader.u8()] ?? "Session"
  const token = reader.u64()
  const at = reader.u64()
  return { consistency, token, at: at === 0n ? undefined : at }
}
const writeTexts = (writer: Writer, texts: ReadonlyArray<string>): Writer => {
  writer.u16(texts.length)
  for (const text of texts) writer.text(text)
  return writer
}
const readTexts = (reader: Reader): Array<string> => {
  const texts: Array<string> = []
  for (let left = reader.u16(); left > 0; left--) texts.push(reader.text())
  return texts
}

export const binary = {
  write: {
    encode: (rows) => writeRows(new Writer(rows.vectors.byteLength + 4096), rows).finish(),
    decode: (bytes) => readRows(new Reader(bytes))
  } satisfies Codec<RowBatch>,

  written: {
    encode: ({ count, timestamp }) => new Writer(16).u64(timestamp).count(count).finish(),
    decode: (bytes) => {
      const reader = new Reader(bytes)
      return { timestamp: reader.u64(), count: reader.count() }
    }
  } satisfies Codec<WriteAnswer>,

  keys: {
    encode: (keys) => writeKeys(new Writer(), keys).finish(),
    decode: (bytes) => readKeys(new Reader(bytes))
  } satisfies Codec<KeyColumn>,

  search: {
    encode: ({ dimension, ef, level, limit, offset, outputFields, queries }) =>
      writeTexts(
        writeLevel(new Writer(queries.byteLength + 128).u32(dimension).u32(limit).u32(offset).u32(ef), level),
        outputFields
      )
        .block(queries)
        .finish(),
    decode: (bytes) => {
      const reader = new Reader(bytes)
      const dimension = reader.u32()
      const limit = reader.u32()
      const offset = reader.u32()
      const ef = reader.u32()
      const level = readLevel(reader)
      const outputFields = readTexts(reader)
      return { dimension, limit, offset, ef, level, outputFields, queries: reader.f32s() }
    }
  } satisfies Codec<SearchRequest>,

  hits: {
    encode: ({ counts, distances, fields, keys, timestamp, vectors }) =>
      writeFields(
        writeKeys(new Writer(distances.byteLength * 3 + 128).u64(timestamp).block(counts), keys).block(distances),
        fields
      )
        .block(vectors)
        .finish(),
    decode: (bytes) => {
      const reader = new Reader(bytes)
      const timestamp = reader.u64()
      const counts = reader.u32s()
      const keys = readKeys(reader)
      const distances = reader.f64s()
      const fields = readFields(reader, keys.count)
      return { timestamp, counts, keys, distances, fields, vectors: reader.f32s() }
    }
  } satisfies Codec<SearchAnswer>,

  get: {
    encode: ({ keys, level, outputFields }) =>
      writeKeys(writeTexts(writeLevel(new Writer(), level), outputFields), keys).finish(),
    decode: (bytes) => {
      const reader = new Reader(bytes)
      const level = readLevel(reader)
      const outputFields = readTexts(reader)
      return { level, outputFields, keys: readKeys(reader) }
    }
  } satisfies Codec<GetRequest>,

  found: {
    encode: ({ fields, keys, timestamp, vectors }) =>
      writeFields(writeKeys(new Writer().u64(timestamp), keys), fields)
        .block(vectors)
        .finish(),
    decode: (bytes) => {
      const reader = new Reader(bytes)
      const timestamp = reader.u64()
      const keys = readKeys(reader)
      const fields = readFields(reader, keys.count)
      return { timestamp, keys, fields, vectors: reader.f32s() }
    }
  } satisfies Codec<GetAnswer>
}

/** A request id as its header has it. */
export const formatRequestId = ({ issued, unique }: RequestId): string =>
  `${issued}-${unique.toString(16).padStart(16, "0")}`
export const parseRequestId = (text: string): RequestId | undefined => {
  const match = /^(\d{1,19})-([0-9a-f]{16})$/.exec(text)
  const issued = match === null ? undefined : parseTimestamp(match[1]!)
  return issued === undefined ? undefined : { issued, unique: BigInt(`0x${match![2]}`) }
}

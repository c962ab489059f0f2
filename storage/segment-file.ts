/**
 * A sealed segment as bytes: an Arrow IPC file that anything that reads Arrow can read, and a seal over every bit of
 * it. It must never hand out rows of a file that is not exactly what was written, and never crash on one that is not.
 *
 * The seal lies between Arrow's end-of-stream mark and its footer, where file readers never look:
 *   "ELANUSSG" | u32 version | u32 crc of everything before the seal | u32 crc of the footer and its length | u32 crc of the seal so far
 * Columns: key (Int64 or Utf8), timestamp (Uint64), vector (FixedSizeList of Float32), fields (Utf8, JSON or null),
 * in one record batch, ordered by (key, timestamp). The schema's metadata tells version, facts and a CRC-32 of each
 * column's data buffers laid end to end (offsets before bytes), for those who read single columns.
 */
import {
  AsyncByteQueue,
  type Data,
  Field,
  FixedSizeList,
  Float32,
  Int64,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  RecordBatchReader,
  Schema,
  Struct,
  Uint64,
  Utf8
} from "apache-arrow"
import { crc32 } from "../protocols/checksum.ts"
import { type KeyColumn, pickKeys } from "../protocols/keys.ts"
import { type FieldColumn, pickFields } from "../protocols/rows.ts"
import { utf8 } from "../protocols/wire.ts"
import { StorageError } from "./outcome.ts"

export interface SegmentColumns {
  readonly keys: KeyColumn
  readonly timestamps: BigUint64Array
  readonly dimension: number
  /** keys.count x dimension. */
  readonly vectors: Float32Array
  /** Absent if no row has any. */
  readonly fields: FieldColumn | undefined
}

export const SEGMENT_VERSION = 1

const SEAL_MAGIC = utf8.encode("ELANUSSG")
const SEAL_BYTES = 24
const ARROW_MAGIC = utf8.encode("ARROW1")
/** Behind the footer: its length and Arrow's magic. */
const TAIL_BYTES = 4 + ARROW_MAGIC.length
const INT32_MAX = 0x7fffffff

const damaged = (detail: string) => new StorageError({ reason: "damaged", detail: `segment: ${detail}` })

/** The file in parts that are laid end to end; the large ones are the columns' own memory, so do not write to it. */
export const encodeSegment = (columns: SegmentColumns): Array<Uint8Array> => {
  const { keys, timestamps, dimension, vectors, fields } = columns
  const count = keys.count
  if (dimension < 1 || timestamps.length !== count || vectors.length !== count * dimension) {
    throw new RangeError("the columns of a segment have different lengths")
  }
  if (fields !== undefined && fields.offsets.length !== count + 1) throw new RangeError("fields do not fit their keys")

  const columnCrcs = {
    key: keys.type === "Int64" ? crc32(keys.values) : crc32(keys.bytes, crc32(keys.offsets)),
    timestamp: crc32(timestamps),
    vector: crc32(vectors),
    fields: fields === undefined ? 0 : crc32(fields.bytes, crc32(fields.offsets))
  }
  const schema = new Schema(schemaFields(keys.type, dimension), metadataOf(columns, columnCrcs))
  const children = [keyData(keys), timestampData(timestamps), vectorData(columns), fieldData(fields, count)]
  const struct = makeData({ type: new Struct(schema.fields), length: count, nullCount: 0, children })

  const sink = new Parts()
  const writer = new RecordBatchFileWriter()
  writer.reset(sink as never)
  writer.write(new RecordBatch(schema, struct as never) as never)
  writer.finish()
  return sealed(sink.parts)
}

/** Arrow's writer, listened to: the parts as it gives them instead of one copy of all. */
class Parts extends AsyncByteQueue {
  readonly parts: Array<Uint8Array> = []
  override write(value: unknown): void {
    const view = value as ArrayBufferView
    if (view.byteLength > 0)
      this.parts.push(new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength))
  }
}

const schemaFields = (type: KeyColumn["type"], dimension: number): Array<Field> => [
  new Field("key", type === "Int64" ? new Int64() : new Utf8(), false),
  new Field("timestamp", new Uint64(), false),
  new Field("vector", new FixedSizeList(dimension, new Field("item", new Float32(), false)), false),
  new Field("fields", new Utf8(), true)
]

const metadataOf = (columns: SegmentColumns, crcs: { readonly [column: string]: number }): Map<string, string> => {
  const { timestamps } = columns
  const range = timestampRange(timestamps)
  const metadata = new Map([
    ["elanus.version", String(SEGMENT_VERSION)],
    ["elanus.rows", String(timestamps.length)],
    ["elanus.dimension", String(columns.dimension)],
    ["elanus.key.type", columns.keys.type],
    ["elanus.timestamp.min", String(range.min)],
    ["elanus.timestamp.max", String(range.max)]
  ])
  for (const column in crcs) metadata.set(`elanus.crc32.${column}`, crcs[column]!.toString(16).padStart(8, "0"))
  return metadata
}

/** Of no rows: 0 and 0. */
export const timestampRange = (timestamps: BigUint64Array): { readonly min: bigint; readonly max: bigint } => {
  let min = timestamps.length === 0 ? 0n : timestamps[0]!
  let max = min
  for (const timestamp of timestamps) {
    if (timestamp < min) min = timestamp
    else if (timestamp > max) max = timestamp
  }
  return { min, max }
}

const keyData = (keys: KeyColumn): Data =>
  keys.type === "Int64"
    ? makeData({ type: new Int64(), length: keys.count, nullCount: 0, data: keys.values })
    : makeData({
        type: new Utf8(),
        length: keys.count,
        nullCount: 0,
        valueOffsets: signed(keys.offsets),
        data: keys.bytes
      })

const timestampData = (timestamps: BigUint64Array): Data =>
  makeData({ type: new Uint64(), length: timestamps.length, nullCount: 0, data: timestamps })

const vectorData = ({ vectors, dimension, timestamps }: SegmentColumns): Data => {
  const item = new Field("item", new Float32(), false)
  const child = makeData({ type: new Float32(), length: vectors.length, nullCount: 0, data: vectors })
  return makeData({ type: new FixedSizeList(dimension, item), length: timestamps.length, nullCount: 0, child })
}

const fieldData = (fields: FieldColumn | undefined, count: number): Data => {
  const offsets = fields?.offsets ?? new Uint32Array(count + 1)
  const nullBitmap = new Uint8Array((count + 7) >> 3)
  let nullCount = 0
  for (let row = 0; row < count; row++) {
    if (offsets[row + 1]! > offsets[row]!) nullBitmap[row >> 3]! |= 1 << (row & 7)
    else nullCount++
  }
  const data = fields?.bytes ?? new Uint8Array(0)
  return makeData({ type: new Utf8(), length: count, nullCount, nullBitmap, valueOffsets: signed(offsets), data })
}

const signed = (offsets: Uint32Array): Int32Array => {
  if (offsets[offsets.length - 1]! > INT32_MAX) throw new RangeError("more than 2 GiB in one column")
  return new Int32Array(offsets.buffer, offsets.byteOffset, offsets.length)
}

/** Puts the seal in front of the footer, its length and the magic, which are Arrow's last three writes. */
const sealed = (parts: Array<Uint8Array>): Array<Uint8Array> => {
  const body = parts.slice(0, -3)
  const tail = parts.slice(-3)
  let bodyCrc = 0
  for (const part of body) bodyCrc = crc32(part, bodyCrc)
  const seal = new Uint8Array(SEAL_BYTES)
  const view = new DataView(seal.buffer)
  seal.set(SEAL_MAGIC)
  view.setUint32(8, SEGMENT_VERSION, true)
  view.setUint32(12, bodyCrc, true)
  view.setUint32(16, crc32(tail[2]!, crc32(tail[1]!, crc32(tail[0]!))), true)
  view.setUint32(20, crc32(seal.subarray(0, 20)), true)
  return [...body, seal, ...tail]
}

/**
 * The columns of a file, as views of `bytes` where they lie on a multiple of 8. Throws StorageError: "damaged", or
 * "unfit" for a version that is newer than this code. `trusted`: the caller has compared the checksum of the whole already.
 */
export const decodeSegment = (bytes: Uint8Array, options?: { readonly trusted?: boolean }): SegmentColumns => {
  checkSeal(bytes, options?.trusted === true)
  try {
    return columnsOf(bytes.byteOffset % 8 === 0 ? bytes : bytes.slice())
  } catch (cause) {
    throw cause instanceof StorageError ? cause : damaged(String(cause))
  }
}

const checkSeal = (bytes: Uint8Array, trusted: boolean): void => {
  if (bytes.length < 8 + SEAL_BYTES + TAIL_BYTES) throw damaged(`${bytes.length} bytes are too few`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const footerAt = bytes.length - TAIL_BYTES - view.getInt32(bytes.length - TAIL_BYTES, true)
  const sealAt = footerAt - SEAL_BYTES
  if (sealAt < 8 || footerAt > bytes.length - TAIL_BYTES) throw damaged("its end is not that of an Arrow file")
  const seal = bytes.subarray(sealAt, footerAt)
  if (SEAL_MAGIC.some((byte, i) => seal[i] !== byte)) throw damaged("no seal")
  if (view.getUint32(sealAt + 20, true) !== crc32(seal.subarray(0, 20))) throw damaged("its seal is broken")
  const version = view.getUint32(sealAt + 8, true)
  if (version > SEGMENT_VERSION) {
    throw new StorageError({ reason: "unfit", detail: `segment of version ${version}; this is ${SEGMENT_VERSION}` })
  }
  if (view.getUint32(sealAt + 16, true) !== crc32(bytes.subarray(footerAt))) throw damaged("its footer has changed")
  if (!trusted && view.getUint32(sealAt + 12, true) !== crc32(bytes.subarray(0, sealAt))) {
    throw damaged("its data has changed")
  }
}

const columnsOf = (bytes: Uint8Array): SegmentColumns => {
  const reader = RecordBatchReader.from(bytes)
  const batches = [...reader]
  const batch = batches[0]
  if (batch === undefined || batches.length !== 1) throw damaged(`${batches.length} record batches instead of one`)
  const facts = batch.schema.metadata
  const dimension = Number(facts.get("elanus.dimension"))
  const type = facts.get("elanus.key.type")
  const count = batch.numRows
  const [key, timestamp, vector, field] = batch.data.children
  if (key === undefined || timestamp === undefined || vector === undefined || field === undefined) {
    throw damaged("columns are missing")
  }
  const expected = schemaFields(type === "VarChar" ? "VarChar" : "Int64", dimension)
  expected.forEach((column, i) => {
    const found = batch.schema.fields[i]!
    if (found.name !== column.name || String(found.type) !== String(column.type))
      throw damaged(`column ${i} is ${found}`)
  })
  const timestamps = (timestamp.values as BigUint64Array).subarray(0, count)
  const vectors = (vector.children[0]!.values as Float32Array).subarray(0, count * dimension)
  const keys: KeyColumn =
    type === "VarChar"
      ? { type, count, ...textOf(key, count) }
      : { type: "Int64", count, values: (key.values as BigInt64Array).subarray(0, count) }
  if (timestamps.length !== count || vectors.length !== count * dimension) throw damaged("a column is too short")
  if (keys.type === "Int64" && keys.values.length !== count) throw damaged("the key column is too short")
  const fields = textOf(field, count)
  return { keys, timestamps, dimension, vectors, fields: fields.bytes.length === 0 ? undefined : fields }
}

const textOf = (data: Data, count: number): { offsets: Uint32Array; bytes: Uint8Array } => {
  const found = data.valueOffsets as Int32Array
  const offsets =
    found.length > count ? new Uint32Array(found.buffer, found.byteOffset, count + 1) : new Uint32Array(count + 1)
  const bytes = (data.values as Uint8Array).subarray(0, offsets[count]!)
  if (offsets[0] !== 0 || bytes.length !== offsets[count]) throw damaged("texts do not fit their offsets")
  return { offsets, bytes }
}

/** Rows whose vectors lie end to end over several blocks, each of which holds `rowsPerBlock` (the last may hold fewer). */
export interface BlockColumns {
  readonly keys: KeyColumn
  readonly timestamps: BigUint64Array
  readonly dimension: number
  readonly vectorBlocks: ReadonlyArray<Float32Array>
  readonly rowsPerBlock: number
  readonly fields: FieldColumn | undefined
}

/** The rows ordered by (key, timestamp), and those equal in both as they came. */
export const sortSegment = (columns: SegmentColumns): SegmentColumns =>
  sortBlocks({ ...columns, vectorBlocks: [columns.vectors], rowsPerBlock: Math.max(1, columns.keys.count) })

/** The same of rows in blocks. The vectors of the result are always its own; the rest only if something had to move. */
export const sortBlocks = (columns: BlockColumns): SegmentColumns => {
  const { keys, timestamps, dimension, vectorBlocks, rowsPerBlock, fields } = columns
  const order = sortedOrder(keys, timestamps)
  const count = keys.count
  const vectors = new Float32Array(count * dimension)
  if (order === undefined) {
    for (let row = 0; row < count; row += rowsPerBlock) {
      const rows = Math.min(rowsPerBlock, count - row)
      vectors.set(vectorBlocks[row / rowsPerBlock]!.subarray(0, rows * dimension), row * dimension)
    }
    return { keys, timestamps, dimension, vectors, fields }
  }
  const sortedTimestamps = new BigUint64Array(count)
  for (let i = 0; i < count; i++) {
    const row = order[i]!
    const block = vectorBlocks[Math.floor(row / rowsPerBlock)]!
    const from = (row % rowsPerBlock) * dimension
    vectors.set(block.subarray(from, from + dimension), i * dimension)
    sortedTimestamps[i] = timestamps[row]!
  }
  const sortedFields = pickFields(fields, order)
  return { keys: pickKeys(keys, order), timestamps: sortedTimestamps, dimension, vectors, fields: sortedFields }
}

/** The rows in order, or nothing if they are already. */
const sortedOrder = (keys: KeyColumn, timestamps: BigUint64Array): Uint32Array | undefined => {
  const compareKey = keys.type === "Int64" ? int64Order(keys.values) : textOrder(keys.offsets, keys.bytes)
  const compare = (a: number, b: number): number => {
    const order = compareKey(a, b)
    if (order !== 0) return order
    const x = timestamps[a]!
    const y = timestamps[b]!
    return x < y ? -1 : x > y ? 1 : a - b
  }
  let row = 1
  while (row < keys.count && compare(row - 1, row) < 0) row++
  if (row >= keys.count) return undefined
  return Uint32Array.from({ length: keys.count }, (_, i) => i).sort(compare)
}

/** By halves: comparing bigints would make two of them each time. */
const int64Order = (values: BigInt64Array) => {
  const low = new Uint32Array(values.buffer, values.byteOffset, values.length * 2)
  const high = new Int32Array(values.buffer, values.byteOffset, values.length * 2)
  return (a: number, b: number): number => high[2 * a + 1]! - high[2 * b + 1]! || low[2 * a]! - low[2 * b]!
}

const textOrder =
  (offsets: Uint32Array, bytes: Uint8Array) =>
  (a: number, b: number): number => {
    const aFrom = offsets[a]!
    const bFrom = offsets[b]!
    const aLength = offsets[a + 1]! - aFrom
    const bLength = offsets[b + 1]! - bFrom
    const shared = Math.min(aLength, bLength)
    for (let i = 0; i < shared; i++) {
      const difference = bytes[aFrom + i]! - bytes[bFrom + i]!
      if (difference !== 0) return difference
    }
    return aLength - bLength
  }

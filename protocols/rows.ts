/**
 * Rows on their way: keys, vectors and dynamic fields as columns of plain bytes. The same layout travels from
 * the client to the log, so nothing on that way looks at a row by itself.
 */
import { type KeyColumn, keyColumnBytes, pickKeys, readKeys, writeKeys } from "./keys.ts"
import { type Reader, utf8, WireError, type Writer } from "./wire.ts"

/** Text of a row's dynamic fields as a JSON object each; length 0 means that it has none. */
export interface FieldColumn {
  /** count + 1 positions into `bytes`. */
  readonly offsets: Uint32Array
  readonly bytes: Uint8Array
}

export interface RowBatch {
  readonly keys: KeyColumn
  readonly dimension: number
  /** count x dimension. */
  readonly vectors: Float32Array
  /** Absent if no row has any. */
  readonly fields: FieldColumn | undefined
}

export type Fields = { readonly [name: string]: unknown }

export const fieldColumn = (rows: ReadonlyArray<Fields | undefined>): FieldColumn | undefined => {
  const parts: Array<Uint8Array | undefined> = []
  const offsets = new Uint32Array(rows.length + 1)
  let total = 0
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]
    let part: Uint8Array | undefined
    if (row !== undefined) {
      for (const _ in row) {
        part = utf8.encode(JSON.stringify(row))
        break
      }
    }
    parts.push(part)
    offsets[i + 1] = total += part === undefined ? 0 : part.length
  }
  if (total === 0) return undefined
  const bytes = new Uint8Array(total)
  for (let i = 0; i < parts.length; i++) if (parts[i] !== undefined) bytes.set(parts[i]!, offsets[i]!)
  return { offsets, bytes }
}

/** The JSON text of a row's fields; empty if it has none. */
export const fieldBytesAt = (column: FieldColumn | undefined, row: number): Uint8Array =>
  column === undefined ? EMPTY : column.bytes.subarray(column.offsets[row]!, column.offsets[row + 1]!)

/** None where they are no object: a proxy takes no such row, and one that is there must not keep others from being read. */
export const parseFields = (bytes: Uint8Array): Fields => {
  if (bytes.length === 0) return {}
  try {
    const fields: unknown = JSON.parse(utf8.decodeDocument(bytes))
    return typeof fields === "object" && fields !== null && !Array.isArray(fields) ? (fields as Fields) : {}
  } catch {
    return {}
  }
}

const EMPTY = new Uint8Array(0)

/** The rows `rows` of a batch, in that order. */
export const pickRows = (batch: RowBatch, rows: ArrayLike<number>): RowBatch => {
  const { dimension } = batch
  const vectors = new Float32Array(rows.length * dimension)
  for (let i = 0; i < rows.length; i++) {
    const from = rows[i]! * dimension
    vectors.set(batch.vectors.subarray(from, from + dimension), i * dimension)
  }
  return { keys: pickKeys(batch.keys, rows), dimension, vectors, fields: pickFields(batch.fields, rows) }
}

export const pickFields = (column: FieldColumn | undefined, rows: ArrayLike<number>): FieldColumn | undefined => {
  if (column === undefined) return undefined
  const offsets = new Uint32Array(rows.length + 1)
  let total = 0
  for (let i = 0; i < rows.length; i++) {
    total += column.offsets[rows[i]! + 1]! - column.offsets[rows[i]!]!
    offsets[i + 1] = total
  }
  const bytes = new Uint8Array(total)
  for (let i = 0; i < rows.length; i++) bytes.set(fieldBytesAt(column, rows[i]!), offsets[i]!)
  return { offsets, bytes }
}

/** About the size of a batch in a record. */
export const rowBatchBytes = (batch: RowBatch): number =>
  keyColumnBytes(batch.keys) +
  batch.vectors.byteLength +
  (batch.fields === undefined ? 0 : batch.fields.bytes.length + batch.fields.offsets.byteLength) +
  64

export const writeRows = (writer: Writer, batch: RowBatch): Writer => {
  writeKeys(writer, batch.keys).u32(batch.dimension).block(batch.vectors)
  return writeFields(writer, batch.fields)
}

export const writeFields = (writer: Writer, column: FieldColumn | undefined): Writer =>
  column === undefined ? writer.u8(0) : writer.u8(1).block(column.offsets).block(column.bytes)

export const readRows = (reader: Reader): RowBatch => {
  const keys = readKeys(reader)
  const dimension = reader.u32()
  const vectors = reader.f32s()
  if (vectors.length !== keys.count * dimension) throw new WireError("vectors do not fit their keys")
  return { keys, dimension, vectors, fields: readFields(reader, keys.count) }
}

export const readFields = (reader: Reader, count: number): FieldColumn | undefined => {
  if (reader.u8() === 0) return undefined
  const offsets = reader.u32s()
  const bytes = reader.block()
  if (offsets.length !== count + 1 || offsets[0] !== 0 || offsets[count] !== bytes.length) {
    throw new WireError("field offsets do not fit their bytes")
  }
  for (let i = 1; i <= count; i++) if (offsets[i]! < offsets[i - 1]!) throw new WireError("field offsets go back")
  return { offsets, bytes }
}

/** Columns of `counts` rows each, end to end. */
export const concatFields = (
  columns: ReadonlyArray<FieldColumn | undefined>,
  counts: ReadonlyArray<number>
): FieldColumn | undefined => {
  if (columns.every((column) => column === undefined)) return undefined
  const rows = counts.reduce((total, count) => total + count, 0)
  const offsets = new Uint32Array(rows + 1)
  const bytes = new Uint8Array(columns.reduce((total, column) => total + (column?.bytes.length ?? 0), 0))
  let row = 0
  let at = 0
  columns.forEach((column, which) => {
    for (let i = 1; i <= counts[which]!; i++) offsets[++row] = at + (column?.offsets[i] ?? 0)
    if (column !== undefined) {
      bytes.set(column.bytes, at)
      at += column.bytes.length
    }
  })
  return { offsets, bytes }
}

/**
 * Primary keys. One key is a `Key`: an integer of 64 bits as a number where it is exact, else a bigint, or a string;
 * so equal keys are equal in a Map. Many are a `KeyColumn`: plain bytes.
 */
import { failure } from "./errors.ts"
import { limits } from "./limits.ts"
import { shortLived } from "./memory.ts"
import { type Reader, utf8, WireError, type Writer } from "./wire.ts"

export type KeyType = "Int64" | "VarChar"
export type Key = number | bigint | string

export type KeyColumn =
  | { readonly type: "Int64"; readonly count: number; readonly values: BigInt64Array }
  | {
      readonly type: "VarChar"
      readonly count: number
      /** count + 1 positions into `bytes`. */
      readonly offsets: Uint32Array
      readonly bytes: Uint8Array
    }

export const canonical = (value: bigint): Key => {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

/** The key at a row. For Int64 without making a bigint where the number is exact. */
export const keyAt = (column: KeyColumn, row: number): Key => {
  if (column.type === "Int64") return int64At(column.values, row)
  return utf8.decode(column.bytes.subarray(column.offsets[row]!, column.offsets[row + 1]!))
}

const int64At = (values: BigInt64Array, row: number): Key => {
  return canonical(values[row]!)
}

/** Lays keys out as a column. Their types must agree with `type`. */
export const keyColumn = (type: KeyType, keys: ReadonlyArray<Key>): KeyColumn => {
  if (type === "Int64") {
    const values = new BigInt64Array(keys.length)
    for (let i = 0; i < keys.length; i++) values[i] = BigInt(keys[i]!)
    return { type, count: keys.length, values }
  }
  const parts = keys.map((key) => utf8.encode(key as string))
  const offsets = new Uint32Array(parts.length + 1)
  let total = 0
  for (let i = 0; i < parts.length; i++) offsets[i + 1] = total += parts[i]!.length
  const bytes = new Uint8Array(total)
  for (let i = 0; i < parts.length; i++) bytes.set(parts[i]!, offsets[i]!)
  return { type, count: keys.length, offsets, bytes }
}

export const keysOf = (column: KeyColumn): Array<Key> =>
  Array.from({ length: column.count }, (_, row) => keyAt(column, row))

/** The rows `rows` of a column, in that order. */
export const pickKeys = (column: KeyColumn, rows: ArrayLike<number>): KeyColumn => {
  const count = rows.length
  if (column.type === "Int64") {
    const values = shortLived.i64s(count)
    for (let i = 0; i < count; i++) values[i] = column.values[rows[i]!]!
    return { type: "Int64", count, values }
  }
  const offsets = new Uint32Array(count + 1)
  let total = 0
  for (let i = 0; i < count; i++) {
    total += column.offsets[rows[i]! + 1]! - column.offsets[rows[i]!]!
    offsets[i + 1] = total
  }
  const bytes = new Uint8Array(total)
  for (let i = 0; i < count; i++) {
    bytes.set(column.bytes.subarray(column.offsets[rows[i]!]!, column.offsets[rows[i]! + 1]!), offsets[i]!)
  }
  return { type: "VarChar", count, offsets, bytes }
}

export const keyColumnBytes = (column: KeyColumn): number =>
  column.type === "Int64" ? column.values.byteLength : column.bytes.length + column.offsets.byteLength

export const writeKeys = (writer: Writer, column: KeyColumn): Writer => {
  if (column.type === "Int64") return writer.u8(0).block(column.values)
  return writer.u8(1).block(column.offsets).block(column.bytes)
}

/** Keys from bytes. Those that it gives are text each: whoever stores keys may decode them later, and cannot refuse them then. */
export const readKeys = (reader: Reader): KeyColumn => {
  const type = reader.u8()
  if (type === 0) {
    const values = reader.i64s()
    return { type: "Int64", count: values.length, values }
  }
  if (type !== 1) throw new WireError(`no key type ${type}`)
  const offsets = reader.u32s()
  const bytes = reader.block()
  if (offsets.length === 0 || offsets[0] !== 0 || offsets[offsets.length - 1] !== bytes.length) {
    throw new WireError("key offsets do not fit their bytes")
  }
  for (let i = 1; i < offsets.length; i++) {
    const from = offsets[i - 1]!
    const length = offsets[i]! - from
    if (length < 0 || length > limits.keyLengthMax) throw new WireError("a key of impossible length")
    // Text as a whole, and none begins within a character: so each is text by itself.
    if (((bytes[from] ?? 0) & 0xc0) === 0x80) throw failure("bad-key", `key ${i - 1} is not valid Unicode`)
  }
  if (!utf8.isValid(bytes)) throw failure("bad-key", "a key is not valid Unicode")
  return { type: "VarChar", count: offsets.length - 1, offsets, bytes }
}

/**
 * A number of 32 bits that a key always has, on every machine and in every version: it decides the key's shard,
 * so it may never change. Int64: the finaliser of MurmurHash3 over both halves; VarChar: FNV-1a over UTF-8, then the same.
 */
export const hashAt = (column: KeyColumn, row: number): number => {
  if (column.type === "Int64") {
    const value = column.values[row]!
    return mix(Number(BigInt.asIntN(32, value)) ^ mix(Number(BigInt.asIntN(32, value >> 32n)) + 0x9e3779b9))
  }
  return hashBytes(column.bytes, column.offsets[row]!, column.offsets[row + 1]!)
}

export const hashKey = (key: Key): number => {
  if (typeof key === "string") {
    const bytes = utf8.encode(key)
    return hashBytes(bytes, 0, bytes.length)
  }
  const value = BigInt(key)
  return mix(Number(BigInt.asIntN(32, value)) ^ mix(Number(BigInt.asIntN(32, value >> 32n)) + 0x9e3779b9))
}

const hashBytes = (bytes: Uint8Array, from: number, to: number): number => {
  let hash = 0x811c9dc5
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  return mix(hash)
}

const mix = (value: number): number => {
  let h = value | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

export const shardOf = (hash: number, shards: number): number => hash % shards

/** Total order of keys of one type: numeric, or by UTF-8 bytes (which is the order of code points). */
export const compareKeys = (a: Key, b: Key): number => {
  if (typeof a === "string" && typeof b === "string") return compareText(a, b)
  return a < b ? -1 : a > b ? 1 : 0
}

const compareText = (a: string, b: string): number => {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) {
      // Surrogates (above U+FFFF) sort behind the rest of the units, as their UTF-8 bytes do.
      const xs = x >= 0xd800 && x <= 0xdfff
      const ys = y >= 0xd800 && y <= 0xdfff
      if (xs !== ys) return xs ? 1 : -1
      return x - y
    }
  }
  return a.length - b.length
}

/** Columns of one type, end to end. */
export const concatKeys = (type: KeyType, columns: ReadonlyArray<KeyColumn>): KeyColumn => {
  const count = columns.reduce((total, column) => total + column.count, 0)
  if (type === "Int64") {
    const values = new BigInt64Array(count)
    let at = 0
    for (const column of columns) {
      if (column.type === "Int64") values.set(column.values, at)
      at += column.count
    }
    return { type, count, values }
  }
  const offsets = new Uint32Array(count + 1)
  const bytes = new Uint8Array(
    columns.reduce((total, column) => total + (column.type === "VarChar" ? column.bytes.length : 0), 0)
  )
  let row = 0
  let at = 0
  for (const column of columns) {
    if (column.type !== "VarChar") continue
    bytes.set(column.bytes, at)
    for (let i = 1; i <= column.count; i++) offsets[++row] = at + column.offsets[i]!
    at += column.bytes.length
  }
  return { type, count, offsets, bytes }
}

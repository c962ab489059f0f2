/**
 * A record of a channel's log: a fixed header that chains it to the record before, then the entries of any
 * number of requests. Layout, little-endian, version 1:
 *
 *   0 magic "ELR" + version   4 crc32 of all that follows   8 kind u8, 0 u8, channel u16, incarnation u32
 *   16 epoch u64   24 lsn u64   32 hash of the record before u64   40 timestamp u64   48 oracle floor u64
 *   56 nonce of the activation u64   64 entries u32, 0 u32   72 entries, each on a multiple of 8
 *
 * protocols/README.md, section 1, says what each is for.
 */
import { chainHash, crc32 } from "./checksum.ts"
import { type KeyColumn, keyColumnBytes, readKeys, writeKeys } from "./keys.ts"
import { readRows, type RowBatch, rowBatchBytes, writeRows } from "./rows.ts"
import type { Timestamp } from "./timestamp.ts"
import { Reader, Writer } from "./wire.ts"

/** `rows`: entries. `tick`: closes a timestamp. `fence`: an owner begins. `padding`: makes a fence or a stopper long enough. */
export type RecordKind = "rows" | "tick" | "fence" | "padding"

const KINDS: ReadonlyArray<RecordKind> = ["rows", "tick", "fence", "padding"]

export interface RecordHeader {
  readonly kind: RecordKind
  readonly channel: number
  /** Of the owner: the revision at which it took the channel's key. */
  readonly epoch: bigint
  /** Counts the fences of one activation. */
  readonly incarnation: number
  /** Dense over rows, ticks and fences; padding repeats its fence's. */
  readonly lsn: number
  /** Of the record with the lsn before. */
  readonly previous: bigint
  readonly timestamp: Timestamp
  /** The oldest grant that an owner may still use after this. */
  readonly floor: Timestamp
  readonly nonce: bigint
}

/** Who asks, once: 64 bits of a timestamp that the cluster gave out, 64 bits of chance. */
export interface RequestId {
  readonly issued: Timestamp
  readonly unique: bigint
}

export interface Entry {
  readonly collection: string
  readonly shard: number
  /** The metadata revision of the collection that its writer knew: whoever reads it must know at least that. */
  readonly schema: number
  readonly request: RequestId
  /** Rows to upsert (an insert is one too), or keys to delete. */
  readonly body:
    { readonly _tag: "Upsert"; readonly rows: RowBatch } | { readonly _tag: "Delete"; readonly keys: KeyColumn }
}

export interface LogRecord {
  readonly header: RecordHeader
  readonly entries: ReadonlyArray<Entry>
  /** Identifies this record and all before it. */
  readonly hash: bigint
}

/** The bytes are no record, or not the one that was written: nobody may go on past it. */
export class RecordDamaged extends Error {
  override readonly name = "RecordDamaged"
}

const MAGIC = 0x01_52_4c_45 // "ELR", version 1
const MAGIC_MASK = 0xff_ff_ff
const HEADER_BYTES = 72
const UPSERT = 1
const DELETE = 2

/** At most so many bytes more than its rows or keys. */
const ENTRY_OVERHEAD = 64

export const entryBytes = (entry: Entry): number =>
  (entry.body._tag === "Upsert" ? rowBatchBytes(entry.body.rows) : keyColumnBytes(entry.body.keys)) +
  ENTRY_OVERHEAD +
  entry.collection.length

export const recordBytes = (entries: ReadonlyArray<Entry>): number =>
  entries.reduce((total, entry) => total + entryBytes(entry), HEADER_BYTES)

export const hashOf = (header: Pick<RecordHeader, "previous" | "lsn">, crc: number): bigint =>
  chainHash(header.previous, BigInt(crc), BigInt(header.lsn))

export const encodeRecord = (
  header: RecordHeader,
  entries: ReadonlyArray<Entry>
): { readonly bytes: Uint8Array; readonly hash: bigint } => {
  const writer = new Writer(recordBytes(entries) + 8)
  writer.u32(MAGIC).u32(0)
  writer.u8(KINDS.indexOf(header.kind)).u8(0).u16(header.channel).u32(header.incarnation)
  writer.u64(header.epoch).u64(BigInt(header.lsn)).u64(header.previous)
  writer.u64(header.timestamp).u64(header.floor).u64(header.nonce).u32(entries.length).u32(0)
  for (const entry of entries) {
    writer.align()
    writer
      .u8(entry.body._tag === "Upsert" ? UPSERT : DELETE)
      .u8(0)
      .u16(entry.shard)
    writer.u64(entry.request.issued).u64(entry.request.unique).count(entry.schema).text(entry.collection)
    if (entry.body._tag === "Upsert") writeRows(writer, entry.body.rows)
    else writeKeys(writer, entry.body.keys)
  }
  const bytes = writer.finish()
  const crc = crc32(bytes.subarray(8))
  writer.patchU32(4, crc)
  return { bytes, hash: hashOf(header, crc) }
}

/** Reads and verifies a record. Its rows and keys are views of `bytes`. Throws RecordDamaged. */
export const decodeRecord = (bytes: Uint8Array): LogRecord => {
  if (bytes.length < HEADER_BYTES) throw new RecordDamaged(`a record of ${bytes.length} bytes`)
  const reader = new Reader(bytes)
  const magic = reader.u32()
  if ((magic & MAGIC_MASK) !== (MAGIC & MAGIC_MASK)) throw new RecordDamaged("not a record")
  if (magic !== MAGIC) throw new RecordDamaged(`a record of format ${magic >>> 24}; this version reads format 1`)
  const crc = reader.u32()
  if (crc32(bytes.subarray(8)) !== crc) throw new RecordDamaged("checksum mismatch")
  const kind = KINDS[reader.u8()]
  if (kind === undefined) throw new RecordDamaged("a record of no known kind")
  reader.u8()
  const channel = reader.u16()
  const incarnation = reader.u32()
  const header: RecordHeader = {
    kind,
    channel,
    incarnation,
    epoch: reader.u64(),
    lsn: Number(reader.u64()),
    previous: reader.u64(),
    timestamp: reader.u64(),
    floor: reader.u64(),
    nonce: reader.u64()
  }
  const count = reader.u32()
  reader.u32()
  const entries: Array<Entry> = []
  for (let i = 0; i < count; i++) entries.push(readEntry(reader))
  return { header, entries, hash: hashOf(header, crc) }
}

const readEntry = (reader: Reader): Entry => {
  reader.align()
  const tag = reader.u8()
  reader.u8()
  const shard = reader.u16()
  const request = { issued: reader.u64(), unique: reader.u64() }
  const schema = reader.count()
  const collection = reader.text()
  if (tag === UPSERT) return { collection, shard, schema, request, body: { _tag: "Upsert", rows: readRows(reader) } }
  if (tag === DELETE) return { collection, shard, schema, request, body: { _tag: "Delete", keys: readKeys(reader) } }
  throw new RecordDamaged(`an entry of no known kind ${tag}`)
}

export const requestKey = (id: RequestId): string => `${id.issued.toString(36)}-${id.unique.toString(36)}`

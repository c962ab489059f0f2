/**
 * The log as its reader checks it: every record must follow the one before it, by lsn and by hash, and none may
 * come from an owner that a fence has shut out. Says what each message is; throws RecordDamaged where it cannot
 * be what was written. Pure.
 */
import { decodeRecord, type LogRecord, RecordDamaged } from "../../protocols/record.ts"
import type { Checkpoint } from "../../protocols/metadata.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"

/** `void`: of an owner that was fenced off; it counts for nobody. */
export type Link =
  | { readonly _tag: "Record"; readonly record: LogRecord }
  | { readonly _tag: "Padding"; readonly record: LogRecord }
  | { readonly _tag: "Void"; readonly record: LogRecord }

export class Chain {
  /** Of the newest message read, padding included. */
  sequence: number
  /** Where the newest record is. */
  recordAt: number
  lsn: number
  hash: bigint
  epoch: bigint
  incarnation: number
  timestamp: Timestamp
  floor: Timestamp

  constructor(from: Checkpoint) {
    this.sequence = from.sequence
    this.recordAt = from.sequence
    this.lsn = from.lsn
    this.hash = from.hash
    this.epoch = from.epoch
    this.incarnation = from.incarnation
    this.timestamp = from.timestamp
    this.floor = from.floor
  }

  read(sequence: number, bytes: Uint8Array): Link {
    if (sequence !== this.sequence + 1) {
      throw new RecordDamaged(`a hole in the log: sequence ${sequence} follows ${this.sequence}`)
    }
    const record = decodeRecord(bytes)
    this.sequence = sequence
    const { header } = record
    if (header.kind === "padding") return { _tag: "Padding", record }
    if (header.epoch < this.epoch || (header.epoch === this.epoch && header.incarnation < this.incarnation)) {
      return { _tag: "Void", record }
    }
    if (header.lsn !== this.lsn + 1 || header.previous !== this.hash) {
      throw new RecordDamaged(`record ${header.lsn} at sequence ${sequence} does not follow record ${this.lsn}`)
    }
    const above = header.epoch > this.epoch || header.incarnation > this.incarnation
    if (above && header.kind !== "fence") {
      throw new RecordDamaged(`record ${header.lsn} of epoch ${header.epoch} has no fence before it`)
    }
    if (header.timestamp < this.timestamp) throw new RecordDamaged(`time goes back at record ${header.lsn}`)
    this.wrote(sequence, record)
    return { _tag: "Record", record }
  }

  /** A record that is known to be there without being read back: our own. */
  wrote(sequence: number, { hash, header }: LogRecord): void {
    this.sequence = sequence
    this.recordAt = sequence
    this.lsn = header.lsn
    this.hash = hash
    this.epoch = header.epoch
    this.incarnation = header.incarnation
    this.timestamp = header.timestamp
    this.floor = header.floor > this.floor ? header.floor : this.floor
  }
}

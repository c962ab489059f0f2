/**
 * The same database once more, as one list of versions: what the log says, read by the rules of
 * protocols/README.md, section 1, and by no code of an owner. It gives the exact rows of a collection at any timestamp,
 * and which request stands where. It sees all that was ever stored, also what was purged since.
 */
import { compareKeys, type Key, keysOf } from "../protocols/keys.ts"
import { decodeRecord, type LogRecord, RecordDamaged, type RequestId } from "../protocols/record.ts"
import { fieldBytesAt, type Fields, parseFields, type RowBatch } from "../protocols/rows.ts"
import type { Timestamp } from "../protocols/timestamp.ts"
import type { Fact, Moment } from "./ledger.ts"

/** One message of a channel. */
export interface Message {
  readonly channel: number
  readonly sequence: number
  readonly stored: Moment
  readonly record: LogRecord
  /** `void`: of an owner that a fence had shut out. */
  readonly standing: "record" | "padding" | "void"
  /** A power failure took it. */
  lost: Moment | undefined
}

/** One entry of a record that counts: a request, or the part of it that one shard has. */
export interface Applied {
  readonly message: Message
  readonly collection: string
  readonly shard: number
  readonly request: RequestId
  readonly versions: ReadonlyArray<Version>
}

export interface Row {
  readonly vector: Float32Array
  readonly fields: Fields
}

/** What a key is from a record on, until the next one. */
export interface Version {
  readonly key: Key
  readonly shard: number
  readonly channel: number
  readonly lsn: number
  readonly timestamp: Timestamp
  readonly message: Message
  /** Undefined: it was deleted. */
  readonly row: Row | undefined
}

/** Something in a log that no reader may go past. */
export interface Flaw {
  readonly channel: number
  readonly sequence: number
  readonly detail: string
}

/** Where a channel's reader stands. */
interface Place {
  readonly lsn: number
  readonly hash: bigint
  readonly epoch: bigint
  readonly incarnation: number
  readonly timestamp: Timestamp
}

const START: Place = { lsn: 0, hash: 0n, epoch: 0n, incarnation: 0, timestamp: 0n }

export class Model {
  readonly messages: Array<Message> = []
  readonly applied: Array<Applied> = []
  readonly flaws: Array<Flaw> = []
  /** Channels that lost what they had said was stored. */
  readonly bereft = new Map<number, Moment>()
  private readonly shards = new Map<string, Array<Applied>>()
  private readonly channels = new Map<number, Array<{ readonly message: Message; readonly place: Place }>>()
  /** Collection -> key -> its versions, in the order of the log. */
  private readonly collections = new Map<string, Map<Key, Array<Version>>>()

  constructor(facts: Iterable<Fact>) {
    for (const fact of facts) {
      if (fact._tag === "Stored") this.store(fact.channel, fact.sequence, fact.data, fact.moment)
      else if (fact._tag === "Lost") this.lose(fact.channel, fact.from, fact.moment)
    }
  }

  /** Every version of a key, in the order of the log. */
  versions(collection: string, key: Key): ReadonlyArray<Version> {
    return this.collections.get(collection)?.get(key) ?? []
  }

  /** All entries of a shard, in the order of the log; those too that the log lost. */
  appliedTo(collection: string, shard: number): ReadonlyArray<Applied> {
    return this.shards.get(`${collection}.${shard}`) ?? []
  }

  keys(collection: string): Iterable<Key> {
    return this.collections.get(collection)?.keys() ?? []
  }

  /** What a read at T sees of a key: the version, a delete too; undefined if there is none. */
  at(collection: string, key: Key, timestamp: Timestamp): Version | undefined {
    return newestAt(this.versions(collection, key), timestamp)
  }

  /** The rows that a read at T sees, ordered by key. */
  rows(collection: string, timestamp: Timestamp): ReadonlyArray<Version & { readonly row: Row }> {
    const found: Array<Version & { readonly row: Row }> = []
    for (const versions of this.collections.get(collection)?.values() ?? []) {
      const version = newestAt(versions, timestamp)
      if (version?.row !== undefined) found.push(version as Version & { readonly row: Row })
    }
    return found.sort((a, b) => compareKeys(a.key, b.key))
  }

  /** The messages of a channel that are there, in order. */
  log(channel: number): ReadonlyArray<Message> {
    return (this.channels.get(channel) ?? []).map(({ message }) => message)
  }

  private store(channel: number, sequence: number, data: Uint8Array, stored: Moment): void {
    let log = this.channels.get(channel)
    if (log === undefined) this.channels.set(channel, (log = []))
    const place = log[log.length - 1]?.place ?? START
    const flaw = (detail: string) => this.flaws.push({ channel, sequence, detail })
    if (sequence !== log.length + 1) flaw(`sequence ${sequence} follows ${log.length}`)
    let record: LogRecord
    try {
      record = decodeRecord(data)
    } catch (cause) {
      if (!(cause instanceof RecordDamaged)) throw cause
      flaw(cause.message)
      return
    }
    const { header } = record
    if (header.channel !== channel) flaw(`a record of channel ${header.channel}`)
    const isOlder =
      header.epoch < place.epoch || (header.epoch === place.epoch && header.incarnation < place.incarnation)
    const standing = header.kind === "padding" ? "padding" : isOlder ? "void" : "record"
    const message: Message = { channel, sequence, stored, record, standing, lost: undefined }
    this.messages.push(message)
    if (standing !== "record") {
      log.push({ message, place })
      return
    }
    const isNewer = header.epoch > place.epoch || header.incarnation > place.incarnation
    if (isNewer && header.kind !== "fence") flaw(`record ${header.lsn} of epoch ${header.epoch} has no fence before it`)
    if (header.lsn !== place.lsn + 1) flaw(`record ${header.lsn} follows record ${place.lsn}`)
    else if (header.previous !== place.hash) flaw(`record ${header.lsn} is chained to another one than the one before`)
    if (header.timestamp < place.timestamp) flaw(`time goes back at record ${header.lsn}`)
    const { epoch, incarnation, lsn, timestamp } = header
    log.push({ message, place: { lsn, hash: record.hash, epoch, incarnation, timestamp } })
    this.apply(message)
  }

  private apply(message: Message): void {
    for (const { body, collection, request, shard } of message.record.entries) {
      const { lsn, timestamp } = message.record.header
      const { channel } = message
      const keys = keysOf(body._tag === "Upsert" ? body.rows.keys : body.keys)
      const versions = keys.map((key, i): Version => {
        const row = body._tag === "Upsert" ? rowAt(body.rows, i) : undefined
        return { key, shard, channel, lsn, timestamp, message, row }
      })
      const applied: Applied = { message, collection, shard, request, versions }
      this.applied.push(applied)
      const name = `${collection}.${shard}`
      const mates = this.shards.get(name)
      if (mates === undefined) this.shards.set(name, [applied])
      else mates.push(applied)
      let known = this.collections.get(collection)
      if (known === undefined) this.collections.set(collection, (known = new Map()))
      for (const version of versions) {
        const mine = known.get(version.key)
        if (mine === undefined) known.set(version.key, [version])
        else mine.push(version)
      }
    }
  }

  /** What a server loses with its power is in no log any more; who was told of it was told wrong. */
  private lose(channel: number, from: number, moment: Moment): void {
    if (!this.bereft.has(channel)) this.bereft.set(channel, moment)
    const gone = this.channels.get(channel)?.splice(from - 1) ?? []
    for (const { message } of gone) message.lost = moment
    const stays = ({ message }: { readonly message: Message }) => message.lost === undefined
    for (const keys of this.collections.values()) {
      for (const [key, versions] of keys) keys.set(key, versions.filter(stays))
    }
  }
}

const newestAt = (versions: ReadonlyArray<Version>, timestamp: Timestamp): Version | undefined => {
  for (let i = versions.length - 1; i >= 0; i--) if (versions[i]!.timestamp <= timestamp) return versions[i]
  return undefined
}

const rowAt = ({ dimension, fields, vectors }: RowBatch, row: number): Row => ({
  vector: vectors.slice(row * dimension, (row + 1) * dimension),
  fields: parseFields(fieldBytesAt(fields, row))
})

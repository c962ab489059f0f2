/**
 * What one activation of a channel's owner knows: its place in the log, its shards, the requests that it remembers.
 * Everything in here comes from records that are acknowledged or were found stored, in the order of the log.
 */
import type { Sites } from "../../runtime/buggify.ts"
import type { Catalog } from "../../runtime/catalog.ts"
import type { Settings } from "../../runtime/node.ts"
import type { Signal } from "../../runtime/signal.ts"
import type { ElanusError } from "../../protocols/errors.ts"
import { type Checkpoint, emptyManifest, type Manifest } from "../../protocols/metadata.ts"
import { limits } from "../../protocols/limits.ts"
import { type LogRecord, recordBytes } from "../../protocols/record.ts"
import type { Route } from "../../protocols/streaming-node.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import type { LogState } from "../../storage/log.ts"
import type { Chain } from "./chain.ts"
import { Epochs } from "./epochs.ts"
import type { Identity } from "./fence.ts"
import type { Requests } from "./requests.ts"
import { Shard, shardKey } from "./shard.ts"
import type { Stamps } from "./stamps.ts"
import { type Pending, WriteQueue } from "./writer.ts"

/** One record of the log, as a checkpoint names it. */
export type Place = Omit<Checkpoint, "epochs" | "requestFloor" | "metadata">

export class Owner {
  readonly node: string
  readonly who: Identity
  readonly settings: Settings
  readonly sites: Sites
  readonly catalog: Catalog["Service"]
  readonly changed: Signal
  readonly chain: Chain
  readonly epochs: Epochs
  readonly stamps: Stamps
  readonly requests: Requests
  readonly queue = new WriteQueue()
  /** Requests that were given to the writer and have no outcome yet. */
  readonly asked = new Map<string, Pending>()
  readonly shards = new Map<string, Shard>()
  incarnation = 0
  /** Reads at or below it can be answered: the log acknowledged a record of our epoch at or above it. */
  closed: Timestamp = -1n
  /** Of the last record that is known to be stored. */
  lsn: number
  /** Of the last one that is ours: acknowledged to us, or below a fence of ours. One that was only read may be a later owner's. */
  proven = -1
  /** Its log begins there: what is below is purged. */
  logFirst = 0
  logBytes = 0
  logBytesMax = Infinity
  checkpoint: Checkpoint
  /** Revision of the channel's key as we wrote it last. */
  keyRevision: number
  /** Set when somebody has shown that there were records that we do not have. */
  behind: string | undefined
  /** It begins anew, though nothing is wrong. */
  again = false
  /** Why it stands still, in words. */
  trouble = ""
  /** Set when the activation has ended: nothing that it has not closed, loaded or written by then will ever be. */
  over: ElanusError | undefined
  /** Every record above the lowest one that somebody may still ask for, in order. */
  private places: Array<Place> = []

  constructor(input: {
    readonly node: string
    readonly who: Identity
    readonly settings: Settings
    readonly sites: Sites
    readonly catalog: Catalog["Service"]
    readonly changed: Signal
    readonly chain: Chain
    readonly stamps: Stamps
    readonly requests: Requests
    readonly checkpoint: Checkpoint
    readonly keyRevision: number
  }) {
    this.node = input.node
    this.who = input.who
    this.settings = input.settings
    this.sites = input.sites
    this.catalog = input.catalog
    this.changed = input.changed
    this.chain = input.chain
    this.epochs = new Epochs(input.checkpoint.epochs)
    this.stamps = input.stamps
    this.requests = input.requests
    this.checkpoint = input.checkpoint
    this.keyRevision = input.keyRevision
    this.lsn = input.checkpoint.lsn
    if (input.checkpoint.lsn > 0) this.places.push(input.checkpoint)
  }

  manifest(shard: Shard): Manifest {
    return this.catalog.manifest(shard.collection.id, shard.shard) ?? emptyManifest(shard.collection.id, shard.shard)
  }

  /** The shard, if its collection exists and the shard is on this channel. */
  shardOf(collectionId: string, shard: number): Shard | undefined {
    const known = this.shards.get(shardKey(collectionId, shard))
    if (known !== undefined) return known
    const collection = this.catalog.collection(collectionId)
    if (collection?.state !== "ready" || collection.channels[shard] !== this.who.channel) return undefined
    const made = new Shard(collection, shard, this.catalog.manifest(collectionId, shard))
    this.shards.set(made.key, made)
    // Somebody must have its segments loaded.
    this.changed.notify()
    return made
  }

  /** A record is stored, and so is every one before it: now, and not earlier, it counts. */
  apply(record: LogRecord, sequence: number, nowMs: number): void {
    const { header } = record
    this.logBytes += recordBytes(record.entries)
    const grown = new Set<Shard>()
    for (const entry of record.entries) {
      const outcome = { timestamp: header.timestamp, lsn: header.lsn }
      this.requests.remember(shardKey(entry.collection, entry.shard), entry.request, outcome)
      const shard = this.shardOf(entry.collection, entry.shard)
      // A dropped collection, or a flush that has it already: replay meets both.
      if (shard === undefined || header.lsn <= shard.growing.segments[0]!.from) continue
      shard.apply(entry, record, nowMs)
      grown.add(shard)
    }
    // Not between two entries of one shard: a unit ends where its last record does, and takes all of it.
    for (const shard of grown) {
      if (shard.growing.active.bytes >= this.settings.segmentBytesMax) shard.seal(header.lsn)
    }
    const { epoch, floor, incarnation, lsn, timestamp } = header
    // Last, and both at once: `places` has one for each lsn, and what is sealed up to an lsn has all of it.
    this.lsn = lsn
    this.epochs.add(header)
    this.places.push({ sequence, lsn, hash: record.hash, epoch, incarnation, timestamp, floor })
    this.requests.advance(header.timestamp, 0n)
  }

  /** The last lsn whose record is at or below T. */
  lsnAt(timestamp: Timestamp): number {
    const { places } = this
    let low = 0
    let high = places.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (places[middle]!.timestamp <= timestamp) low = middle + 1
      else high = middle
    }
    if (low > 0) return places[low - 1]!.lsn
    return places.length === 0 ? this.lsn : places[0]!.lsn - 1
  }

  place(lsn: number): Place | undefined {
    const first = this.places[0]
    return first === undefined ? undefined : this.places[lsn - first.lsn]
  }

  /** What somebody has seen acknowledged and the log does not have, in words. */
  lost({ knownEpoch, knownLsn }: Pick<Route, "knownEpoch" | "knownLsn">): string | undefined {
    return this.missing(knownLsn, knownEpoch, "acknowledged")
  }

  /** What is flushed and the log does not have, in words: it may have something else there by now, which would count as flushed. */
  lostFlush({ flushedEpoch, flushedTo }: Manifest): string | undefined {
    return this.missing(flushedTo, flushedEpoch, "flushed")
  }

  private missing(lsn: number, epoch: bigint, how: string): string | undefined {
    if (lsn > this.lsn) return `record ${lsn} was ${how}, and the log ends at ${this.lsn}`
    const there = this.epochs.at(lsn)
    // A fence, a tick or a write of a later owner can take the number of a record that is lost.
    return there === undefined || there === epoch
      ? undefined
      : `record ${lsn} of epoch ${epoch} was ${how}, and the log has one of epoch ${there} there`
  }

  learnLog({ bytes, bytesMax, first }: LogState): void {
    this.logFirst = first
    this.logBytes = bytes
    this.logBytesMax = bytesMax
  }

  /** Everything below the lowest lsn that a flush, a checkpoint or a growing row still refers to may go. */
  forget(): void {
    let lowest = this.checkpoint.lsn
    for (const shard of this.shards.values()) {
      if (shard.view !== undefined) lowest = Math.min(lowest, shard.view.manifest.flushedTo)
      if (shard.tail.keys > 0) lowest = Math.min(lowest, shard.tail.base)
    }
    const first = this.places[0]
    if (first === undefined || lowest <= first.lsn) return
    this.places = this.places.slice(Math.min(lowest - first.lsn, this.places.length - 1))
  }

  /** The record just before the lowest one that is in no manifest; the last one if all are. */
  nextCheckpoint(): Place | undefined {
    let lowest = this.lsn + 1
    for (const shard of this.shards.values()) {
      const manifest = this.manifest(shard)
      if (this.lostFlush(manifest) !== undefined) return undefined
      const oldest = shard.oldestUnflushed(manifest.flushedTo)
      if (oldest !== undefined) lowest = Math.min(lowest, oldest)
    }
    return this.place(lowest - 1)
  }

  get growingBytes(): number {
    let bytes = 0
    for (const shard of this.shards.values()) bytes += shard.growing.bytes
    return bytes
  }

  /** Whether rows must be refused so that fences and ticks still have room. */
  get full(): boolean {
    return this.logBytes >= this.logBytesMax * limits.channelFullAt
  }
}

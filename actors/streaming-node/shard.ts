/**
 * One shard at its owner: what grows, the keys of its tail, and the view that queries stand on. A view is one
 * manifest version and exactly the shard's records above its flushed lsn; it changes in one step (`adopt`), and a
 * query keeps the one that it began with. State only: reading.ts queries it, flushing.ts and handoff.ts change it.
 */
import { emptyManifest, type Collection, type Manifest } from "../../protocols/metadata.ts"
import type { Entry, LogRecord } from "../../protocols/record.ts"
import { type KeyFilter, mayHold } from "../../storage/key-filter.ts"
import { Growing, type GrowingSegment, ownKeys } from "./growing.ts"
import { Tail } from "./tail.ts"

/** Where a sealed segment is served, and how far its node knows the keys written since. */
export interface Holder {
  readonly node: string
  applied: number
  readonly indexed: boolean
}

export interface View {
  readonly manifest: Manifest
  /** Of every segment of the manifest. */
  readonly holders: ReadonlyMap<string, Holder>
}

/** What a query stands on, from its plan to its end. */
export interface Pin {
  readonly view: View
  readonly growing: ReadonlyArray<GrowingSegment>
}

export const shardKey = (collection: string, shard: number): string => `${collection}.${shard}`

export class Shard {
  readonly key: string
  readonly collection: Collection
  readonly shard: number
  readonly growing: Growing
  readonly tail: Tail
  /** Undefined until the segments of the first manifest are loaded: then nothing can be read yet. */
  view: View | undefined
  /** Sealed, and not in a manifest yet, in order. */
  sealed: Array<GrowingSegment> = []
  flushing = false
  /** So often its flush was refused, one after the other; it rests between the tries. */
  flushRefused = 0
  resting = false
  /** Somebody asked for a flush of all up to here. */
  flushWanted = -1
  /** Request ids of its flushed files are in memory. */
  requestsLoaded = false
  handingOff = false
  /** Of the newest manifest, in vain. */
  handTries = 0
  /** A node of the view lost a segment, or the view is not the newest. */
  viewStale = true
  /** Which keys each sealed segment may hold; a segment without one may hold any. */
  readonly filters = new Map<string, KeyFilter>()
  /** Why it waits, in words, for people. */
  waiting = ""

  constructor(collection: Collection, shard: number, manifest: Manifest | undefined) {
    this.key = shardKey(collection.id, shard)
    this.collection = collection
    this.shard = shard
    const start = manifest ?? emptyManifest(collection.id, shard)
    this.growing = new Growing(collection.spec.dimension, collection.spec.metric, start.flushedTo)
    this.tail = new Tail(start.flushedTo)
    if (start.segments.length === 0) {
      this.view = { manifest: start, holders: new Map() }
      this.viewStale = false
    }
  }

  /** Adds an entry of a record that is stored. */
  apply(entry: Entry, { header }: LogRecord, nowMs: number): void {
    const { lsn, timestamp } = header
    const { body } = entry
    const keys = ownKeys(body._tag === "Upsert" ? body.rows.keys : body.keys)
    if (body._tag === "Upsert") this.growing.upsert({ ...body.rows, keys }, lsn, timestamp)
    else this.growing.remove(keys, lsn)
    this.tail.add({ lsn, timestamp, keys, kind: body._tag })
    this.growing.active.born ??= nowMs
  }

  /** Everything up to `to` is to be flushed as a unit of its own. */
  seal(to: number): void {
    if (this.growing.active.born === undefined) return
    const sealed = this.growing.seal(to)
    if (sealed !== undefined) this.sealed.push(sealed)
  }

  /** The lowest lsn that a restart would have to read again; undefined if there is none. */
  oldestUnflushed(flushedTo: number): number | undefined {
    return this.tail.firstAbove(flushedTo)
  }

  /** One step: queries that begin after it stand on `view`. */
  adopt(view: View): void {
    this.view = view
    this.growing.drop(view.manifest.flushedTo)
    this.tail.drop(view.manifest.flushedTo)
    this.viewStale = false
  }

  /** Why it does not go with a manifest that ends within one of its units, in words. */
  get misfit(): string {
    return `shard ${this.key} was flushed by an earlier owner`
  }

  /** Whether a sealed segment of the view may hold a key of this hash. */
  readonly mayBeSealed = (hash: number): boolean => {
    for (const { id } of this.view?.manifest.segments ?? []) {
      const filter = this.filters.get(id)
      if (filter === undefined || mayHold(filter, hash)) return true
    }
    return false
  }

  pin(): Pin | undefined {
    return this.view === undefined ? undefined : { view: this.view, growing: this.growing.segments }
  }
}

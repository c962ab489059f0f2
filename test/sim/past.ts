/**
 * A run made by hand: what the stores accepted and what clients were told, step by step, right unless it is told
 * otherwise. What a step should have said is worked out from a plain list of what was written.
 */
import { crc32 } from "../../protocols/checksum.ts"
import type { Consistency, ReadLevel } from "../../protocols/client.ts"
import { formatRequestId } from "../../protocols/client.ts"
import { compareKeys, hashKey, type Key, keyColumn, shardOf } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import {
  type ChannelKey,
  type Checkpoint,
  checkpointZero,
  emptyManifest,
  leaseKey,
  type Manifest,
  metadata,
  metaKey,
  type Order
} from "../../protocols/metadata.ts"
import { encodeRecord, type Entry, type RecordHeader, type RequestId } from "../../protocols/record.ts"
import { fieldColumn } from "../../protocols/rows.ts"
import { fromMillis, type Timestamp } from "../../protocols/timestamp.ts"
import { type Alarm, type Crash, Evidence, type Observed, type Property } from "../../sim/checks/evidence.ts"
import { violationsOf } from "../../sim/checks/all.ts"
import { distance } from "../../sim/checks/reads.ts"
import type { Answer, AnswerHit, AnswerRow, Asked, AskedRow, Operation, Outcome, Shape } from "../../sim/history.ts"
import { Ledger, type Moment } from "../../sim/ledger.ts"
import { BEGINNING } from "../../sim/world.ts"
import { encodeDeletes } from "../../storage/delete-file.ts"
import { joined } from "../../storage/framed-file.ts"
import { encodeSegment, sortSegment } from "../../storage/segment-file.ts"
import { specOf } from "../support/collection.ts"

const STEP_MS = 10
const CHANNELS = [0, 1, 2]
const FIRST_BOUND = fromMillis(BEGINNING + 10_000_000)

export const shapeOne: Shape = { dimension: 2, metric: "L2", keyType: "Int64", shards: 1 }
export const shapeTwo: Shape = { ...shapeOne, shards: 2 }

interface Version {
  readonly key: Key
  readonly timestamp: Timestamp
  readonly lsn: number
  readonly shard: number
  readonly row: AskedRow | undefined
}

interface Collection {
  readonly id: string
  readonly name: string
  readonly shape: Shape
  readonly channels: ReadonlyArray<number>
  readonly versions: Array<Version>
  readonly manifests: Array<Manifest>
}

interface Owner {
  order: Order
  nonce: bigint
  epoch: bigint
  incarnation: number
  sequence: number
  lsn: number
  hash: bigint
  timestamp: Timestamp
  checkpoint: Checkpoint
}

export interface WriteOptions {
  readonly client?: string
  readonly outcome?: "ok" | "refused" | "unknown" | "never"
  /** How often it is stored. */
  readonly stored?: number
  /** What is stored in its place. */
  readonly storedRows?: ReadonlyArray<AskedRow>
  readonly timestamp?: Timestamp
  /** Of the record. */
  readonly recordTimestamp?: Timestamp
  readonly request?: RequestId
  readonly code?: string
  /** Stored only after it was answered. */
  readonly late?: boolean
}

export interface ReadOptions {
  readonly client?: string
  readonly at?: Timestamp
  readonly consistency?: Consistency
  readonly token?: Timestamp
  readonly travel?: Timestamp
}

export class Past {
  readonly ledger = new Ledger(() => this.step())
  readonly operations: Array<Operation> = []
  readonly probes: Array<Operation> = []
  readonly crashes: Array<Crash> = []
  readonly alarms: Array<Alarm> = []
  readonly collections = new Map<string, Collection>()
  readonly owners = new Map<number, Owner>()
  observed: Partial<Observed> = {}
  epoch = 0
  commits = 0
  private event = 0
  private head = 0
  private revision = 100
  private ids = 0
  private attempts = 0

  /** A coordinator, its oracle, and an owner for each channel. */
  constructor() {
    this.coordinate()
    for (const channel of CHANNELS) this.take(channel)
  }

  // ---- time

  step(): Moment {
    return { at: ++this.event * STEP_MS, event: this.event }
  }

  /** A timestamp of this very time. */
  now(): Timestamp {
    return fromMillis(BEGINNING + this.event * STEP_MS)
  }

  // ---- the cluster

  commit(
    changes: ReadonlyArray<readonly [key: string, value: Uint8Array | undefined]>,
    by: { readonly epoch: number; readonly number: number } = { epoch: this.epoch, number: ++this.commits }
  ): void {
    this.ledger.add({
      _tag: "Committed",
      head: ++this.head,
      changes: [
        ...changes.map(([key, value]) => ({ key, value })),
        { key: metaKey.commit, value: metadata.commit.encode(by) }
      ]
    })
  }

  /** A coordinator takes over, with an oracle whose term begins where the last one ended. */
  coordinate(bound = this.bound === 0n ? FIRST_BOUND : this.bound + fromMillis(1_000), floor = this.bound): void {
    this.commit([[metaKey.epoch, metadata.epoch.encode({ node: "n", nonce: "1" })]], { epoch: 0, number: 0 })
    this.epoch = this.head
    this.commits = 0
    this.oracle(bound, floor)
  }
  private bound: Timestamp = 0n
  oracle(bound: Timestamp, floor: Timestamp): void {
    this.bound = bound
    this.commit([[metaKey.oracle, metadata.oracle.encode({ bound, floor })]])
  }

  leased(channel: number, value: ChannelKey): number {
    this.ledger.add({
      _tag: "Leased",
      key: leaseKey.channel(channel),
      value: metadata.channel.encode(value),
      revision: ++this.revision
    })
    return this.revision
  }

  /** An owner takes the channel's key and fences. */
  take(channel: number, order?: Order, padding: number = limits.pipelineDepth): void {
    const before = this.owners.get(channel)
    const next = order ?? { epoch: this.epoch, number: (before?.order.number ?? 0) + 1 }
    const nonce = BigInt(++this.ids) << 40n
    const checkpoint = before?.checkpoint ?? checkpointZero
    const revision = this.leased(channel, { order: next, node: "n", nonce, epoch: null, checkpoint, log: "a" })
    const owner: Owner = {
      ...(before ?? { sequence: 0, lsn: 0, hash: 0n, timestamp: 0n }),
      order: next,
      nonce,
      epoch: BigInt(revision),
      incarnation: 1,
      checkpoint
    }
    this.owners.set(channel, owner)
    this.record(channel, "fence", [], owner.timestamp)
    const header = { ...this.header(channel, "padding", owner.timestamp), lsn: owner.lsn }
    for (let i = 0; i < padding; i++) this.store(channel, encodeRecord(header, []).bytes)
  }

  header(channel: number, kind: RecordHeader["kind"], timestamp: Timestamp): RecordHeader {
    const { epoch, hash, incarnation, lsn, nonce } = this.owners.get(channel)!
    return { kind, channel, epoch, incarnation, lsn: lsn + 1, previous: hash, timestamp, floor: 0n, nonce }
  }

  store(channel: number, data: Uint8Array): void {
    const owner = this.owners.get(channel)!
    this.ledger.add({ _tag: "Stored", channel, sequence: ++owner.sequence, data })
  }

  record(
    channel: number,
    kind: RecordHeader["kind"],
    entries: ReadonlyArray<Entry>,
    timestamp: Timestamp,
    change: Partial<RecordHeader> = {}
  ) {
    const owner = this.owners.get(channel)!
    const header = { ...this.header(channel, kind, timestamp), ...change }
    const { bytes, hash } = encodeRecord(header, entries)
    this.store(channel, bytes)
    // Somebody else's record is none of the chain.
    if (header.epoch === owner.epoch) Object.assign(owner, { lsn: header.lsn, hash, timestamp })
    return { bytes, hash, header }
  }

  tick(channel: number): void {
    this.record(channel, "tick", [], this.now())
  }

  checkpoint(channel: number, change: Partial<Checkpoint> = {}, key: Partial<ChannelKey> = {}): void {
    const owner = this.owners.get(channel)!
    const { epoch, hash, incarnation, lsn, nonce, order, sequence, timestamp } = owner
    const saved: Checkpoint = { ...checkpointZero, sequence, lsn, hash, epoch, incarnation, timestamp, ...change }
    owner.checkpoint = saved
    this.leased(channel, { order, node: "n", nonce, epoch, checkpoint: saved, log: "a", ...key })
  }

  // ---- collections

  create(
    name: string,
    shape: Shape = shapeOne,
    made = true,
    outcome: Outcome["_tag"] = "Ok",
    state: "creating" | "ready" | "closing" = "ready"
  ): Operation {
    const id = `c${this.collections.size + 1}`
    const request = this.request()
    const operation = this.begin(name, { _tag: "Create", request, shape })
    const channels = Array.from({ length: shape.shards }, (_, shard) => CHANNELS[shard % CHANNELS.length]!)
    if (made) {
      const value = {
        id,
        spec: specOf({ name, ...shape }),
        channels,
        created: this.now(),
        request: formatRequestId(request),
        state
      }
      const manifests = channels.map((_, shard) => emptyManifest(id, shard))
      this.commit([
        [metaKey.collection(id), metadata.collection.encode(value)],
        ...manifests.map((each) => [metaKey.manifest(id, each.shard), metadata.manifest.encode(each)] as const)
      ])
      this.collections.set(name, { id, name, shape, channels, versions: [], manifests })
    }
    return this.end(operation, outcome, { _tag: "Made", id })
  }

  drop(name: string, outcome: Outcome["_tag"] = "Ok", asked = true): void {
    const { channels, id, shape } = this.collections.get(name)!
    const operation = asked ? this.begin(name, { _tag: "Drop" }) : undefined
    const value = {
      id,
      spec: specOf({ name, ...shape }),
      channels,
      created: 1n,
      request: "",
      state: "dropping" as const
    }
    this.commit([[metaKey.collection(id), metadata.collection.encode(value)]])
    if (operation !== undefined) this.end(operation, outcome, { _tag: "Done" })
  }

  /** Rows of a collection, as its statistics say. */
  stats(name: string, more = 0): Operation {
    const at = this.now()
    const operation = this.begin(name, { _tag: "Stats" })
    return this.end(operation, "Ok", { _tag: "Counted", rows: this.seen(name, at).length + more }, at)
  }

  list(names: ReadonlyArray<string>): void {
    this.end(this.begin("any", { _tag: "List" }), "Ok", { _tag: "Named", names })
  }

  // ---- writes

  request(): RequestId {
    return { issued: 1n, unique: BigInt(++this.ids) }
  }

  rows(keys: ReadonlyArray<Key>, id = this.operations.length, shape: Shape = shapeOne): ReadonlyArray<AskedRow> {
    return keys.map((key, row) => ({
      key,
      vector: Float32Array.from({ length: shape.dimension }, (_, d) => ((hashKey(`${id} ${row} ${d}`) % 33) - 16) / 4),
      fields: { op: id, row }
    }))
  }

  upsert(name: string, keys: ReadonlyArray<Key>, options: WriteOptions = {}): Operation {
    const rows = this.rows(keys, this.operations.length, this.collections.get(name)!.shape)
    const request = options.request ?? this.request()
    return this.write(name, { _tag: "Upsert", verb: "upsert", request, rows }, options)
  }

  delete(name: string, keys: ReadonlyArray<Key>, options: WriteOptions = {}): Operation {
    return this.write(name, { _tag: "Delete", request: options.request ?? this.request(), keys }, options)
  }

  private write(name: string, asked: Asked & { readonly _tag: "Upsert" | "Delete" }, options: WriteOptions): Operation {
    const { code = "ambiguous", late = false, outcome = "ok", stored = outcome === "refused" ? 0 : 1 } = options
    const operation = this.begin(name, asked, options.client)
    let newest = 0n
    const put = () => {
      for (let i = 0; i < stored; i++) newest = this.put(name, asked, options)
    }
    if (!late) put()
    if (outcome !== "never") {
      const tag = outcome === "ok" ? "Ok" : outcome === "refused" ? "Refused" : "Unknown"
      const count = asked._tag === "Upsert" ? asked.rows.length : asked.keys.length
      const timestamp = options.timestamp ?? (late || newest === 0n ? this.now() : newest)
      this.end(operation, tag, { _tag: "Written", count }, timestamp, code)
    }
    if (late) put()
    return operation
  }

  /** Stores each shard's part. */
  put(name: string, asked: Asked & { readonly _tag: "Upsert" | "Delete" }, options: WriteOptions = {}): Timestamp {
    const { channels, id, shape, versions } = this.collections.get(name)!
    const rows = asked._tag === "Upsert" ? (options.storedRows ?? asked.rows) : []
    const all = asked._tag === "Upsert" ? rows.map(({ key }) => key) : asked.keys
    let newest = 0n
    channels.forEach((channel, shard) => {
      const mine = all.flatMap((key, i) => (shardOf(hashKey(key), shape.shards) === shard ? [i] : []))
      if (mine.length === 0) return
      this.step()
      const timestamp = options.recordTimestamp ?? this.now()
      newest = timestamp
      const keys = keyColumn(
        shape.keyType,
        mine.map((i) => all[i]!)
      )
      const vectors = new Float32Array(mine.length * shape.dimension)
      if (asked._tag === "Upsert") mine.forEach((i, at) => vectors.set(rows[i]!.vector, at * shape.dimension))
      const { request } = asked
      const entry: Entry = {
        collection: id,
        shard,
        schema: 1,
        request: request!,
        body:
          asked._tag === "Delete"
            ? { _tag: "Delete", keys }
            : {
                _tag: "Upsert",
                rows: {
                  keys,
                  dimension: shape.dimension,
                  vectors,
                  fields: fieldColumn(mine.map((i) => rows[i]!.fields))
                }
              }
      }
      const { header } = this.record(channel, "rows", [entry], timestamp)
      for (const i of mine) {
        const row = asked._tag === "Upsert" ? rows[i] : undefined
        versions.push({ key: all[i]!, timestamp, lsn: header.lsn, shard, row })
      }
    })
    return newest
  }

  // ---- flushing

  /** Everything of a shard so far becomes objects; `change` has its say in what they hold. */
  flush(
    name: string,
    shard = 0,
    change: {
      readonly keeps?: (version: Version) => boolean
      readonly deletes?: boolean
      readonly manifest?: Partial<Manifest>
      readonly put?: boolean
      readonly crc?: number
    } = {}
  ): Manifest {
    const { keeps = () => true, put = true } = change
    const collection = this.collections.get(name)!
    const { channels, id, manifests, shape, versions } = collection
    const before = manifests[shard]!
    const { epoch, lsn: to } = this.owners.get(channels[shard]!)!
    const unit = versions.filter((one) => one.shard === shard && one.lsn > before.flushedTo && one.lsn <= to)
    const attempt = `${this.epoch}-${++this.attempts}`
    const attempted = { id: attempt, kind: "flush" as const, collection: id, shard, segment: "", node: "n" }
    this.commit([[metaKey.attempt(attempt), metadata.attempt.encode(attempted)]])
    const object = (key: string, parts: ReadonlyArray<Uint8Array>) => {
      const data = joined(parts)
      if (put) this.ledger.add({ _tag: "Put", key, data })
      return { key, bytes: data.length, crc32: change.crc ?? crc32(data) }
    }
    const rows = unit.filter((one) => one.row !== undefined && keeps(one))
    const columns = sortSegment({
      keys: keyColumn(
        shape.keyType,
        rows.map(({ key }) => key)
      ),
      timestamps: BigUint64Array.from(rows, ({ timestamp }) => timestamp),
      dimension: shape.dimension,
      vectors: Float32Array.from(rows.flatMap(({ row }) => [...row!.vector])),
      fields: fieldColumn(rows.map(({ row }) => row!.fields))
    })
    const segment = {
      id: attempt,
      rows: rows.length,
      minTimestamp: 0n,
      maxTimestamp: this.now(),
      data: object(`segments/${id}/${shard}/${attempt}.arrow`, encodeSegment(columns)),
      filter: object(`segments/${id}/${shard}/${attempt}.filter`, [Uint8Array.of(1)]),
      deletesThrough: before.flushedTo,
      index: null
    }
    // Every key hides what is older, wherever it is.
    const hides = change.deletes === false ? [] : unit
    const file = encodeDeletes({
      keys: keyColumn(
        shape.keyType,
        hides.map(({ key }) => key)
      ),
      timestamps: BigUint64Array.from(hides, ({ timestamp }) => timestamp),
      requests: { ids: new Uint8Array(0), timestamps: new BigUint64Array(0) }
    })
    const deletes = {
      id: attempt,
      object: object(`deletes/${id}/${shard}/${attempt}.deletes`, file),
      keys: hides.length,
      from: before.flushedTo,
      to,
      newestRequest: 0n
    }
    const manifest: Manifest = {
      ...before,
      version: before.version + 1,
      flushedTo: to,
      flushedEpoch: epoch,
      segments: [...before.segments, segment],
      deletes: [...before.deletes, deletes],
      ...change.manifest
    }
    manifests[shard] = manifest
    this.commit([
      [metaKey.manifest(id, shard), metadata.manifest.encode(manifest)],
      [metaKey.attempt(attempt), undefined]
    ])
    return manifest
  }

  // ---- reads

  /** The rows that a read at T sees, ordered by key. */
  seen(name: string, at: Timestamp): ReadonlyArray<AskedRow> {
    const newest = new Map<Key, Version>()
    for (const version of this.collections.get(name)!.versions) {
      if (version.timestamp <= at) newest.set(version.key, version)
    }
    return [...newest.values()]
      .flatMap(({ row }) => (row === undefined ? [] : [row]))
      .sort((a, b) => compareKeys(a.key, b.key))
  }

  private level({ consistency = "Session", token = 0n, travel }: ReadOptions): ReadLevel {
    return { consistency, token, at: travel }
  }

  get(
    name: string,
    keys: ReadonlyArray<Key>,
    options: ReadOptions = {},
    change: (rows: ReadonlyArray<AnswerRow>) => ReadonlyArray<AnswerRow> = (rows) => rows
  ): Operation {
    const wanted = { fields: true, vector: true }
    const operation = this.begin(name, { _tag: "Get", level: this.level(options), keys, wanted }, options.client)
    const at = options.at ?? this.now()
    const seen = this.seen(name, at)
    const rows = [...new Set(keys)].flatMap((key): ReadonlyArray<AnswerRow> => {
      const row = seen.find((one) => one.key === key)
      return row === undefined ? [] : [{ key, fields: row.fields, vector: row.vector }]
    })
    return this.end(operation, "Ok", { _tag: "Rows", rows: change(rows) }, at)
  }

  count(name: string, options: ReadOptions = {}, more = 0): Operation {
    const operation = this.begin(name, { _tag: "Count", level: this.level(options) }, options.client)
    const at = options.at ?? this.now()
    return this.end(operation, "Ok", { _tag: "Counted", rows: this.seen(name, at).length + more }, at)
  }

  search(
    name: string,
    limit: number,
    options: ReadOptions = {},
    change: (hits: ReadonlyArray<AnswerHit>) => ReadonlyArray<AnswerHit> = (hits) => hits
  ): Operation {
    const { metric } = this.collections.get(name)!.shape
    const query = Float32Array.of(0.25, -0.5)
    const operation = this.begin(
      name,
      {
        _tag: "Search",
        level: this.level(options),
        queries: [query],
        limit,
        offset: 0,
        wanted: { fields: true, vector: false }
      },
      options.client
    )
    const at = options.at ?? this.now()
    const hits = this.seen(name, at)
      .map(({ fields, key, vector }): AnswerHit => ({
        key,
        fields,
        vector: undefined,
        distance: distance(metric, query, vector)
      }))
      .sort((a, b) => (metric === "L2" ? a.distance - b.distance : b.distance - a.distance))
      .slice(0, limit)
    return this.end(operation, "Ok", { _tag: "Hits", lists: [change(hits)] }, at)
  }

  // ---- operations

  begin(collection: string, asked: Asked, client = "a"): Operation {
    const operation: Operation = {
      id: this.operations.length,
      client,
      session: true,
      timeoutMs: 10_000,
      collection,
      asked,
      invoked: this.step(),
      completed: undefined,
      outcome: undefined
    }
    this.operations.push(operation)
    return operation
  }

  end(
    operation: Operation,
    tag: Outcome["_tag"],
    answer: Answer,
    timestamp: Timestamp = this.now(),
    code = "ambiguous"
  ): Operation {
    operation.completed = this.step()
    operation.outcome = tag === "Ok" ? { _tag: "Ok", answer, timestamp } : { _tag: tag, code, reason: "by hand" }
    return operation
  }

  // ---- the end

  evidence(): Evidence {
    return new Evidence({
      operations: this.operations,
      probes: this.probes,
      facts: this.ledger.facts,
      phases: { end: this.step() },
      isCalm: false,
      proxies: 1,
      crashes: this.crashes,
      alarms: this.alarms,
      clocksAgree: true,
      ...this.observed
    })
  }

  /** The properties that are broken. */
  broken(): ReadonlyArray<Property> {
    return [...new Set(violationsOf(this.evidence()).map(({ property }) => property))]
  }
}

/**
 * What the cluster remembers about itself: the values of the metadata's and the leases' keys, as JSON that
 * begins with its version, so that `nats kv get` shows them to a person. A newer version is refused, not guessed at.
 */
import { Schema } from "effect"
import { utf8 } from "./wire.ts"

/** 64 bits as decimal text. */
const Big = Schema.BigIntFromString
const Count = Schema.Int

/** A value of another format than this version reads, or none at all. */
export class MetadataUnreadable extends Error {
  override readonly name = "MetadataUnreadable"
}

const versioned = <A, I>(what: string, version: number, schema: Schema.Codec<A, I>) => {
  const codec = Schema.toCodecJson(schema)
  const encode = Schema.encodeSync(codec as Schema.Codec<A, unknown>)
  const decodeJson = Schema.decodeUnknownSync(codec as Schema.Codec<A, unknown>)
  const decode = (bytes: Uint8Array): A => {
    let json: { readonly v?: unknown } | null
    try {
      json = JSON.parse(utf8.decodeDocument(bytes))
    } catch {
      throw new MetadataUnreadable(`${what}: not JSON`)
    }
    if (typeof json !== "object" || json === null) throw new MetadataUnreadable(`${what}: not an object`)
    if (json.v !== version) throw new MetadataUnreadable(`${what}: format ${json.v}; this version reads ${version}`)
    try {
      return decodeJson(json)
    } catch (cause) {
      throw new MetadataUnreadable(`${what}: ${cause instanceof Error ? cause.message : String(cause)}`)
    }
  }
  const beginning = utf8.encode(`{"v":${version},`)
  return {
    encode: (value: A): Uint8Array => utf8.encode(JSON.stringify({ v: version, ...(encode(value) as object) })),
    decode,
    /** Throws as `decode` does if it is of another format; looks no further than that, if it begins as we write it. */
    check: (bytes: Uint8Array): void => {
      for (let i = 0; i < beginning.length; i++) {
        if (bytes[i] !== beginning[i]) return void decode(bytes)
      }
    }
  }
}

// ---- collections

export const Metric = Schema.Literals(["L2", "IP", "COSINE"])
export type Metric = typeof Metric.Type

export const CollectionSpec = Schema.Struct({
  database: Schema.String,
  name: Schema.String,
  description: Schema.String,
  keyField: Schema.String,
  keyType: Schema.Literals(["Int64", "VarChar"]),
  /** In characters; of VarChar keys. */
  keyLengthMax: Count,
  vectorField: Schema.String,
  dimension: Count,
  metric: Metric,
  shards: Count,
  index: Schema.Struct({ m: Count, efConstruction: Count })
})
export type CollectionSpec = typeof CollectionSpec.Type

export const CollectionState = Schema.Literals(["creating", "ready", "closing", "dropping", "dropped"])

export const Collection = Schema.Struct({
  /** Never used twice: made of a timestamp. */
  id: Schema.String,
  spec: CollectionSpec,
  /** The channel of each shard. */
  channels: Schema.Array(Count),
  created: Big,
  /** The request that made it: asked again, it is answered and not refused. */
  request: Schema.String,
  state: CollectionState
})
export type Collection = typeof Collection.Type

// ---- a shard's manifest

export const ObjectRef = Schema.Struct({ key: Schema.String, bytes: Count, crc32: Count })
export type ObjectRef = typeof ObjectRef.Type

export const Segment = Schema.Struct({
  id: Schema.String,
  rows: Count,
  minTimestamp: Big,
  maxTimestamp: Big,
  data: ObjectRef,
  filter: ObjectRef,
  /** Deletes of records up to here are applied in `data`. */
  deletesThrough: Count,
  index: Schema.NullOr(ObjectRef)
})
export type Segment = typeof Segment.Type

export const DeleteFile = Schema.Struct({
  id: Schema.String,
  object: ObjectRef,
  keys: Count,
  /** Of the shard's records with from < lsn <= to. */
  from: Count,
  to: Count,
  /** The newest request id in it: it is young, and must be remembered, as long as this is. */
  newestRequest: Big
})
export type DeleteFile = typeof DeleteFile.Type

export const Manifest = Schema.Struct({
  collection: Schema.String,
  shard: Count,
  version: Count,
  /** Everything of the shard up to this lsn is in the segments and delete files. */
  flushedTo: Count,
  /** Whose that record is: where the log has another owner's in its place, it has lost what is flushed. */
  flushedEpoch: Big,
  segments: Schema.Array(Segment),
  deletes: Schema.Array(DeleteFile),
  /** Reads below it are refused. */
  horizon: Big
})
export type Manifest = typeof Manifest.Type

export const emptyManifest = (collection: string, shard: number): Manifest => ({
  collection,
  shard,
  version: 0,
  flushedTo: 0,
  flushedEpoch: 0n,
  segments: [],
  deletes: [],
  horizon: 0n
})

// ---- who does what

/** An order that may be late: only one with a higher (epoch, number) counts. */
export const Order = Schema.Struct({ epoch: Count, number: Count })
export type Order = typeof Order.Type
export const orderAbove = (a: Order, b: Order | undefined): boolean =>
  b === undefined || a.epoch > b.epoch || (a.epoch === b.epoch && a.number > b.number)

/** The coordinator's: which node is to own the channel. */
export const Assignment = Schema.Struct({ channel: Count, node: Schema.String, order: Order })
export type Assignment = typeof Assignment.Type

/** Which query node holds each segment of a shard. */
export const Placement = Schema.Struct({
  collection: Schema.String,
  shard: Count,
  nodes: Schema.Record(Schema.String, Schema.String)
})
export type Placement = typeof Placement.Type

/** Work that is going to write objects: in the metadata before the first of them. */
export const Attempt = Schema.Struct({
  id: Schema.String,
  kind: Schema.Literals(["flush", "index"]),
  collection: Schema.String,
  shard: Count,
  /** Of an index: what it is built for. */
  segment: Schema.String,
  node: Schema.String,
  /** Of a flush: what its node called it when it asked. */
  request: Schema.optionalKey(Schema.String)
})
export type Attempt = typeof Attempt.Type

export const JobState = Schema.Literals(["queued", "assigned", "done", "failed"])

/** An index to be built. */
export const Job = Schema.Struct({
  id: Schema.String,
  collection: Schema.String,
  shard: Count,
  segment: Schema.String,
  state: JobState,
  attempt: Schema.NullOr(Schema.String),
  node: Schema.NullOr(Schema.String),
  tries: Count
})
export type Job = typeof Job.Type

export const Oracle = Schema.Struct({
  /** No timestamp at or above it was given out. */
  bound: Big,
  /** The bound when the present term began: older grants than this may be a deposed oracle's. */
  floor: Big
})
export type Oracle = typeof Oracle.Type

export const CoordinatorEpoch = Schema.Struct({ node: Schema.String, nonce: Schema.String })
export const LastCommit = Schema.Struct({ epoch: Count, number: Count })
export const Format = Schema.Struct({ cluster: Schema.String, channels: Count })
export type Format = typeof Format.Type

// ---- the leases' bucket

/** The first record of an owner's epoch. */
export const EpochStart = Schema.Struct({ epoch: Big, from: Count })
export type EpochStart = typeof EpochStart.Type

export const Checkpoint = Schema.Struct({
  sequence: Count,
  lsn: Count,
  hash: Big,
  epoch: Big,
  incarnation: Count,
  timestamp: Big,
  floor: Big,
  /** Of the newest owners up to this record, in order. */
  epochs: Schema.Array(EpochStart),
  /** Request ids issued before it are not remembered any more. */
  requestFloor: Big,
  /** The metadata revision that says that all below is flushed: who reads on from here must know at least that. */
  metadata: Count
})
export type Checkpoint = typeof Checkpoint.Type

export const checkpointZero: Checkpoint = {
  sequence: 0,
  lsn: 0,
  hash: 0n,
  epoch: 0n,
  incarnation: 0,
  timestamp: 0n,
  floor: 0n,
  epochs: [],
  requestFloor: 0n,
  metadata: 0
}

/** `channel.<n>`: who owns it, since when, and from where its log must be read. */
export const ChannelKey = Schema.Struct({
  order: Order,
  node: Schema.String,
  /** Of the activation that took it. */
  nonce: Big,
  /** The revision at which it was taken; null means this very revision. */
  epoch: Schema.NullOr(Big),
  checkpoint: Checkpoint,
  /** Which making of the log this is; empty before the first owner. */
  log: Schema.String
})
export type ChannelKey = typeof ChannelKey.Type

export const Role = Schema.Literals(["proxy", "coordinator", "streaming-node", "query-node", "data-node"])
export type Role = typeof Role.Type
export const roles = Role.literals

/** `node.<id>`: a process that is alive. */
export const NodeLease = Schema.Struct({ id: Schema.String, roles: Schema.Array(Role), version: Schema.String })
export type NodeLease = typeof NodeLease.Type

export const metadata = {
  collection: versioned("collection", 1, Collection),
  /** One that was dropped lately. */
  gone: versioned("gone", 1, Collection),
  manifest: versioned("manifest", 2, Manifest),
  assignment: versioned("assignment", 1, Assignment),
  placement: versioned("placement", 1, Placement),
  attempt: versioned("attempt", 1, Attempt),
  job: versioned("job", 1, Job),
  oracle: versioned("oracle", 1, Oracle),
  epoch: versioned("epoch", 1, CoordinatorEpoch),
  commit: versioned("commit", 1, LastCommit),
  format: versioned("format", 1, Format),
  channel: versioned("channel", 2, ChannelKey),
  node: versioned("node", 1, NodeLease)
}

export const metaKey = {
  epoch: "epoch",
  commit: "commit",
  oracle: "oracle",
  format: "format",
  collection: (id: string) => `collection.${id}`,
  gone: (id: string) => `gone.${id}`,
  manifest: (collection: string, shard: number) => `manifest.${collection}.${shard}`,
  assignment: (channel: number) => `assignment.${channel}`,
  placement: (collection: string, shard: number) => `placement.${collection}.${shard}`,
  attempt: (id: string) => `attempt.${id}`,
  job: (id: string) => `job.${id}`
}

export const leaseKey = {
  coordinator: "coordinator",
  node: (id: string) => `node.${id}`,
  channel: (channel: number) => `channel.${channel}`
}

export const channelNumbers = ({ channels }: Format): ReadonlyArray<number> =>
  Array.from({ length: channels }, (_, n) => n)

/** Where objects live. An attempt's id is in every name, so no name is ever used twice. */
export const objectKey = {
  data: (collection: string, shard: number, attempt: string) => `segments/${collection}/${shard}/${attempt}.arrow`,
  filter: (collection: string, shard: number, attempt: string) => `segments/${collection}/${shard}/${attempt}.filter`,
  deletes: (collection: string, shard: number, attempt: string) => `deletes/${collection}/${shard}/${attempt}.deletes`,
  index: (collection: string, shard: number, segment: string, attempt: string) =>
    `segments/${collection}/${shard}/${segment}.${attempt}.hnsw`,
  ofCollection: (collection: string) => [`segments/${collection}/`, `deletes/${collection}/`]
}

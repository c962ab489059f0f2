/** What the active coordinator answers, at the address "coordinator". */
import { Schema } from "effect"
import { Collection, CollectionSpec, DeleteFile, ObjectRef, Role, Segment } from "./metadata.ts"
import { call, hotCall, protocol } from "./protocol.ts"
import type { Timestamp } from "./timestamp.ts"
import { among, type Codec, Reader, Writer } from "./wire.ts"

const Empty = Schema.Struct({})

/** Timestamps from `first` to `last`, all above everything given out before; `floor`: older grants are void. */
export interface Grant {
  readonly first: Timestamp
  readonly last: Timestamp
  readonly floor: Timestamp
}
export const grantKinds = ["reader", "proven", "writer"] as const
export type GrantKind = (typeof grantKinds)[number]

const grantAsked: Codec<{ readonly kind: GrantKind; readonly count: number }> = {
  encode: ({ count, kind }) => new Writer(16).u8(grantKinds.indexOf(kind)).u32(count).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    return { kind: among(grantKinds, reader.u8()), count: reader.u32() }
  }
}
const grantGiven: Codec<Grant> = {
  encode: ({ first, floor, last }, room) => new Writer(24, room).u64(first).u64(last).u64(floor).finish(),
  decode: (bytes) => {
    const reader = new Reader(bytes)
    return { first: reader.u64(), last: reader.u64(), floor: reader.u64() }
  }
}

export const NodeStatus = Schema.Struct({
  id: Schema.String,
  roles: Schema.Array(Role),
  version: Schema.String,
  alive: Schema.Boolean
})

export const ClusterStatus = Schema.Struct({
  cluster: Schema.String,
  coordinator: Schema.String,
  epoch: Schema.Int,
  nodes: Schema.Array(NodeStatus),
  channels: Schema.Array(Schema.Struct({ channel: Schema.Int, node: Schema.String, epoch: Schema.String })),
  collections: Schema.Int,
  jobs: Schema.Int,
  /** What is not as it should be, in words. */
  warnings: Schema.Array(Schema.String)
})
export type ClusterStatus = typeof ClusterStatus.Type

export const CoordinatorProtocol = protocol("coordinator", {
  /** Creates a collection; answers when it is usable. The same request again gets the same answer. */
  CreateCollection: call(Schema.Struct({ spec: CollectionSpec, request: Schema.String }), Collection),
  /**
   * By its id, so that asked again it never drops another one of that name. One that is gone is dropped. Answers when no
   * owner takes a write for it any more, now or later.
   */
  DropCollection: call(Schema.Struct({ collection: Schema.String }), Empty),
  /** All collections of a database, or of all (""), as the truth has it now; also those that are being closed. */
  ListCollections: call(
    Schema.Struct({ database: Schema.String }),
    Schema.Struct({ collections: Schema.Array(Collection) })
  ),

  /**
   * The next timestamp, for a reader (the gap behind it stays unused), or a run of `count` for a writer. A deposed oracle may
   * give it out; one that is `proven` is a reader's, and above all that anybody gave out before it was asked for.
   */
  Grant: hotCall(grantAsked, grantGiven),

  /**
   * Announces that objects are about to be written; answers the attempt's id, which goes into their names. The same
   * request again is the same attempt. Refused if the manifest has no room for what they would hold.
   */
  BeginFlush: call(
    Schema.Struct({ collection: Schema.String, shard: Schema.Int, node: Schema.String, request: Schema.String }),
    Schema.Struct({ attempt: Schema.String })
  ),
  /** Makes a flush the truth, if `from` is where the manifest stands and the attempt lives. Answers the new manifest version. */
  CommitFlush: call(
    Schema.Struct({
      attempt: Schema.String,
      collection: Schema.String,
      shard: Schema.Int,
      from: Schema.Int,
      to: Schema.Int,
      /** Of the record at `to`. */
      epoch: Schema.BigInt,
      segment: Schema.NullOr(Segment),
      deletes: Schema.NullOr(DeleteFile)
    }),
    Schema.Struct({ version: Schema.Int })
  ),
  /** Makes an index part of the manifest, if its segment is still listed and the attempt lives. */
  CommitIndex: call(Schema.Struct({ attempt: Schema.String, index: ObjectRef }), Empty),
  /** The attempt is over without a commit; its objects may go. */
  AbandonAttempt: call(Schema.Struct({ attempt: Schema.String, reason: Schema.String }), Empty),

  Status: call(Empty, ClusterStatus)
})

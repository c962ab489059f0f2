/**
 * The channel's key in the leases: who owns the channel, since when (its revision is the owner's epoch), and from
 * where its log must be read. Taken and written only by its revision; an answer that was lost is read back, and
 * recognised by the nonce of the activation.
 */
import { Effect } from "effect"
import {
  type ChannelKey,
  type Checkpoint,
  checkpointZero,
  leaseKey,
  metadata,
  type Order,
  orderAbove
} from "../../protocols/metadata.ts"
import { buggify } from "../../runtime/buggify.ts"
import type { Leases } from "../../storage/leases.ts"
import { ambiguous, type StorageError } from "../../storage/outcome.ts"
import type { Identity } from "./fence.ts"

const AGAIN_MS = 100

/** `undefined`: it cannot be told yet, and another try may. */
export type Taken =
  | { readonly _tag: "Taken"; readonly who: Identity; readonly checkpoint: Checkpoint; readonly revision: number }
  | { readonly _tag: "Stale"; readonly detail: string }
  | { readonly _tag: "Damaged"; readonly detail: string }
  | undefined

/** Takes the key for a new activation of `node`, on the coordinator's `order`; `log` is the making of the log as it is now. */
export const takeKey = Effect.fnUntraced(function* (
  leases: Leases["Service"],
  claim: {
    readonly channel: number
    readonly node: string
    readonly order: Order
    readonly nonce: bigint
    readonly log: string
  }
): Effect.fn.Return<Taken, StorageError> {
  const { channel, log, node, nonce, order } = claim
  const key = leaseKey.channel(channel)
  const found = yield* leases.get(key)
  const held = found._tag === "Some" ? metadata.channel.decode(found.value.value) : undefined
  if (held !== undefined) {
    // The same order again is ours alone: every activation takes the key anew, also within one process.
    const ours = held.node === node && !orderAbove(held.order, order)
    if (!orderAbove(order, held.order) && !ours) return { _tag: "Stale", detail: "a newer order holds the channel" }
    if (held.log !== "" && held.log !== log) {
      return { _tag: "Damaged", detail: `the log was replaced: it is ${log}, and the checkpoint is of ${held.log}` }
    }
  }
  const checkpoint = held?.checkpoint ?? checkpointZero
  const value: ChannelKey = { order, node, nonce, epoch: null, checkpoint, log }
  const expected = found._tag === "Some" ? found.value.revision : 0
  const isLost = yield* buggify("the take of a channel's key is lost")
  const outcome = isLost ? ambiguous("lost") : yield* leases.put(key, metadata.channel.encode(value), expected)
  let revision: number
  if (outcome._tag === "Done" && !(yield* buggify("the take of a channel's key is read back"))) revision = outcome.value
  else {
    const now = yield* leases.get(key)
    if (now._tag === "None" || metadata.channel.decode(now.value.value).nonce !== nonce) return undefined
    revision = now.value.revision
  }
  return { _tag: "Taken", who: { channel, epoch: BigInt(revision), nonce }, checkpoint, revision }
})

/** `Retry`: not written; the next checkpoint brings it. `Damaged`: a key that never goes is gone. */
export type Saved =
  | { readonly _tag: "Saved"; readonly revision: number }
  | { readonly _tag: "Stale"; readonly detail: string }
  | { readonly _tag: "Damaged"; readonly detail: string }
  | { readonly _tag: "Retry"; readonly revision: number }

/**
 * Whether the key still is this activation's: what it did before somebody else took it is not undone. A leader that was
 * cut off would say so for a while, so it is decided by a write.
 */
export const stillOurs = Effect.fnUntraced(function* (
  leases: Leases["Service"],
  { channel, epoch, nonce }: Identity
): Effect.fn.Return<boolean, StorageError> {
  const key = leaseKey.channel(channel)
  while (true) {
    const found = yield* leases.get(key)
    if (found._tag === "None") return false
    const held = metadata.channel.decode(found.value.value)
    if (held.nonce !== nonce) return false
    const outcome = yield* leases.put(key, metadata.channel.encode({ ...held, epoch }), found.value.revision)
    if (outcome._tag === "Done") return true
    yield* Effect.sleep(AGAIN_MS)
  }
})

/** Writes another checkpoint into a key that we hold at `revision`. */
export const saveCheckpoint = Effect.fnUntraced(function* (
  leases: Leases["Service"],
  value: ChannelKey,
  channel: number,
  revision: number
): Effect.fn.Return<Saved, StorageError> {
  const key = leaseKey.channel(channel)
  const outcome = yield* leases.put(key, metadata.channel.encode(value), revision)
  if (outcome._tag === "Done" && !(yield* buggify("a checkpoint is read back"))) {
    return { _tag: "Saved", revision: outcome.value }
  }
  const found = yield* leases.get(key)
  if (found._tag === "None") return { _tag: "Damaged", detail: `the key ${key} is gone` }
  const held = metadata.channel.decode(found.value.value)
  if (held.nonce !== value.nonce) return { _tag: "Stale", detail: `node ${held.node} took the channel` }
  const landed =
    held.checkpoint.lsn === value.checkpoint.lsn &&
    held.checkpoint.requestFloor === value.checkpoint.requestFloor &&
    held.checkpoint.metadata === value.checkpoint.metadata
  return { _tag: landed ? "Saved" : "Retry", revision: found.value.revision }
})

/**
 * From a shard to its owner: finds who owns its channel, asks, and follows the channel when it has moved. What it
 * carries is idempotent (reads are, and writes have a request id), so an answer that was lost is asked for again.
 */
import { Effect } from "effect"
import { type ElanusError, type ErrorCode, afterTries, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import type { Collection } from "../../protocols/metadata.ts"
import type { PayloadOf, SuccessOf } from "../../protocols/protocol.ts"
import { type Route, StreamingNodeProtocol } from "../../protocols/streaming-node.ts"
import { TIMESTAMP_ZERO, type Timestamp } from "../../protocols/timestamp.ts"
import { stall } from "../../runtime/buggify.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { remote } from "../../runtime/remote.ts"
import type { Deadline } from "./deadline.ts"

type Calls = typeof StreamingNodeProtocol.calls

export interface Routing {
  /** Asks the owner of a shard, whoever that is at the time, until the deadline; it is told what it has of that. */
  readonly ask: <K extends "Write" | "Search" | "Get" | "Count" | "Flush" | "Stats">(
    collection: Collection,
    shard: number,
    name: K,
    payload: (route: Route, timeoutMs: number) => PayloadOf<Calls[K]>,
    deadline: Deadline
  ) => Effect.Effect<SuccessOf<Calls[K]>, ElanusError>
  /** The newest time known to be closed on every shard of a collection: reads at it wait for nothing. 0 if none is known. */
  readonly closed: (collection: Collection) => Timestamp
}

/** A flush takes as long as it takes. */
const tryMs = (name: keyof Calls): number => (name === "Flush" ? Infinity : limits.tryTimeoutMs)
/** An owner has so much of the time, to say why it cannot answer before whoever asks gives up. */
const PATIENCE = 0.95
const LEAST_MS = 100
const WAIT_FIRST_MS = 2
const WAIT_MAX_MS = 1_000

/** Another try may end otherwise: the owner is gone, is not the owner, or has not answered. */
const AGAIN: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["moved", "unavailable", "disconnected", "ambiguous"])

interface Seen {
  readonly log: string
  epoch: bigint
  lsn: number
  closed: Timestamp
}

export const makeRouting = Effect.gen(function* () {
  const catalog = yield* Catalog
  const owners = yield* remote(StreamingNodeProtocol)
  /** Per channel, what answers have shown: a log that is behind it has lost something. */
  const seen = new Map<number, Seen>()

  const learn = (channel: number, log: string, epoch: bigint, lsn: number, closed: Timestamp) => {
    const known = seen.get(channel)
    if (known === undefined || known.log !== log) seen.set(channel, { log, epoch, lsn, closed })
    else {
      if (lsn > known.lsn) {
        known.epoch = epoch
        known.lsn = lsn
      }
      if (closed > known.closed) known.closed = closed
    }
  }

  /** Asks again and again what ended in `first`, as long as another try may end otherwise. */
  const follow = Effect.fnUntraced(function* <A>(
    collection: Collection,
    channel: number,
    name: keyof Calls,
    first: ElanusError,
    deadline: Deadline,
    once: (budgetMs: number) => Effect.Effect<A, ElanusError>
  ) {
    let error = first
    let unknown = first.code === "ambiguous" ? first : undefined
    let waitMs = WAIT_FIRST_MS
    while (AGAIN.has(error.code)) {
      yield* stall("before an owner is asked again", 500)
      const before = catalog.owner(channel)?.revision
      const patienceMs = Math.min(waitMs, deadline.leftMs())
      yield* catalog.leased.within(patienceMs, () => catalog.owner(channel)?.revision !== before)
      // What nobody has the time to answer would only hide why it was not answered before.
      if (deadline.leftMs() <= LEAST_MS) break
      waitMs = Math.min(waitMs * 2, WAIT_MAX_MS)
      const state = catalog.collection(collection.id)?.state
      if (state === "closing" || state === "dropping") {
        const gone = failure("collection-not-found", `collection ${collection.spec.name} was dropped`)
        return yield* afterTries(gone, unknown, name === "Write")
      }
      const answer = yield* Effect.result(once(Math.min(deadline.leftMs(), tryMs(name))))
      if (answer._tag === "Success") return answer.success
      error = answer.failure
      if (error.code === "ambiguous") unknown ??= error
    }
    return yield* afterTries(
      error.code === "moved" ? failure("unavailable", error.reason) : error,
      unknown,
      name === "Write"
    )
  })

  const ask: Routing["ask"] = (collection, shard, name, payload, deadline) => {
    const channel = collection.channels[shard]!
    const once = (budgetMs: number): Effect.Effect<SuccessOf<Calls[typeof name]>, ElanusError> => {
      const owner = catalog.owner(channel)
      if (owner === undefined) return Effect.fail(failure("moved", `channel ${channel} has no owner yet`))
      const { epoch, key, node } = owner
      const known = seen.get(channel)
      const isOfThisLog = known !== undefined && known.log === key.log
      const route: Route = {
        channel,
        epoch,
        knownEpoch: isOfThisLog ? known.epoch : 0n,
        knownLsn: isOfThisLog ? known.lsn : 0,
        collection: collection.id,
        schema: catalog.schema(collection.id),
        shard
      }
      return Effect.map(owners.call(node, name, payload(route, Math.ceil(budgetMs * PATIENCE)), budgetMs), (answer) => {
        if ("lsn" in answer && "timestamp" in answer) learn(channel, key.log, epoch, answer.lsn, answer.timestamp)
        return answer
      })
    }
    // The usual way has no clock and no timer of its own.
    return Effect.catch(once(Math.min(deadline.leftMs(), tryMs(name))), (error) =>
      AGAIN.has(error.code) ? follow(collection, channel, name, error, deadline, once) : Effect.fail(error)
    )
  }

  const routing: Routing = {
    ask,
    closed: ({ channels }) => {
      let lowest: Timestamp | undefined
      for (const channel of channels) {
        const closed = seen.get(channel)?.closed ?? TIMESTAMP_ZERO
        if (lowest === undefined || closed < lowest) lowest = closed
      }
      return lowest ?? TIMESTAMP_ZERO
    }
  }
  return routing
})

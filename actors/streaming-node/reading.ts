/**
 * Reads of one shard at its owner: choose T and have the log close it, stand on a view, ask the query nodes for
 * their segments and scan what grows, put it together. A part that does not answer makes the read begin again at
 * the same T, until its deadline; it is never left out.
 */
import { Effect } from "effect"
import { type ElanusError, type ErrorCode, failure } from "../../protocols/errors.ts"
import { type Key, keyAt, type KeyColumn, keyColumn, keysOf } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import type { QueryNodeProtocol } from "../../protocols/query-node.ts"
import { type SegmentRead } from "../../protocols/query-node.ts"
import type { FoundRows, Hits, ReadTime, ShardGet, ShardSearch } from "../../protocols/streaming-node.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import { stall } from "../../runtime/buggify.ts"
import type { Remote } from "../../runtime/remote.ts"
import { TopK } from "../../storage/top-k.ts"
import { mergeFound, mergeHits, packRows } from "../merge.ts"
import type { IsGivenOut } from "./given-out.ts"
import type { GrowingSegment } from "./growing.ts"
import type { Owner } from "./owner.ts"
import type { Pin, Shard } from "./shard.ts"

export type QueryNodes = Remote<typeof QueryNodeProtocol.calls>

/** What a read needs besides its shard. */
export interface ReadDeps {
  readonly queryNodes: QueryNodes
  readonly isGivenOut: IsGivenOut
}

/** A read that a node could not answer looks at the view again after so long, and each time waits twice as long. */
const RETRY_FIRST_MS = 20
const RETRY_MAX_MS = 500
const SMALL_PART = 64

/** The T that a read gets, once its owner may answer at it (protocols/README.md, 3.2 and 3.3). */
export const settleTime = (
  owner: Owner,
  time: ReadTime,
  isGivenOut: IsGivenOut,
  timeoutMs: number
): Effect.Effect<Timestamp, ElanusError> =>
  // The usual read: at a time that is closed already.
  time._tag === "At" && time.timestamp <= owner.closed
    ? Effect.succeed(time.timestamp)
    : waitForTime(owner, time, isGivenOut, timeoutMs)

const waitForTime = Effect.fnUntraced(function* (
  owner: Owner,
  time: ReadTime,
  isGivenOut: IsGivenOut,
  timeoutMs: number
): Effect.fn.Return<Timestamp, ElanusError> {
  const { changed, queue, stamps } = owner
  const until = Effect.fnUntraced(function* (isClosed: () => boolean) {
    const isEnded = yield* changed.within(timeoutMs, () => isClosed() || owner.over !== undefined)
    if (!isEnded) {
      return yield* failure("timeout", `the log of channel ${owner.who.channel} has not closed the time of the read`)
    }
    if (!isClosed()) return yield* owner.over!
  })
  yield* stall("before the time of a read is settled", 500)
  // A token that is later than all that was acknowledged: to close it proves as much.
  if (time._tag === "Latest" && time.timestamp <= owner.chain.timestamp) {
    // All that was acknowledged when we were asked; a record sent from now on proves that nobody else acknowledges.
    // In doubt, what was read back may be acknowledged already, and is closed by the fence that is on its way.
    const { issued } = queue
    const at = owner.chain.timestamp
    queue.proveAbove = Math.max(queue.proveAbove, issued)
    changed.notify()
    yield* until(() => owner.proven > issued && owner.closed >= at)
    return at
  }
  const at = time.timestamp
  // A T that was taken for this very read must be above all that was acknowledged, and a deposed oracle's may not be.
  if (time._tag === "Fresh" && at < stamps.floor) {
    return yield* failure("stale", `timestamp ${at} comes from an oracle whose term is over; take a new one`)
  }
  if (at <= owner.closed) return at
  if (!(yield* isGivenOut(stamps, at))) {
    return yield* failure("bad-timestamp", `timestamp ${at} has not been given out yet`)
  }
  if (at > queue.closeAt) queue.closeAt = at
  changed.notify()
  yield* until(() => owner.closed >= at)
  return at
})

/** Runs `plan` on the present view, and while a segment is not where the view says, again: at the same T, until the deadline. */
const onView = <A>(
  owner: Owner,
  shard: Shard,
  at: Timestamp,
  timeoutMs: number,
  plan: (pin: Pin, lsn: number) => Effect.Effect<A, ElanusError>
): Effect.Effect<A, ElanusError> => {
  /** Ends in `otherwise` if the view has to change first. */
  const attempt = (otherwise: Effect.Effect<A, ElanusError>): Effect.Effect<A, ElanusError> => {
    // Its owner let go of it, with its collection: it gets no records any more, and their times may be forgotten.
    if (owner.shards.get(shard.key) !== shard) {
      return Effect.fail(failure("collection-not-found", `no collection ${shard.collection.id} any more`))
    }
    const pin = shard.pin()
    if (pin === undefined) return otherwise
    const { horizon } = pin.view.manifest
    if (at < horizon) return Effect.fail(failure("bad-timestamp", `${at} is below what is kept (${horizon})`))
    return Effect.catch(plan(pin, owner.lsnAt(at)), (error) => {
      if (!isLost(error)) return Effect.fail(error)
      shard.waiting = error.reason
      shard.viewStale = true
      owner.changed.notify()
      return otherwise
    })
  }
  const isNew = () => owner.over !== undefined || (shard.view !== undefined && !shard.viewStale)
  // The next view wakes it at once; on this one a node may only be overloaded, or come back.
  const again = (waitMs: number): Effect.Effect<A, ElanusError> =>
    Effect.suspend(() =>
      Effect.flatMap(owner.changed.within(waitMs, isNew), () =>
        owner.over === undefined ? attempt(again(Math.min(waitMs * 2, RETRY_MAX_MS))) : Effect.fail(owner.over)
      )
    )
  // A view that holds answers without a timer: each of its parts has a deadline of its own.
  return attempt(
    Effect.timeoutOrElse(again(RETRY_FIRST_MS), {
      duration: timeoutMs,
      orElse: () =>
        Effect.fail(failure("unavailable", `shard ${shard.key}: ${shard.waiting || "its view is not loaded"}`))
    })
  )
}

/** The node is gone, or lacks something, or is at its limit: it may be otherwise on the next view. */
const LOST: ReadonlySet<ErrorCode> = new Set(["not-here", "unavailable", "disconnected", "ambiguous", "overloaded"])
const isLost = (error: ElanusError): boolean => LOST.has(error.code)

/** The sub-queries of a view: for each node its segments, with the keys that they lack. */
const subReads = (owner: Owner, shard: Shard, pin: Pin, at: Timestamp) => {
  const { holders, manifest } = pin.view
  const byNode = new Map<string, Array<string>>()
  for (const { id } of manifest.segments) {
    const { node } = holders.get(id)!
    const segments = byNode.get(node)
    if (segments === undefined) byNode.set(node, [id])
    else segments.push(id)
  }
  return Array.from(byNode, ([node, segments]) => {
    let after = Infinity
    for (const id of segments) after = Math.min(after, holders.get(id)!.applied)
    // What was only read may be a later owner's, and no T that is closed needs it.
    const upTo = Math.max(after, owner.proven)
    const bytesMax = owner.sites.fires("tail keys in small parts") ? SMALL_PART : limits.tailBytesMax
    const parts = shard.tail.keysFor(shard.collection.spec.keyType, after, upTo, shard.mayBeSealed, bytesMax)
    const reads = parts.map((tail): SegmentRead => ({
      knownEpoch: owner.who.epoch,
      knownLsn: owner.proven,
      collection: shard.collection.id,
      shard: shard.shard,
      segments,
      timestamp: at,
      tail
    }))
    return {
      node,
      /** More keys than one question should carry: they go ahead of it. */
      ahead: reads.slice(0, -1),
      read: reads[reads.length - 1]!,
      /** The keys that it would need are flushed and gone from memory: the node must load them with the segment. */
      lost: after < shard.tail.base,
      /** The node answered, so it has them. */
      applied: () => {
        for (const id of segments) {
          const holder = holders.get(id)!
          if (holder.applied < upTo) holder.applied = upTo
        }
      }
    }
  })
}

type SubRead = ReturnType<typeof subReads>[number]

/** Asks every node of the view at once; all answer, or the read is not answered from this view. */
const askNodes = <A>(
  { queryNodes }: ReadDeps,
  subs: ReadonlyArray<SubRead>,
  timeoutMs: number,
  ask: (sub: SubRead) => Effect.Effect<A, ElanusError>
): Effect.Effect<Array<A>, ElanusError> => {
  const one = (sub: SubRead) => {
    if (sub.lost) return Effect.fail(failure("not-here", `node ${sub.node} lacks keys that are flushed by now`))
    const answer = Effect.map(ask(sub), (answer) => {
      sub.applied()
      return answer
    })
    if (sub.ahead.length === 0) return answer
    const bring = Effect.forEach(sub.ahead, (read) => queryNodes.call(sub.node, "Apply", read, timeoutMs), {
      discard: true
    })
    return Effect.andThen(bring, answer)
  }
  if (subs.length === 1) return Effect.map(one(subs[0]!), (answer) => [answer])
  return Effect.forEach(subs, one, { concurrency: "unbounded" })
}

export const search = (
  deps: ReadDeps,
  owner: Owner,
  shard: Shard,
  request: ShardSearch,
  at: Timestamp
): Effect.Effect<Hits, ElanusError> => {
  const { keyType, dimension } = shard.collection.spec
  const { ef, limit, queries, timeoutMs } = request
  const count = queries.length / dimension
  return onView(owner, shard, at, timeoutMs, (pin, lsn) => {
    const subs = subReads(owner, shard, pin, at)
    const sealed = askNodes(deps, subs, timeoutMs, ({ node, read }) =>
      deps.queryNodes.call(node, "Search", { read, limit, ef, queries }, timeoutMs)
    )
    if (pin.growing.every((segment) => segment.rows === 0)) {
      return Effect.map(sealed, (parts) =>
        parts.length === 0 ? noHits(shard, count) : mergeHits(keyType, parts, count, limit)
      )
    }
    const grown = scanGrowing(shard, pin.growing, queries, count, limit, lsn)
    if (subs.length === 0) return grown
    return Effect.map(Effect.all([grown, sealed], { concurrency: 2 }), ([mine, parts]) =>
      mergeHits(keyType, [mine, ...parts], count, limit)
    )
  })
}

const noHits = (shard: Shard, count: number): Hits => ({
  counts: new Uint32Array(count),
  keys: keyColumn(shard.collection.spec.keyType, []),
  ranks: new Float64Array(0)
})

/** Exact, over all that grows; the event loop gets its turn after every `limits.sliceBytes`. */
const scanGrowing = Effect.fnUntraced(function* (
  shard: Shard,
  segments: ReadonlyArray<GrowingSegment>,
  queries: Float32Array,
  count: number,
  limit: number,
  lsn: number
): Effect.fn.Return<Hits> {
  const { dimension, keyType } = shard.collection.spec
  const counts = new Uint32Array(count)
  const keys: Array<Key> = []
  const ranks: Array<number> = []
  // The active segment may go on growing meanwhile; rows that it gets are above `lsn`, and so never among the best.
  const bases = segmentBases(segments)
  let sliced = 0
  for (let which = 0; which < count; which++) {
    const query = queries.subarray(which * dimension, (which + 1) * dimension)
    const top = new TopK(limit)
    for (const [index, segment] of segments.entries()) {
      for (let block = 0; block < segment.blocks.length; block++) {
        segment.scan(block, query, lsn, bases[index]!, top)
        sliced += segment.rowsPerBlock * dimension * 4
        if (sliced >= limits.sliceBytes) {
          sliced = 0
          yield* Effect.yieldNow
        }
      }
    }
    const best = top.finish()
    counts[which] = best.rows.length
    for (let i = 0; i < best.rows.length; i++) {
      keys.push(keyOfOrdinal(segments, bases, best.rows[i]!))
      ranks.push(best.ranks[i]!)
    }
  }
  return { counts, keys: keyColumn(keyType, keys), ranks: Float64Array.from(ranks) }
})

const segmentBases = (segments: ReadonlyArray<GrowingSegment>): ReadonlyArray<number> => {
  let base = 0
  return segments.map((segment) => {
    const mine = base
    base += segment.rows
    return mine
  })
}

const keyOfOrdinal = (segments: ReadonlyArray<GrowingSegment>, bases: ReadonlyArray<number>, ordinal: number): Key => {
  let which = segments.length - 1
  while (bases[which]! > ordinal) which--
  return segments[which]!.key(ordinal - bases[which]!)
}

export const get = (
  deps: ReadDeps,
  owner: Owner,
  shard: Shard,
  request: ShardGet,
  at: Timestamp
): Effect.Effect<FoundRows, ElanusError> => {
  const { keyType } = shard.collection.spec
  const { timeoutMs, vectors } = request
  return onView(owner, shard, at, timeoutMs, (pin, lsn) => {
    // What grows is looked up here and now, before anything is awaited: so it stands on the very view that is pinned.
    const grown = foundGrowing(shard, request.keys, vectors, lsn)
    const missing = keysOf(request.keys).filter((key) => !grown.have.has(key))
    const subs = missing.length === 0 ? [] : subReads(owner, shard, pin, at)
    if (subs.length === 0) return Effect.succeed(grown.found)
    const keys = keyColumn(keyType, missing)
    return Effect.map(
      askNodes(deps, subs, timeoutMs, ({ node, read }) =>
        deps.queryNodes.call(node, "Get", { read, keys, vectors }, timeoutMs)
      ),
      (parts) => mergeFound(keyType, [grown.found, ...parts])
    )
  })
}

const foundGrowing = (shard: Shard, wanted: KeyColumn, vectors: boolean, lsn: number) => {
  const { keyType } = shard.collection.spec
  const have = new Set<Key>()
  const fields: Array<Uint8Array> = []
  const found: Array<Float32Array> = []
  for (let i = 0; i < wanted.count; i++) {
    const key = keyAt(wanted, i)
    if (have.has(key)) continue
    const version = shard.growing.find(key, lsn)
    if (version === undefined) continue
    have.add(key)
    fields.push(version.segment.fields(version.row))
    if (vectors) found.push(version.segment.vector(version.row))
  }
  return { have, found: packRows(keyType, [...have], fields, found) }
}

export const count = (
  deps: ReadDeps,
  owner: Owner,
  shard: Shard,
  timeoutMs: number,
  at: Timestamp
): Effect.Effect<number, ElanusError> => {
  return onView(owner, shard, at, timeoutMs, (pin, lsn) => {
    const grown = pin.growing.reduce((total, segment) => total + segment.count(lsn), 0)
    const subs = subReads(owner, shard, pin, at)
    return Effect.map(
      askNodes(deps, subs, timeoutMs, ({ node, read }) => deps.queryNodes.call(node, "Count", read, timeoutMs)),
      (parts) => parts.reduce((total, { rows }) => total + rows, grown)
    )
  })
}

/**
 * The owner of one channel: the only writer of its log, the owner of the shards on it, and the one who plans their
 * reads. This file is the actor: what it owes in each state, and how it answers. The parts are beside it.
 */
import { Clock, Deferred, Effect, FiberMap, Schedule } from "effect"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import {
  type ChannelKey,
  checkpointZero,
  leaseKey,
  metadata,
  metaKey,
  type Order,
  orderAbove
} from "../../protocols/metadata.ts"
import { type Entry, RecordDamaged, type LogRecord, requestKey } from "../../protocols/record.ts"
import { QueryNodeProtocol } from "../../protocols/query-node.ts"
import type { ReadTime, Route, ShardStats, Write, Written } from "../../protocols/streaming-node.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import { activate, type Self } from "../../runtime/actor.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { provider } from "../../runtime/provide.ts"
import { remote } from "../../runtime/remote.ts"
import { makeSignal } from "../../runtime/signal.ts"
import { Compute } from "../../storage/compute.ts"
import { Leases } from "../../storage/leases.ts"
import { Log } from "../../storage/log.ts"
import { Meta } from "../../storage/meta.ts"
import { Objects } from "../../storage/objects.ts"
import { makeCoordinator } from "../coordinator-client.ts"
import { nonce } from "../nonce.ts"
import { sharedCall } from "../shared-call.ts"
import { Chain } from "./chain.ts"
import { fence, type Fenced, type Identity, stop } from "./fence.ts"
import { flushOldest, loadFilters, loadRequests } from "./flushing.ts"
import { handOff } from "./handoff.ts"
import { channelLifecycle } from "./lifecycle.ts"
import { Owner } from "./owner.ts"
import { type ReadDeps, settleTime } from "./reading.ts"
import { Requests } from "./requests.ts"
import { type Shard, shardKey } from "./shard.ts"
import { Stamps } from "./stamps.ts"
import { answer, makePending, write } from "./writer.ts"

type Event = Parameters<Self<typeof channelLifecycle>["advance"]>[0]

const RETRY_MS = 100
const CHECKPOINT_MS = 500
/** Nothing that grows is looked at more seldom than this. */
const MAINTAIN_MS = 1_000
const WRITER_GRANT = 4_096
const FLUSHES_AT_ONCE = 2
const patiently = Schedule.spaced(RETRY_MS)

/** Tries again, after a while, what could not tell yet. */
const untilDecided = <E, R>(attempt: Effect.Effect<Event | undefined, E, R>): Effect.Effect<Event, E, R> =>
  Effect.flatMap(attempt, (event) =>
    event === undefined ? Effect.andThen(Effect.sleep(RETRY_MS), untilDecided(attempt)) : Effect.succeed(event)
  )

/** Activates an owner of `channel`, by the coordinator's `order`, in the present scope. */
export const channelOwner = Effect.fnUntraced(function* (channel: number, order: Order) {
  const node = yield* Node
  const catalog = yield* Catalog
  const leases = yield* Leases
  const log = yield* Log
  const meta = yield* Meta
  const coordinator = yield* makeCoordinator
  const queryNodes = yield* remote(QueryNodeProtocol)
  const provide = yield* provider<Log | Objects | Compute>()
  const changed = makeSignal()
  const key = leaseKey.channel(channel)
  let owner: Owner | undefined
  let trouble = ""

  // ---- time

  const grant = (kind: "reader" | "writer", wanted: number) =>
    coordinator.call("Grant", { kind, count: wanted }, limits.requestTimeoutMs)

  const now: ReadDeps["now"] = sharedCall(Effect.map(grant("reader", 1), ({ first }) => first))
  const deps: ReadDeps = { queryNodes, now }

  const grantForWriter = (self: Owner) =>
    Effect.gen(function* () {
      const granted = yield* grant("writer", WRITER_GRANT)
      self.stamps.accept(granted, yield* Clock.currentTimeMillis)
    })

  // ---- duties

  /** Takes the channel's key, by its revision and only on a newer order than the one that is in it. */
  const take: Effect.Effect<Event> = Effect.gen(function* () {
    const mine = yield* nonce
    const state = yield* log.open(channel)
    const found = yield* leases.get(key)
    const held = found._tag === "Some" ? metadata.channel.decode(found.value.value) : undefined
    const revision = found._tag === "Some" ? found.value.revision : 0
    if (held !== undefined && !orderAbove(order, held.order)) {
      // A second activation of the same order is ours only if we held the key before; and then it takes it anew.
      if (held.node !== node.id || orderAbove(held.order, order)) return stale("a newer order holds the channel")
    }
    if (held !== undefined && held.log !== "" && held.log !== state.incarnation) {
      return damaged(`the log was replaced: it is ${state.incarnation}, and the checkpoint is of ${held.log}`)
    }
    const checkpoint = held?.checkpoint ?? checkpointZero
    const value: ChannelKey = { order, node: node.id, nonce: mine, epoch: null, checkpoint, log: state.incarnation }
    const outcome = yield* leases.put(key, metadata.channel.encode(value), revision)
    let taken: number
    if (outcome._tag === "Done") taken = outcome.value
    else {
      // Ours after all, if what is there now carries our nonce; whatever else it is, the next try looks anew.
      const now = yield* leases.get(key)
      if (now._tag === "None" || metadata.channel.decode(now.value.value).nonce !== mine) return undefined
      taken = now.value.revision
    }
    const who: Identity = { channel, epoch: BigInt(taken), nonce: mine }
    owner = new Owner({
      node: node.id,
      who,
      settings: node.settings,
      catalog,
      changed,
      chain: new Chain(checkpoint),
      stamps: new Stamps(checkpoint.timestamp, checkpoint.floor),
      requests: new Requests(checkpoint.requestFloor),
      checkpoint,
      keyRevision: taken
    })
    return { type: "Taken" } as const
  }).pipe(
    Effect.catch((error) =>
      error.reason === "unavailable" ? Effect.succeed(undefined) : Effect.succeed(damaged(error.detail))
    ),
    untilDecided
  )

  const stale = (detail: string): Event => {
    trouble = detail
    return { type: "Stale" }
  }
  const damaged = (detail: string): Event => {
    trouble = detail
    return { type: "Damaged" }
  }
  const afterFence = (fenced: Fenced, event: Event): Event =>
    fenced._tag === "Fenced" ? event : fenced._tag === "Stale" ? stale(fenced.detail) : damaged(fenced.detail)

  /** The metadata that the log builds on must be known here before the log is read. */
  const catchUp = Effect.fnUntraced(function* (self: Owner) {
    const committed = yield* meta.get(metaKey.commit)
    const revision = Math.max(committed._tag === "Some" ? committed.value.revision : 0, self.checkpoint.metadata)
    yield* catalog.changed.until(() => catalog.head() >= revision)
  })
  const recover: Effect.Effect<Event, never, Log> = Effect.gen(function* () {
    const self = owner!
    yield* catchUp(self).pipe(Effect.retry(patiently), Effect.orDie)
    yield* stop(self.who)
    self.incarnation = 1
    const fenced = yield* readToFence(self)
    return afterFence(fenced, { type: "Recovered" })
  })

  /** Reads what is new to us, up to our own fence, and applies it. What was closed before stays closed. */
  const readToFence = Effect.fnUntraced(function* (self: Owner): Effect.fn.Return<Fenced, never, Log> {
    const fenced = yield* fence(self.who, self.incarnation, self.chain, (record, sequence) =>
      Effect.gen(function* () {
        for (const entry of record.entries) yield* knowSchema(entry)
        applyRecord(self, record, sequence, yield* Clock.currentTimeMillis)
      })
    )
    if (fenced._tag === "Fenced") {
      self.stamps.last = self.chain.timestamp
      self.stamps.floor = self.chain.floor
      if (self.stamps.seen < self.chain.timestamp) self.stamps.seen = self.chain.timestamp
      self.closed = self.chain.timestamp
      changed.notify()
    }
    return fenced
  })

  /** A record of a collection that our metadata is too old to know: it waits until it does. */
  const knowSchema = (entry: Entry): Effect.Effect<void, RecordDamaged> =>
    catalog.head() >= entry.schema ? Effect.void : catalog.changed.until(() => catalog.head() >= entry.schema)

  const applyRecord = (self: Owner, record: LogRecord, sequence: number, nowMs: number) => {
    self.apply(record, sequence, nowMs)
    for (const entry of record.entries) {
      const asked = self.asked.get(askedKey(entry))
      if (asked !== undefined) self.asked.delete(askedKey(entry))
    }
    changed.notify()
  }
  const askedKey = (entry: Pick<Entry, "collection" | "shard" | "request">) =>
    `${shardKey(entry.collection, entry.shard)} ${requestKey(entry.request)}`

  const writing: Effect.Effect<Event, never, Log> = Effect.gen(function* () {
    const self = owner!
    const clockService = yield* Clock.Clock
    const { detail, inFlight } = yield* write({
      who: self.who,
      incarnation: self.incarnation,
      chain: self.chain,
      queue: self.queue,
      stamps: self.stamps,
      changed,
      grant: grantForWriter(self),
      recordBytesMax: log.recordBytesMax,
      acknowledged: (record, sequence) => {
        self.chain.wrote(sequence, record)
        self.closed = record.header.timestamp
        applyRecord(self, record, sequence, clockService.currentTimeMillisUnsafe())
      }
    })
    yield* Effect.logDebug(`channel ${channel}: in doubt: ${detail}`)
    inDoubt = inFlight
    return { type: "InDoubt" }
  })
  let inDoubt: ReadonlyArray<{ readonly record: LogRecord; readonly pending: Parameters<typeof answer>[0] }> = []

  /** Fences again: what the log holds below the fence is stored, and what it does not can never be. */
  const settle: Effect.Effect<Event, never, Log> = Effect.gen(function* () {
    const self = owner!
    self.incarnation++
    const fenced = yield* readToFence(self)
    if (fenced._tag !== "Fenced") {
      // Not stored by us is all that can be said of them.
      return afterFence(fenced, { type: "Settled" })
    }
    const again: Array<Parameters<typeof answer>[0][number]> = []
    for (const { pending, record } of inDoubt) {
      const place = self.place(record.header.lsn)
      if (place !== undefined && place.hash === record.hash) answer(pending, record.header)
      else again.push(...pending)
    }
    inDoubt = []
    for (const each of again) self.asked.set(askedKey(each.entry), each)
    self.queue.putBack(again)
    return { type: "Settled" }
  })

  /** Moves the checkpoint behind what is flushed, and then, never before, has the log forget what is below. */
  const checkpoint: Effect.Effect<Event> = Effect.gen(function* () {
    const self = owner!
    while (true) {
      yield* Effect.sleep(CHECKPOINT_MS)
      const state = yield* log.open(channel)
      self.logBytes = state.bytes
      self.logBytesMax = state.bytesMax
      self.requests.advance(self.chain.timestamp, 0n)
      const place = self.nextCheckpoint()
      const floor = self.requests.floorWanted > self.requests.floor ? self.requests.floorWanted : self.requests.floor
      const raised = self.requests.floorWanted > self.requests.floor
      if ((place === undefined || place.lsn <= self.checkpoint.lsn) && !raised) continue
      const next = { ...(place ?? self.checkpoint), requestFloor: floor, metadata: catalog.head() }
      const value: ChannelKey = {
        order,
        node: node.id,
        nonce: self.who.nonce,
        epoch: self.who.epoch,
        checkpoint: next,
        log: state.incarnation
      }
      const outcome = yield* leases.put(key, metadata.channel.encode(value), self.keyRevision)
      if (outcome._tag === "Done") self.keyRevision = outcome.value
      else {
        const found = yield* leases.get(key)
        if (found._tag === "None") return damaged("the channel's key is gone")
        const held = metadata.channel.decode(found.value.value)
        if (held.nonce !== self.who.nonce) return stale(`node ${held.node} took the channel`)
        self.keyRevision = found.value.revision
        if (outcome._tag === "Unavailable" || held.checkpoint.lsn !== next.lsn) continue
      }
      self.checkpoint = value.checkpoint
      self.requests.advance(self.chain.timestamp, floor)
      self.forget()
      if (self.checkpoint.sequence > state.first) yield* log.purge(channel, self.checkpoint.sequence)
    }
  }).pipe(
    Effect.catch((error) =>
      error.reason === "unavailable" ? Effect.succeed(undefined) : Effect.succeed(damaged(error.detail))
    ),
    untilDecided
  )

  /** Seals what is large or old, flushes what is sealed, and hands over what is flushed: each shard at its own pace. */
  const maintain = Effect.scoped(
    Effect.gen(function* () {
      const self = owner!
      const work = yield* FiberMap.make<string>()
      const flush = Effect.fnUntraced(function* (shard: Shard) {
        const done = yield* Effect.result(flushOldest(coordinator, self, shard))
        if (done._tag === "Success") shard.waiting = ""
        else {
          shard.waiting = `flush: ${done.failure.reason}`
          yield* Effect.logDebug(`shard ${shard.key}: ${shard.waiting}`)
          yield* Effect.sleep(RETRY_MS * 5)
        }
        shard.flushing = false
        changed.notify()
      })
      const hand = Effect.fnUntraced(function* (shard: Shard) {
        yield* loadFilters(self, shard)
        const state = yield* handOff(queryNodes, self, shard)
        if (state === "adopted") shard.waiting = ""
        else {
          shard.waiting = state
          yield* Effect.sleep(RETRY_MS / 2)
        }
        shard.handingOff = false
        changed.notify()
      })

      while (true) {
        const nowMs = yield* Clock.currentTimeMillis
        for (const shard of self.shards.values()) {
          const collection = catalog.collection(shard.collection.id)
          if (collection?.state !== "ready") {
            self.shards.delete(shard.key)
            continue
          }
          const newest = self.manifest(shard)
          const active = shard.growing.active
          if (shard.sealed.length === 0 && newest.flushedTo > active.from) {
            // Somebody's flush that we did not know of was committed in the middle of what we hold.
            trouble = `shard ${shard.key} was flushed by an earlier owner`
            return { type: "Restart" } as Event
          }
          if (shard.view !== undefined && newest.version > shard.view.manifest.version) shard.viewStale = true
          if (shouldSeal(self, shard, nowMs)) shard.seal(self.lsn)
          if (shard.sealed.length > 0 && !shard.flushing && (yield* FiberMap.size(work)) < FLUSHES_AT_ONCE * 2) {
            shard.flushing = true
            yield* FiberMap.run(work, `flush ${shard.key}`, flush(shard))
          }
          if (shard.viewStale && !shard.handingOff) {
            shard.handingOff = true
            yield* FiberMap.run(work, `hand ${shard.key}`, hand(shard))
          }
        }
        yield* anyChange(self)
      }
    })
  )

  const shouldSeal = (self: Owner, shard: Shard, nowMs: number): boolean => {
    const { born, bytes, from } = shard.growing.active
    if (born === undefined) return false
    if (shard.flushWanted > from) return true
    if (bytes >= node.settings.segmentBytesMax || nowMs - born >= node.settings.segmentAgeMaxMs) return true
    // Past half of the log, or of what one channel may hold, whoever holds the oldest records gives them up.
    return self.logBytes > Math.min(self.logBytesMax * limits.channelFlushAt, limits.channelHeldBytesMax)
  }

  /** Waits for anything that `maintain` looks at; at most a little while, for ages are no event. */
  const anyChange = (self: Owner) =>
    Effect.raceFirst(
      catalog.changed.within(MAINTAIN_MS, () => [...self.shards.values()].some((shard) => newer(self, shard))),
      changed.until(() => [...self.shards.values()].some((shard) => due(shard)))
    )
  const newer = (self: Owner, shard: Shard) =>
    (!shard.viewStale && self.manifest(shard).version > (shard.view?.manifest.version ?? -1)) ||
    catalog.collection(shard.collection.id)?.state !== "ready"
  const due = (shard: Shard) =>
    (shard.viewStale && !shard.handingOff) ||
    (!shard.flushing &&
      (shard.sealed.length > 0 ||
        (shard.growing.active.born !== undefined &&
          (shard.flushWanted > shard.growing.active.from ||
            shard.growing.active.bytes >= node.settings.segmentBytesMax))))

  // ---- answers

  const actor = yield* activate(channelLifecycle, (self) => {
    /** The owner, if it is the one that the sender means, and in a state to answer. */
    const admit = Effect.fnUntraced(function* (route: Route): Effect.fn.Return<Owner, ElanusError> {
      const { value } = self.standing()
      if (value === "damaged") return yield* failure("damaged", `channel ${channel}: ${trouble}`)
      if (value === "stale") return yield* failure("moved", `channel ${channel} is owned by another`)
      if (value === "taking" || value === "recovering") {
        return yield* failure("moved", `channel ${channel} is being taken over`)
      }
      const mine = owner!
      if (route.epoch !== mine.who.epoch) {
        return yield* failure("moved", `channel ${channel} is in epoch ${mine.who.epoch}`)
      }
      if (route.knownLsn > mine.lsn) {
        trouble = `record ${route.knownLsn} was acknowledged, and the log ends at ${mine.lsn}`
        yield* self.tryAdvance({ type: "Damaged" })
        return yield* failure("damaged", `channel ${channel}: ${trouble}`)
      }
      return mine
    })

    const shardFor = Effect.fnUntraced(function* (mine: Owner, route: Route): Effect.fn.Return<Shard, ElanusError> {
      const known = mine.shardOf(route.collection, route.shard)
      if (known !== undefined) return known
      // Made a moment ago, perhaps: our watch may be behind the one who sent this.
      yield* catalog.changed.within(limits.evidenceMs, () => catalog.collection(route.collection)?.state === "ready")
      const made = mine.shardOf(route.collection, route.shard)
      return made ?? (yield* failure("collection-not-found", `no collection ${route.collection} on channel ${channel}`))
    })

    const writeRows = Effect.fnUntraced(function* (
      request: Write
    ): Effect.fn.Return<Written, ElanusError, Objects | Compute> {
      const { body, request: id, route } = request
      const mine = yield* admit(route)
      const shard = yield* shardFor(mine, route)
      if (body._tag === "Upsert" && body.rows.dimension !== shard.collection.spec.dimension) {
        return yield* failure("wrong-dimension", `vectors of ${body.rows.dimension} dimensions`)
      }
      if (!shard.requestsLoaded) yield* loadRequests(mine, shard)
      const known = mine.requests.find(shard.key, id)
      if (known !== undefined) return known
      const asked = askedKey({ collection: route.collection, shard: route.shard, request: id })
      const before = mine.asked.get(asked)
      if (before !== undefined) return yield* Deferred.await(before.answer)
      if (id.issued < mine.requests.floor) {
        return yield* failure("outcome-unknown", "the request is too old to tell whether it was applied before")
      }
      if (id.issued > mine.stamps.seen) {
        const newest = yield* now
        if (newest > mine.stamps.seen) mine.stamps.seen = newest
        if (id.issued > newest) return yield* failure("bad-timestamp", "the request id is dated ahead of the cluster")
      }
      const entry: Entry = {
        collection: route.collection,
        shard: route.shard,
        schema: catalog.schema(route.collection),
        request: id,
        body
      }
      const pending = makePending(entry)
      if (pending.bytes > log.recordBytesMax - 256) {
        return yield* failure("too-large", `${pending.bytes} bytes for one shard; a record holds ${log.recordBytesMax}`)
      }
      if (mine.queue.bytes + pending.bytes > limits.writeQueueBytesMax) {
        return yield* failure("overloaded", `channel ${channel} has ${mine.queue.bytes} bytes waiting`)
      }
      if (mine.full) return yield* failure("overloaded", `the log of channel ${channel} is full`)
      if (mine.growingBytes > node.settings.growingBytesMax) {
        return yield* failure("overloaded", `rows wait for a query node: ${shard.waiting || "flush in progress"}`)
      }
      mine.asked.set(asked, pending)
      mine.queue.add(pending)
      changed.notify()
      return yield* Deferred.await(pending.answer).pipe(
        Effect.timeoutOrElse({
          duration: limits.requestTimeoutMs,
          orElse: () => Effect.fail(failure("ambiguous", "the log has not said yet whether it has the write"))
        })
      )
    })

    /** Admits a read, settles its T, and runs it there. */
    const read = Effect.fnUntraced(function* <A>(
      request: { readonly route: Route; readonly time: ReadTime; readonly timeoutMs: number },
      run: (mine: Owner, shard: Shard, at: Timestamp) => Effect.Effect<A, ElanusError>
    ): Effect.fn.Return<A & { readonly timestamp: Timestamp; readonly lsn: number }, ElanusError> {
      const { route, time, timeoutMs } = request
      const mine = yield* admit(route)
      const shard = yield* shardFor(mine, route)
      const at = yield* settleTime(mine, time, now, timeoutMs)
      const answered = yield* run(mine, shard, at)
      return { ...answered, timestamp: at, lsn: mine.lsn }
    })

    const on = {
      write: (request: Write) => provide(writeRows(request)),
      read,
      deps,
      flush: Effect.fnUntraced(function* (route: Route): Effect.fn.Return<{ readonly flushedTo: number }, ElanusError> {
        const mine = yield* admit(route)
        const shard = yield* shardFor(mine, route)
        const upTo = mine.lsn
        const done = () => {
          const manifest = mine.manifest(shard)
          return (
            (shard.oldestUnflushed(manifest.flushedTo) ?? Infinity) > upTo &&
            shard.view?.manifest.version === manifest.version
          )
        }
        shard.flushWanted = upTo
        changed.notify()
        yield* Effect.raceFirst(changed.until(done), catalog.changed.until(done))
        return { flushedTo: mine.manifest(shard).flushedTo }
      }),
      stats: Effect.fnUntraced(function* (route: Route): Effect.fn.Return<ShardStats, ElanusError> {
        const mine = yield* admit(route)
        const shard = yield* shardFor(mine, route)
        const manifest = mine.manifest(shard)
        return {
          node: node.id,
          epoch: mine.who.epoch,
          lsn: mine.lsn,
          flushedTo: manifest.flushedTo,
          manifestVersion: manifest.version,
          adoptedVersion: shard.view?.manifest.version ?? -1,
          growingRows: shard.growing.rows,
          growingBytes: shard.growing.bytes,
          segments: manifest.segments.map(({ data, id, index, rows }) => {
            const holder = shard.view?.holders.get(id)
            return {
              id,
              rows,
              bytes: data.bytes + (index?.bytes ?? 0),
              indexed: index !== null && (holder?.indexed ?? false),
              node: holder?.node ?? ""
            }
          }),
          waiting: shard.waiting
        }
      })
    }
    return Effect.succeed({
      on,
      duties: {
        take,
        recover: provide(recover),
        write: provide(writing),
        settle: provide(settle),
        maintain: provide(maintain),
        checkpoint
      }
    })
  })

  return { ...actor, channel, order, trouble: () => trouble, epoch: () => owner?.who.epoch }
})

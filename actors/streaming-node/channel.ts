/**
 * The owner of one channel: the only writer of its log, the owner of the shards on it, and the one who plans their
 * reads. This file is the actor: what it owes in each state, and how it answers. The parts are beside it.
 */
import { Clock, Deferred, Effect, Schedule } from "effect"
import type { GrantKind } from "../../protocols/coordinator.ts"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { type ChannelKey, type Checkpoint, metaKey, type Order } from "../../protocols/metadata.ts"
import { QueryNodeProtocol } from "../../protocols/query-node.ts"
import { type Entry, type LogRecord, RecordDamaged, requestKey } from "../../protocols/record.ts"
import type { ReadAt, ReadTime, Route, ShardStats, Write, Written } from "../../protocols/streaming-node.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import { activate, type Self } from "../../runtime/actor.ts"
import { buggify, late, Sites, stall } from "../../runtime/buggify.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { provider } from "../../runtime/provide.ts"
import { remote } from "../../runtime/remote.ts"
import { either, makeSignal } from "../../runtime/signal.ts"
import type { Compute } from "../../storage/compute.ts"
import { Leases } from "../../storage/leases.ts"
import { Log } from "../../storage/log.ts"
import { Meta } from "../../storage/meta.ts"
import type { Objects } from "../../storage/objects.ts"
import type { StorageError } from "../../storage/outcome.ts"
import { makeCoordinator } from "../coordinator-client.ts"
import { nonce } from "../nonce.ts"
import { Chain } from "./chain.ts"
import { saveCheckpoint, stillOurs, takeKey } from "./channel-key.ts"
import { fence, type Fenced, type OnRecord, stop } from "./fence.ts"
import { loadRequests } from "./flushing.ts"
import { makeIsGivenOut } from "./given-out.ts"
import { channelLifecycle } from "./lifecycle.ts"
import { Owner } from "./owner.ts"
import { type ReadDeps, settleTime } from "./reading.ts"
import { Requests } from "./requests.ts"
import { type Shard, shardKey } from "./shard.ts"
import { Stamps } from "./stamps.ts"
import { keepUp } from "./upkeep.ts"
import { answer, type InFlight, makePending, type Pending, refuse, write } from "./writer.ts"

type Event = Parameters<Self<typeof channelLifecycle>["advance"]>[0]

const RETRY_MS = 100
/** All that anybody acknowledged before. */
const LATEST: ReadTime = { _tag: "Latest", timestamp: 0n }
const CHECKPOINT_MS = 500
const CHECKPOINT_LATE_MS = 5_000
const WRITER_GRANT = 4_096
const FEW_REQUESTS = 32
const HASTE_MS = 5
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
  const sites = yield* Sites
  const changed = makeSignal()
  let owner: Owner | undefined
  let trouble = ""
  /** What was in flight when the writer ended, in order. */
  let inDoubt: ReadonlyArray<InFlight> = []
  /** Whether the log can never take the first of them. */
  let isInvalid = false

  // ---- time

  const grant = (kind: GrantKind, wanted: number) =>
    coordinator.call("Grant", { kind, count: wanted }, limits.requestTimeoutMs)

  const isGivenOut = makeIsGivenOut(grant)
  const deps: ReadDeps = { queryNodes, isGivenOut }

  const grantForWriter = (self: Owner) =>
    Effect.gen(function* () {
      const granted = yield* grant("writer", WRITER_GRANT)
      // A deposed oracle's: its successor is asked in a moment.
      if (!self.stamps.accept(granted, yield* Clock.currentTimeMillis)) yield* Effect.sleep(RETRY_MS)
    })

  // ---- duties

  /** Whoever waits for this activation waits in vain from now on, and is told so at once: another owner will see to it. */
  const leave = (detail: string): void => {
    if (owner === undefined) return
    owner.over = failure("moved", detail)
    refuse(owner.queue.take(Infinity), owner.over)
    const unknown = failure("ambiguous", detail)
    for (const { pending } of inDoubt) refuse(pending, unknown)
    refuse([...owner.asked.values()], unknown)
    inDoubt = []
    changed.notify()
  }
  yield* Effect.addFinalizer(() => Effect.sync(() => leave("the channel was given away")))
  /** Of a duty: why it is to end. Whether it does is the kernel's to say, for the state may be another one by then. */
  const end = (event: Event, detail: string): Event => {
    trouble = detail
    return event
  }
  const stale = (detail: string) => end({ type: "Stale" }, detail)
  const damaged = (detail: string) => end({ type: "Damaged" }, detail)
  const ofStorage = (error: StorageError): Event | undefined =>
    error.reason === "unavailable" ? undefined : damaged(error.detail)
  /** Tries again what the storage could not tell yet. */
  const whileUnavailable = (attempt: Effect.Effect<Event | undefined, StorageError>): Effect.Effect<Event> =>
    untilDecided(Effect.catch(attempt, (error) => Effect.succeed(ofStorage(error))))

  const take = Effect.gen(function* () {
    const state = yield* log.open(channel)
    const taken = yield* takeKey(leases, {
      channel,
      node: node.id,
      order,
      nonce: yield* nonce,
      log: state.incarnation
    })
    if (taken === undefined) return undefined
    if (taken._tag === "Stale") return stale(taken.detail)
    if (taken._tag === "Damaged") return damaged(taken.detail)
    yield* stall("between a channel's key and its owner", 2_000)
    const { checkpoint, revision, who } = taken
    const requestsMax = (yield* buggify("few requests are remembered")) ? FEW_REQUESTS : limits.dedupeIdsMax
    owner = new Owner({
      node: node.id,
      who,
      settings: node.settings,
      sites,
      catalog,
      changed,
      chain: new Chain(checkpoint),
      stamps: new Stamps(checkpoint.timestamp, checkpoint.floor),
      requests: new Requests(checkpoint.requestFloor, requestsMax),
      checkpoint,
      keyRevision: revision
    })
    owner.learnLog(state)
    return { type: "Taken" } as const
  }).pipe(whileUnavailable)

  const afterFence = (self: Owner, fenced: Fenced, event: Event): Effect.Effect<Event> => {
    if (fenced._tag === "Fenced") return Effect.succeed(event)
    if (fenced._tag === "Damaged") return Effect.sync(() => damaged(fenced.detail))
    // Nobody took the key from us, and the log has been another's: the leases are older than it is.
    const restored = `${fenced.detail}, and the channel's key is still ours: the leases were restored from a backup`
    return damagedIfOurs(self, restored, fenced.detail)
  }
  const damagedIfOurs = (self: Owner, detail: string, otherwise: string): Effect.Effect<Event> =>
    Effect.map(Effect.retry(stillOurs(leases, self.who), patiently).pipe(Effect.orDie), (ours) =>
      ours ? damaged(detail) : stale(otherwise)
    )

  /** The metadata that the log builds on must be known here before the log is read. */
  const catchUp = Effect.fnUntraced(function* (self: Owner) {
    const committed = yield* meta.get(metaKey.commit)
    const revision = Math.max(committed._tag === "Some" ? committed.value.revision : 0, self.checkpoint.metadata)
    yield* catalog.changed.until(() => catalog.head() >= revision)
  })
  const recover: Effect.Effect<Event, never, Log> = Effect.gen(function* () {
    const self = owner!
    yield* catchUp(self).pipe(Effect.retry(patiently), Effect.orDie)
    // Until it is known to be there: without it, a fence never wins against an owner that is busy.
    yield* Effect.repeat(stop(self.who), {
      until: ({ _tag }) => _tag === "Done" || _tag === "Refused",
      schedule: patiently
    })
    if (yield* buggify("a second stopper")) yield* stop(self.who)
    self.incarnation = 1
    const fenced = yield* readToFence(self)
    return yield* afterFence(self, fenced, { type: "Recovered" })
  })

  /** Reads what is new to us, up to our own fence, and applies it. What was closed before stays closed. */
  const readToFence = Effect.fnUntraced(function* (self: Owner): Effect.fn.Return<Fenced, never, Log> {
    const clock = yield* Clock.Clock
    const onRecord: OnRecord = (record, sequence) => {
      const take = () => {
        applyRecord(self, record, sequence, clock.currentTimeMillisUnsafe())
        changed.notify()
      }
      // A record of a collection that our metadata is too old to know waits until it does.
      const knows = () => record.entries.every(({ schema }) => catalog.head() >= schema)
      if (!knows()) return Effect.map(catalog.changed.until(knows), take)
      take()
      return undefined
    }
    const fenced = yield* fence(self.who, self.incarnation, self.chain, onRecord, () => lostFlush(self))
    if (fenced._tag === "Fenced") {
      self.stamps.last = self.chain.timestamp
      self.stamps.learnFloor(self.chain.floor)
      if (self.stamps.seen < self.chain.timestamp) self.stamps.seen = self.chain.timestamp
      self.closed = self.chain.timestamp
      self.proven = self.lsn
      changed.notify()
    }
    return fenced
  })

  const lostFlush = (self: Owner): string | undefined => {
    for (const { channels, id } of catalog.collections()) {
      for (let shard = 0; shard < channels.length; shard++) {
        const manifest = channels[shard] === channel ? catalog.manifest(id, shard) : undefined
        const lost = manifest === undefined ? undefined : self.lostFlush(manifest)
        if (lost !== undefined) return lost
      }
    }
    return undefined
  }

  const applyRecord = (self: Owner, record: LogRecord, sequence: number, nowMs: number) => {
    try {
      self.apply(record, sequence, nowMs)
    } catch (cause) {
      throw new RecordDamaged(`record ${record.header.lsn} cannot be applied: ${String(cause)}`)
    }
    for (const entry of record.entries) self.asked.delete(askedKey(entry))
  }
  /** What applied half of a record knows of another log than there is: run again on that, it would count records wrong from there on. */
  const orDamaged = <R>(duty: Effect.Effect<Event, never, R>): Effect.Effect<Event, never, R> =>
    Effect.catchDefect(duty, (cause) =>
      cause instanceof RecordDamaged ? Effect.sync(() => damaged(cause.message)) : Effect.die(cause)
    )
  const askedKey = (entry: Pick<Entry, "collection" | "shard" | "request">) =>
    `${shardKey(entry.collection, entry.shard)} ${requestKey(entry.request)}`

  const writing: Effect.Effect<Event, never, Log> = Effect.gen(function* () {
    const self = owner!
    const clockService = yield* Clock.Clock
    const doubt = yield* write({
      who: self.who,
      incarnation: self.incarnation,
      chain: self.chain,
      queue: self.queue,
      stamps: self.stamps,
      changed,
      grant: grantForWriter(self),
      recordBytesMax: () => log.recordBytesMax,
      acknowledged: (record, sequence) => {
        self.chain.wrote(sequence, record)
        applyRecord(self, record, sequence, clockService.currentTimeMillisUnsafe())
        self.closed = record.header.timestamp
        self.proven = record.header.lsn
        changed.notify()
      }
    })
    yield* Effect.logDebug(`channel ${channel}: in doubt: ${doubt.detail}`)
    inDoubt = doubt.inFlight
    isInvalid = doubt.isInvalid
    return { type: "InDoubt" }
  })
  /** Fences again: what the log holds below the fence is stored, and what it does not can never be. */
  const settle: Effect.Effect<Event, never, Log> = Effect.gen(function* () {
    const self = owner!
    yield* stall("before doubts are settled", 1_000)
    if (yield* buggify("an owner in doubt begins anew")) return end({ type: "Restart" }, "it began anew by itself")
    self.incarnation++
    const fenced = yield* readToFence(self)
    if (fenced._tag !== "Fenced") return yield* afterFence(self, fenced, { type: "Settled" })
    const again: Array<Pending> = []
    inDoubt.forEach(({ pending, record }, i) => {
      const place = self.place(record.header.lsn)
      if (place !== undefined && place.hash === record.hash) return answer(pending, record.header)
      // Nothing gets past a request that can never be stored. Several in one record may fit one by one.
      if (i === 0 && isInvalid && pending.length === 1) {
        return refuse(pending, failure("too-large", `the log takes no record of ${pending[0]!.bytes} bytes`))
      }
      if (i === 0 && isInvalid) self.queue.alone = pending.length
      again.push(...pending)
    })
    inDoubt = []
    for (const each of again) self.asked.set(askedKey(each.entry), each)
    self.queue.putBack(again)
    return { type: "Settled" }
  })

  /** A collection is being closed, and the checkpoint does not say yet that we know: its drop waits for that. */
  const isAwaited = (self: Owner): boolean => {
    for (const { channels, id } of catalog.closing()) {
      const since = catalog.schema(id)
      if (since > self.checkpoint.metadata && since <= catalog.head() && channels.includes(channel)) return true
    }
    return false
  }

  /** Moves the checkpoint behind what is flushed, and then, never before, has the log forget what is below. */
  const checkpoint = Effect.gen(function* () {
    const self = owner!
    while (true) {
      const { lsn } = self
      // First: what comes to be known while the log is asked, the checkpoint does not rest on.
      const known = catalog.head()
      const raised = () => self.requests.floorWanted > self.requests.floor
      const place = self.nextCheckpoint()
      const moved = place !== undefined && place.lsn > self.checkpoint.lsn
      if (moved || raised() || isAwaited(self) || (yield* buggify("a checkpoint where the last one is"))) {
        const state = yield* log.open(channel)
        self.learnLog(state)
        const next: Checkpoint = {
          ...(moved ? { ...place, epochs: self.epochs.upTo(place.lsn) } : self.checkpoint),
          requestFloor: raised() ? self.requests.floorWanted : self.requests.floor,
          metadata: known
        }
        const { epoch, nonce: mine } = self.who
        const value: ChannelKey = { order, node: node.id, nonce: mine, epoch, checkpoint: next, log: state.incarnation }
        const saved = yield* saveCheckpoint(leases, value, channel, self.keyRevision)
        if (saved._tag === "Stale") return stale(saved.detail)
        if (saved._tag === "Damaged") return damaged(saved.detail)
        self.keyRevision = saved.revision
        if (saved._tag === "Saved") {
          self.checkpoint = next
          self.requests.advance(self.chain.timestamp, next.requestFloor)
          self.forget()
        }
      }
      const { sequence } = self.checkpoint
      // Also where nothing was saved just now: the last purge may have been lost, with its owner or on its way.
      if (sequence > self.logFirst) {
        yield* stall("between a checkpoint and its purge", 2_000)
        const purged = yield* log.purge(channel, sequence)
        if (purged._tag === "Done") self.logFirst = purged.value
      }
      if (moved && (yield* buggify("an owner begins anew"))) return end({ type: "Restart" }, "it began anew by itself")
      // Not more often than this, and not at all while nothing happens.
      yield* late("a checkpoint comes late", CHECKPOINT_LATE_MS)
      yield* Effect.sleep(CHECKPOINT_MS)
      if (self.full) {
        // It refuses what would make something happen, so it looks by itself whether it has room again.
        self.learnLog(yield* log.open(channel))
        continue
      }
      const isOwed = () => (self.nextCheckpoint()?.lsn ?? 0) > self.checkpoint.lsn || sequence > self.logFirst
      const happened = () => self.lsn > lsn || raised() || isOwed()
      yield* either(changed, catalog.changed).until(() => happened() || isAwaited(self))
    }
  }).pipe(whileUnavailable)

  const maintain = Effect.scoped(
    Effect.flatMap(
      Effect.suspend(() => keepUp(coordinator, queryNodes, owner!)),
      (reason) =>
        owner!.behind === undefined
          ? Effect.sync(() => end({ type: "Restart" }, reason))
          : damagedIfOurs(owner!, reason, reason)
    )
  )

  // ---- answers

  const actor = yield* activate(channelLifecycle, (self) => {
    /** The owner, if it is the one that the sender means, and in a state to answer. */
    const admit = (route: Route): Effect.Effect<Owner, ElanusError> => {
      const { value } = self.standing()
      if (value === "damaged") return Effect.fail(failure("damaged", `channel ${channel}: ${trouble}`))
      if (value === "stale") return Effect.fail(failure("moved", `channel ${channel} is owned by another`))
      if (value === "taking" || value === "recovering") {
        return Effect.fail(failure("moved", `channel ${channel} is being taken over`))
      }
      const mine = owner!
      if (route.epoch !== mine.who.epoch) {
        return Effect.fail(failure("moved", `channel ${channel} is in epoch ${mine.who.epoch}`))
      }
      const lost = mine.lost(route)
      if (lost === undefined) return Effect.succeed(mine)
      damaged(lost)
      return Effect.andThen(
        self.tryAdvance({ type: "Damaged" }),
        Effect.fail(failure("damaged", `channel ${channel}: ${trouble}`))
      )
    }

    const notThere = ({ collection }: Route) =>
      failure("collection-not-found", `no collection ${collection} on channel ${channel}`)
    const notHeardOf = ({ collection }: Route) =>
      failure("moved", `the owner of channel ${channel} has not heard of collection ${collection} yet`)

    const shardFor = (mine: Owner, route: Route): Effect.Effect<Shard, ElanusError> => {
      const known = mine.shardOf(route.collection, route.shard)
      if (known !== undefined) return Effect.succeed(known)
      // Made a moment ago, perhaps: our watch may be behind the one who sent this, and then nobody knows yet that it is gone.
      const state = () => catalog.collection(route.collection)?.state
      const isBehind = () => state() === "creating" || route.schema === 0 || catalog.head() < route.schema
      const made = () => (state() ?? "creating") !== "creating"
      return Effect.flatMap(
        catalog.changed.within(limits.evidenceMs, () => made() || !isBehind()),
        () => {
          const shard = mine.shardOf(route.collection, route.shard)
          if (shard !== undefined) return Effect.succeed(shard)
          return Effect.fail(isBehind() ? notHeardOf(route) : notThere(route))
        }
      )
    }

    const outcomeOf = ({ answer }: Pending): Effect.Effect<Written, ElanusError> =>
      Effect.flatMap(buggify("nobody waits for a write"), (isHasty) =>
        Deferred.await(answer).pipe(
          Effect.timeoutOrElse({
            duration: isHasty ? HASTE_MS : limits.requestTimeoutMs,
            orElse: () => Effect.fail(failure("ambiguous", "the log has not said yet whether it has the write"))
          })
        )
      )

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
      if (!(yield* isGivenOut(mine.stamps, id.issued))) {
        return yield* failure("bad-timestamp", "the request id is dated ahead of the cluster")
      }
      const isBusy = yield* buggify("an owner is busy")
      // From here to the queue nothing is waited for: of two tries of one request, the second finds the first.
      const known = mine.requests.find(shard.key, id)
      if (known !== undefined) return { ...known, lsn: mine.proven }
      const asked = askedKey({ collection: route.collection, shard: route.shard, request: id })
      const before = mine.asked.get(asked)
      if (before !== undefined) return yield* outcomeOf(before)
      // The channel's key may say by now that we know of its drop: not one more is taken.
      if (catalog.collection(route.collection)?.state !== "ready") return yield* notThere(route)
      if (id.issued < mine.requests.floor) {
        return yield* failure("outcome-unknown", "the request is too old to tell whether it was applied before")
      }
      const entry: Entry = {
        collection: route.collection,
        shard: route.shard,
        schema: catalog.schema(route.collection),
        request: id,
        body
      }
      const pending = makePending(entry, () => mine.asked.delete(asked))
      if (pending.bytes > log.recordBytesMax - 256) {
        return yield* failure("too-large", `${pending.bytes} bytes for one shard; a record holds ${log.recordBytesMax}`)
      }
      if (isBusy || mine.queue.bytes + pending.bytes > limits.writeQueueBytesMax) {
        return yield* failure("overloaded", `channel ${channel} has ${mine.queue.bytes} bytes waiting`)
      }
      if (mine.full) return yield* failure("overloaded", `the log of channel ${channel} is full`)
      if (mine.growingBytes > node.settings.growingBytesMax) {
        return yield* failure("overloaded", `rows wait for a query node: ${shard.waiting || "flush in progress"}`)
      }
      if (mine.over !== undefined) return yield* mine.over
      mine.asked.set(asked, pending)
      mine.queue.add(pending)
      changed.notify()
      // Without an outcome it stays, and whoever asks again joins it.
      return yield* outcomeOf(pending)
    })

    /** Admits a read, settles its T, and runs it there. Not a generator: ten thousand searches a second come by. */
    const read = <A>(
      { route, time, timeoutMs }: { readonly route: Route; readonly time: ReadTime; readonly timeoutMs: number },
      run: (mine: Owner, shard: Shard, at: Timestamp) => Effect.Effect<A, ElanusError>
    ): Effect.Effect<A & ReadAt, ElanusError> =>
      Effect.flatMap(admit(route), (mine) =>
        Effect.flatMap(shardFor(mine, route), (shard) =>
          Effect.flatMap(settleTime(mine, time, isGivenOut, timeoutMs), (at) =>
            Effect.map(run(mine, shard, at), (answered) => ({ ...answered, timestamp: at, lsn: mine.proven }))
          )
        )
      )

    const on = {
      write: (request: Write) => provide(writeRows(request)),
      read,
      deps,
      flush: Effect.fnUntraced(function* (
        route: Route,
        timeoutMs: number
      ): Effect.fn.Return<{ readonly flushedTo: number }, ElanusError> {
        const mine = yield* admit(route)
        const shard = yield* shardFor(mine, route)
        // Who was replaced knows nothing of what its successor acknowledged, and would say at once that it has all of it.
        yield* settleTime(mine, LATEST, isGivenOut, timeoutMs)
        const upTo = mine.lsn
        // Once it is done it stays so, though an even newer manifest may have come before anybody wakes up to hear of it.
        let isDone = false
        const done = () => {
          const manifest = mine.manifest(shard)
          isDone ||=
            (shard.oldestUnflushed(manifest.flushedTo) ?? Infinity) > upTo &&
            shard.view?.manifest.version === manifest.version
          return isDone
        }
        shard.flushWanted = upTo
        changed.notify()
        const isDropped = () => catalog.collection(route.collection)?.state !== "ready"
        const doneOrOver = () => done() || mine.over !== undefined || isDropped()
        const isEnded = yield* either(changed, catalog.changed).within(timeoutMs, doneOrOver)
        if (!isEnded) return yield* failure("timeout", `the flush goes on${shard.waiting && `: ${shard.waiting}`}`)
        if (!done()) return yield* mine.over ?? notThere(route)
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
        recover: provide(orDamaged(recover)),
        write: provide(orDamaged(writing)),
        settle: provide(orDamaged(settle)),
        maintain: provide(maintain),
        checkpoint
      }
    })
  })

  yield* Effect.forkScoped(
    Effect.andThen(
      actor.ended,
      Effect.sync(() => leave(trouble))
    )
  )

  return { ...actor, channel, order, trouble: () => trouble, epoch: () => owner?.who.epoch }
})

/**
 * What an owner does for its shards by itself: seals what is large, old or asked for, has it flushed, and hands over
 * what is flushed, each shard at its own pace. It waits for events; only an age is looked at by the clock.
 */
import { Clock, Effect, FiberMap, type Scope } from "effect"
import { limits } from "../../protocols/limits.ts"
import { buggify, stall } from "../../runtime/buggify.ts"
import { either } from "../../runtime/signal.ts"
import type { Compute } from "../../storage/compute.ts"
import type { Objects } from "../../storage/objects.ts"
import type { Coordinator } from "../coordinator-client.ts"
import { flushOldest, loadFilters } from "./flushing.ts"
import { handOff } from "./handoff.ts"
import type { Owner } from "./owner.ts"
import type { QueryNodes } from "./reading.ts"
import type { Shard } from "./shard.ts"

const FLUSH_AGAIN_MS = 500
/** Of a flush that is refused, each time twice as long. */
const FLUSH_REST_MAX_MS = 60_000
/** A segment is there soon, or its store is away: each try tells a query node all that it should hold. */
const HAND_AGAIN_FIRST_MS = 50
const HAND_AGAIN_MAX_MS = 500

/** Runs until the owner has to begin anew, and then says why. */
export const keepUp = Effect.fnUntraced(function* (
  coordinator: Coordinator,
  queryNodes: QueryNodes,
  owner: Owner
): Effect.fn.Return<string, never, Objects | Compute | Scope.Scope> {
  const { catalog, changed, settings } = owner
  const clock = yield* Clock.Clock
  const something = either(changed, catalog.changed)
  const flushes = yield* FiberMap.make<string>()
  const handoffs = yield* FiberMap.make<string>()
  /** Who waits for a flush, in the order in which they came: those that fail again and again keep nobody out. */
  const line = new Set<Shard>()

  const flush = Effect.fnUntraced(function* (shard: Shard) {
    yield* stall("before a flush", 3_000)
    const done = yield* Effect.result(flushOldest(coordinator, owner, shard))
    shard.waiting = done._tag === "Success" ? "" : `flush: ${done.failure.reason}`
    if (done._tag === "Failure") yield* Effect.sleep(FLUSH_AGAIN_MS)
    // Who was away may be back; who has no room has none so soon, and meanwhile another shard has its turn.
    shard.resting = done._tag === "Failure" && (done.failure.code === "overloaded" || !done.failure.retry)
    shard.flushRefused = shard.resting ? shard.flushRefused + 1 : 0
    shard.flushing = false
    changed.notify()
    if (!shard.resting) return
    yield* Effect.sleep(Math.min(FLUSH_AGAIN_MS * (2 ** shard.flushRefused - 1), FLUSH_REST_MAX_MS))
    shard.resting = false
    changed.notify()
  })
  const hand = Effect.fnUntraced(function* (shard: Shard) {
    if (yield* buggify("key filters are forgotten")) shard.filters.clear()
    yield* loadFilters(owner, shard)
    const state = yield* handOff(queryNodes, owner, shard)
    const isAdopted = state === "adopted"
    shard.waiting = isAdopted ? "" : state
    if (!isAdopted && owner.behind === undefined)
      yield* Effect.sleep(Math.min(HAND_AGAIN_FIRST_MS * 2 ** shard.handTries, HAND_AGAIN_MAX_MS))
    shard.handTries = isAdopted ? 0 : shard.handTries + 1
    shard.handingOff = false
    changed.notify()
  })

  const ready = (shard: Shard) => catalog.collection(shard.collection.id)?.state === "ready"
  const newer = (shard: Shard) => owner.manifest(shard).version > (shard.view?.manifest.version ?? -1)
  /** Many that are small are as much as one that is large: past half of what may grow, all of them are sealed. */
  const isCrowded = () => {
    let bytes = 0
    for (const { growing } of owner.shards.values()) bytes += growing.active.bytes
    return bytes > settings.growingBytesMax * limits.channelFlushAt
  }
  /**
   * One unit at a time: what comes while it is on its way into a manifest goes into the next, however often a flush is
   * asked for. So a store that was away leaves few segments, and not a long row of small ones.
   */
  const isFree = ({ growing, sealed }: Shard) => growing.active.born !== undefined && sealed.length === 0
  const isOld = (born: number) => clock.currentTimeMillisUnsafe() - born >= settings.segmentAgeMaxMs
  const ripe = (shard: Shard, crowded: boolean) => {
    const { born, from } = shard.growing.active
    // Past half of the log, or of what one channel may hold, whoever has records in it gives them up.
    const held = Math.min(owner.logBytesMax * limits.channelFlushAt, limits.channelHeldBytesMax)
    return isFree(shard) && (crowded || shard.flushWanted > from || isOld(born!) || owner.logBytes > held)
  }
  const flushing = () => [...owner.shards.values()].filter((shard) => shard.flushing).length
  const toFlush = (shard: Shard) => shard.sealed.length > 0 && !shard.flushing && !shard.resting
  /** Something to do for a shard that nothing is being done for yet. */
  const due = (shard: Shard, crowded: boolean) =>
    !ready(shard) ||
    (!shard.handingOff && (shard.viewStale || newer(shard))) ||
    ripe(shard, crowded) ||
    (toFlush(shard) && flushing() < limits.flushesAtOnce)

  while (true) {
    if (owner.behind !== undefined) return owner.behind
    if (owner.again) return "it began anew by itself"
    const crowded = isCrowded()
    let oldest = Infinity
    for (const shard of owner.shards.values()) {
      if (!ready(shard)) {
        owner.shards.delete(shard.key)
        line.delete(shard)
        continue
      }
      const manifest = owner.manifest(shard)
      const lost = owner.lostFlush(manifest)
      if (lost !== undefined) return (owner.behind = lost)
      if (!shard.growing.fits(manifest.flushedTo)) return shard.misfit
      if (newer(shard)) shard.viewStale = true
      const { born } = shard.growing.active
      const isEarly = isFree(shard) && (yield* buggify("a segment is sealed early"))
      if (ripe(shard, crowded) || isEarly) shard.seal(owner.lsn)
      else if (born !== undefined && !isOld(born)) oldest = Math.min(oldest, born)
      if (toFlush(shard)) line.add(shard)
      if (shard.viewStale && !shard.handingOff) {
        shard.handingOff = true
        yield* FiberMap.run(handoffs, shard.key, hand(shard))
      }
    }
    for (const shard of line) {
      if (flushing() >= limits.flushesAtOnce) break
      line.delete(shard)
      shard.flushing = true
      yield* FiberMap.run(flushes, shard.key, flush(shard))
    }
    const work = () => {
      const crowded = isCrowded()
      return (
        owner.behind !== undefined || owner.again || [...owner.shards.values()].some((shard) => due(shard, crowded))
      )
    }
    yield* oldest === Infinity
      ? something.until(work)
      : something.within(Math.max(1, oldest + settings.segmentAgeMaxMs - clock.currentTimeMillisUnsafe()), work)
  }
})

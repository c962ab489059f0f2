/**
 * What an owner does for its shards by itself: seals what is large, old or asked for, has it flushed, and hands over
 * what is flushed, each shard at its own pace. It waits for events; only an age is looked at by the clock.
 */
import { Clock, Effect, FiberMap, type Scope } from "effect"
import { limits } from "../../protocols/limits.ts"
import type { Compute } from "../../storage/compute.ts"
import type { Objects } from "../../storage/objects.ts"
import type { Coordinator } from "../coordinator-client.ts"
import { flushOldest, loadFilters } from "./flushing.ts"
import { handOff } from "./handoff.ts"
import type { Owner } from "./owner.ts"
import type { QueryNodes } from "./reading.ts"
import type { Shard } from "./shard.ts"

const FLUSH_AGAIN_MS = 500
const HAND_AGAIN_MS = 50

/** Runs until the owner has to begin anew, and then says why. */
export const keepUp = Effect.fnUntraced(function* (
  coordinator: Coordinator,
  queryNodes: QueryNodes,
  owner: Owner
): Effect.fn.Return<string, never, Objects | Compute | Scope.Scope> {
  const { catalog, changed, settings } = owner
  const flushes = yield* FiberMap.make<string>()
  const handoffs = yield* FiberMap.make<string>()

  const flush = Effect.fnUntraced(function* (shard: Shard) {
    const done = yield* Effect.result(flushOldest(coordinator, owner, shard))
    shard.waiting = done._tag === "Success" ? "" : `flush: ${done.failure.reason}`
    if (done._tag === "Failure") yield* Effect.sleep(FLUSH_AGAIN_MS)
    shard.flushing = false
    changed.notify()
  })
  const hand = Effect.fnUntraced(function* (shard: Shard) {
    yield* loadFilters(owner, shard)
    const state = yield* handOff(queryNodes, owner, shard)
    shard.waiting = state === "adopted" ? "" : state
    if (state !== "adopted") yield* Effect.sleep(HAND_AGAIN_MS)
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
  const large = (shard: Shard, crowded: boolean) => {
    const { born, bytes, from } = shard.growing.active
    if (born === undefined) return false
    if (crowded) return true
    // Past half of the log, or of what one channel may hold, whoever has records in it gives them up.
    const held = Math.min(owner.logBytesMax * limits.channelFlushAt, limits.channelHeldBytesMax)
    return shard.flushWanted > from || bytes >= settings.segmentBytesMax || owner.logBytes > held
  }
  /** Something to do for a shard that nothing is being done for yet. */
  const due = (shard: Shard, crowded: boolean) =>
    !ready(shard) ||
    (!shard.handingOff && (shard.viewStale || newer(shard))) ||
    large(shard, crowded) ||
    (shard.sealed.length > 0 && !shard.flushing && flushing() < limits.flushesAtOnce)
  const flushing = () => [...owner.shards.values()].filter((shard) => shard.flushing).length

  while (true) {
    const nowMs = yield* Clock.currentTimeMillis
    const crowded = isCrowded()
    let oldest = Infinity
    for (const shard of owner.shards.values()) {
      if (!ready(shard)) {
        owner.shards.delete(shard.key)
        continue
      }
      if (!shard.growing.fits(owner.manifest(shard).flushedTo)) {
        return `shard ${shard.key} was flushed by an earlier owner`
      }
      if (newer(shard)) shard.viewStale = true
      const { born } = shard.growing.active
      if (large(shard, crowded) || (born !== undefined && nowMs - born >= settings.segmentAgeMaxMs))
        shard.seal(owner.lsn)
      else if (born !== undefined) oldest = Math.min(oldest, born)
      if (shard.sealed.length > 0 && !shard.flushing && flushing() < limits.flushesAtOnce) {
        shard.flushing = true
        yield* FiberMap.run(flushes, shard.key, flush(shard))
      }
      if (shard.viewStale && !shard.handingOff) {
        shard.handingOff = true
        yield* FiberMap.run(handoffs, shard.key, hand(shard))
      }
    }
    const work = () => {
      const crowded = isCrowded()
      return [...owner.shards.values()].some((shard) => due(shard, crowded))
    }
    const event = Effect.raceFirst(changed.until(work), catalog.changed.until(work))
    yield* oldest === Infinity
      ? event
      : Effect.timeoutOption(event, Math.max(1, oldest + settings.segmentAgeMaxMs - nowMs))
  }
})

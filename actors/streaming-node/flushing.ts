/**
 * From growing to the manifest: writes one sealed unit of a shard, its rows and what they and its deletes hide in
 * older segments, as objects, and has the coordinator make it the truth. Safe to repeat after a crash at any point:
 * every try is an attempt of its own, with names of its own, and only one commit can begin where the manifest stands.
 */
import { Effect } from "effect"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { type DeleteFile, objectKey, type ObjectRef, type Segment } from "../../protocols/metadata.ts"
import { crc32 } from "../../protocols/checksum.ts"
import { buggify, stall } from "../../runtime/buggify.ts"
import { Compute, type ComputeError } from "../../storage/compute.ts"
import { decodeKeyFilter, mayHold } from "../../storage/key-filter.ts"
import { Objects } from "../../storage/objects.ts"
import { type Coordinator, leavesOpen } from "../coordinator-client.ts"
import { nonce } from "../nonce.ts"
import type { GrowingSegment } from "./growing.ts"
import type { Owner } from "./owner.ts"
import type { Shard } from "./shard.ts"
import { collect } from "./tail.ts"

/** So long a commit can be on its way that nobody waits for any more. */
const LATE_MS = 10_000

/** Flushes the oldest sealed unit of the shard. Fails with a reason that the next try may not meet. */
export const flushOldest = Effect.fnUntraced(function* (
  coordinator: Coordinator,
  owner: Owner,
  shard: Shard
): Effect.fn.Return<void, ElanusError, Objects | Compute> {
  const unit = shard.sealed[0]!
  const manifest = owner.manifest(shard)
  if (unit.to <= manifest.flushedTo) {
    shard.sealed.shift() // an earlier try of ours was committed after all
    return
  }
  if (unit.from !== manifest.flushedTo) {
    return yield* failure(
      "stale",
      `shard ${shard.key} is flushed to ${manifest.flushedTo}, and this unit begins at ${unit.from}`
    )
  }
  const { collection, shard: number } = shard
  const { attempt } = yield* coordinator.call(
    "BeginFlush",
    { collection: collection.id, shard: number, node: owner.node, request: (yield* nonce).toString(36) },
    limits.requestTimeoutMs
  )
  yield* stall("between an attempt and its objects", 2_000)
  const abandon = ({ reason }: ElanusError) =>
    Effect.ignore(coordinator.call("AbandonAttempt", { attempt, reason }, limits.requestTimeoutMs))
  const written = yield* writeObjects(owner, shard, unit, attempt).pipe(Effect.tapError(abandon))
  yield* stall("between a flush's objects and its commit", 3_000)
  // Asked again by itself where the answer is lost: the coordinator knows an attempt that it has committed. What is
  // refused after all was not done, and will not be.
  const commit = coordinator
    .call(
      "CommitFlush",
      {
        attempt,
        collection: collection.id,
        shard: number,
        from: unit.from,
        to: unit.to,
        epoch: owner.place(unit.to)!.epoch,
        segment: written.segment,
        deletes: written.deletes
      },
      limits.requestTimeoutMs
    )
    .pipe(Effect.tapError((error) => (leavesOpen(error) ? Effect.void : abandon(error))))
  const isLate = yield* buggify("the commit of a flush comes late")
  owner.again ||= yield* buggify("an owner begins anew while a flush is committed")
  if (isLate || owner.again) {
    yield* Effect.forkDetach(Effect.ignore(Effect.delay(commit, owner.sites.time(LATE_MS))))
    return yield* failure("ambiguous", "the commit is on its way")
  }
  const { version } = yield* commit
  if (written.segment !== null) shard.filters.set(written.segment.id, written.filter!)
  yield* owner.catalog.changed.within(limits.requestTimeoutMs, () => owner.manifest(shard).version >= version)
  shard.sealed.shift()
})

const writeObjects = Effect.fnUntraced(function* (owner: Owner, shard: Shard, unit: GrowingSegment, attempt: string) {
  const compute = yield* Compute
  const { collection, shard: number } = shard
  const { keyType } = collection.spec

  let segment: Segment | null = null
  let filter: ReturnType<typeof decodeKeyFilter> | undefined
  if (unit.rows > 0) {
    const sealed = yield* compute.run("seal-segment", unit.columns(keyType)).pipe(Effect.mapError(ofCompute))
    const data = objectKey.data(collection.id, number, attempt)
    yield* putObject(data, sealed.parts)
    const filterKey = objectKey.filter(collection.id, number, attempt)
    yield* putObject(filterKey, [sealed.filter])
    filter = decodeKeyFilter(sealed.filter)
    segment = {
      id: attempt,
      rows: sealed.rows,
      minTimestamp: sealed.minTimestamp,
      maxTimestamp: sealed.maxTimestamp,
      data: { key: data, bytes: sealed.bytes, crc32: sealed.crc32 },
      filter: { key: filterKey, bytes: sealed.filter.length, crc32: crc32(sealed.filter) },
      deletesThrough: unit.from,
      index: null
    }
  }

  // Against the segments of the manifest that this commits to: whatever may be in one of them is hidden there.
  const older = owner.manifest(shard).segments.map(({ id }) => shard.filters.get(id))
  const inOlder = (hash: number) => older.some((each) => each === undefined || mayHold(each, hash))
  const batches = shard.tail.between(unit.from, unit.to)
  const deleted = collect(keyType, batches, (hash, batch) => batch.kind === "Delete" || inOlder(hash))
  const requests = owner.requests.of(shard.key, unit.from, unit.to)
  let deletes: DeleteFile | null = null
  if (deleted.keys.count > 0 || requests.length > 0) {
    const ids = new BigUint64Array(requests.length * 2)
    requests.forEach(({ id }, i) => {
      ids[i * 2] = id.issued
      ids[i * 2 + 1] = id.unique
    })
    const count = deleted.keys.count
    const sealed = yield* compute
      .run("seal-deletes", {
        ...deleted,
        requests: {
          ids: new Uint8Array(ids.buffer),
          timestamps: BigUint64Array.from(requests, ({ timestamp }) => timestamp)
        }
      })
      .pipe(Effect.mapError(ofCompute))
    const key = objectKey.deletes(collection.id, number, attempt)
    yield* putObject(key, sealed.parts)
    const object: ObjectRef = { key, bytes: sealed.bytes, crc32: sealed.crc32 }
    const newestRequest = requests.reduce((newest, { id }) => (id.issued > newest ? id.issued : newest), 0n)
    deletes = { id: attempt, object, keys: count, from: unit.from, to: unit.to, newestRequest }
  }
  if (yield* buggify("a flush is given up")) return yield* failure("unavailable", "the flush was given up")
  return { segment, deletes, filter }
})

/** Writes an object of an attempt. Its name is ours alone, so "there already" is our own earlier try. */
const putObject = Effect.fnUntraced(function* (key: string, parts: ReadonlyArray<Uint8Array>) {
  const objects = yield* Objects
  const outcome = yield* objects.put(key, parts)
  if (outcome._tag === "Done") return
  return yield* failure("unavailable", `object ${key}: ${outcome._tag}: ${outcome.detail}`)
})

const ofCompute = (error: ComputeError): ElanusError => {
  // It may have been cut off or changed on its way only: the next read tells. Until then nothing is answered without it.
  if (error.reason === "damaged") return failure("unavailable", error.detail)
  return failure(error.fault === "task" ? (error.reason ?? "internal") : "overloaded", error.detail)
}

/** The young request ids in a shard's flushed files, which a new owner must know before its first write. */
export const loadRequests = Effect.fnUntraced(function* (
  owner: Owner,
  shard: Shard
): Effect.fn.Return<void, ElanusError, Objects | Compute> {
  const objects = yield* Objects
  const compute = yield* Compute
  for (const { newestRequest, object, to } of owner.manifest(shard).deletes) {
    if (newestRequest <= owner.requests.floor) continue
    const bytes = yield* objects
      .get(object.key)
      .pipe(Effect.mapError((error) => failure(error.reason === "damaged" ? "damaged" : "unavailable", error.detail)))
    const { requests } = yield* compute
      .run("open-deletes", { bytes, length: object.bytes, crc32: object.crc32 })
      .pipe(Effect.mapError(ofCompute))
    const ids = new BigUint64Array(requests.ids.slice().buffer)
    for (let i = 0; i < requests.timestamps.length; i++) {
      const id = { issued: ids[i * 2]!, unique: ids[i * 2 + 1]! }
      owner.requests.remember(shard.key, id, { timestamp: requests.timestamps[i]!, lsn: to })
    }
  }
  shard.requestsLoaded = true
})

/** The key filters of segments that were sealed by an earlier owner. A missing one only costs time. */
export const loadFilters = Effect.fnUntraced(function* (owner: Owner, shard: Shard) {
  const objects = yield* Objects
  for (const { filter, id } of owner.manifest(shard).segments) {
    if (shard.filters.has(id)) continue
    const bytes = yield* Effect.result(objects.get(filter.key))
    if (bytes._tag === "Success" && crc32(bytes.success) === filter.crc32) {
      shard.filters.set(id, decodeKeyFilter(bytes.success))
    }
  }
})

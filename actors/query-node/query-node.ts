/**
 * A query node: loads the sealed segments that owners name (the coordinator placed them here), keeps them up to date
 * with the keys that come along with queries, and answers for them. It decides nothing: whatever it lacks it says.
 */
import { Clock, Data, Effect, Exit, FiberMap } from "effect"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { type Key, keyAt, type KeyType, pickKeys } from "../../protocols/keys.ts"
import type { DeleteFile, ObjectRef, Segment as Description } from "../../protocols/metadata.ts"
import {
  type LoadedSegment,
  type LoadState,
  QueryNodeProtocol,
  type SegmentGet,
  type SegmentLoad,
  type SegmentRead,
  type SegmentSearch
} from "../../protocols/query-node.ts"
import type { FoundRows, Hits } from "../../protocols/streaming-node.ts"
import { limits } from "../../protocols/limits.ts"
import { shortLived } from "../../protocols/memory.ts"
import { buggify, stall } from "../../runtime/buggify.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { serve } from "../../runtime/remote.ts"
import { either, makeSignal } from "../../runtime/signal.ts"
import { Compute, type ComputeError } from "../../storage/compute.ts"
import type { DeleteColumns } from "../../storage/delete-file.ts"
import { VectorIndexes } from "../../storage/index.ts"
import { Objects } from "../../storage/objects.ts"
import type { StorageError } from "../../storage/outcome.ts"
import { mergeHits, packRows } from "../merge.ts"
import { Segment } from "./segment.ts"

/** The event loop is not held longer than about this, however many queries one request has. */
const SLICE_MS = 5

interface Slot {
  /** The epoch of the newest owner that had it loaded: the one whose log says what hides its rows. */
  owner: bigint
  segment: Segment | undefined
  state: LoadState
  detail: string
}

/** A segment does not fit into what the operator gave this node. */
class NoMemory extends Data.TaggedError("NoMemory")<{ readonly detail: string }> {}

/** The keys of a delete file, fetched once for all segments of a request that lack it. */
interface Deletes {
  readonly to: number
  readonly keys: Effect.Effect<DeleteColumns, StorageError | ComputeError>
}

interface LoadRequest extends Omit<SegmentLoad, "segments" | "deletes"> {
  /** In the order of their records. */
  readonly deletes: ReadonlyArray<Deletes>
}

export const queryNode = Effect.gen(function* () {
  const node = yield* Node
  const catalog = yield* Catalog
  const objects = yield* Objects
  const compute = yield* Compute
  const indexes = yield* VectorIndexes
  const clock = yield* Clock.Clock
  /** Collection -> segment -> what we have of it. */
  const collections = new Map<string, Map<string, Slot>>()
  const loading = yield* FiberMap.make<string>()
  /** A load came to its end, whatever that was. */
  const ended = makeSignal()
  let bytes = 0

  // ---- loading

  const fetch = Effect.fnUntraced(function* (object: ObjectRef) {
    return { bytes: yield* objects.get(object.key), length: object.bytes, crc32: object.crc32 }
  })

  /** What is loaded, and what is on its way: the budget counts both. */
  const within = Effect.fnUntraced(function* <A, E>(
    size: number,
    load: Effect.Effect<A, E>
  ): Effect.fn.Return<A, E | NoMemory> {
    const left = (yield* buggify("no room for a segment")) ? 0 : node.settings.loadedBytesMax - bytes
    if (size > left) return yield* new NoMemory({ detail: `${size} bytes more than the ${left} that are left` })
    bytes += size
    return yield* Effect.onExit(load, (exit) => Effect.sync(() => Exit.isFailure(exit) && (bytes -= size)))
  })

  const bringData = Effect.fnUntraced(function* (slot: Slot, request: LoadRequest, description: Description) {
    const open = Effect.flatMap(fetch(description.data), (object) => compute.run("open-segment", object))
    slot.segment = new Segment(description, request.metric, yield* within(description.data.bytes, open))
  })

  const bringIndex = Effect.fnUntraced(function* (segment: Segment, index: ObjectRef) {
    const load = Effect.flatMap(objects.get(index.key), (object) => indexes.load(object))
    segment.useIndex(yield* within(index.bytes, load), index.bytes)
  })

  const openDeletes = Effect.fnUntraced(function* ({ object, to }: DeleteFile): Effect.fn.Return<Deletes> {
    const open = Effect.flatMap(fetch(object), (fetched) => compute.run("open-deletes", fetched))
    return { to, keys: yield* Effect.cached(open) }
  })

  /** File after file: if one cannot be fetched, the next try begins with that. */
  const bringDeletes = Effect.fnUntraced(function* (segment: Segment, { deletes, flushedTo }: LoadRequest) {
    for (const { keys, to } of deletes) {
      if (to <= segment.applied) continue
      segment.apply(yield* keys)
      segment.applied = Math.max(segment.applied, to)
    }
    segment.applied = Math.max(segment.applied, flushedTo)
  })

  /** Everything that the slot lacks, in the order in which it may be missed. */
  const bring = Effect.fnUntraced(function* (slot: Slot, request: LoadRequest, description: Description) {
    yield* stall("before a segment is loaded", 2_000)
    if (slot.segment === undefined) yield* bringData(slot, request, description)
    const segment = slot.segment!
    yield* stall("between a segment and its deletes", 1_000)
    yield* bringDeletes(segment, request)
    slot.detail = ""
    if (description.index !== null && !segment.indexed) {
      // Without its index a segment is slower, and not wrong.
      if (yield* buggify("an index is not loaded")) slot.detail = "not indexed: left out"
      else {
        const got = yield* Effect.result(bringIndex(segment, description.index))
        if (got._tag === "Failure") slot.detail = `not indexed: ${got.failure.detail}`
      }
    }
    slot.state = "loaded"
  })

  const slotOf = (collection: string, id: string): Slot => {
    let slots = collections.get(collection)
    if (slots === undefined) collections.set(collection, (slots = new Map()))
    let slot = slots.get(id)
    if (slot === undefined) slots.set(id, (slot = { owner: 0n, segment: undefined, state: "failed", detail: "" }))
    return slot
  }

  const lacks = (slot: Slot, request: Pick<LoadRequest, "flushedTo">, description: Description): boolean => {
    const { segment, state } = slot
    if (state === "loading") return false
    // One that failed half-way may lack nothing any more: queries brought the keys that it could not fetch.
    if (segment === undefined || state !== "loaded") return true
    return segment.applied < request.flushedTo || (description.index !== null && !segment.indexed && slot.detail === "")
  }

  /** Begins to load it; what becomes of that is in the slot. */
  const begin = (slot: Slot, request: LoadRequest, description: Description) => {
    slot.state = "loading"
    const whole = bring(slot, request, description).pipe(
      Effect.catch((error) =>
        Effect.sync(() => {
          slot.state = error._tag === "NoMemory" ? "no-memory" : "failed"
          slot.detail = error.detail
        })
      ),
      Effect.ensuring(Effect.sync(ended.notify))
    )
    return FiberMap.run(loading, description.id, whole)
  }

  const told = (id: string, slot: Slot | undefined): LoadedSegment => ({
    id,
    state: slot?.state ?? "failed",
    applied: slot?.segment?.applied ?? 0,
    knownEpoch: slot?.segment?.knownEpoch ?? 0n,
    knownLsn: slot?.segment?.knownLsn ?? 0,
    indexed: slot?.segment?.indexed ?? false,
    detail: slot === undefined ? "it was let go of" : slot.detail
  })

  const drop = ({ segment }: Slot): void => {
    if (segment === undefined) return
    bytes -= segment.bytes
    segment.dispose()
  }

  /** One of those that an owner asks for, if all are loaded: while others are on their way, they would never be. */
  const forgetOne = (collection: string, segments: ReadonlyArray<Description>): void => {
    const slots = collections.get(collection)
    if (slots === undefined || !segments.every(({ id }) => slots.get(id)?.state === "loaded")) return
    const [first] = segments
    if (first === undefined) return
    drop(slots.get(first.id)!)
    slots.delete(first.id)
  }

  const forget = Effect.fnUntraced(function* (collection: string) {
    const slots = collections.get(collection)
    if (slots === undefined) return
    collections.delete(collection)
    for (const [id, slot] of slots) {
      yield* FiberMap.remove(loading, id)
      drop(slot)
    }
  })

  // ---- answering

  /** The segments of a read, with the keys that it brought; an error if any is not here or would still lack some. */
  const segmentsFor = (read: SegmentRead): ReadonlyArray<Segment> | ElanusError => {
    const slots = collections.get(read.collection)
    const found: Array<Segment> = []
    for (const id of read.segments) {
      const slot = slots?.get(id)
      if (slot?.segment === undefined) return failure("not-here", `segment ${id} is not on node ${node.id}`)
      const { owner, segment } = slot
      if (read.knownEpoch < owner) return failure("moved", `segment ${id} is asked for by epoch ${owner}`)
      // An owner looks at what we know when it has it loaded, and this one has not.
      if (read.knownEpoch > owner) return failure("not-here", `segment ${id} was loaded for epoch ${owner}`)
      if (segment.applied < read.tail.after) {
        return failure("not-here", `segment ${id} knows keys up to ${segment.applied}, not ${read.tail.after}`)
      }
      found.push(segment)
    }
    for (const segment of found) {
      const { after, upTo } = read.tail
      if (read.knownLsn >= segment.knownLsn) {
        segment.knownEpoch = read.knownEpoch
        segment.knownLsn = read.knownLsn
      }
      if (segment.applied >= upTo && upTo > after) continue
      segment.apply(read.tail)
      segment.applied = Math.max(segment.applied, upTo)
    }
    return found
  }

  const on = <A>(
    read: SegmentRead,
    answer: (segments: ReadonlyArray<Segment>) => Effect.Effect<A, ElanusError>
  ): Effect.Effect<A, ElanusError> => {
    const segments = segmentsFor(read)
    return Array.isArray(segments) ? answer(segments) : Effect.fail(segments as ElanusError)
  }

  /** The usual search, one vector in one indexed segment, needs nothing that Effect gives. */
  const searchNow = (segment: Segment, { ef, limit, queries, read }: SegmentSearch): Hits => {
    const found = segment.search(queries, limit, ef, read.timestamp)
    const count = found.rows.length
    const counts = shortLived.u32s(1)
    counts[0] = count
    const ranks = shortLived.f64s(count)
    for (let i = 0; i < count; i++) ranks[i] = found.ranks[i]!
    return { counts, keys: pickKeys(segment.columns.keys, found.rows), ranks }
  }

  const searchOne = Effect.fnUntraced(function* (segment: Segment, request: SegmentSearch) {
    const { ef, limit, queries, read } = request
    const { dimension, keys } = segment.columns
    const count = queries.length / dimension
    if (!Number.isInteger(count)) return yield* failure("wrong-dimension", `segment ${segment.id} has ${dimension}`)
    const counts = new Uint32Array(count)
    const found: Array<number> = []
    const ranks: Array<number> = []
    let since = clock.currentTimeMillisUnsafe()
    for (let i = 0; i < count; i++) {
      // A search has its pauses, and in one of them its segment may go.
      if (segment.isDisposed) return yield* failure("not-here", `segment ${segment.id} went during the search`)
      const query = count === 1 ? queries : queries.subarray(i * dimension, (i + 1) * dimension)
      let hits
      if (segment.indexed) hits = segment.search(query, limit, ef, read.timestamp)
      else {
        const slices = segment.searchSliced(query, limit, ef, read.timestamp)
        let next = slices.next()
        while (next.done !== true) {
          yield* Effect.yieldNow
          next = slices.next()
        }
        hits = next.value
      }
      counts[i] = hits.rows.length
      for (let j = 0; j < hits.rows.length; j++) {
        found.push(hits.rows[j]!)
        ranks.push(hits.ranks[j]!)
      }
      if (i + 1 < count && clock.currentTimeMillisUnsafe() - since >= SLICE_MS) {
        yield* Effect.yieldNow
        since = clock.currentTimeMillisUnsafe()
      }
    }
    return { counts, keys: pickKeys(keys, found), ranks: new Float64Array(ranks) } satisfies Hits
  })

  const searchAll = Effect.fnUntraced(function* (request: SegmentSearch, segments: ReadonlyArray<Segment>) {
    const parts: Array<Hits> = []
    for (const segment of segments) parts.push(yield* searchOne(segment, request))
    return mergeHits(typeOf(segments), parts, parts[0]!.counts.length, request.limit)
  })

  const search = (request: SegmentSearch, segments: ReadonlyArray<Segment>): Effect.Effect<Hits, ElanusError> => {
    const first = segments[0]!
    if (segments.length > 1) return searchAll(request, segments)
    return first.indexed && request.queries.length === first.columns.dimension
      ? Effect.succeed(searchNow(first, request))
      : searchOne(first, request)
  }

  const get = ({ keys, read, vectors }: SegmentGet, segments: ReadonlyArray<Segment>): FoundRows => {
    const found: Array<Key> = []
    const fields: Array<Uint8Array> = []
    const raw: Array<Float32Array> = []
    for (let i = 0; i < keys.count; i++) {
      const key = keyAt(keys, i)
      for (const segment of segments) {
        const row = segment.find(key, read.timestamp)
        if (row === undefined) continue
        found.push(key)
        fields.push(segment.fields(row))
        if (vectors) raw.push(segment.vector(row))
        break
      }
    }
    return packRows(typeOf(segments), found, fields, raw)
  }

  yield* serve(QueryNodeProtocol, node.id, {
    Search: (request) => on(request.read, (segments) => search(request, segments)),
    Get: (request) => on(request.read, (segments) => Effect.succeed(get(request, segments))),
    Apply: (read) => on(read, () => Effect.succeed({ rows: 0 })),
    Count: (read) =>
      on(read, (segments) =>
        Effect.succeed({ rows: segments.reduce((total, segment) => total + segment.count(read.timestamp), 0) })
      ),
    Load: Effect.fnUntraced(function* (request) {
      const { collection, epoch, segments } = request
      const slots = () => collections.get(collection)
      const isMoved = () => segments.some(({ id }) => (slots()?.get(id)?.owner ?? 0n) > epoch)
      const moved = failure("moved", `segments of ${collection} were loaded for a later owner`)
      if (isMoved()) return yield* moved
      if (yield* buggify("a loaded segment is forgotten")) forgetOne(collection, segments)
      // Only if somebody lacks something: most ask for one segment more than before.
      let wanted: LoadRequest | undefined
      for (const description of segments) {
        const slot = slotOf(collection, description.id)
        slot.owner = epoch
        if (!lacks(slot, request, description)) continue
        wanted ??= { ...request, deletes: yield* Effect.forEach(request.deletes, openDeletes) }
        yield* begin(slot, wanted, description)
      }
      const isOver = () => segments.every(({ id }) => slots()?.get(id)?.state !== "loading")
      yield* ended.within(limits.loadPatienceMs, isOver)
      if (isMoved()) return yield* moved
      return { segments: segments.map(({ id }) => told(id, slots()?.get(id))) }
    }),
    Release: ({ collection }) => Effect.as(forget(collection), {})
  })

  // What was dropped needs no order to go.
  const sweep = Effect.gen(function* () {
    const gone = () => [...collections.keys()].filter((id) => catalog.collection(id)?.state !== "ready")
    const someGone = () => gone().length > 0
    // An owner that does not know it yet can have one loaded that went before.
    yield* either(catalog.changed, ended).until(someGone)
    for (const id of gone()) yield* forget(id)
  })
  yield* Effect.forkScoped(Effect.forever(sweep))
})

const typeOf = (segments: ReadonlyArray<Segment>): KeyType => segments[0]!.columns.keys.type

/**
 * A query node: loads the sealed segments that owners name (the coordinator placed them here), keeps them up to date
 * with the keys that come along with queries, and answers for them. It decides nothing: whatever it lacks it says.
 */
import { Clock, Data, Effect, Exit, FiberMap } from "effect"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { type Key, keyAt, type KeyType, pickKeys } from "../../protocols/keys.ts"
import type { DeleteFile, Metric, ObjectRef, Segment as Description } from "../../protocols/metadata.ts"
import { QueryNodeProtocol, type SegmentGet, type SegmentRead, type SegmentSearch } from "../../protocols/query-node.ts"
import type { FoundRows, Hits } from "../../protocols/streaming-node.ts"
import { shortLived } from "../../protocols/memory.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { serve } from "../../runtime/remote.ts"
import { Compute } from "../../storage/compute.ts"
import { VectorIndexes } from "../../storage/index.ts"
import { Objects } from "../../storage/objects.ts"
import { mergeHits, packRows } from "../merge.ts"
import { Segment } from "./segment.ts"

/** The event loop is not held longer than about this, however many queries one request has. */
const SLICE_MS = 5

interface Slot {
  segment: Segment | undefined
  state: "loading" | "loaded" | "no-memory" | "failed"
  detail: string
}

/** A segment does not fit into what the operator gave this node. */
class NoMemory extends Data.TaggedError("NoMemory")<{ readonly detail: string }> {}

interface LoadRequest {
  readonly collection: string
  readonly metric: Metric
  readonly deletes: ReadonlyArray<DeleteFile>
  readonly flushedTo: number
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
    const left = node.settings.loadedBytesMax - bytes
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

  const bringDeletes = Effect.fnUntraced(function* (segment: Segment, request: LoadRequest) {
    for (const file of request.deletes) {
      if (file.to <= segment.applied) continue
      segment.apply(yield* Effect.flatMap(fetch(file.object), (object) => compute.run("open-deletes", object)))
    }
    segment.applied = Math.max(segment.applied, request.flushedTo)
  })

  /** Everything that the slot lacks, in the order in which it may be missed. */
  const bring = Effect.fnUntraced(function* (slot: Slot, request: LoadRequest, description: Description) {
    slot.state = "loading"
    if (slot.segment === undefined) yield* bringData(slot, request, description)
    const segment = slot.segment!
    yield* bringDeletes(segment, request)
    slot.detail = ""
    if (description.index !== null && !segment.indexed) {
      // Without its index a segment is slower, and not wrong.
      const got = yield* Effect.result(bringIndex(segment, description.index))
      if (got._tag === "Failure") slot.detail = `not indexed: ${got.failure.detail}`
    }
    slot.state = "loaded"
  })

  const lacks = (slot: Slot, request: LoadRequest, description: Description): boolean => {
    const { segment, state } = slot
    if (state === "loading") return false
    // One that failed half-way may lack nothing any more: queries brought the keys that it could not fetch.
    if (segment === undefined || state !== "loaded") return true
    return segment.applied < request.flushedTo || (description.index !== null && !segment.indexed && slot.detail === "")
  }

  const ensure = Effect.fnUntraced(function* (request: LoadRequest, description: Description) {
    let slots = collections.get(request.collection)
    if (slots === undefined) collections.set(request.collection, (slots = new Map()))
    let slot = slots.get(description.id)
    if (slot === undefined) slots.set(description.id, (slot = { segment: undefined, state: "failed", detail: "" }))
    if (lacks(slot, request, description)) {
      const mine = slot
      mine.state = "loading"
      yield* FiberMap.run(
        loading,
        description.id,
        bring(mine, request, description).pipe(
          Effect.catch((error) =>
            Effect.sync(() => {
              mine.state = error._tag === "NoMemory" ? "no-memory" : "failed"
              mine.detail = error.detail
            })
          )
        )
      )
    }
    return {
      id: description.id,
      state: slot.state,
      applied: slot.segment?.applied ?? 0,
      indexed: slot.segment?.indexed ?? false,
      detail: slot.detail
    }
  })

  const forget = Effect.fnUntraced(function* (collection: string) {
    const slots = collections.get(collection)
    if (slots === undefined) return
    collections.delete(collection)
    for (const [id, { segment }] of slots) {
      yield* FiberMap.remove(loading, id)
      if (segment === undefined) continue
      bytes -= segment.bytes
      segment.dispose()
    }
  })

  // ---- answering

  /** The segments of a read, with the keys that it brought; an error if any is not here or would still lack some. */
  const segmentsFor = (read: SegmentRead): ReadonlyArray<Segment> | ElanusError => {
    const slots = collections.get(read.collection)
    const found: Array<Segment> = []
    for (const id of read.segments) {
      const segment = slots?.get(id)?.segment
      if (segment === undefined) return failure("not-here", `segment ${id} is not on node ${node.id}`)
      if (segment.applied < read.tail.after) {
        return failure("not-here", `segment ${id} knows keys up to ${segment.applied}, not ${read.tail.after}`)
      }
      found.push(segment)
    }
    for (const segment of found) {
      const { after, upTo } = read.tail
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
    Load: (request) =>
      Effect.map(
        Effect.forEach(request.segments, (description) => ensure(request, description)),
        (segments) => ({ segments })
      ),
    Release: ({ collection }) => Effect.as(forget(collection), {})
  })

  // What was dropped needs no order to go.
  const sweep = Effect.gen(function* () {
    const gone = () => [...collections.keys()].filter((id) => catalog.collection(id)?.state !== "ready")
    yield* catalog.changed.until(() => gone().length > 0)
    for (const id of gone()) yield* forget(id)
  })
  yield* Effect.forkScoped(Effect.forever(sweep))
})

const typeOf = (segments: ReadonlyArray<Segment>): KeyType => segments[0]!.columns.keys.type

/**
 * What a client asks, carried out: checks against the schema, one time for all shards, the shards at once, their
 * answers put together. A shard that does not answer is an error, never fewer rows.
 */
import { Clock, Effect } from "effect"
import type {
  GetAnswer,
  GetRequest,
  ReadLevel,
  SearchAnswer,
  SearchRequest,
  WriteAnswer
} from "../../protocols/client.ts"
import { afterParts, type ElanusError, failure } from "../../protocols/errors.ts"
import {
  hashAt,
  type Key,
  keyAt,
  type KeyColumn,
  keyColumnBytes,
  keysOf,
  pickKeys,
  shardOf
} from "../../protocols/keys.ts"
import { isJsonObject } from "../../protocols/json-text.ts"
import type { GrantKind } from "../../protocols/coordinator.ts"
import { limits } from "../../protocols/limits.ts"
import type { Collection } from "../../protocols/metadata.ts"
import type { RequestId } from "../../protocols/record.ts"
import {
  fieldBytesAt,
  type FieldColumn,
  pickFields,
  pickRows,
  type RowBatch,
  rowBatchBytes
} from "../../protocols/rows.ts"
import type { FoundRows, Hits, ReadTime, Write } from "../../protocols/streaming-node.ts"
import { fromMillis, later, type Timestamp } from "../../protocols/timestamp.ts"
import { shortLived } from "../../protocols/memory.ts"
import { utf8 } from "../../protocols/wire.ts"
import { buggify } from "../../runtime/buggify.ts"
import { Bus } from "../../runtime/bus.ts"
import { distanceOf } from "../../storage/distance.ts"
import { makeCoordinator } from "../coordinator-client.ts"
import { mergeFound, mergeHits, packRows } from "../merge.ts"
import { nonce } from "../nonce.ts"
import { sharedCall } from "../shared-call.ts"
import type { Deadline } from "./deadline.ts"
import { makeRouting } from "./routing.ts"

/** A bounded read may be so old. Milvus' gracefulTime. */
const BOUNDED_MS = 5_000
const BOUNDED_STEP_MS = 100
/** Of a record or message that is not rows or keys. */
const PART_MARGIN = 1_024
/** Of a search that names none: the larger of this and twice the limit. */
const EF_DEFAULT = 64

export const defaultEf = (ef: number, limit: number): number => (ef === 0 ? Math.max(EF_DEFAULT, limit * 2) : ef)

export const makeRequests = Effect.gen(function* () {
  const routing = yield* makeRouting
  const coordinator = yield* makeCoordinator
  const clock = yield* Clock.Clock
  /** Of rows or keys for one shard: they go into one message, and into one record of the log. */
  const bus = yield* Bus
  const partBytesMax = () => Math.min(limits.recordBytesMax, bus.payloadMax) - PART_MARGIN
  /** The newest timestamp that this proxy has seen. */
  let newest: Timestamp = 0n
  /** The same, to date the requests that bring no id; 0 once an owner found that too old, whatever our clock says. */
  let date: Timestamp = 0n

  const oracleOf = (kind: GrantKind) =>
    sharedCall(Effect.map(coordinator.call("Grant", { kind, count: 1 }, limits.requestTimeoutMs), ({ first }) => first))
  const anyOracle = oracleOf("reader")
  const provenOracle = oracleOf("proven")
  const patientOracle = (deadline: Deadline, oracle = anyOracle) =>
    Effect.suspend(() =>
      Effect.timeoutOrElse(oracle, {
        duration: deadline.leftMs(),
        orElse: () => Effect.fail(failure("unavailable", "no coordinator gives out timestamps"))
      })
    )
  const saw = (timestamp: Timestamp) => {
    newest = later(newest, timestamp)
    date = later(date, timestamp)
  }

  // ---- writes

  /** A timestamp from now. */
  const fresh = (deadline: Deadline): Effect.Effect<Timestamp, ElanusError> =>
    Effect.tap(patientOracle(deadline), (timestamp) => Effect.sync(() => saw(timestamp)))

  /** A timestamp from a moment ago: the newest that came by, or if that was long ago, one of the oracle's. */
  const recent = (deadline: Deadline): Effect.Effect<Timestamp, ElanusError> =>
    Effect.suspend(() =>
      date > 0n && date >= fromMillis(clock.currentTimeMillisUnsafe() - limits.requestDateAgeMs)
        ? Effect.succeed(date)
        : fresh(deadline)
    )

  /** Dated by an old timestamp, an owner could not tell it from one that it has forgotten. */
  const newRequestId = (deadline: Deadline): Effect.Effect<RequestId, ElanusError> =>
    Effect.gen(function* () {
      const isAnew = yield* buggify("a request is dated anew")
      return { issued: yield* isAnew ? fresh(deadline) : recent(deadline), unique: yield* nonce }
    })

  /** Positions of the keys of each shard. */
  const bySharding = (keys: KeyColumn, shards: number): Array<Array<number>> => {
    const rows = Array.from({ length: shards }, (): Array<number> => [])
    for (let i = 0; i < keys.count; i++) rows[shardOf(hashAt(keys, i), shards)]!.push(i)
    return rows
  }

  /**
   * Sends each shard its part under one id. The outcome of the whole is its worst: some shard unknown means unknown,
   * and asking again with the same id completes it.
   */
  const writeShards = Effect.fnUntraced(function* (
    collection: Collection,
    keys: KeyColumn,
    id: RequestId | undefined,
    deadline: Deadline,
    bodyOf: (rows: ReadonlyArray<number> | undefined) => Write["body"]
  ): Effect.fn.Return<WriteAnswer, ElanusError> {
    const request = id ?? (yield* newRequestId(deadline))
    const { shards } = collection.spec
    const isTwice = yield* buggify("a write that is stored is sent again")
    const ask = (shard: number, body: Write["body"]) => {
      const once = routing.ask(collection, shard, "Write", (route) => ({ route, request, body }), deadline)
      return isTwice ? Effect.tap(once, () => Effect.forkDetach(Effect.ignore(once))) : once
    }
    const write = (shard: number, body: Write["body"]) =>
      ask(shard, body).pipe(Effect.tapError(({ code }) => Effect.sync(() => code === "outcome-unknown" && (date = 0n))))
    const all = bodyOf(undefined)
    const tooLarge = (shard: number, body: Write["body"]) => {
      const bytes = body._tag === "Upsert" ? rowBatchBytes(body.rows) : keyColumnBytes(body.keys)
      return bytes > partBytesMax()
        ? failure("too-large", `${bytes} bytes for shard ${shard}; ${partBytesMax()} fit into one request`)
        : undefined
    }
    if (shards === 1) {
      const large = tooLarge(0, all)
      if (large !== undefined) return yield* large
      const { timestamp } = yield* write(0, all)
      saw(timestamp)
      return { timestamp, count: keys.count }
    }
    const parts = bySharding(keys, shards)
      .map((rows, shard) => ({ rows, shard }))
      .filter(({ rows }) => rows.length > 0)
      .map(({ rows, shard }) => ({ shard, body: bodyOf(rows) }))
    // Before any of them is sent: a part that fits nowhere would leave the others half of a request for ever.
    for (const { body, shard } of parts) {
      const large = tooLarge(shard, body)
      if (large !== undefined) return yield* large
    }
    const isInTurn = yield* buggify("shards are written in turn")
    const outcomes = yield* Effect.forEach(parts, ({ body, shard }) => Effect.result(write(shard, body)), {
      concurrency: isInTurn ? 1 : "unbounded"
    })
    let timestamp: Timestamp = 0n
    const failed: Array<ElanusError> = []
    outcomes.forEach((outcome, i) => {
      if (outcome._tag === "Success") timestamp = later(timestamp, outcome.success.timestamp)
      else failed.push(failure(outcome.failure.code, `shard ${parts[i]!.shard}: ${outcome.failure.reason}`))
    })
    if (failed.length > 0) return yield* afterParts(failed, failed.length < parts.length)
    saw(timestamp)
    return { timestamp, count: keys.count }
  })

  const upsert = Effect.fnUntraced(function* (
    collection: Collection,
    rows: RowBatch,
    id: RequestId | undefined,
    deadline: Deadline
  ): Effect.fn.Return<WriteAnswer, ElanusError> {
    const problem = rowsProblem(collection, rows)
    if (problem !== undefined) return yield* problem
    return yield* writeShards(collection, rows.keys, id, deadline, (positions) => ({
      _tag: "Upsert",
      rows: positions === undefined ? rows : pickRows(rows, positions)
    }))
  })

  const remove = (collection: Collection, keys: KeyColumn, id: RequestId | undefined, deadline: Deadline) =>
    writeShards(collection, keys, id, deadline, (positions) => ({
      _tag: "Delete",
      keys: positions === undefined ? keys : pickKeys(keys, positions)
    }))

  // ---- reads

  /** The time of a read, for all of its shards (protocols/README.md, 3.4), if nobody has to be asked for it. */
  const timeKnown = (collection: Collection, { at, consistency, token }: ReadLevel): ReadTime | undefined => {
    if (at !== undefined) return { _tag: "At", timestamp: at }
    const closed = routing.closed(collection)
    if (
      (consistency === "Session" && token > 0n) ||
      (consistency === "Eventually" && closed > 0n) ||
      (consistency === "Bounded" && closed >= fromMillis(clock.currentTimeMillisUnsafe() - BOUNDED_MS))
    ) {
      return { _tag: "At", timestamp: later(closed, token) }
    }
    // Strong, and whoever brings no token: all that was acknowledged when the request came.
    return consistency !== "Bounded" && collection.channels.length === 1
      ? { _tag: "Latest", timestamp: token }
      : undefined
  }

  /** The same, if the oracle has to be asked. */
  const timeAsked = (level: ReadLevel, deadline: Deadline, oracle = anyOracle): Effect.Effect<ReadTime, ElanusError> =>
    Effect.flatMap(patientOracle(deadline, oracle), (now): Effect.Effect<ReadTime, ElanusError> => {
      const { consistency, token } = level
      if (consistency === "Bounded") {
        return Effect.succeed({ _tag: "At", timestamp: later(now - (now % fromMillis(BOUNDED_STEP_MS)), token) })
      }
      // Who is below what somebody gave out before was deposed. The token would hide it, and is not above all that was acknowledged.
      if (now < token && oracle === anyOracle) return timeAsked(level, deadline, provenOracle)
      return Effect.succeed({ _tag: "Fresh", timestamp: later(now, token) })
    })

  const shardsOf = (collection: Collection): ReadonlyArray<number> => collection.channels.map((_, shard) => shard)

  /** The same question to each shard, at one time; if an oracle's term ended in between, at a new one. */
  const readShards = <A>(
    collection: Collection,
    level: ReadLevel,
    deadline: Deadline,
    ask: (shard: number, time: ReadTime) => Effect.Effect<A & { readonly timestamp: Timestamp }, ElanusError>
  ): Effect.Effect<{ readonly parts: ReadonlyArray<A>; readonly timestamp: Timestamp }, ElanusError> => {
    const askAll = (time: ReadTime) => {
      if (collection.channels.length === 1) {
        return Effect.map(ask(0, time), (part) => {
          saw(part.timestamp)
          return { parts: [part], timestamp: part.timestamp }
        })
      }
      return Effect.map(
        Effect.forEach(shardsOf(collection), (shard) => ask(shard, time), { concurrency: "unbounded" }),
        (parts) => {
          const { timestamp } = parts[0]!
          saw(timestamp)
          return { parts, timestamp }
        }
      )
    }
    const time = timeKnown(collection, level)
    if (time !== undefined) return askAll(time)
    // "stale": the oracle that gave it out was deposed, and perhaps goes on; one that was not gives out one that counts.
    const isStale = ({ code }: ElanusError) => code === "stale"
    const again = Effect.flatMap(timeAsked(level, deadline, provenOracle), askAll).pipe(
      Effect.retry({ times: limits.staleTriesMax, while: isStale })
    )
    return Effect.flatMap(timeAsked(level, deadline), askAll).pipe(Effect.catchIf(isStale, () => again))
  }

  const search = (
    collection: Collection,
    request: SearchRequest,
    deadline: Deadline
  ): Effect.Effect<SearchAnswer, ElanusError> => {
    const { ef, level, limit, offset, queries } = request
    const problem = searchProblem(collection, request)
    if (problem !== undefined) return Effect.fail(problem)
    const wanted = limit + offset
    const found = readShards(collection, level, deadline, (shard, time) =>
      routing.ask(
        collection,
        shard,
        "Search",
        (route, budgetMs) => ({
          route,
          time,
          timeoutMs: budgetMs,
          limit: wanted,
          ef: defaultEf(ef, wanted),
          queries
        }),
        deadline
      )
    )
    return Effect.flatMap(found, ({ parts, timestamp }) => {
      const hits = reduced(collection, request, parts)
      const distances = shortLived.f64s(hits.ranks.length)
      for (let i = 0; i < distances.length; i++) distances[i] = distanceOf(collection.spec.metric, hits.ranks[i]!)
      const { counts, keys } = hits
      const wants = wantsOf(collection, request.outputFields)
      if ((!wants.fields && !wants.vectors) || keys.count === 0) {
        return Effect.succeed({ timestamp, counts, keys, distances, fields: undefined, vectors: NO_VECTORS })
      }
      const at: ReadLevel = { ...level, at: timestamp }
      return Effect.map(getRows(collection, uniqueKeys(keys), at, wants.vectors, deadline), ({ rows }) => ({
        timestamp,
        counts,
        keys,
        distances,
        ...inOrder(collection, keys, rows, wants)
      }))
    })
  }

  /** The rows of keys, in no order. */
  const getRows = Effect.fnUntraced(function* (
    collection: Collection,
    keys: KeyColumn,
    level: ReadLevel,
    vectors: boolean,
    deadline: Deadline
  ): Effect.fn.Return<{ readonly rows: FoundRows; readonly timestamp: Timestamp }, ElanusError> {
    const { keyType, shards } = collection.spec
    const positions = shards === 1 ? [undefined] : bySharding(keys, shards)
    const { parts, timestamp } = yield* readShards(collection, level, deadline, (shard, time) => {
      const mine = positions[shard]
      const wanted = mine === undefined ? keys : pickKeys(keys, mine)
      return routing.ask(
        collection,
        shard,
        "Get",
        (route, budgetMs) => ({ route, time, timeoutMs: budgetMs, keys: wanted, vectors }),
        deadline
      )
    })
    return {
      rows: mergeFound(
        keyType,
        parts.map(({ found }) => found)
      ),
      timestamp
    }
  })

  const get = Effect.fnUntraced(function* (
    collection: Collection,
    { keys, level, outputFields }: GetRequest,
    deadline: Deadline
  ): Effect.fn.Return<GetAnswer, ElanusError> {
    const wants = wantsOf(collection, outputFields)
    const { rows, timestamp } = yield* getRows(collection, keys, level, wants.vectors, deadline)
    // As they were asked for, those that are there.
    const have = new Set(keysOf(rows.keys))
    const asked = uniqueKeys(keys)
    const present: Array<number> = []
    for (let i = 0; i < asked.count; i++) if (have.has(keyAt(asked, i))) present.push(i)
    const ordered = pickKeys(asked, present)
    return { timestamp, keys: ordered, ...inOrder(collection, ordered, rows, wants) }
  })

  const count = Effect.fnUntraced(function* (
    collection: Collection,
    level: ReadLevel,
    deadline: Deadline
  ): Effect.fn.Return<{ readonly rows: number; readonly timestamp: Timestamp }, ElanusError> {
    const { parts, timestamp } = yield* readShards(collection, level, deadline, (shard, time) =>
      routing.ask(collection, shard, "Count", (route, budgetMs) => ({ route, time, timeoutMs: budgetMs }), deadline)
    )
    return { rows: parts.reduce((total, { rows }) => total + rows, 0), timestamp }
  })

  const flush = (collection: Collection, deadline: Deadline) =>
    Effect.forEach(
      shardsOf(collection),
      (shard) =>
        routing.ask(collection, shard, "Flush", (route, budgetMs) => ({ route, timeoutMs: budgetMs }), deadline),
      { concurrency: "unbounded" }
    )

  const stats = (collection: Collection, deadline: Deadline) =>
    Effect.forEach(
      shardsOf(collection),
      (shard) => routing.ask(collection, shard, "Stats", (route) => ({ route }), deadline),
      { concurrency: "unbounded" }
    )

  return { upsert, remove, search, get, count, flush, stats, coordinator, fresh, newest: () => newest }
})

export type Requests = Effect.Success<typeof makeRequests>

// ---- checks

/** What is wrong with rows; a body that was JSON has been checked field by field before. */
const rowsProblem = (collection: Collection, rows: RowBatch): ElanusError | undefined => {
  const { dimension, keyLengthMax, keyType } = collection.spec
  if (rows.keys.count === 0) return failure("bad-request", "there is nothing to insert")
  if (rows.keys.type !== keyType) return failure("bad-key", `the primary key is ${keyType}, not ${rows.keys.type}`)
  if (rows.dimension !== dimension) {
    return failure("wrong-dimension", `vectors of ${rows.dimension} dimensions; the collection has ${dimension}`)
  }
  const bad = firstNotFinite(rows.vectors)
  if (bad >= 0) {
    return failure("bad-vector", `the vector of row ${Math.floor(bad / dimension)} holds ${rows.vectors[bad]}`)
  }
  return longKey(rows.keys, keyLengthMax) ?? (rows.fields === undefined ? undefined : fieldsProblem(rows.fields))
}

/** What nobody could read is not stored: an answer is JSON as a whole, and one such row would cost all the others in it. */
const fieldsProblem = ({ bytes, offsets }: FieldColumn): ElanusError | undefined => {
  for (let row = 0; row + 1 < offsets.length; row++) {
    const from = offsets[row]!
    const to = offsets[row + 1]!
    if (to - from > limits.fieldsBytesMax) {
      return failure(
        "too-large",
        `the fields of row ${row} take ${to - from} bytes; ${limits.fieldsBytesMax} are the most`
      )
    }
    if (to > from && !isJsonObject(bytes, from, to, limits.fieldsDepthMax)) {
      return failure(
        "bad-request",
        `the fields of row ${row} are no JSON object of at most ${limits.fieldsDepthMax} levels`
      )
    }
  }
  if (utf8.isValid(bytes)) return undefined
  const row = offsets.findIndex(
    (from, i) => i + 1 < offsets.length && !utf8.isValid(bytes.subarray(from, offsets[i + 1]))
  )
  return failure("bad-request", `the fields of row ${row} are not valid Unicode`)
}

export const longKey = (keys: KeyColumn, keyLengthMax: number): ElanusError | undefined => {
  if (keys.type === "Int64") return undefined
  for (let row = 0; row < keys.count; row++) {
    const length = keys.offsets[row + 1]! - keys.offsets[row]!
    if (length > keyLengthMax) return failure("bad-key", `a key of ${length} bytes; ${keyLengthMax} are the most`)
  }
  return undefined
}

/** The position of the first NaN or infinity; -1 if there is none. Subtracting a number from itself is 0 for all others. */
export const firstNotFinite = (values: Float32Array): number => {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i]! - values[i]!
  if (sum === 0) return -1
  return values.findIndex((value) => !Number.isFinite(value))
}

const searchProblem = (collection: Collection, request: SearchRequest): ElanusError | undefined => {
  const { dimension } = collection.spec
  const { ef, limit, offset, queries } = request
  if (request.dimension !== dimension || queries.length % dimension !== 0) {
    return failure("wrong-dimension", `a vector of ${request.dimension} dimensions; the collection has ${dimension}`)
  }
  const count = queries.length / dimension
  if (count === 0) return failure("bad-request", "there is no vector to search for")
  if (count > limits.queriesMax) return failure("too-large", `${count} vectors; ${limits.queriesMax} are the most`)
  if (limit < 1) return failure("bad-request", "limit must be at least 1")
  if (limit + offset > limits.topKMax) {
    return failure("bad-request", `limit and offset are ${limit + offset} together; ${limits.topKMax} are the most`)
  }
  if (ef !== 0 && ef < limit + offset) return failure("bad-request", `ef ${ef} is below limit and offset`)
  const bad = firstNotFinite(queries)
  if (bad >= 0) return failure("bad-vector", `vector ${Math.floor(bad / dimension)} holds ${queries[bad]}`)
  return undefined
}

// ---- shaping

const NO_VECTORS = new Float32Array(0)

/** The hits of all shards as one list for each query, behind the first `offset`. */
const reduced = (
  { spec: { dimension, keyType } }: Collection,
  { limit, offset, queries }: SearchRequest,
  parts: ReadonlyArray<{ readonly hits: Hits }>
): Hits => {
  if (parts.length === 1 && offset === 0) return parts[0]!.hits
  const merged = mergeHits(
    keyType,
    parts.map(({ hits }) => hits),
    queries.length / dimension,
    limit + offset
  )
  return offset === 0 ? merged : skip(merged, offset)
}

const wantsOf = (collection: Collection, outputFields: ReadonlyArray<string>) => {
  const { keyField, vectorField } = collection.spec
  const all = outputFields.includes("*")
  return {
    vectors: all || outputFields.includes(vectorField),
    fields: all || outputFields.some((name) => name !== keyField && name !== vectorField)
  }
}

/** Hits behind the first `offset` of each query. */
const skip = (hits: Hits, offset: number): Hits => {
  const counts = new Uint32Array(hits.counts.length)
  const rows: Array<number> = []
  let at = 0
  hits.counts.forEach((count, query) => {
    for (let i = offset; i < count; i++) rows.push(at + i)
    counts[query] = Math.max(0, count - offset)
    at += count
  })
  return { counts, keys: pickKeys(hits.keys, rows), ranks: Float64Array.from(rows, (row) => hits.ranks[row]!) }
}

const uniqueKeys = (keys: KeyColumn): KeyColumn => {
  const first = new Map<Key, number>()
  for (let i = 0; i < keys.count; i++) {
    const key = keyAt(keys, i)
    if (!first.has(key)) first.set(key, i)
  }
  return first.size === keys.count ? keys : pickKeys(keys, [...first.values()])
}

/** Fields and vectors of `found`, by the order of `keys`. A row that vanished between is an empty one; that cannot be at one T. */
const inOrder = (
  collection: Collection,
  keys: KeyColumn,
  found: FoundRows,
  wants: { readonly fields: boolean; readonly vectors: boolean }
) => {
  const { dimension } = collection.spec
  const rowOf = new Map<Key, number>()
  for (let i = 0; i < found.keys.count; i++) rowOf.set(keyAt(found.keys, i), i)
  const order = keysOf(keys).map((key) => rowOf.get(key) ?? -1)
  const vectors = new Float32Array(wants.vectors ? order.length * dimension : 0)
  if (wants.vectors) {
    order.forEach((row, i) => {
      if (row >= 0) vectors.set(found.vectors.subarray(row * dimension, (row + 1) * dimension), i * dimension)
    })
  }
  if (!wants.fields) return { fields: undefined, vectors }
  if (!order.includes(-1)) return { fields: pickFields(found.fields, order), vectors }
  const packed = packRows(
    keys.type,
    [],
    order.map((row) => (row < 0 ? new Uint8Array(0) : fieldBytesAt(found.fields, row))),
    []
  )
  return { fields: packed.fields, vectors }
}

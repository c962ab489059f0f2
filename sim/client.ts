/**
 * A client of the simulated world: what the library (`runtime/client/`) does to ask, by the same subjects, headers and bodies, on
 * a Bus and Effect's own clock and chance. A session knows the newest timestamps that it was told, gives them back with
 * what it asks, and asks again, under the same id, what may end otherwise. A plain client is a NATS client by hand: it
 * asks once, in JSON, and remembers nothing.
 */
import { Clock, Effect, Random } from "effect"
import { BINARY, binary, formatRequestId, headers as headerNames, type ReadLevel } from "../protocols/client.ts"
import { afterTries, type ElanusError, failure } from "../protocols/errors.ts"
import { canonical, type Key, keyAt, type KeyColumn, keyColumn, type KeyType } from "../protocols/keys.ts"
import { limits } from "../protocols/limits.ts"
import type { RequestId } from "../protocols/record.ts"
import { fieldBytesAt, type FieldColumn, fieldColumn, type Fields, parseFields } from "../protocols/rows.ts"
import { collectionSubject, databaseSubject, DEFAULT_DATABASE, isWriting } from "../protocols/subjects.ts"
import { parseTimestamp, type Timestamp } from "../protocols/timestamp.ts"
import { utf8 } from "../protocols/wire.ts"
import { type Bus, BusError, type Headers, type Reply } from "../runtime/bus.ts"
import { buggify } from "../runtime/buggify.ts"
import { errorOf, type Patience, patience, RETRY_FIRST_MS, RETRY_MAX_MS, SAY_SO_MS } from "../runtime/client/ask.ts"
import { DATE_AGAIN_MS } from "../runtime/client/collection.ts"
import { makeSession } from "../runtime/client/session.ts"
import { ofBus } from "../runtime/remote.ts"
import type { Answer, AnswerHit, AnswerRow, Asked, AskedRow, Shape, Wanted } from "./history.ts"

export interface ClientOptions {
  readonly manner: "library" | "plain"
  readonly form: "binary" | "json"
  /** Of a request, milliseconds. */
  readonly timeoutMs: number
}

export interface Told {
  readonly answer: Answer
  readonly timestamp: Timestamp
}

export interface SimClient {
  /** The newest timestamp of any answer: it is what reads are not before. */
  readonly token: () => Timestamp
  /** Of one operation: for all that it has to ask. Without it each question has a time of its own. */
  readonly patience: () => Patience
  /** Asks for a collection's shape, unless it is known. */
  readonly shape: (collection: string, leftMs?: Patience) => Effect.Effect<Shape, ElanusError>
  /** An id for a write, dated by a young answer, for which the cluster is asked if there is none. A plain client has none. */
  readonly requestId: (collection: string, leftMs?: Patience) => Effect.Effect<RequestId | undefined, ElanusError>
  /** An id that nothing needs to date: creating is remembered for ever. */
  readonly makingId: Effect.Effect<RequestId | undefined>
  /** Sends it, until an answer, a lasting error or the deadline. `shape` is needed for rows and keys. */
  readonly ask: (collection: string, asked: Asked, shape?: Shape, leftMs?: Patience) => Effect.Effect<Told, ElanusError>
}

const KEY_FIELD = "id"
const VECTOR_FIELD = "vector"

export const makeClient = Effect.fnUntraced(function* (bus: Bus["Service"], options: ClientOptions) {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000n) / 1_000
  const { form, manner, timeoutMs } = options
  const whole = () => patience(timeoutMs, now)
  const isPlain = manner === "plain"
  const isBinary = form === "binary" && !isPlain
  const shapes = new Map<string, Described>()
  const random = yield* Random.Random
  const half = () => BigInt(Math.floor(random.nextDoubleUnsafe() * 0x1_0000_0000))
  const session = makeSession({ now, unique: () => (half() << 32n) | half() })
  const learn = (timestamp: Timestamp): void => {
    if (!isPlain) session.learn(timestamp)
  }
  const saw = (timestamp: Timestamp): void => {
    if (!isPlain) session.saw(timestamp)
  }

  // ---- sending

  /** Now and then the answer to a write gets lost: its client waits for it in vain, and asks again much later. */
  const isLost = (subject: string) =>
    isWriting(subject) ? buggify("an answer to a client is lost") : Effect.succeed(false)

  const send = (
    subject: string,
    data: Uint8Array,
    headers: Headers,
    tryMs: number
  ): Effect.Effect<Reply, ElanusError> =>
    Effect.gen(function* () {
      const end = now() + tryMs
      const asked = bus.request(subject, data, { timeoutMs: tryMs + SAY_SO_MS, headers })
      const reply = yield* Effect.mapError(asked, (error) => ofBus(error, subject))
      if (yield* isLost(subject)) {
        yield* Effect.sleep(Math.max(0, end - now()))
        return yield* ofBus(new BusError({ reason: "timeout", detail: "its answer was lost" }), subject)
      }
      const error = errorOf(reply)
      return error === undefined ? reply : yield* error
    })

  const again = Effect.fnUntraced(function* (subject: string, data: Uint8Array, headers: Headers, timeoutMs: number) {
    const deadline = now() + timeoutMs
    const write = isWriting(subject)
    let unknown: ElanusError | undefined
    let left = timeoutMs
    let waitMs = RETRY_FIRST_MS
    // With the usual patience the first try says nothing of it.
    let isUntimed = timeoutMs === limits.requestTimeoutMs
    while (true) {
      const tryMs = isUntimed
        ? limits.tryTimeoutMs
        : Math.min(left, write ? limits.tryTimeoutMs : Math.max(limits.tryTimeoutMs, left / 2))
      const timed = isUntimed ? headers : { ...headers, [headerNames.timeout]: String(Math.ceil(tryMs)) }
      isUntimed = false
      const tried = yield* Effect.result(send(subject, data, timed, tryMs))
      if (tried._tag === "Success") return tried.success
      const error = tried.failure
      if (error.code === "ambiguous") unknown ??= error
      left = error.retry ? deadline - now() - waitMs : 0
      if (left <= 0) return yield* afterTries(error, unknown, write)
      yield* Effect.sleep(waitMs)
      waitMs = Math.min(waitMs * 2, RETRY_MAX_MS)
    }
  })

  const once = (subject: string, data: Uint8Array, headers: Headers) =>
    Effect.mapError(send(subject, data, { ...headers, [headerNames.timeout]: String(timeoutMs) }, timeoutMs), (error) =>
      afterTries(error, undefined, isWriting(subject))
    )

  const request = (
    subject: string,
    data: Uint8Array,
    headers: Headers,
    leftMs: Patience,
    id: RequestId | undefined
  ): Effect.Effect<Reply, ElanusError> => {
    const named = id === undefined ? headers : { ...headers, [headerNames.request]: formatRequestId(id) }
    return isPlain ? once(subject, data, named) : again(subject, data, named, leftMs())
  }

  const newId = Effect.sync(session.requestId)

  const askJson = Effect.fnUntraced(function* (subject: string, body: object, leftMs: Patience, id?: RequestId) {
    const headers: Headers = {}
    const named = id ?? (isPlain ? undefined : yield* newId)
    const reply = yield* request(subject, utf8.encode(JSON.stringify(body)), headers, leftMs, named)
    const { timestamp, ...answer } = JSON.parse(utf8.decode(reply.data)) as {
      readonly data: unknown
      readonly topks?: ReadonlyArray<number>
      readonly timestamp: string
    }
    return { ...answer, timestamp: parseTimestamp(timestamp) ?? 0n }
  })

  const askBinary = Effect.fnUntraced(function* (subject: string, data: Uint8Array, leftMs: Patience, id?: RequestId) {
    const reply = yield* request(subject, data, { [headerNames.format]: BINARY }, leftMs, id)
    return reply.data
  })

  // ---- what is asked

  const describe = Effect.fnUntraced(function* (collection: string, leftMs: Patience) {
    const subject = collectionSubject(DEFAULT_DATABASE, collection, "describe")
    const { data, timestamp } = yield* askJson(subject, {}, leftMs)
    learn(timestamp)
    return describedBy(data)
  })

  /** Dated by an old answer, the cluster could not tell a write from one that it has forgotten, or that meant another. */
  const dated = Effect.fnUntraced(function* (collection: string, since: Timestamp, leftMs: Patience) {
    while (!session.isDated(since)) {
      yield* describe(collection, leftMs)
      if (session.isDated(since)) return
      if (leftMs() <= DATE_AGAIN_MS) return yield* failure("unavailable", "no coordinator gives out timestamps")
      yield* Effect.sleep(DATE_AGAIN_MS)
    }
  })

  const levelBody = ({ at, consistency, token: guarantee }: ReadLevel) => ({
    consistencyLevel: consistency,
    ...(guarantee > 0n ? { guaranteeTimestamp: String(guarantee) } : {}),
    ...(at === undefined ? {} : { travelTimestamp: String(at) })
  })

  const write = Effect.fnUntraced(function* (
    subject: (verb: string) => string,
    asked: Asked & { readonly _tag: "Upsert" | "Delete" },
    { dimension, keyType }: Shape,
    leftMs: Patience
  ): Effect.fn.Return<Told, ElanusError> {
    const verb = subject(asked._tag === "Delete" ? "delete" : asked.verb)
    if (isBinary) {
      const body =
        asked._tag === "Delete"
          ? binary.keys.encode(keyColumn(keyType, asked.keys))
          : binary.write.encode(batchOf(asked.rows, dimension, keyType))
      const { count, timestamp } = binary.written.decode(yield* askBinary(verb, body, leftMs, asked.request))
      return { answer: { _tag: "Written", count }, timestamp }
    }
    const body =
      asked._tag === "Delete" ? { id: asked.keys.map(given) } : { data: asked.rows.map((row) => rowObject(row)) }
    const { data, timestamp } = yield* askJson(verb, body, leftMs, asked.request)
    const counts = data as {
      readonly insertCount?: number
      readonly upsertCount?: number
      readonly deleteCount?: number
    }
    const count = counts.insertCount ?? counts.upsertCount ?? counts.deleteCount ?? NaN
    return { answer: { _tag: "Written", count }, timestamp }
  })

  const get = Effect.fnUntraced(function* (
    subject: string,
    { keys, level, wanted }: Asked & { readonly _tag: "Get" },
    { keyType }: Shape,
    leftMs: Patience
  ): Effect.fn.Return<Told, ElanusError> {
    const outputFields = outputFieldsOf(wanted)
    if (isBinary) {
      const body = binary.get.encode({ keys: keyColumn(keyType, keys), outputFields, level })
      const found = binary.found.decode(yield* askBinary(subject, body, leftMs))
      return { answer: { _tag: "Rows", rows: rowsOf(found, wanted) }, timestamp: found.timestamp }
    }
    const body = { id: keys.map(given), outputFields, ...levelBody(level) }
    const { data, timestamp } = yield* askJson(subject, body, leftMs)
    const rows = (data as ReadonlyArray<JsonRow>).map((row) => rowOf(row, wanted))
    return { answer: { _tag: "Rows", rows }, timestamp }
  })

  const search = Effect.fnUntraced(function* (
    subject: string,
    { level, limit, offset, queries, wanted }: Asked & { readonly _tag: "Search" },
    { dimension }: Shape,
    leftMs: Patience
  ): Effect.fn.Return<Told, ElanusError> {
    const outputFields = outputFieldsOf(wanted)
    if (isBinary) {
      const flat = new Float32Array(queries.length * dimension)
      queries.forEach((query, i) => flat.set(query.subarray(0, dimension), i * dimension))
      const body = binary.search.encode({ dimension, queries: flat, limit, offset, ef: 0, outputFields, level })
      const found = binary.hits.decode(yield* askBinary(subject, body, leftMs))
      const rows = rowsOf(found, wanted)
      const hits = rows.map((row, i): AnswerHit => ({ ...row, distance: found.distances[i]! }))
      return { answer: { _tag: "Hits", lists: inLists(hits, found.counts) }, timestamp: found.timestamp }
    }
    const body = { data: queries.map((query) => [...query]), limit, offset, outputFields, ...levelBody(level) }
    const { data, timestamp, topks } = yield* askJson(subject, body, leftMs)
    const hits = (data as ReadonlyArray<JsonRow>).map(({ distance, ...row }): AnswerHit => {
      return { ...rowOf(row, wanted), distance: distance as number }
    })
    return { answer: { _tag: "Hits", lists: inLists(hits, topks ?? []) }, timestamp }
  })

  const ask = Effect.fnUntraced(function* (
    collection: string,
    asked: Asked,
    leftMs: Patience,
    shape?: Shape
  ): Effect.fn.Return<Told, ElanusError> {
    const subject = (verb: string) => collectionSubject(DEFAULT_DATABASE, collection, verb)
    switch (asked._tag) {
      case "Create": {
        const { dimension, keyType, metric, shards } = asked.shape
        const body = { dimension, metricType: metric, idType: keyType, params: { shardsNum: shards } }
        const { data, timestamp } = yield* askJson(subject("create"), body, leftMs, asked.request)
        return { answer: { _tag: "Made", id: (data as { readonly collectionID: string }).collectionID }, timestamp }
      }
      case "Drop": {
        // Dated by an answer of now, it drops no later collection of that name.
        const described = isPlain ? undefined : yield* Effect.result(describe(collection, leftMs))
        if (described?._tag === "Success") yield* dated(collection, described.success.created, leftMs)
        else if (described !== undefined && described.failure.code !== "collection-not-found") {
          return yield* described.failure
        }
        const { timestamp } = yield* askJson(subject("drop"), {}, leftMs)
        return { answer: { _tag: "Done" }, timestamp }
      }
      case "Flush": {
        const { timestamp } = yield* askJson(subject("flush"), {}, leftMs)
        return { answer: { _tag: "Done" }, timestamp }
      }
      case "List": {
        const { data, timestamp } = yield* askJson(databaseSubject(DEFAULT_DATABASE, "list"), {}, leftMs)
        return { answer: { _tag: "Named", names: data as ReadonlyArray<string> }, timestamp }
      }
      case "Stats": {
        const { data, timestamp } = yield* askJson(subject("stats"), {}, leftMs)
        return { answer: { _tag: "Counted", rows: (data as { readonly rowCount: number }).rowCount }, timestamp }
      }
      case "Count": {
        const body = { outputFields: ["count(*)"], ...levelBody(asked.level) }
        const { data, timestamp } = yield* askJson(subject("query"), body, leftMs)
        const [row] = data as ReadonlyArray<{ readonly "count(*)": number }>
        return { answer: { _tag: "Counted", rows: row!["count(*)"] }, timestamp }
      }
      case "Get":
        return yield* get(subject("get"), asked, shape!, leftMs)
      case "Search":
        return yield* search(subject("search"), asked, shape!, leftMs)
      case "Upsert":
      case "Delete":
        return yield* write(subject, asked, shape!, leftMs)
    }
  })

  const client: SimClient = {
    token: session.token,
    patience: whole,
    shape: (collection, leftMs = whole()) => {
      const known = shapes.get(collection)
      if (known !== undefined) return Effect.succeed(known.shape)
      return Effect.map(describe(collection, leftMs), (described) => {
        shapes.set(collection, described)
        return described.shape
      })
    },
    requestId: (collection, leftMs = whole()) => {
      if (isPlain) return Effect.undefined
      const since = shapes.get(collection)?.created ?? 0n
      const forget = () => Effect.sync(() => shapes.delete(collection))
      return Effect.andThen(Effect.tapError(dated(collection, since, leftMs), forget), newId)
    },
    makingId: isPlain ? Effect.undefined : newId,
    ask: (collection, asked, shape, leftMs = whole()) => {
      const { _tag } = asked
      const isWrite = _tag === "Upsert" || _tag === "Delete"
      if (_tag === "Drop") shapes.delete(collection)
      return ask(collection, asked, leftMs, shape).pipe(
        Effect.tap(({ timestamp }) =>
          Effect.sync(() => {
            // Of collections and nodes: that is no part of the session.
            if (_tag === "Create" || _tag === "Drop" || _tag === "Flush" || _tag === "List") learn(timestamp)
            else saw(timestamp)
          })
        ),
        Effect.tapError(({ code }) =>
          Effect.sync(() => {
            // It may be another collection now.
            if (isWrite || _tag === "Get") shapes.delete(collection)
            if (isWrite && code === "outcome-unknown") session.outdate()
          })
        )
      )
    }
  }
  return client
})

// ---- keys and rows

/** An integer beyond 2^53 travels as text. */
const given = (key: Key): number | string => (typeof key === "bigint" ? String(key) : key)

const rowObject = ({ fields, key, vector }: AskedRow) => ({
  [KEY_FIELD]: given(key),
  [VECTOR_FIELD]: [...vector],
  ...fields
})

const batchOf = (rows: ReadonlyArray<AskedRow>, dimension: number, keyType: KeyType) => {
  const vectors = new Float32Array(rows.length * dimension)
  rows.forEach(({ vector }, i) => vectors.set(vector, i * dimension))
  return {
    keys: keyColumn(
      keyType,
      rows.map(({ key }) => key)
    ),
    dimension,
    vectors,
    fields: fieldColumn(rows.map(({ fields }) => fields))
  }
}

const outputFieldsOf = ({ fields, vector }: Wanted): ReadonlyArray<string> =>
  fields && vector ? ["*"] : fields ? ["op", "row"] : vector ? [VECTOR_FIELD] : []

const rowsOf = (
  {
    fields,
    keys,
    vectors
  }: { readonly keys: KeyColumn; readonly fields: FieldColumn | undefined; readonly vectors: Float32Array },
  wanted: Wanted
): ReadonlyArray<AnswerRow> => {
  // It may be another collection by now than the one whose shape is known.
  const dimension = vectors.length / keys.count
  return Array.from({ length: keys.count }, (_, i) => ({
    key: keyAt(keys, i),
    fields: wanted.fields ? parseFields(fieldBytesAt(fields, i)) : undefined,
    vector: wanted.vector ? vectors.slice(i * dimension, (i + 1) * dimension) : undefined
  }))
}

type JsonRow = { readonly [name: string]: unknown }

/** Which type it is the answer does not say, and the collection may be another one by now; no text of ours is a number. */
const keyOfJson = (key: string): Key => (/^-?\d+$/.test(key) ? canonical(BigInt(key)) : key)

const rowOf = ({ [KEY_FIELD]: key, [VECTOR_FIELD]: vector, ...fields }: JsonRow, wanted: Wanted): AnswerRow => ({
  key: keyOfJson(key as string),
  fields: wanted.fields ? (fields as Fields) : undefined,
  vector: wanted.vector ? Float32Array.from(vector as ReadonlyArray<number>) : undefined
})

const inLists = (
  hits: ReadonlyArray<AnswerHit>,
  counts: ArrayLike<number>
): ReadonlyArray<ReadonlyArray<AnswerHit>> => {
  let at = 0
  return Array.from(counts, (count) => hits.slice(at, (at += count)))
}

/** What must be known of a collection to lay rows out, and to ask; and since when there is one of that name. */
interface Described {
  readonly shape: Shape
  readonly created: Timestamp
}

const describedBy = (description: unknown): Described => {
  const { createdTimestamp, fields, indexes, shardsNum } = description as {
    readonly createdTimestamp: string
    readonly fields: ReadonlyArray<{
      readonly type: string
      readonly primaryKey?: boolean
      readonly params?: { readonly dim: number }
    }>
    readonly indexes: ReadonlyArray<{ readonly metricType: Shape["metric"] }>
    readonly shardsNum: number
  }
  const shape = {
    keyType: fields.find(({ primaryKey }) => primaryKey === true)!.type as KeyType,
    dimension: fields.find(({ type }) => type === "FloatVector")!.params!.dim,
    metric: indexes[0]!.metricType,
    shards: shardsNum
  }
  return { shape, created: parseTimestamp(createdTimestamp) ?? 0n }
}

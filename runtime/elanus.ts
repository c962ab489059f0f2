/**
 * The library: `open` for a database in a directory of this process, `connect` for a cluster on NATS. Both give the
 * same interface; what it sends is what any NATS client could send, in the binary form where that is faster.
 */
import { Effect, type Exit, Fiber, Layer, ManagedRuntime } from "effect"
import { checkFields, readKey, readRowObjects } from "../actors/proxy/json.ts"
import {
  BINARY,
  binary,
  consistencies,
  type Consistency,
  formatRequestId,
  headers as headerNames,
  type ReadLevel
} from "../protocols/client.ts"
import type { ClusterStatus } from "../protocols/coordinator.ts"
import { afterTries, ElanusError, type ErrorCode, errorKinds, failure } from "../protocols/errors.ts"
import { type Key, keyAt, type KeyColumn, keyColumn, type KeyType } from "../protocols/keys.ts"
import { limits } from "../protocols/limits.ts"
import type { CollectionSpec, Metric } from "../protocols/metadata.ts"
import {
  fieldBytesAt,
  fieldColumn,
  type Fields,
  parseFields,
  pickRows,
  type RowBatch,
  rowBatchBytes
} from "../protocols/rows.ts"
import { collectionSubject, databaseSubject, DEFAULT_DATABASE, isWriting, nameProblem } from "../protocols/subjects.ts"
import { later, parseTimestamp, type Timestamp } from "../protocols/timestamp.ts"
import { utf8 } from "../protocols/wire.ts"
import { type NatsOptions, openConnection } from "../storage/nats-connection.ts"
import { makeNatsBus } from "./bus-nats.ts"
import { Bus, type Reply } from "./bus.ts"
import { type Spec, specOf } from "./client/spec.ts"
import { ofBus } from "./remote.ts"
import type { EmbeddedOptions } from "./places.ts"

export { ElanusError } from "../protocols/errors.ts"
export type { ErrorCode } from "../protocols/errors.ts"
export type { Key } from "../protocols/keys.ts"
export type { ClusterStatus } from "../protocols/coordinator.ts"

export interface CollectionOptions {
  readonly dimension: number
  /** "COSINE" if absent. */
  readonly metric?: Metric
  /** "Int64" if absent. */
  readonly idType?: KeyType
  readonly idField?: string
  readonly vectorField?: string
  /** 1 to 16; 1 if absent. */
  readonly shards?: number
  readonly description?: string
  readonly index?: { readonly m?: number; readonly efConstruction?: number }
}

/** Rows as columns: the fast way in. `vectors` holds ids.length x dimension numbers. */
export interface Columns {
  readonly ids: BigInt64Array | ReadonlyArray<Key>
  readonly vectors: Float32Array
  readonly fields?: ReadonlyArray<Fields | undefined>
}

export interface RequestOptions {
  /** Milliseconds; 10,000 if absent. */
  readonly timeoutMs?: number
}

export interface ReadOptions extends RequestOptions {
  /** "Session" if absent: reads see what this connection has written and read before. */
  readonly consistency?: Consistency
  /** Exactly at this earlier answer's timestamp. */
  readonly at?: Timestamp
}

export interface SearchOptions extends ReadOptions {
  /** 10 if absent. */
  readonly limit?: number
  readonly offset?: number
  /** Names of fields, the vector field, or "*". */
  readonly outputFields?: ReadonlyArray<string>
  /** Candidates that the index keeps; the larger, the better the recall. */
  readonly ef?: number
}

export interface Row {
  readonly id: Key
  readonly fields: Fields
  /** If the vector field was asked for. */
  readonly vector?: Float32Array
}

export interface Hit extends Row {
  /** L2 (squared): smaller is nearer. IP and COSINE: larger is nearer. */
  readonly distance: number
}

export interface Written {
  readonly count: number
  readonly timestamp: Timestamp
}

export interface CollectionStats {
  readonly rowCount: number
  readonly growingRows: number
  readonly growingBytes: number
  readonly segments: number
  readonly indexedSegments: number
  readonly sealedBytes: number
  readonly shards: ReadonlyArray<Record<string, unknown>>
}

export interface Collection {
  readonly name: string
  readonly describe: (options?: RequestOptions) => Promise<Record<string, unknown>>
  readonly stats: (options?: RequestOptions) => Promise<CollectionStats>
  readonly drop: (options?: RequestOptions) => Promise<void>
  /** Returns when everything acknowledged before it is sealed, stored and served by query nodes. */
  readonly flush: (options?: RequestOptions) => Promise<void>
  /** Writes rows; one whose key is there already replaces it. Large inserts are split. */
  readonly insert: (rows: ReadonlyArray<object> | Columns, options?: RequestOptions) => Promise<Written>
  readonly upsert: (rows: ReadonlyArray<object> | Columns, options?: RequestOptions) => Promise<Written>
  readonly delete: (ids: Key | ReadonlyArray<Key>, options?: RequestOptions) => Promise<Written>
  readonly get: (
    ids: Key | ReadonlyArray<Key>,
    options?: ReadOptions & { readonly outputFields?: ReadonlyArray<string> }
  ) => Promise<Array<Row>>
  readonly count: (options?: ReadOptions) => Promise<number>
  /** One list of hits, best first, for one vector; a list of lists for several. */
  readonly search: {
    (vector: Float32Array | ReadonlyArray<number>, options?: SearchOptions): Promise<Array<Hit>>
    (vectors: ReadonlyArray<Float32Array | ReadonlyArray<number>>, options?: SearchOptions): Promise<Array<Array<Hit>>>
  }
}

export interface Elanus {
  readonly createCollection: (name: string, options: CollectionOptions & RequestOptions) => Promise<Collection>
  /** A collection that exists, or will by the time it is asked. */
  readonly collection: (name: string) => Collection
  readonly listCollections: (options?: RequestOptions) => Promise<Array<string>>
  readonly status: (options?: RequestOptions) => Promise<ClusterStatus>
  /** The newest timestamp of any answer: what a session reads at, at least. */
  readonly timestamp: () => Timestamp
  /** Sends a JSON body to any verb of a collection, as a NATS client would; for what has no method here. */
  readonly request: (collection: string, verb: string, body: object, options?: RequestOptions) => Promise<unknown>
  readonly close: () => Promise<void>
}

/** Its answer is there at once if nothing had to be waited for, as embedded. */
type Send = (
  subject: string,
  data: Uint8Array,
  headers: Record<string, string>,
  timeoutMs: number
) => Reply | Promise<Reply>

// ---- opening

/** A database in a directory. One process at a time; everything in it is there again when it is opened next. */
export const open = async (options: EmbeddedOptions & { readonly database?: string }): Promise<Elanus> => {
  // Only here: a client of a cluster would load every role and every engine for nothing.
  const [{ embeddedLayer }, { allRoles, play }] = await Promise.all([import("./places.ts"), import("./roles.ts")])
  const runtime = ManagedRuntime.make(
    Layer.effectDiscard(play(allRoles)).pipe(Layer.provideMerge(embeddedLayer(options)))
  )
  const elanus = await overBus(runtime, options.database)
  try {
    // The roles find each other first: a request before that would only wait.
    await elanus.status({ timeoutMs: limits.requestTimeoutMs * 3 })
    return elanus
  } catch (cause) {
    await runtime.dispose()
    throw cause
  }
}

/** A cluster on NATS. */
export const connect = (options: NatsOptions & { readonly database?: string }): Promise<Elanus> => {
  const { database, ...nats } = options
  return overBus(ManagedRuntime.make(Layer.effect(Bus, Effect.flatMap(openConnection(nats), makeNatsBus))), database)
}

const overBus = async <R, E>(
  runtime: ManagedRuntime.ManagedRuntime<R | Bus, E>,
  database = DEFAULT_DATABASE
): Promise<Elanus> => {
  const wrong = nameProblem(database)
  if (wrong !== undefined) throw failure("bad-name", `database: ${wrong}`)
  const exit = (await runtime.runPromiseExit(Effect.context<R | Bus>())) as Exit.Exit<unknown, E>
  if (exit._tag === "Failure") {
    await runtime.dispose()
    throw startFailure(exit.cause)
  }
  const bus = await runtime.runPromise(Bus as never as Effect.Effect<Bus["Service"]>)
  const send: Send = (subject, data, headers, timeoutMs) => {
    // A little longer than the proxy was told: it knows better what it waited for in vain.
    const fiber = Effect.runFork(bus.request(subject, data, { timeoutMs: timeoutMs + SAY_SO_MS, headers }))
    const exit = fiber.pollUnsafe()
    if (exit?._tag === "Success") return exit.value
    return Effect.runPromise(Effect.mapError(Fiber.join(fiber), (error) => ofBus(error, subject)))
  }
  return client(send, bus.payloadMax, database, () => runtime.dispose())
}

/** The first reason of a start that failed, as an error of the table. */
const startFailure = (cause: unknown): ElanusError => {
  const reasons = (
    cause as { readonly reasons?: ReadonlyArray<{ readonly error?: unknown; readonly defect?: unknown }> }
  ).reasons
  const first = reasons?.[0]
  const error = first?.error ?? first?.defect ?? cause
  if (error instanceof ElanusError) return error
  const { detail, reason } = error as { readonly reason?: string; readonly detail?: string }
  const code: ErrorCode =
    reason === "unavailable" || reason === "disconnected" ? "unavailable" : reason === "damaged" ? "damaged" : "unfit"
  return failure(code, detail ?? String(error))
}

// ---- the client

const BREATH_MS = 8
const RETRY_FIRST_MS = 20
const SAY_SO_MS = 250
/** A proxy that dies says nothing: so one try is not all of the time there is. Reads may take longer than writes. */
const TRY_MS = 5_000
const RETRY_MAX_MS = 500
/** A write is dated by an answer of this age at most: well below what the cluster remembers. */
const DATED_MS = limits.dedupeAgeMs / 5
/** Requests of one large insert that are on their way at once. */
const INSERTS_AT_ONCE = 16

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/**
 * Answers of this very process need no turn of the event loop. Who asks one after the other would then stop all else
 * in the process, the duties of its own roles too, so now and then an answer waits for a turn.
 */
const makeBreathing = () => {
  let last = 0
  return (): Promise<void> | undefined => {
    const now = performance.now()
    if (now - last < BREATH_MS) return undefined
    last = Infinity // one at a time is enough for all
    return new Promise((resolve) =>
      setImmediate(() => {
        last = performance.now()
        resolve()
      })
    )
  }
}

const client = (send: Send, payloadMax: number, database: string, dispose: () => Promise<void>): Elanus => {
  const breathe = makeBreathing()
  /** The newest timestamp at which rows were read or written: where the session is. */
  let token: Timestamp = 0n
  /** The newest of any answer, and when it came: it dates what we ask. */
  let newest: Timestamp = 0n
  let newestAt = -Infinity
  const learn = (timestamp: Timestamp): void => {
    if (timestamp <= newest) return
    newest = timestamp
    newestAt = performance.now()
  }
  const saw = (timestamp: Timestamp): Timestamp => {
    token = later(token, timestamp)
    learn(timestamp)
    return timestamp
  }

  /** Sends until an answer, a lasting error, or the deadline. What is sent may be sent again: reads, and writes with an id. */
  const ask = (
    subject: string,
    data: Uint8Array,
    headers: Record<string, string>,
    timeoutMs: number = limits.requestTimeoutMs
  ): Reply | Promise<Reply> => {
    if (timeoutMs !== limits.requestTimeoutMs) return askAgain(subject, data, headers, timeoutMs)
    const sent = send(subject, data, headers, TRY_MS)
    const pause = sent instanceof Promise ? undefined : breathe()
    // Answered within this process already, as most searches are when embedded: not a single promise.
    if (!(sent instanceof Promise) && pause === undefined && errorOf(sent) === undefined) return sent
    return askAgain(subject, data, headers, timeoutMs, sent, pause)
  }

  const askAgain = async (
    subject: string,
    data: Uint8Array,
    headers: Record<string, string>,
    timeoutMs: number,
    first?: Reply | Promise<Reply>,
    pause?: Promise<void>
  ): Promise<Reply> => {
    if (!(timeoutMs >= 1 && timeoutMs <= limits.requestTimeoutMaxMs)) {
      throw failure("bad-request", `timeoutMs is from 1 to ${limits.requestTimeoutMaxMs}, not ${timeoutMs}`)
    }
    const deadline = performance.now() + timeoutMs
    let unknown: ElanusError | undefined
    let sent = first
    if (pause !== undefined) await pause
    let left = timeoutMs
    let waitMs = RETRY_FIRST_MS
    while (true) {
      let error: ElanusError
      try {
        const tryMs = Math.min(left, isWriting(subject) ? TRY_MS : Math.max(TRY_MS, timeoutMs / 2))
        const timed = { ...headers, [headerNames.timeout]: String(Math.ceil(tryMs)) }
        const asked = sent ?? send(subject, data, timed, tryMs)
        sent = undefined
        const reply = await asked
        const failed = errorOf(reply)
        if (failed === undefined) return reply
        error = failed
      } catch (cause) {
        if (!(cause instanceof ElanusError)) throw cause
        error = cause
      }
      if (error.code === "ambiguous") unknown ??= error
      left = error.retry ? deadline - performance.now() - waitMs : 0
      if (left <= 0) throw afterTries(error, unknown, isWriting(subject))
      await sleep(waitMs)
      waitMs = Math.min(waitMs * 2, RETRY_MAX_MS)
    }
  }

  const newRequestId = () => {
    const random = crypto.getRandomValues(new BigUint64Array(1))
    return formatRequestId({ issued: newest, unique: random[0]! })
  }

  const askJson = async (subject: string, body: object, options: RequestOptions = {}) => {
    // An id in every request: those that make something are then made once, however often they are sent.
    const headers = { [headerNames.request]: newRequestId() }
    const reply = await ask(subject, utf8.encode(JSON.stringify(body)), headers, options.timeoutMs)
    const answer = JSON.parse(utf8.decode(reply.data)) as { readonly data: unknown; readonly timestamp: string }
    return { data: answer.data, timestamp: parseTimestamp(answer.timestamp) ?? 0n }
  }
  /** Of rows: the session goes on from there. */
  const askRows = async (subject: string, body: object, options?: RequestOptions) => {
    const { data, timestamp } = await askJson(subject, body, options)
    saw(timestamp)
    return data
  }
  /**
   * Of collections and nodes: that is no part of the session. The first read after it has no token then, and so sees
   * all that anybody has written; with one it would be free to be as old as the answer.
   */
  const askAbout = async (subject: string, body: object, options?: RequestOptions) => {
    const { data, timestamp } = await askJson(subject, body, options)
    learn(timestamp)
    return data
  }

  const collection = (name: string): Collection => {
    const wrong = nameProblem(name)
    if (wrong !== undefined) throw failure("bad-name", wrong)
    const subject = (verb: string) => collectionSubject(database, name, verb)
    const subjects = { search: subject("search"), insert: subject("insert"), get: subject("get") }
    let known: Promise<Spec> | undefined
    /** Asked once, and again after an error that says that it is another collection now. */
    const spec = (options?: RequestOptions): Promise<Spec> =>
      (known ??= askAbout(subject("describe"), {}, options).then(specOf, (cause: unknown) => {
        known = undefined
        throw cause
      }))
    const forget = (cause: unknown): never => {
      known = undefined
      throw cause
    }

    const level = ({ at, consistency = "Session" }: ReadOptions): ReadLevel => {
      if (consistencies.includes(consistency)) return { at, consistency, token }
      throw failure("bad-request", `consistency is one of ${consistencies.join(", ")}, not ${consistency}`)
    }
    const asBinary = { [headerNames.format]: BINARY }

    const writeOne = async (verb: string, data: Uint8Array, options: RequestOptions): Promise<Written> => {
      // Dated by an old answer, the cluster could not tell it from one that it has forgotten: "outcome-unknown".
      if (performance.now() - newestAt > DATED_MS) await askAbout(subject("describe"), {}, options)
      const headers = { ...asBinary, [headerNames.request]: newRequestId() }
      const { count, timestamp } = binary.written.decode((await ask(verb, data, headers, options.timeoutMs)).data)
      saw(timestamp)
      return { count, timestamp }
    }

    const write = async (rows: ReadonlyArray<object> | Columns, options: RequestOptions = {}): Promise<Written> => {
      const mine = await spec(options)
      const batch = toBatch(mine, rows)
      const parts = split(batch, Math.min(payloadMax, limits.recordBytesMax) - limits.payloadMargin)
      let count = 0
      let timestamp: Timestamp = 0n
      let next = 0
      const worker = async () => {
        while (next < parts.length) {
          const part = parts[next++]!
          const written = await writeOne(subjects.insert, binary.write.encode(part), options)
          count += written.count
          timestamp = later(timestamp, written.timestamp)
        }
      }
      const workers = Array.from({ length: Math.min(INSERTS_AT_ONCE, parts.length) }, worker)
      await Promise.all(workers).catch(forget)
      return { count, timestamp }
    }

    const search = async (
      given: Float32Array | ReadonlyArray<number> | ReadonlyArray<Float32Array | ReadonlyArray<number>>,
      options: SearchOptions = {}
    ) => {
      const { dimension, queries, single } = toQueries(given)
      const { ef = 0, limit = 10, offset = 0, outputFields = [] } = options
      const request = { dimension, queries, limit, offset, ef, outputFields, level: level(options) }
      mustBeU32("limit", limit)
      mustBeU32("offset", offset)
      mustBeU32("ef", ef)
      const asked = ask(subjects.search, binary.search.encode(request), asBinary, options.timeoutMs)
      const reply = asked instanceof Promise ? await asked : asked
      const found = binary.hits.decode(reply.data)
      saw(found.timestamp)
      const lists: Array<Array<Hit>> = []
      let at = 0
      for (const count of found.counts) {
        const list: Array<Hit> = new Array(count)
        for (let i = 0; i < count; i++, at++) {
          const { fields, id, vector } = rowAt(found, at, dimension, outputFields)
          const distance = found.distances[at]!
          list[i] = vector === undefined ? { id, fields, distance } : { id, fields, vector, distance }
        }
        lists.push(list)
      }
      return single ? lists[0]! : lists
    }

    return {
      name,
      describe: (options) => askAbout(subject("describe"), {}, options) as Promise<Record<string, unknown>>,
      stats: (options) => askRows(subject("stats"), {}, options) as Promise<CollectionStats>,
      drop: async (options) => {
        known = undefined
        await askAbout(subject("drop"), {}, options)
      },
      flush: async (options) => {
        await askAbout(subject("flush"), {}, options)
      },
      insert: write,
      upsert: write,
      delete: async (ids, options = {}) => {
        const mine = await spec(options)
        return writeOne(subject("delete"), binary.keys.encode(toKeys(mine, ids)), options).catch(forget)
      },
      get: async (ids, options = {}) => {
        const mine = await spec(options)
        const { outputFields = ["*"] } = options
        const request = { keys: toKeys(mine, ids), outputFields, level: level(options) }
        const data = binary.get.encode(request)
        const reply = await Promise.resolve(ask(subjects.get, data, asBinary, options.timeoutMs)).catch(forget)
        const found = binary.found.decode(reply.data)
        saw(found.timestamp)
        return Array.from({ length: found.keys.count }, (_, i) => rowAt(found, i, mine.dimension, outputFields))
      },
      count: async (options = {}) => {
        const { at, consistency = "Session" } = options
        const body = {
          outputFields: ["count(*)"],
          consistencyLevel: consistency,
          ...(token > 0n ? { guaranteeTimestamp: String(token) } : {}),
          ...(at === undefined ? {} : { travelTimestamp: String(at) })
        }
        const rows = (await askRows(subject("query"), body, options)) as ReadonlyArray<{ readonly "count(*)": number }>
        return rows[0]!["count(*)"]
      },
      search: search as Collection["search"]
    }
  }

  return {
    createCollection: async (name, options) => {
      const { description, dimension, idField, idType, index, metric, shards, timeoutMs, vectorField } = options
      const wrong = nameProblem(name)
      if (wrong !== undefined) throw failure("bad-name", wrong)
      const body = {
        dimension,
        metricType: metric,
        idType,
        primaryFieldName: idField,
        vectorFieldName: vectorField,
        description,
        params: { shardsNum: shards, M: index?.m, efConstruction: index?.efConstruction }
      }
      await askAbout(collectionSubject(database, name, "create"), body, timeoutMs === undefined ? {} : { timeoutMs })
      return collection(name)
    },
    collection,
    listCollections: (options) => askAbout(databaseSubject(database, "list"), {}, options) as Promise<Array<string>>,
    status: (options) => askAbout(databaseSubject(database, "status"), {}, options) as Promise<ClusterStatus>,
    timestamp: () => token,
    request: async (name, verb, body, options) => {
      const wrong = nameProblem(name)
      if (wrong !== undefined) throw failure("bad-name", wrong)
      return askRows(collectionSubject(database, name, verb), body, options)
    },
    close: dispose
  }
}

/** The error that a reply carries, if it is one. */
const errorOf = ({ data, headers }: Reply): ElanusError | undefined => {
  if (headers === undefined || headers[headerNames.errorCode] === undefined) return undefined
  try {
    const { error } = JSON.parse(utf8.decode(data)) as {
      readonly error: { readonly code: string; readonly reason: string }
    }
    if (error.code in errorKinds) return failure(error.code as ErrorCode, error.reason)
  } catch {
    // Not ours: what the header says has to do.
  }
  return failure("internal", headers[headerNames.error] ?? "an error without a reason")
}

const mustBeU32 = (what: string, value: number): void => {
  if (Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff) return
  throw failure("bad-request", `${what} must be an integer, not ${value}`)
}

// ---- rows, keys and vectors

const toBatch = (spec: Spec, rows: ReadonlyArray<object> | Columns): RowBatch => {
  if (!("ids" in rows)) return readRowObjects(spec as CollectionSpec, rows)
  const { fields, ids, vectors } = rows
  const keys: KeyColumn =
    ids instanceof BigInt64Array
      ? { type: "Int64", count: ids.length, values: ids }
      : keyColumn(
          spec.keyType,
          ids.map((id, i) => readKey(id, spec.keyType, `row ${i}`))
        )
  if (keys.count === 0) throw failure("bad-request", "there is nothing to insert")
  const dimension = vectors.length / keys.count
  if (!Number.isInteger(dimension)) {
    throw failure("wrong-dimension", `${vectors.length} numbers for ${keys.count} vectors`)
  }
  if (fields !== undefined && fields.length !== keys.count) {
    throw failure("bad-request", `${fields.length} rows of fields for ${keys.count} ids`)
  }
  fields?.forEach((each, i) => checkFields(each, `row ${i}`))
  return { keys, dimension, vectors, fields: fields === undefined ? undefined : fieldColumn(fields) }
}

/** Parts that fit into a message each. A key that comes twice stays in its last place only: parts travel side by side. */
const split = (batch: RowBatch, bytesMax: number): ReadonlyArray<RowBatch> => {
  const bytes = rowBatchBytes(batch)
  if (bytes <= bytesMax) return [batch]
  const whole = lastOfEachKey(batch)
  const { count } = whole.keys
  const parts: Array<RowBatch> = []
  for (let from = 0; from < count;) {
    let size = 0
    let to = from
    while (to < count) {
      const row =
        whole.dimension * 4 +
        16 +
        (whole.keys.type === "VarChar" ? whole.keys.offsets[to + 1]! - whole.keys.offsets[to]! : 0) +
        (whole.fields === undefined ? 0 : whole.fields.offsets[to + 1]! - whole.fields.offsets[to]! + 4)
      if (to > from && size + row > bytesMax - 256) break
      size += row
      to++
    }
    parts.push(slice(whole, from, to))
    from = to
  }
  return parts
}

const lastOfEachKey = (batch: RowBatch): RowBatch => {
  const last = new Map<Key, number>()
  for (let i = 0; i < batch.keys.count; i++) last.set(keyAt(batch.keys, i), i)
  if (last.size === batch.keys.count) return batch
  return pickRows(
    batch,
    [...last.values()].toSorted((a, b) => a - b)
  )
}

const slice = (batch: RowBatch, from: number, to: number): RowBatch => {
  const { dimension, fields, keys, vectors } = batch
  if (keys.type === "Int64" && fields === undefined) {
    return {
      keys: { type: "Int64", count: to - from, values: keys.values.subarray(from, to) },
      dimension,
      vectors: vectors.subarray(from * dimension, to * dimension),
      fields
    }
  }
  return pickRows(
    batch,
    Array.from({ length: to - from }, (_, i) => from + i)
  )
}

const toKeys = (spec: Spec, ids: Key | ReadonlyArray<Key>): KeyColumn => {
  const all = Array.isArray(ids) ? (ids as ReadonlyArray<Key>) : [ids as Key]
  if (all.length > limits.keysPerRequestMax) {
    throw failure("too-large", `${all.length} ids; ${limits.keysPerRequestMax} are the most`)
  }
  return keyColumn(
    spec.keyType,
    all.map((id, i) => readKey(id, spec.keyType, `id ${i}`))
  )
}

const toQueries = (
  given: Float32Array | ReadonlyArray<number> | ReadonlyArray<Float32Array | ReadonlyArray<number>>
): { readonly dimension: number; readonly queries: Float32Array; readonly single: boolean } => {
  if (given instanceof Float32Array) return { dimension: given.length, queries: given, single: true }
  if (given.length === 0) throw failure("bad-request", "there is no vector to search for")
  const single = typeof given[0] === "number"
  const vectors = (single ? [given] : given) as ReadonlyArray<Float32Array | ReadonlyArray<number>>
  const dimension = vectors[0]!.length
  const queries = new Float32Array(vectors.length * dimension)
  vectors.forEach((vector, i) => {
    if (vector.length !== dimension) throw failure("wrong-dimension", "vectors of different dimensions")
    for (let d = 0; d < dimension; d++) {
      const number: unknown = vector[d]
      if (typeof number !== "number") throw failure("bad-vector", `${String(number)} is not a number`)
      queries[i * dimension + d] = number
    }
  })
  return { dimension, queries, single }
}

const rowAt = (
  found: { readonly keys: KeyColumn; readonly fields: RowBatch["fields"]; readonly vectors: Float32Array },
  row: number,
  dimension: number,
  outputFields: ReadonlyArray<string>
): Row => {
  const id = keyAt(found.keys, row)
  if (found.fields === undefined && found.vectors.length === 0) return { id, fields: NO_FIELDS }
  const fields =
    found.fields === undefined ? NO_FIELDS : pick(parseFields(fieldBytesAt(found.fields, row)), outputFields)
  return found.vectors.length === 0
    ? { id, fields }
    : { id, fields, vector: found.vectors.slice(row * dimension, (row + 1) * dimension) }
}

const NO_FIELDS: Fields = Object.freeze({})

const pick = (fields: Fields, names: ReadonlyArray<string>): Fields =>
  names.includes("*") ? fields : Object.fromEntries(Object.entries(fields).filter(([name]) => names.includes(name)))

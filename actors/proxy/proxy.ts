/**
 * The proxy: the door for clients. It reads a request from its subject, headers and body, has requests.ts carry it
 * out, and writes the answer in the form in which it was asked. It keeps nothing, so there may be any number of them.
 */
import { Effect } from "effect"
import { BINARY, binary, formatRequestId, headers, parseRequestId } from "../../protocols/client.ts"
import { afterTries, ElanusError, failure } from "../../protocols/errors.ts"
import { keysOf } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import type { Collection } from "../../protocols/metadata.ts"
import type { RequestId } from "../../protocols/record.ts"
import { CLIENT_SUBJECTS, type CollectionVerb, isWriting, parseSubject, type Target } from "../../protocols/subjects.ts"
import { TIMESTAMP_ZERO } from "../../protocols/timestamp.ts"
import { Bus, errorReply, type Message, type Reply } from "../../runtime/bus.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { nonce } from "../nonce.ts"
import {
  describe,
  keyText,
  parseBody,
  readCount,
  readCreate,
  readDelete,
  readGet,
  readInsert,
  readSearch,
  writeAnswer,
  writeGet,
  writeSearch
} from "./json.ts"
import { longKey, makeRequests } from "./requests.ts"

const QUEUE = "elanus-proxy"
const BINARY_HEADERS = { [headers.format]: BINARY }

/** One request, as its headers have it. */
interface Asked {
  readonly data: Uint8Array
  readonly binary: boolean
  readonly timeoutMs: number
  readonly request: RequestId | undefined
}

export interface ProxyCounts {
  requests: number
  errors: number
  lastError: string
}

export const proxy = Effect.gen(function* () {
  const bus = yield* Bus
  const catalog = yield* Catalog
  const requests = yield* makeRequests
  const { coordinator } = requests
  const counts: ProxyCounts = { requests: 0, errors: 0, lastError: "" }

  /** A collection by name, as the coordinator knows it now. */
  const collectionNow = Effect.fnUntraced(function* (
    database: string,
    name: string,
    timeoutMs: number
  ): Effect.fn.Return<Collection, ElanusError> {
    const { collections } = yield* coordinator.call("ListCollections", { database }, timeoutMs)
    const found = collections.find(({ spec }) => spec.name === name)
    if (found !== undefined) return found
    return yield* failure("collection-not-found", `there is no collection ${name} in database ${database}`)
  })

  /** As this proxy knows it, or else as the coordinator does. */
  const collectionNamed = Effect.fnUntraced(function* (
    database: string,
    name: string
  ): Effect.fn.Return<Collection, ElanusError> {
    const known = catalog.collectionNamed(database, name)
    if (known !== undefined) return known
    const found = yield* collectionNow(database, name, limits.requestTimeoutMs)
    yield* catalog.changed.within(limits.learnTimeoutMs, () => catalog.collection(found.id)?.state === "ready")
    return found
  })

  const create = Effect.fnUntraced(function* (database: string, name: string, { data, request: id, timeoutMs }: Asked) {
    const spec = yield* attempt(() => readCreate(database, name, parseBody(data)))
    const request = id === undefined ? String(yield* nonce) : formatRequestId(id)
    const made = yield* coordinator.call("CreateCollection", { spec, request }, timeoutMs)
    // So that the next request through this proxy finds it.
    yield* catalog.changed.within(limits.learnTimeoutMs, () => catalog.collection(made.id)?.state === "ready")
    return reply(writeAnswer(describe(made), made.created))
  })

  const drop = Effect.fnUntraced(function* (database: string, name: string, { timeoutMs }: Asked) {
    // What this proxy knows may be one that went before, and then the one of now would stay.
    const found = yield* Effect.mapError(collectionNow(database, name, timeoutMs), (error) =>
      afterTries(error, undefined, false)
    )
    yield* coordinator.call("DropCollection", { collection: found.id }, timeoutMs)
    yield* catalog.changed.within(limits.learnTimeoutMs, () => catalog.collection(found.id)?.state !== "ready")
    return reply(writeAnswer({}, requests.newest()))
  })

  const write = Effect.fnUntraced(function* (collection: Collection, verb: "insert" | "upsert", asked: Asked) {
    const { spec } = collection
    const rows = yield* attempt(() =>
      asked.binary ? binary.write.decode(asked.data) : readInsert(spec, parseBody(asked.data))
    )
    const answer = yield* requests.upsert(collection, rows, asked.request, asked.timeoutMs)
    if (asked.binary) return binaryReply(binary.written.encode(answer))
    const ids = keysOf(rows.keys).map(keyText)
    const data =
      verb === "insert" ? { insertCount: answer.count, insertIds: ids } : { upsertCount: answer.count, upsertIds: ids }
    return reply(writeAnswer(data, answer.timestamp))
  })

  const remove = Effect.fnUntraced(function* (collection: Collection, asked: Asked) {
    const { keyLengthMax } = collection.spec
    const keys = yield* attempt(() =>
      asked.binary ? binary.keys.decode(asked.data) : readDelete(collection.spec, parseBody(asked.data))
    )
    if (keys.type !== collection.spec.keyType) {
      return yield* failure("bad-key", `the primary key is ${collection.spec.keyType}, not ${keys.type}`)
    }
    if (keys.count === 0) return yield* failure("bad-request", "there are no ids")
    const long = longKey(keys, keyLengthMax)
    if (long !== undefined) return yield* long
    const answer = yield* requests.remove(collection, keys, asked.request, asked.timeoutMs)
    if (asked.binary) return binaryReply(binary.written.encode(answer))
    return reply(writeAnswer({ deleteCount: answer.count }, answer.timestamp))
  })

  // Not a generator, as the others: this one runs ten thousand times a second.
  const search = (collection: Collection, asked: Asked): Effect.Effect<Reply, ElanusError> => {
    const request = tryTo(() =>
      asked.binary ? binary.search.decode(asked.data) : readSearch(collection.spec, parseBody(asked.data))
    )
    if (request instanceof ElanusError) return Effect.fail(request)
    return Effect.map(requests.search(collection, request, asked.timeoutMs), (answer) =>
      asked.binary
        ? binaryReply(binary.hits.encode(answer))
        : reply(writeSearch(collection.spec, answer, request.outputFields))
    )
  }

  const get = Effect.fnUntraced(function* (collection: Collection, asked: Asked) {
    const request = yield* attempt(() =>
      asked.binary ? binary.get.decode(asked.data) : readGet(collection.spec, parseBody(asked.data))
    )
    if (request.keys.type !== collection.spec.keyType) {
      return yield* failure("bad-key", `the primary key is ${collection.spec.keyType}, not ${request.keys.type}`)
    }
    const answer = yield* requests.get(collection, request, asked.timeoutMs)
    if (asked.binary) return binaryReply(binary.found.encode(answer))
    return reply(writeGet(collection.spec, answer, request.outputFields))
  })

  const query = Effect.fnUntraced(function* (collection: Collection, { data, timeoutMs }: Asked) {
    const level = yield* attempt(() => readCount(parseBody(data)))
    const { rows, timestamp } = yield* requests.count(collection, level, timeoutMs)
    return reply(writeAnswer([{ "count(*)": rows }], timestamp))
  })

  const flush = Effect.fnUntraced(function* (collection: Collection, { timeoutMs }: Asked) {
    yield* requests.flush(collection, timeoutMs)
    return reply(writeAnswer({}, requests.newest()))
  })

  const stats = Effect.fnUntraced(function* (collection: Collection, { timeoutMs }: Asked) {
    const shards = yield* requests.stats(collection, timeoutMs)
    const { rows, timestamp } = yield* requests.count(
      collection,
      { consistency: "Session", token: 0n, at: undefined },
      timeoutMs
    )
    const segments = shards.flatMap((shard) => shard.segments)
    return reply(
      writeAnswer(
        {
          rowCount: rows,
          growingRows: shards.reduce((total, shard) => total + shard.growingRows, 0),
          growingBytes: shards.reduce((total, shard) => total + shard.growingBytes, 0),
          segments: segments.length,
          indexedSegments: segments.filter(({ indexed }) => indexed).length,
          sealedBytes: segments.reduce((total, { bytes }) => total + bytes, 0),
          shards: shards.map((shard, i) => ({ shard: i, ...shard, epoch: String(shard.epoch) }))
        },
        timestamp
      )
    )
  })

  const onKnown = (
    collection: Collection,
    verb: Exclude<CollectionVerb, "create" | "drop">,
    asked: Asked
  ): Effect.Effect<Reply, ElanusError> => {
    switch (verb) {
      case "describe":
        // Its timestamp dates a client's first write; without a coordinator there is none, and it is told nevertheless.
        return Effect.map(
          Effect.catch(requests.fresh(limits.dateTimeoutMs), () => Effect.succeed(TIMESTAMP_ZERO)),
          (timestamp) => reply(writeAnswer(describe(collection), timestamp))
        )
      case "insert":
      case "upsert":
        return write(collection, verb, asked)
      case "delete":
        return remove(collection, asked)
      case "search":
        return search(collection, asked)
      case "get":
        return get(collection, asked)
      case "query":
        return query(collection, asked)
      case "flush":
        return flush(collection, asked)
      case "stats":
        return stats(collection, asked)
    }
  }

  const onCollection = (
    database: string,
    name: string,
    verb: CollectionVerb,
    asked: Asked
  ): Effect.Effect<Reply, ElanusError> => {
    if (verb === "create") return create(database, name, asked)
    if (verb === "drop") return drop(database, name, asked)
    const known = catalog.collectionNamed(database, name)
    return known === undefined
      ? Effect.flatMap(collectionNamed(database, name), (collection) => onKnown(collection, verb, asked))
      : onKnown(known, verb, asked)
  }

  const onDatabase = Effect.fnUntraced(function* (
    database: string,
    verb: "list" | "status",
    { timeoutMs }: Asked
  ): Effect.fn.Return<Reply, ElanusError> {
    if (verb === "status") {
      const status = yield* coordinator.call("Status", {}, timeoutMs)
      return reply(writeAnswer(status, requests.newest()))
    }
    const { collections } = yield* coordinator.call("ListCollections", { database }, timeoutMs)
    return reply(writeAnswer(collections.map(({ spec }) => spec.name).toSorted(), requests.newest()))
  })

  /** What subjects say, remembered: clients ask the same few again and again. */
  const targets = new Map<string, Target>()
  const targetOf = (subject: string): Target | ElanusError => {
    const known = targets.get(subject)
    if (known !== undefined) return known
    const target = parseSubject(subject)
    if (target instanceof ElanusError) return target
    if (targets.size >= limits.targetsMax) targets.clear()
    targets.set(subject, target)
    return target
  }

  const handle = (message: Message): Effect.Effect<Reply, ElanusError> => {
    const target = targetOf(message.subject)
    if (target instanceof ElanusError) return Effect.fail(target)
    const asked = readHeaders(message)
    if (asked instanceof ElanusError) return Effect.fail(asked)
    return target._tag === "Collection"
      ? onCollection(target.database, target.collection, target.verb, asked)
      : onDatabase(target.database, target.verb, asked)
  }

  yield* bus.serve(CLIENT_SUBJECTS, { queue: QUEUE }, (message) => {
    counts.requests++
    return Effect.catch(handle(message), (given) =>
      Effect.sync(() => {
        const error = afterTries(given, undefined, isWriting(message.subject))
        counts.errors++
        counts.lastError = error.reason
        return errorReply(error)
      })
    )
  })
  return { counts, queue: QUEUE }
})

const reply = (data: Uint8Array): Reply => ({ data })
const binaryReply = (data: Uint8Array): Reply => ({ data, headers: BINARY_HEADERS })

/** Runs what throws an ElanusError for a caller's mistake, and anything else for bytes that are no request. */
const tryTo = <A>(read: () => A): A | ElanusError => {
  try {
    return read()
  } catch (cause) {
    return cause instanceof ElanusError ? cause : failure("bad-request", String(cause))
  }
}
const attempt = <A>(read: () => A): Effect.Effect<A, ElanusError> =>
  Effect.suspend(() => {
    const found = tryTo(read)
    return found instanceof ElanusError ? Effect.fail(found) : Effect.succeed(found)
  })

const readHeaders = ({ data, headers: given }: Message): Asked | ElanusError => {
  if (given === undefined) return { data, binary: false, timeoutMs: limits.requestTimeoutMs, request: undefined }
  const format = given[headers.format]
  if (format !== undefined && format !== BINARY && format !== "json") {
    return failure("bad-request", `${headers.format} is json or ${BINARY}`)
  }
  const timeout = given[headers.timeout]
  const timeoutMs = timeout === undefined ? limits.requestTimeoutMs : Number(timeout)
  if (!Number.isInteger(timeoutMs) || timeoutMs < 1 || timeoutMs > limits.requestTimeoutMaxMs) {
    return failure("bad-request", `${headers.timeout} is milliseconds from 1 to ${limits.requestTimeoutMaxMs}`)
  }
  const id = given[headers.request]
  const request = id === undefined ? undefined : parseRequestId(id)
  if (id !== undefined && request === undefined) {
    return failure("bad-request", `${headers.request} is a timestamp of the cluster, "-" and 16 hex digits`)
  }
  return { data, binary: format === BINARY, timeoutMs, request }
}

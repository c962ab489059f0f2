/**
 * The proxy: the door for clients. It reads a request from its subject, headers and body, has requests.ts carry it
 * out, and writes the answer in the form in which it was asked. It keeps nothing that another could not find out, so
 * there may be any number of them.
 */
import { Clock, Effect } from "effect"
import { BINARY, binary, formatRequestId, headers, parseRequestId } from "../../protocols/client.ts"
import { afterTries, ElanusError, type ErrorCode, failure } from "../../protocols/errors.ts"
import { keysOf } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import type { Collection } from "../../protocols/metadata.ts"
import type { RequestId } from "../../protocols/record.ts"
import { CLIENT_SUBJECTS, type CollectionVerb, isWriting, parseSubject, type Target } from "../../protocols/subjects.ts"
import { later, TIMESTAMP_ZERO } from "../../protocols/timestamp.ts"
import { Bus, errorReply, type Message, type Reply } from "../../runtime/bus.ts"
import { late } from "../../runtime/buggify.ts"
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
import { atMost, type Deadline, deadlineIn, halfOf } from "./deadline.ts"
import { longKey, makeRequests } from "./requests.ts"

const QUEUE = "elanus-proxy"
/** Mistakes that are one for the collection as this proxy knows it. */
const byCollection: ReadonlySet<ErrorCode> = new Set([
  "collection-not-found",
  "field-not-found",
  "wrong-dimension",
  "bad-key"
])
const BINARY_HEADERS = { [headers.format]: BINARY }

/** One request, as its headers have it. */
interface Asked {
  readonly data: Uint8Array
  readonly binary: boolean
  readonly deadline: Deadline
  readonly request: RequestId | undefined
}

export interface ProxyCounts {
  requests: number
  errors: number
  lastError: string
}

export const proxy = Effect.gen(function* () {
  const bus = yield* Bus
  const clock = yield* Clock.Clock
  const catalog = yield* Catalog
  const requests = yield* makeRequests
  const { coordinator } = requests
  const counts: ProxyCounts = { requests: 0, errors: 0, lastError: "" }

  /** A collection by name, as the coordinator knows it now. */
  const collectionNow = Effect.fnUntraced(function* (
    database: string,
    name: string,
    deadline: Deadline,
    states: ReadonlyArray<Collection["state"]> = ["ready"]
  ): Effect.fn.Return<Collection, ElanusError> {
    const { collections } = yield* coordinator.call("ListCollections", { database }, deadline.leftMs())
    const found = collections.find(({ spec, state }) => spec.name === name && states.includes(state))
    if (found !== undefined) return found
    return yield* failure("collection-not-found", `there is no collection ${name} in database ${database}`)
  })

  /** Collections that were dropped through this proxy, of which its watch may not have heard yet. */
  const dropped = new Set<string>()
  const collectionKnown = (database: string, name: string): Collection | undefined => {
    const known = catalog.collectionNamed(database, name)
    return known === undefined || dropped.has(known.id) ? undefined : known
  }

  /** One that this proxy does not know. */
  const collectionLearned = Effect.fnUntraced(function* (
    database: string,
    name: string,
    deadline: Deadline
  ): Effect.fn.Return<Collection, ElanusError> {
    const found = yield* collectionNow(database, name, deadline)
    yield* catalog.changed.within(limits.learnTimeoutMs, () => catalog.collection(found.id)?.state === "ready")
    return found
  })

  /**
   * As the coordinator knows it, for a client lays its rows out by it. Its timestamp dates a client's first write. If no
   * coordinator comes in half of the time there is none, and what is known is told nevertheless.
   */
  const describeNow = Effect.fnUntraced(function* (database: string, name: string, { deadline }: Asked) {
    const known = collectionKnown(database, name)
    const patience = known === undefined ? deadline : halfOf(clock, deadline)
    const looked = yield* Effect.result(collectionNow(database, name, patience))
    if (looked._tag === "Failure") {
      if (known === undefined || looked.failure.code === "collection-not-found") return yield* looked.failure
      return reply(writeAnswer(describe(known), TIMESTAMP_ZERO))
    }
    const found = looked.success
    const date = yield* Effect.result(requests.fresh(atMost(clock, limits.dateTimeoutMs, deadline)))
    // An oracle that is deposed may not have come to the time at which the collection was made.
    const timestamp = date._tag === "Success" ? later(date.success, found.created) : TIMESTAMP_ZERO
    return reply(writeAnswer(describe(found), timestamp))
  })

  const create = Effect.fnUntraced(function* (database: string, name: string, { data, request: id, deadline }: Asked) {
    const spec = yield* attempt(() => readCreate(database, name, parseBody(data)))
    const request = id === undefined ? String(yield* nonce) : formatRequestId(id)
    const made = yield* coordinator.call("CreateCollection", { spec, request }, deadline.leftMs())
    // So that the next request through this proxy finds it.
    yield* catalog.changed.within(limits.learnTimeoutMs, () => catalog.collection(made.id)?.state === "ready")
    return reply(writeAnswer(describe(made), made.created))
  })

  const drop = Effect.fnUntraced(function* (database: string, name: string, { deadline, request }: Asked) {
    // What this proxy knows may be one that went before, and then the one of now would stay. And who asks again for a drop
    // that is on its way waits for it.
    const found = yield* Effect.mapError(collectionNow(database, name, deadline, ["ready", "closing"]), (error) =>
      afterTries(error, undefined, false)
    )
    if (found.state === "ready") yield* meant(found, request)
    yield* coordinator.call("DropCollection", { collection: found.id }, deadline.leftMs())
    // The watch may be far behind, and it would send what is asked to the old collection, where no owner takes it.
    for (const id of dropped) if (catalog.collection(id) === undefined) dropped.delete(id)
    dropped.add(found.id)
    yield* catalog.changed.within(limits.learnTimeoutMs, () => catalog.collection(found.id)?.state !== "ready")
    return reply(writeAnswer({}, requests.newest()))
  })

  const write = Effect.fnUntraced(function* (collection: Collection, verb: "insert" | "upsert", asked: Asked) {
    const { spec } = collection
    yield* meant(collection, asked.request)
    const rows = yield* attempt(() =>
      asked.binary ? binary.write.decode(asked.data) : readInsert(spec, parseBody(asked.data))
    )
    const answer = yield* requests.upsert(collection, rows, asked.request, asked.deadline)
    if (asked.binary) return binaryReply(binary.written.encode(answer))
    const ids = keysOf(rows.keys).map(keyText)
    const data =
      verb === "insert" ? { insertCount: answer.count, insertIds: ids } : { upsertCount: answer.count, upsertIds: ids }
    return reply(writeAnswer(data, answer.timestamp))
  })

  const remove = Effect.fnUntraced(function* (collection: Collection, asked: Asked) {
    const { keyLengthMax } = collection.spec
    yield* meant(collection, asked.request)
    const keys = yield* attempt(() =>
      asked.binary ? binary.keys.decode(asked.data) : readDelete(collection.spec, parseBody(asked.data))
    )
    if (keys.type !== collection.spec.keyType) {
      return yield* failure("bad-key", `the primary key is ${collection.spec.keyType}, not ${keys.type}`)
    }
    if (keys.count === 0) return yield* failure("bad-request", "there are no ids")
    const long = longKey(keys, keyLengthMax)
    if (long !== undefined) return yield* long
    const answer = yield* requests.remove(collection, keys, asked.request, asked.deadline)
    if (asked.binary) return binaryReply(binary.written.encode(answer))
    return reply(writeAnswer({ deleteCount: answer.count }, answer.timestamp))
  })

  // Not a generator, as the others: this one runs ten thousand times a second.
  const search = (collection: Collection, asked: Asked): Effect.Effect<Reply, ElanusError> => {
    const request = tryTo(() =>
      asked.binary ? binary.search.decode(asked.data) : readSearch(collection.spec, parseBody(asked.data))
    )
    if (request instanceof ElanusError) return Effect.fail(request)
    const found = requests.search(collection, request, asked.deadline)
    return asked.binary
      ? Effect.map(found, (answer) => binaryReply(binary.hits.encode(answer)))
      : Effect.flatMap(found, (answer) => jsonReply(() => writeSearch(collection.spec, answer, request.outputFields)))
  }

  const get = Effect.fnUntraced(function* (collection: Collection, asked: Asked) {
    const request = yield* attempt(() =>
      asked.binary ? binary.get.decode(asked.data) : readGet(collection.spec, parseBody(asked.data))
    )
    if (request.keys.type !== collection.spec.keyType) {
      return yield* failure("bad-key", `the primary key is ${collection.spec.keyType}, not ${request.keys.type}`)
    }
    const answer = yield* requests.get(collection, request, asked.deadline)
    if (asked.binary) return binaryReply(binary.found.encode(answer))
    return yield* jsonReply(() => writeGet(collection.spec, answer, request.outputFields))
  })

  const query = Effect.fnUntraced(function* (collection: Collection, { data, deadline }: Asked) {
    const level = yield* attempt(() => readCount(parseBody(data)))
    const { rows, timestamp } = yield* requests.count(collection, level, deadline)
    return reply(writeAnswer([{ "count(*)": rows }], timestamp))
  })

  const flush = Effect.fnUntraced(function* (collection: Collection, { deadline }: Asked) {
    yield* requests.flush(collection, deadline)
    return reply(writeAnswer({}, requests.newest()))
  })

  const stats = Effect.fnUntraced(function* (collection: Collection, { deadline }: Asked) {
    const shards = yield* requests.stats(collection, deadline)
    const { rows, timestamp } = yield* requests.count(
      collection,
      { consistency: "Session", token: 0n, at: undefined },
      deadline
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
    verb: Exclude<CollectionVerb, "create" | "drop" | "describe">,
    asked: Asked
  ): Effect.Effect<Reply, ElanusError> => {
    switch (verb) {
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
    if (verb === "describe") return describeNow(database, name, asked)
    const known = collectionKnown(database, name)
    if (known === undefined) {
      return Effect.flatMap(collectionLearned(database, name, asked.deadline), (found) => onKnown(found, verb, asked))
    }
    // The name may be another collection's by now, for which this is no mistake. Nothing was stored.
    return Effect.catch(onKnown(known, verb, asked), (error) => {
      if (!byCollection.has(error.code)) return Effect.fail(error)
      const deadline = halfOf(clock, asked.deadline)
      return Effect.matchEffect(collectionLearned(database, name, deadline), {
        onSuccess: (found) => (found.id === known.id ? Effect.fail(error) : onKnown(found, verb, asked)),
        onFailure: (now) => Effect.fail(now.code === "collection-not-found" ? now : error)
      })
    })
  }

  const onDatabase = Effect.fnUntraced(function* (
    database: string,
    verb: "list" | "status",
    { deadline }: Asked
  ): Effect.fn.Return<Reply, ElanusError> {
    if (verb === "status") {
      const status = yield* coordinator.call("Status", {}, deadline.leftMs())
      return reply(writeAnswer(status, requests.newest()))
    }
    const { collections } = yield* coordinator.call("ListCollections", { database }, deadline.leftMs())
    const ready = collections.filter(({ state }) => state === "ready")
    return reply(writeAnswer(ready.map(({ spec }) => spec.name).toSorted(), requests.newest()))
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
    const asked = readHeaders(message, clock)
    if (asked instanceof ElanusError) return Effect.fail(asked)
    return target._tag === "Collection"
      ? onCollection(target.database, target.collection, target.verb, asked)
      : onDatabase(target.database, target.verb, asked)
  }

  // Whoever asks may have asked another proxy by then, and much may have happened.
  const beLate = late("a proxy is late", limits.requestTimeoutMs)
  yield* bus.serve(CLIENT_SUBJECTS, { queue: QUEUE }, (message) => {
    counts.requests++
    const isWrite = isWriting(message.subject)
    const handled = isWrite ? Effect.andThen(beLate, () => handle(message)) : handle(message)
    return Effect.catch(handled, (given) =>
      Effect.sync(() => {
        const error = afterTries(given, undefined, isWrite)
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

/** Of rows, which hold what clients put there. Whoever asks is told what is wrong, instead of waiting in vain. */
const jsonReply = (write: () => Uint8Array): Effect.Effect<Reply, ElanusError> =>
  Effect.try({
    try: () => reply(write()),
    catch: (cause) => failure("internal", `the answer cannot be written as JSON: ${String(cause)}`)
  })

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

/**
 * What a client names is dated by an answer that it had before; so what is of the time before a collection meant another one
 * of that name, and was long on its way (protocols/README.md, section 5).
 */
const meant = ({ created, spec }: Collection, request: RequestId | undefined): Effect.Effect<void, ElanusError> =>
  request === undefined || request.issued >= created
    ? Effect.void
    : Effect.fail(failure("collection-not-found", `collection ${spec.name} was made after what dates this request`))

const readHeaders = ({ data, headers: given }: Message, clock: Clock.Clock): Asked | ElanusError => {
  if (given === undefined) {
    return { data, binary: false, deadline: deadlineIn(clock, limits.requestTimeoutMs), request: undefined }
  }
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
  return { data, binary: format === BINARY, deadline: deadlineIn(clock, timeoutMs), request }
}

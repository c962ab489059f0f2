/**
 * The simulated client is held against the library: the same operations, against a cluster that answers, refuses or says
 * nothing by the same script, must send the same messages and end the same way. So what is simulated is what is used.
 */
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { binary, headers as headerNames } from "../../protocols/client.ts"
import { type ElanusError, type ErrorCode, errorBody, failure } from "../../protocols/errors.ts"
import { keyColumn } from "../../protocols/keys.ts"
import { isWriting } from "../../protocols/subjects.ts"
import { utf8 } from "../../protocols/wire.ts"
import type { Patience } from "../../runtime/client/ask.ts"
import { Bus, BusError, type Headers, type Reply } from "../../runtime/bus.ts"
import { makeClient as makeLibrary } from "../../runtime/client/client.ts"
import { ofBus } from "../../runtime/remote.ts"
import { makeClient } from "../../sim/client.ts"
import type { Asked, Shape } from "../../sim/history.ts"
import { type RandomSource, randomFrom } from "../support/random.ts"

type Answer = "ok" | ErrorCode | BusError["reason"]

interface Sent {
  readonly verb: string
  readonly body: unknown
  readonly format: string | undefined
  /** Whether the message says how long it may take. */
  readonly timed: boolean
  /** Which of the ids that were sent so far; -1 for none. */
  readonly id: number
  readonly issued: string | undefined
}

const shape: Shape = { dimension: 2, metric: "L2", keyType: "Int64", shards: 2 }
const NONE = new Float32Array(0)

/** The time of the first answer is one later. */
const BEGINNING = 1_000n

/** A cluster that says what its script says, and writes down what it was asked; `created` is when its collection was made. */
const scripted = (script: ReadonlyArray<Answer>, created = BEGINNING) => {
  const sent: Array<Sent> = []
  const ids: Array<string> = []
  let clock = BEGINNING
  const right = (verb: string): Uint8Array => {
    const timestamp = ++clock
    const keys = keyColumn("Int64", [1])
    switch (verb) {
      case "insert":
      case "delete":
        return binary.written.encode({ timestamp, count: 1 })
      case "get":
        return binary.found.encode({ timestamp, keys, fields: undefined, vectors: Float32Array.of(1, 2) })
      case "search":
        return binary.hits.encode({
          timestamp,
          counts: Uint32Array.of(1),
          keys,
          distances: Float64Array.of(0.5),
          fields: undefined,
          vectors: NONE
        })
    }
    const data =
      verb === "describe" || verb === "create"
        ? {
            collectionID: "c",
            fields: [
              { name: "id", type: "Int64", primaryKey: true },
              { name: "vector", type: "FloatVector", params: { dim: 2 } }
            ],
            indexes: [{ metricType: "L2" }],
            shardsNum: 2,
            createdTimestamp: String(created)
          }
        : verb === "query"
          ? [{ "count(*)": 7 }]
          : verb === "list"
            ? ["books"]
            : { rowCount: 7 }
    return utf8.encode(JSON.stringify({ data, timestamp: String(timestamp) }))
  }

  const ask = (subject: string, data: Uint8Array, headers: Headers): Reply | BusError => {
    const verb = subject.slice(subject.lastIndexOf(".") + 1)
    const request = headers[headerNames.request]
    const format = headers[headerNames.format]
    if (request !== undefined && !ids.includes(request)) ids.push(request)
    sent.push({
      verb,
      body: format === undefined ? JSON.parse(utf8.decode(data)) : Array.from(data),
      format,
      timed: headers[headerNames.timeout] !== undefined,
      id: request === undefined ? -1 : ids.indexOf(request),
      issued: request?.split("-")[0]
    })
    const answer = script[sent.length - 1] ?? "ok"
    if (answer === "ok") return { data: right(verb) }
    if (answer === "nobody" || answer === "disconnected" || answer === "denied") {
      return new BusError({ reason: answer, detail: "by the script" })
    }
    // As the bus says a timeout; the library may take the same word from a proxy.
    if (answer === "timeout" && !isWriting(subject)) return new BusError({ reason: "timeout", detail: "by the script" })
    const error = failure(answer === "timeout" ? "ambiguous" : answer, "by the script")
    return {
      data: utf8.encode(JSON.stringify(errorBody(error))),
      headers: { [headerNames.error]: error.reason, [headerNames.errorCode]: String(error.status) }
    }
  }
  return { ask, sent }
}

type Step = "create" | "insert" | "delete" | "get" | "search" | "count" | "flush" | "list" | "stats" | "drop"
const steps: ReadonlyArray<Step> = [
  "create",
  "insert",
  "delete",
  "get",
  "search",
  "count",
  "flush",
  "list",
  "stats",
  "drop"
]

const byLibrary = async (script: ReadonlyArray<Answer>, todo: ReadonlyArray<Step>, created?: bigint) => {
  const { ask, sent } = scripted(script, created)
  const library = makeLibrary({
    database: "default",
    payloadMax: 1_000_000,
    close: () => Promise.resolve(),
    send: async (subject, data, headers) => {
      const said = ask(subject, data, headers)
      if (said instanceof BusError) throw ofBus(said, subject)
      return said
    }
  })
  const books = library.collection("books")
  const options = { consistency: "Session" } as const
  const does: { readonly [S in Step]: () => Promise<unknown> } = {
    create: () => library.createCollection("books", { dimension: 2, metric: "L2", idType: "Int64", shards: 2 }),
    insert: () => books.insert([{ id: 1, vector: [1, 2], op: 1, row: 0 }]),
    delete: () => books.delete([1]),
    get: () => books.get([1], { ...options, outputFields: ["*"] }),
    search: () => books.search([[1, 2]], { ...options, limit: 3 }),
    count: () => books.count(options),
    flush: () => books.flush(),
    list: () => library.listCollections(),
    stats: () => books.stats(),
    drop: () => books.drop()
  }
  const ended: Array<string> = []
  for (const step of todo) {
    ended.push(
      await does[step]().then(
        () => "ok",
        (cause: ElanusError) => cause.code
      )
    )
  }
  return { sent, ended, token: library.timestamp() }
}

const bySimulated = (script: ReadonlyArray<Answer>, todo: ReadonlyArray<Step>, created?: bigint) => {
  const { ask, sent } = scripted(script, created)
  const bus = Bus.of({
    payloadMax: 1_000_000,
    request: (subject, data, { headers }) =>
      Effect.suspend(() => {
        const said = ask(subject, data, headers ?? {})
        return said instanceof BusError ? Effect.fail(said) : Effect.succeed(said)
      }),
    publish: () => Effect.void,
    serve: () => Effect.void
  })
  return Effect.runPromise(
    Effect.gen(function* () {
      const client = yield* makeClient(bus, { manner: "library", form: "binary", timeoutMs: 10_000 })
      const level = () => ({ consistency: "Session" as const, token: client.token(), at: undefined })
      const wanted = { fields: false, vector: false }
      const asked = Effect.fnUntraced(function* (
        step: Step,
        leftMs: Patience
      ): Effect.fn.Return<readonly [Asked, Shape?], ElanusError> {
        switch (step) {
          case "create":
            return [{ _tag: "Create", request: yield* client.makingId, shape }]
          case "insert": {
            const known = yield* client.shape("books", leftMs)
            const request = yield* client.requestId("books", leftMs)
            const rows = [{ key: 1, vector: Float32Array.of(1, 2), fields: { op: 1, row: 0 } }]
            return [{ _tag: "Upsert", verb: "insert", request, rows }, known]
          }
          case "delete": {
            const known = yield* client.shape("books", leftMs)
            return [{ _tag: "Delete", request: yield* client.requestId("books", leftMs), keys: [1] }, known]
          }
          case "get": {
            const known = yield* client.shape("books", leftMs)
            return [{ _tag: "Get", level: level(), keys: [1], wanted: { fields: true, vector: true } }, known]
          }
          case "search":
            return [
              { _tag: "Search", level: level(), queries: [Float32Array.of(1, 2)], limit: 3, offset: 0, wanted },
              shape
            ]
          case "count":
            return [{ _tag: "Count", level: level() }]
          case "flush":
            return [{ _tag: "Flush" }]
          case "list":
            return [{ _tag: "List" }]
          case "stats":
            return [{ _tag: "Stats" }]
          case "drop":
            return [{ _tag: "Drop" }]
        }
      })
      const ended: Array<string> = []
      for (const step of todo) {
        const leftMs = client.patience()
        const told = yield* Effect.result(
          Effect.flatMap(asked(step, leftMs), ([what, known]) => client.ask("books", what, known, leftMs))
        )
        ended.push(told._tag === "Success" ? "ok" : told.failure.code)
      }
      return { sent, ended, token: client.token() }
    })
  )
}

const answers: ReadonlyArray<Answer> = [
  "unavailable",
  "overloaded",
  "ambiguous",
  "collection-not-found",
  "outcome-unknown",
  "too-large",
  "nobody",
  "disconnected",
  "timeout"
]

const drawn = (random: RandomSource): ReadonlyArray<Answer> =>
  Array.from({ length: 40 }, () => (random.chance(0.25) ? random.pick(answers) : "ok"))

describe("the simulated client", () => {
  it("sends what the library sends, and ends as it does", async () => {
    const runs = Array.from({ length: 200 }, async (_, seed) => {
      const random = randomFrom(seed + 1)
      const script = seed === 0 ? [] : drawn(random)
      const todo: ReadonlyArray<Step> = ["insert", ...Array.from({ length: 8 }, () => random.pick(steps))]
      // What answers may be of a time before the collection that it describes: of an oracle that is deposed, say.
      const created = BEGINNING + random.pick([0n, 0n, 3n, 12n])
      const [one, other] = await Promise.all([byLibrary(script, todo, created), bySimulated(script, todo, created)])
      assert.deepStrictEqual(other, one, `seed ${seed}: ${todo.join()} with ${script.join()}`)
    })
    await Promise.all(runs)
  })

  it("asks once if it is plain, in JSON, without id and token", async () => {
    const { ask, sent } = scripted(["ok", "unavailable"])
    const bus = Bus.of({
      payloadMax: 1_000_000,
      request: (subject, data, { headers }) => {
        const said = ask(subject, data, headers ?? {})
        return said instanceof BusError ? Effect.fail(said) : Effect.succeed(said)
      },
      publish: () => Effect.void,
      serve: () => Effect.void
    })
    const ended = await Effect.runPromise(
      Effect.gen(function* () {
        const client = yield* makeClient(bus, { manner: "plain", form: "binary", timeoutMs: 10_000 })
        const level = { consistency: "Session" as const, token: 0n, at: undefined }
        assert.isUndefined(yield* client.requestId("books"))
        const read = yield* Effect.result(client.ask("books", { _tag: "Count", level }))
        const refused = yield* Effect.result(
          client.ask("books", { _tag: "Delete", request: undefined, keys: [1n << 60n] }, shape)
        )
        assert.strictEqual(client.token(), 0n)
        return [read._tag, refused._tag]
      })
    )
    assert.deepStrictEqual(ended, ["Success", "Failure"])
    assert.deepStrictEqual(
      sent.map(({ body, format, id, timed, verb }) => ({ body, format, id, timed, verb })),
      [
        {
          verb: "query",
          body: { outputFields: ["count(*)"], consistencyLevel: "Session" },
          format: undefined,
          timed: true,
          id: -1
        },
        { verb: "delete", body: { id: [String(1n << 60n)] }, format: undefined, timed: true, id: -1 }
      ]
    )
  })
})

/**
 * Bad input gets a clear, typed error, and loses nothing: one table of cases, each sent through the subjects (a NATS
 * client with no code of ours), the library and the command line, and after each the rows are what they were. Then
 * servers, buckets, disks and directories that are too old, absent, full, in use or of a newer version.
 */
import { jetstream } from "@nats-io/jetstream"
import { ClassicLevel } from "classic-level"
import { Effect } from "effect"
import { execFile, spawn } from "node:child_process"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect as connectSocket, createServer, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { connect as connectNats, headers as newHeaders, type NatsConnection as Connection } from "nats"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { binary, type ReadLevel } from "../protocols/client.ts"
import { ElanusError, type ErrorCode, errorKinds } from "../protocols/errors.ts"
import { keyColumn } from "../protocols/keys.ts"
import { limits } from "../protocols/limits.ts"
import { fromMillis } from "../protocols/timestamp.ts"
import { exitCodes } from "../runtime/cli/exit.ts"
import { connect, type Elanus, open } from "../runtime/elanus.ts"
import { freePort } from "../runtime/nats-server.ts"
import { findServer } from "../runtime/server-finder.ts"
import { bootstrap, keySubject } from "../storage/jetstream-bucket.ts"
import { NatsConnection } from "../storage/nats-connection.ts"
import { elanus, type RunOptions, type Started, start } from "./support/command.ts"
import { type Nats, startNats } from "./support/nats.ts"
import { startS3 } from "./support/s3.ts"

const run = promisify(execFile)

let folder = ""
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "elanus-bad-"))
})
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }))

/** What went wrong in the library; fails if nothing did. */
const errorOf = async (work: Promise<unknown>): Promise<ElanusError> => {
  const error = await work.then(
    (value) => assert.fail(`no error, but ${JSON.stringify(value)}`),
    (cause: unknown) => cause
  )
  assert.instanceOf(error, ElanusError, String(error))
  return error as ElanusError
}

/** Its exit code and the error on its last line of stderr. */
const failed = async (args: ReadonlyArray<string>, options?: RunOptions) => {
  const { code, stderr, stdout } = await elanus([...args, "--json"], options)
  const last = stderr.trimEnd().split("\n").at(-1)!
  assert.match(last, /^\{"error":/, `elanus ${args.join(" ")} ended with ${code}\n${stdout}\n${stderr}`)
  const { error } = JSON.parse(last) as { error: { code: string; reason: string } }
  return { exit: code, code: error.code, reason: error.reason }
}

const DIMENSION = 4
const ROWS = Array.from({ length: 20 }, (_, i) => ({ id: i + 1, vector: [i, 1, 2, 3], title: `row ${i + 1}` }))

describe("what a client may get wrong", () => {
  let nats: Nats | undefined
  let cluster: Started | undefined
  let plain: Connection | undefined
  let library: Elanus | undefined
  let before = ""

  beforeAll(async () => {
    nats = await startNats()
    const url = nats.urls[0]!
    cluster = await start(["--nats", url, "--data", join(folder, "data"), "--channel-bytes", "64M"])
    plain = await connectNats({ servers: url, maxReconnectAttempts: -1, reconnectTimeWait: 50 })
    library = await connect({ servers: url })
    await library.createCollection("rows", { dimension: DIMENSION, metric: "L2" })
    await library.createCollection("names", { dimension: DIMENSION, idType: "VarChar", metric: "L2" })
    await library.createCollection("parts", { dimension: DIMENSION, shards: 4, metric: "L2" })
    await library.collection("rows").insert(ROWS.slice(0, 10))
    await library.collection("rows").flush()
    await library.collection("rows").insert(ROWS.slice(10))
    await library.collection("parts").insert(ROWS)
    await library.collection("names").insert(ROWS.map(({ id, ...row }) => ({ id: `key ${id}`, ...row })))
    before = await everything()
  })
  afterAll(async () => {
    await library?.close()
    await plain?.close()
    await cluster?.end("SIGKILL")
    await nats?.stop()
  })

  const ask = async (subject: string, body: unknown, headers: { readonly [name: string]: string } = {}) => {
    const all = newHeaders()
    for (const [name, value] of Object.entries(headers)) all.set(name, value)
    const data = typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body)
    const reply = await plain!.request(`elanus.v1.${subject}`, data, { timeout: 10_000, headers: all })
    return { reply, json: JSON.parse(reply.string()) as any }
  }

  /** All rows and counts, read strongly by a client that has no code of ours. */
  const everything = async (): Promise<string> => {
    const ids = ROWS.map(({ id }) => id)
    const level = { consistencyLevel: "Strong", outputFields: ["*"] }
    const answers = await Promise.all([
      ask("default.rows.get", { id: ids, ...level }),
      ask("default.parts.get", { id: ids, ...level }),
      ask("default.names.get", { id: ids.map((id) => `key ${id}`), ...level }),
      ...["rows", "parts", "names"].map((name) =>
        ask(`default.${name}.query`, { consistencyLevel: "Strong", outputFields: ["count(*)"] })
      ),
      ask("default.list", {})
    ])
    for (const { json } of answers) assert.isDefined(json.data, JSON.stringify(json))
    return JSON.stringify(answers.map(({ json }) => json.data))
  }

  interface Case {
    readonly what: string
    readonly code: ErrorCode
    /** Verb of the collection "rows" unless the subject says more; the body; and headers. */
    readonly subjects?: ReadonlyArray<
      readonly [subject: string, body: unknown, headers?: { readonly [name: string]: string }]
    >
    readonly library?: ReadonlyArray<(elanus: Elanus) => Promise<unknown>>
    readonly command?: ReadonlyArray<readonly [args: ReadonlyArray<string>, input?: string]>
  }

  const rows = (elanus: Elanus) => elanus.collection("rows")
  const line = (row: object) => JSON.stringify(row)
  const big = "x".repeat(limits.fieldsBytesMax + 1)
  const tooMany = Array.from({ length: limits.queriesMax + 1 }, () => [1, 2, 3, 4])
  const ahead = String(fromMillis(Date.now() + 3_600_000))
  const good = { id: 100, vector: [1, 2, 3, 4] }
  const inBinary = { "Elanus-Format": "binary" }
  const session: ReadLevel = { consistency: "Session", token: 0n, at: undefined }
  const binaryRow = { dimension: DIMENSION, vectors: new Float32Array(DIMENSION), fields: undefined }
  const rowWith = (bytes: Uint8Array) =>
    binary.write.encode({
      ...binaryRow,
      keys: keyColumn("VarChar", ["new"]),
      fields: { offsets: Uint32Array.of(0, bytes.length), bytes }
    })
  const deep = `${'{"a":'.repeat(limits.fieldsDepthMax + 1)}1${"}".repeat(limits.fieldsDepthMax + 1)}`
  const notText = {
    type: "VarChar",
    count: 1,
    offsets: Uint32Array.of(0, 2),
    bytes: Uint8Array.of(0xff, 0xfe)
  } as const

  const cases: ReadonlyArray<Case> = [
    {
      what: "a vector of another dimension",
      code: "wrong-dimension",
      subjects: [
        ["rows.insert", { data: [good, { id: 101, vector: [1, 2, 3] }] }],
        ["parts.upsert", { data: [good, { id: 101, vector: [1, 2, 3, 4, 5] }] }],
        ["rows.search", { data: [[1, 2, 3]] }],
        ["rows.search", { data: [[1, 2, 3, 4], []] }]
      ],
      library: [
        (elanus) => rows(elanus).insert([good, { id: 101, vector: [1, 2, 3] }]),
        (elanus) => rows(elanus).insert({ ids: [100, 101], vectors: new Float32Array(6) }),
        (elanus) => rows(elanus).insert({ ids: [100, 101], vectors: new Float32Array(7) }),
        (elanus) => rows(elanus).search([1, 2, 3]),
        (elanus) => rows(elanus).search([[1, 2, 3, 4], [1]])
      ],
      command: [[["insert", "rows"], line({ id: 1, vector: [1, 2, 3] })], [["search", "rows", "--vector", "[1,2,3]"]]]
    },
    {
      what: "NaN, an infinity, and numbers beyond 32 bits",
      code: "bad-vector",
      subjects: [
        ["rows.insert", { data: [{ id: 100, vector: [1, 2, 3, 1e39] }] }],
        ["rows.insert", '{"data":[{"id":100,"vector":[1,2,3,1e999]}]}'],
        ["rows.search", { data: [[1, 2, 3, -1e39]] }]
      ],
      library: [
        (elanus) => rows(elanus).insert([{ id: 100, vector: [1, 2, 3, NaN] }]),
        (elanus) => rows(elanus).insert([{ id: 100, vector: Float32Array.of(1, 2, 3, Infinity) }]),
        (elanus) => rows(elanus).insert({ ids: [1, 2], vectors: Float32Array.of(1, 2, 3, 4, 5, -Infinity, 7, 8) }),
        (elanus) => rows(elanus).insert({ ids: [1], vectors: Float32Array.of(1, 2, 3, NaN) }),
        (elanus) => elanus.collection("parts").insert({ ids: [1], vectors: Float32Array.of(1, 2, 3, NaN) }),
        (elanus) => rows(elanus).search([1, 2, NaN, 4]),
        (elanus) => rows(elanus).search(Float32Array.of(1, 2, 3, Infinity))
      ],
      command: [[["insert", "rows"], line({ id: 1, vector: [1, 2, 3, 1e39] })]]
    },
    {
      what: "a vector that is none",
      code: "bad-vector",
      subjects: [
        ["rows.insert", { data: [{ id: 100, vector: ["1", "2", "3", "4"] }] }],
        ["rows.insert", { data: [{ id: 100, vector: "1234" }] }],
        ["rows.insert", { data: [{ id: 100, vector: null }] }],
        ["rows.insert", { data: [{ id: 100, vector: [1, null, 3, 4] }] }],
        ["rows.search", { data: [["1", "2", "3", "4"]] }],
        ["rows.search", { data: [1, 2, 3, 4] }]
      ],
      library: [
        (elanus) => rows(elanus).insert([{ id: 100, vector: ["1", "2", "3", "4"] }]),
        (elanus) => rows(elanus).search(["1", "2", "3", "4"] as never),
        (elanus) => rows(elanus).search([[1, 2, 3, "4"]] as never)
      ],
      command: [[["search", "rows", "--vector", '["1","2","3","4"]']]]
    },
    {
      what: "a collection that is not there",
      code: "collection-not-found",
      subjects: [
        ["absent.search", { data: [[1, 2, 3, 4]] }],
        ["absent.insert", { data: [good] }],
        ["absent.describe", {}],
        ["absent.drop", {}],
        ["absent.flush", {}]
      ],
      library: [
        (elanus) => elanus.collection("absent").insert([good]),
        (elanus) => elanus.collection("absent").search([1, 2, 3, 4]),
        (elanus) => elanus.collection("absent").drop()
      ],
      command: [[["insert", "absent"], line(good)], [["get", "absent", "1"]]]
    },
    {
      what: "a field that is not there",
      code: "field-not-found",
      subjects: [
        ["rows.search", { data: [[1, 2, 3, 4]], annsField: "embedding" }],
        ["rows.insert", { data: [{ id: 100, embedding: [1, 2, 3, 4] }] }]
      ],
      library: [(elanus) => rows(elanus).insert([{ id: 100, embedding: [1, 2, 3, 4] }])],
      command: [[["insert", "rows"], line({ id: 1, embedding: [1, 2, 3, 4] })]]
    },
    {
      what: "a key that is missing, mistyped or out of range",
      code: "bad-key",
      subjects: [
        ["rows.insert", { data: [{ vector: [1, 2, 3, 4] }] }],
        ["rows.insert", { data: [{ id: null, vector: [1, 2, 3, 4] }] }],
        ["rows.insert", { data: [{ id: "one", vector: [1, 2, 3, 4] }] }],
        ["rows.insert", { data: [{ id: 1.5, vector: [1, 2, 3, 4] }] }],
        ["rows.insert", { data: [{ id: "9223372036854775808", vector: [1, 2, 3, 4] }] }],
        ["names.insert", { data: [{ id: 7, vector: [1, 2, 3, 4] }] }],
        ["names.insert", { data: [{ id: "x".repeat(limits.keyLengthMax + 1), vector: [1, 2, 3, 4] }] }],
        ["names.insert", '{"data":[{"id":"\\ud800","vector":[1,2,3,4]}]}'],
        ["rows.delete", { id: ["one"] }],
        ["rows.get", { id: [{}] }],
        ["names.insert", binary.write.encode({ ...binaryRow, keys: notText }), inBinary],
        ["names.delete", binary.keys.encode(notText), inBinary],
        ["names.get", binary.get.encode({ keys: notText, outputFields: [], level: session }), inBinary]
      ],
      library: [
        (elanus) => rows(elanus).insert([{ vector: [1, 2, 3, 4] }]),
        (elanus) => rows(elanus).insert([{ id: 2 ** 53, vector: [1, 2, 3, 4] }]),
        (elanus) => rows(elanus).insert([{ id: 1n << 63n, vector: [1, 2, 3, 4] }]),
        (elanus) => rows(elanus).insert({ ids: ["one"], vectors: new Float32Array(4) }),
        (elanus) => elanus.collection("names").insert({ ids: BigInt64Array.of(1n), vectors: new Float32Array(4) }),
        (elanus) => rows(elanus).delete("one"),
        (elanus) => rows(elanus).get([null as never])
      ],
      command: [[["insert", "rows"], line({ vector: [1, 2, 3, 4] })], [["get", "rows", "one"]]]
    },
    {
      what: "a second collection of a name",
      code: "collection-exists",
      subjects: [["rows.create", { dimension: 8 }]],
      library: [(elanus) => elanus.createCollection("rows", { dimension: DIMENSION, metric: "L2" })],
      command: [[["collection", "create", "rows", "--dimension", "4"]]]
    },
    {
      what: "a collection that cannot be",
      code: "bad-request",
      subjects: [
        ["new.create", {}],
        ["new.create", { dimension: 0 }],
        ["new.create", { dimension: limits.dimensionMax + 1 }],
        ["new.create", { dimension: 4, metricType: "HAMMING" }],
        ["new.create", { dimension: 4, idType: "Float" }],
        ["new.create", { dimension: 4, params: { shardsNum: 17 } }],
        ["new.create", { dimension: 4, primaryFieldName: "same", vectorFieldName: "same" }]
      ],
      library: [
        (elanus) => elanus.createCollection("new", { dimension: 0 }),
        (elanus) => elanus.createCollection("new", { dimension: 4, shards: 17 }),
        (elanus) => elanus.createCollection("new", { dimension: 4, metric: "HAMMING" as never })
      ],
      command: [[["collection", "create", "new", "--dimension", "0"]]]
    },
    {
      what: "a limit of nothing, or past the maximum",
      code: "bad-request",
      subjects: [
        ["rows.search", { data: [[1, 2, 3, 4]], limit: 0 }],
        ["rows.search", { data: [[1, 2, 3, 4]], limit: -1 }],
        ["rows.search", { data: [[1, 2, 3, 4]], limit: 1.5 }],
        ["rows.search", { data: [[1, 2, 3, 4]], limit: limits.topKMax + 1 }],
        ["rows.search", { data: [[1, 2, 3, 4]], limit: 10, offset: limits.topKMax }],
        ["rows.search", { data: [[1, 2, 3, 4]], limit: 10, searchParams: { params: { ef: 5 } } }]
      ],
      library: [
        (elanus) => rows(elanus).search([1, 2, 3, 4], { limit: 0 }),
        (elanus) => rows(elanus).search([1, 2, 3, 4], { limit: limits.topKMax + 1 }),
        (elanus) => rows(elanus).search([1, 2, 3, 4], { limit: NaN }),
        (elanus) => rows(elanus).search([1, 2, 3, 4], { limit: 10, offset: limits.topKMax })
      ],
      command: [[["search", "rows", "--vector", "[1,2,3,4]", "--limit", String(limits.topKMax + 1)]]]
    },
    {
      what: "a body that is no request",
      code: "bad-request",
      subjects: [
        ["rows.insert", "this is not JSON"],
        ["rows.insert", '{"data":[{"id":1,"vector":[1,2,3,4]}'],
        ["rows.search", "[[1,2,3,4]]"],
        ["rows.search", '"text"'],
        ["rows.search", "null"],
        ["rows.search", Uint8Array.of(0xff, 0xfe, 0x00)],
        ["rows.search", ""],
        ["rows.search", {}],
        ["rows.search", { data: "text" }],
        ["rows.insert", { data: "text" }],
        ["rows.insert", { data: [1, 2] }],
        ["rows.get", {}],
        ["rows.delete", { id: [] }],
        ["rows.search", { data: [[1, 2, 3, 4]], outputFields: "title" }],
        ["rows.search", { data: [[1, 2, 3, 4]], searchParams: [] }],
        ["rows.search", { data: [[1, 2, 3, 4]], searchParams: { metricType: "IP" } }],
        ["rows.insert", Uint8Array.of(1, 2, 3), { "Elanus-Format": "binary" }],
        ["rows.search", new Uint8Array(6), { "Elanus-Format": "binary" }],
        ["rows.get", new Uint8Array(0), { "Elanus-Format": "binary" }],
        ["rows.delete", Uint8Array.of(9, 9, 9, 9, 9), { "Elanus-Format": "binary" }],
        ...["null", "[1]", '"a"', "7", "{", '{"a":1}}', '{"a":1},{"b":2}', '{"a":"\\ud8"}', "{'a':1}", deep].map(
          (fields) => ["names.insert", rowWith(Buffer.from(fields)), inBinary] as const
        ),
        ["names.insert", rowWith(Uint8Array.of(...Buffer.from('{"a":"'), 0xff, ...Buffer.from('"}'))), inBinary],
        ["rows.insert", `{"data":[{"id":1,"vector":[1,2,3,4],"deep":${deep}}]}`]
      ],
      command: [[["insert", "rows"], "[1,2,3]\n"]]
    },
    {
      what: "an insert of nothing",
      code: "bad-request",
      subjects: [
        ["rows.insert", { data: [] }],
        ["rows.insert", {}]
      ],
      library: [
        (elanus) => rows(elanus).insert([]),
        (elanus) => rows(elanus).insert({ ids: [], vectors: new Float32Array(0) })
      ]
    },
    {
      what: "integers that a number cannot hold",
      code: "bad-request",
      subjects: [
        ["rows.insert", '{"data":[{"id":9007199254740993,"vector":[1,2,3,4]}]}'],
        ["rows.insert", '{"data":[{"id":1,"vector":[1,2,3,4],"n":-9007199254740993}]}'],
        ["rows.delete", '{"id":[1,12345678901234567890]}'],
        ["rows.get", '{"id":9007199254740993}']
      ],
      library: [
        (elanus) => rows(elanus).insert([{ ...good, n: 1n << 60n }]),
        (elanus) => rows(elanus).insert([{ ...good, n: NaN }]),
        (elanus) => rows(elanus).insert({ ids: [1], vectors: new Float32Array(4), fields: [{ n: Infinity }] }),
        (elanus) => rows(elanus).insert({ ids: [1], vectors: new Float32Array(4), fields: [{ n: 1n << 60n }] }),
        (elanus) => rows(elanus).insert([{ ...good, n: () => 1 }])
      ],
      command: [[["insert", "rows"], '{"id":9007199254740993,"vector":[1,2,3,4]}']]
    },
    {
      what: "more than a request may have",
      code: "too-large",
      subjects: [
        ["rows.search", { data: tooMany }],
        ["rows.get", { id: Array.from({ length: limits.keysPerRequestMax + 1 }, (_, i) => i) }],
        ["rows.delete", { id: Array.from({ length: limits.keysPerRequestMax + 1 }, (_, i) => i) }],
        ["rows.insert", { data: [{ ...good, big }] }],
        ["parts.insert", { data: [{ ...good, big }] }],
        ["rows.insert", { data: Array.from({ length: 12 }, (_, i) => ({ ...good, id: i, big: big.slice(1_000) })) }]
      ],
      library: [
        (elanus) => rows(elanus).search(tooMany),
        (elanus) => rows(elanus).get(Array.from({ length: limits.keysPerRequestMax + 1 }, (_, i) => i)),
        (elanus) => rows(elanus).insert([{ ...good, big }]),
        (elanus) => rows(elanus).insert([{ ...good, big: "x".repeat(100_000_000) }])
      ],
      command: [
        [["insert", "rows"], line({ ...good, big })],
        [["insert", "rows"], line({ ...good, big: "x".repeat(20_000_000) })]
      ]
    },
    {
      what: "a name that is none",
      code: "bad-name",
      subjects: [
        ["default.1st.create", { dimension: 4 }],
        ["default.a-b.create", { dimension: 4 }],
        ["default.käse.create", { dimension: 4 }],
        ["default.*.insert", { data: [good] }],
        ["default.>.insert", { data: [good] }],
        [`default.${"x".repeat(limits.nameLengthMax + 1)}.create`, { dimension: 4 }],
        ["new.create", { dimension: 4, primaryFieldName: "" }],
        ["new.create", { dimension: 4, vectorFieldName: "a b" }],
        ["new.create", { dimension: 4, primaryFieldName: "distance" }],
        ["data-base.rows.search", { data: [[1, 2, 3, 4]] }],
        ["*.list", {}]
      ],
      library: ["", "a.b", "a b", "a*", ">", "*", "1st", "käse", "x".repeat(limits.nameLengthMax + 1)].flatMap(
        (name) => [
          (elanus: Elanus) => elanus.createCollection(name, { dimension: 4 }),
          async (elanus: Elanus) => elanus.collection(name).search([1, 2, 3, 4]),
          (elanus: Elanus) => elanus.request(name, "search", { data: [[1, 2, 3, 4]] })
        ]
      ),
      command: [[["collection", "create", "a.b", "--dimension", "4"]], [["collection", "list", "--database", "a.*"]]]
    },
    {
      what: "a verb that nobody knows",
      code: "bad-request",
      subjects: [
        ["rows.frobnicate", {}],
        ["default.rows.search.again", {}],
        ["default.a.b.insert", { data: [good] }],
        ["default.vanish", {}],
        ["default", {}]
      ],
      library: [(elanus) => elanus.request("rows", "frobnicate", {})]
    },
    {
      what: "what is not in this version",
      code: "not-supported",
      subjects: [
        ...["hybrid_search", "compact", "load", "release", "index.create", "partition.list", "alias.create"].map(
          (verb) => [`rows.${verb}`, {}] as const
        ),
        ["rows.search", { data: [[1, 2, 3, 4]], filter: "a > 1" }],
        ["rows.delete", { filter: "a > 1" }],
        ["rows.query", { filter: "a > 1" }],
        ["rows.insert", { data: [good], partitionName: "a" }],
        ["new.create", { dimension: 4, autoID: true }]
      ],
      library: [(elanus) => elanus.request("rows", "compact", {})]
    },
    {
      what: "a consistency that is none",
      code: "bad-request",
      subjects: [
        ["rows.search", { data: [[1, 2, 3, 4]], consistencyLevel: "Perfect" }],
        ["rows.get", { id: [1], consistencyLevel: 7 }],
        ["rows.query", { outputFields: ["count(*)"], consistencyLevel: "" }]
      ],
      library: [
        (elanus) => rows(elanus).search([1, 2, 3, 4], { consistency: "Perfect" as never }),
        (elanus) => rows(elanus).count({ consistency: "Perfect" as never })
      ]
    },
    {
      what: "a timestamp that is none, or that the cluster has not given out",
      code: "bad-timestamp",
      subjects: [
        ["rows.search", { data: [[1, 2, 3, 4]], guaranteeTimestamp: "yesterday" }],
        ["rows.search", { data: [[1, 2, 3, 4]], guaranteeTimestamp: -1 }],
        ["rows.search", { data: [[1, 2, 3, 4]], guaranteeTimestamp: {} }],
        ["rows.search", { data: [[1, 2, 3, 4]], guaranteeTimestamp: "18446744073709551615" }],
        ["rows.search", { data: [[1, 2, 3, 4]], guaranteeTimestamp: ahead }],
        ["parts.search", { data: [[1, 2, 3, 4]], guaranteeTimestamp: ahead }],
        ["rows.get", { id: [1], travelTimestamp: ahead }],
        ["rows.query", { outputFields: ["count(*)"], travelTimestamp: "1.5" }],
        ["rows.insert", { data: [good] }, { "Elanus-Request": `${ahead}-00000000000000ff` }]
      ],
      library: [
        (elanus) => rows(elanus).search([1, 2, 3, 4], { at: BigInt(ahead) }),
        (elanus) => elanus.collection("parts").get(1, { at: BigInt(ahead) })
      ],
      command: [[["search", "rows", "--vector", "[1,2,3,4]", "--at", ahead]]]
    },
    {
      what: "a header that is none",
      code: "bad-request",
      subjects: [
        ["rows.insert", { data: [good] }, { "Elanus-Request": "again" }],
        ["rows.insert", { data: [good] }, { "Elanus-Request": "-00000000000000ff" }],
        ["rows.search", { data: [[1, 2, 3, 4]] }, { "Elanus-Timeout": "soon" }],
        ["rows.search", { data: [[1, 2, 3, 4]] }, { "Elanus-Timeout": "0" }],
        ["rows.search", { data: [[1, 2, 3, 4]] }, { "Elanus-Timeout": String(limits.requestTimeoutMaxMs + 1) }],
        ["rows.search", { data: [[1, 2, 3, 4]] }, { "Elanus-Format": "yaml" }]
      ],
      library: [(elanus) => rows(elanus).search([1, 2, 3, 4], { timeoutMs: limits.requestTimeoutMaxMs + 1 })]
    }
  ]

  const subjectOf = (subject: string) =>
    /^(?:rows|parts|names|new|absent)\./.test(subject) ? `default.${subject}` : subject

  for (const { code, command = [], library: calls = [], subjects = [], what } of cases) {
    it(`${what}: ${code}`, async () => {
      const kind = errorKinds[code]
      for (const [subject, body, headers] of subjects) {
        const said = `${subject} ${JSON.stringify(body).slice(0, 100)}`
        const { json, reply } = await ask(subjectOf(subject), body, headers)
        assert.strictEqual(json.error?.code, code, `${said}: ${JSON.stringify(json).slice(0, 300)}`)
        assert.deepStrictEqual(Object.keys(json), ["error"], said)
        const { fault, reason, retry } = json.error
        assert.deepStrictEqual({ fault, retry }, { fault: kind.fault, retry: kind.retry }, said)
        assert.isAbove(reason.length, 5, said)
        assert.strictEqual(reply.headers?.get("Nats-Service-Error-Code"), String(kind.status), said)
        assert.isAbove(reply.headers!.get("Nats-Service-Error").length, 5, said)
      }
      for (const call of calls) {
        const error = await errorOf(call(library!))
        assert.strictEqual(error.code, code, `${call.toString()}: ${error.reason}`)
        assert.strictEqual(error.retry, kind.retry)
        assert.isAbove(error.reason.length, 5)
      }
      const ran = await Promise.all(
        command.map(([args, input]) =>
          failed([...args, "--nats", nats!.urls[0]!], input === undefined ? {} : { input })
        )
      )
      ran.forEach((each, i) => {
        const args = command[i]![0].join(" ")
        assert.strictEqual(each.code, code, `${args}: ${each.reason}`)
        assert.strictEqual(each.exit, exitCodes.caller[0], args)
      })
      assert.strictEqual(await everything(), before)
    })
  }

  it("a subject that NATS does not take", async () => {
    for (const name of ["a b", "a\tb", "", "a\r\nb"]) {
      const refusal = await plain!.request(`elanus.v1.default.${name}.search`, "{}", { timeout: 1_000 }).then(
        () => "",
        (cause: unknown) => String(cause)
      )
      assert.match(refusal, /subject|no responders/i, JSON.stringify(name))
    }
    assert.strictEqual(await everything(), before)
  })

  it("a message of 100 MB", async () => {
    const hundred = new Uint8Array(100_000_000)
    assert.throws(() => plain!.publish("elanus.v1.default.rows.insert", hundred), /max_payload/)
    // Somebody whose client does not look: the server ends that connection, and no other.
    const socket = connectSocket(Number(new URL(nats!.urls[0]!).port), "127.0.0.1")
    let said = ""
    socket.on("data", (data) => (said += String(data)))
    socket.on("error", () => undefined)
    // Its length alone is enough; bytes that come after would only make it forget to say why.
    socket.write(`CONNECT {"verbose":false}\r\nPUB elanus.v1.default.rows.insert ${hundred.length}\r\n`)
    await new Promise((resolve) => socket.once("close", resolve))
    assert.match(said, /Maximum Payload Violation/)
    const error = await errorOf(
      library!.request("rows", "insert", { data: [{ ...good, big: "x".repeat(100_000_000) }] })
    )
    assert.strictEqual(error.code, "too-large")
    assert.strictEqual(await everything(), before)
  })

  it("an answer that fits into no message: an error for a plain client, parts for the library", async () => {
    const wide = await library!.createCollection("wide", { dimension: DIMENSION, metric: "L2" })
    await wide.insert(ROWS.map((row) => ({ ...row, text: "x".repeat(60_000) })))
    const ids = ROWS.map(({ id }) => id)
    const { json, reply } = await ask("default.wide.get", { id: ids })
    assert.deepInclude(json.error, { code: "too-large", fault: "caller", retry: false })
    assert.strictEqual(reply.headers?.get("Nats-Service-Error-Code"), "413")
    assert.strictEqual((await wide.get(ids)).length, 20)
    await wide.drop()
    assert.strictEqual(await everything(), before)
  })

  it("a nats-server that goes away: requests wait within their deadline, then say so; service comes back by itself", async () => {
    const url = nats!.urls[0]!
    await nats!.kill(0)
    // They end while nobody is there.
    const [read, write, command] = await Promise.all([
      errorOf(rows(library!).search([1, 2, 3, 4], { timeoutMs: 1_500 })),
      errorOf(rows(library!).insert([ROWS[0]!], { timeoutMs: 1_500 })),
      failed(["get", "rows", "1", "--nats", url, "--timeout", "1500"])
    ])
    for (const error of [read, write]) {
      assert.include(["disconnected", "unavailable", "ambiguous"], error.code)
      assert.isTrue(error.retry)
    }
    assert.strictEqual(command.exit, exitCodes.cluster[0], command.reason)
    // Asked while nobody is there, answered when somebody is again: within the deadline.
    const patient = rows(library!).get([1, 20], { timeoutMs: 30_000 })
    const written = rows(library!).insert([ROWS[0]!], { timeoutMs: 30_000 })
    await sleep(500)
    await nats!.restart(0)
    assert.deepStrictEqual(
      (await patient).map(({ id }) => id),
      [1, 20]
    )
    assert.strictEqual((await written).count, 1)
    await library!.status({ timeoutMs: 30_000 })
    // A plain client has no retries of its own, and what it asked while its server came back may be lost.
    const deadline = performance.now() + 30_000
    const patiently = (): Promise<string> =>
      everything().catch((cause: unknown) => {
        if (performance.now() > deadline) throw cause
        return patiently()
      })
    assert.strictEqual(await patiently(), before)
  })
})

describe("servers, disks and directories that cannot be used", () => {
  const fake = async (greeting: string): Promise<{ readonly url: string; readonly server: Server }> => {
    const server = createServer((socket) => {
      socket.on("error", () => undefined)
      socket.on("data", (data) => {
        if (String(data).includes("PING")) socket.write("PONG\r\n")
      })
      socket.write(greeting)
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const address = server.address()
    assert.isObject(address)
    return { url: `nats://127.0.0.1:${(address as { port: number }).port}`, server }
  }

  it("a nats-server that is too old", async () => {
    const { server, url } = await fake(
      `INFO ${JSON.stringify({ server_id: "old", version: "2.9.10", proto: 1, headers: true, max_payload: 1048576, jetstream: true })}\r\n`
    )
    try {
      const error = await errorOf(connect({ servers: url }))
      assert.strictEqual(error.code, "unfit")
      assert.match(error.reason, /2\.9\.10.*2\.12/)
      const [asked, started] = await Promise.all([
        failed(["collection", "list", "--nats", url]),
        failed(["start", "--nats", url, "--data", join(folder, "old")])
      ])
      assert.deepInclude(asked, { exit: exitCodes.operator[0], code: "unfit" })
      assert.deepInclude(started, { exit: exitCodes.operator[0], code: "unfit" })
      assert.match(started.reason, /2\.9\.10.*2\.12/)
    } finally {
      server.close()
    }
  })

  it("no nats-server at all", async () => {
    const port = await freePort()
    const url = `nats://127.0.0.1:${port}`
    const error = await errorOf(connect({ servers: url }))
    assert.strictEqual(error.code, "unavailable")
    const started = await failed(["start", "--nats", url, "--data", join(folder, "absent")])
    assert.deepInclude(started, { exit: exitCodes.cluster[0], code: "unavailable" })
    assert.include(started.reason, String(port))
  })

  it("a second process on an embedded directory", async () => {
    const directory = join(folder, "one")
    await mkdir(directory)
    const first = await open({ directory })
    try {
      const books = await first.createCollection("books", { dimension: DIMENSION, metric: "L2" })
      await books.insert(ROWS)
      const second = await failed(["collection", "list", "--directory", directory])
      assert.deepInclude(second, { exit: exitCodes.operator[0], code: "unfit" })
      assert.match(second.reason, /one process at a time/)
      assert.strictEqual(await books.count(), 20)
    } finally {
      await first.close()
    }
    const again = await open({ directory })
    assert.strictEqual(await again.collection("books").count(), 20)
    await again.close()
  })

  it("an embedded directory of a newer format", async () => {
    const directory = join(folder, "one")
    const setFormat = async (format: string) => {
      const database = new ClassicLevel(join(directory, "store"))
      await database.put("format", format)
      await database.close()
    }
    await setFormat("2")
    const error = await errorOf(open({ directory }))
    assert.strictEqual(error.code, "unfit")
    assert.match(error.reason, /format 2/)
    const ran = await failed(["collection", "list", "--directory", directory])
    assert.deepInclude(ran, { exit: exitCodes.operator[0], code: "unfit" })
    await setFormat("1")
    const again = await open({ directory })
    assert.strictEqual(await again.collection("books").count(), 20)
    await again.close()
  })

  describe("with a nats-server", () => {
    let nats: Nats | undefined
    beforeAll(async () => {
      nats = await startNats()
    })
    afterAll(() => nats?.stop())
    const refused = (cluster: string, objects: string) =>
      failed([
        "start",
        "--nats",
        nats!.urls[0]!,
        "--cluster",
        cluster,
        "--data",
        join(folder, cluster),
        "--objects",
        objects
      ])

    it("a bucket that is missing, and one that may not be written to", async () => {
      const s3 = await startS3()
      try {
        s3.useCredentials()
        const ran = await refused("bucket", `s3://nowhere?endpoint=${s3.endpoint}`)
        assert.deepInclude(ran, { exit: exitCodes.operator[0], code: "unfit" })
        assert.include(ran.reason, "nowhere")
      } finally {
        await s3.stop()
      }
      const sealed = await startReadOnlyS3()
      try {
        const ran = await refused("sealed", `s3://elanus?endpoint=${sealed.endpoint}`)
        assert.deepInclude(ran, { exit: exitCodes.operator[0], code: "unfit" })
        assert.match(ran.reason, /cannot be written: .*AccessDenied/)
      } finally {
        await sealed.stop()
      }
    })

    it("an object directory that cannot be", async () => {
      await writeFile(join(folder, "file"), "")
      const ran = await refused("below", `dir:${join(folder, "file", "objects")}`)
      assert.deepInclude(ran, { exit: exitCodes.operator[0], code: "unfit" })
      assert.include(ran.reason, join(folder, "file"))
      const wrong = await refused("scheme", "ftp://somewhere")
      assert.deepInclude(wrong, { exit: exitCodes.usage[0], code: "usage" })
    })

    it("metadata of a newer format", async () => {
      const put = Effect.gen(function* () {
        yield* bootstrap({ cluster: "newer", replicas: 1 })
        const { connection } = yield* NatsConnection
        const value = JSON.stringify({ v: 2, something: "else" })
        yield* Effect.promise(() => jetstream(connection).publish(keySubject("newer", "meta", "format"), value))
      })
      await Effect.runPromise(
        Effect.scoped(put.pipe(Effect.provide(NatsConnection.layer({ servers: nats!.urls[0]! }))))
      )
      const ran = await refused("newer", `dir:${join(folder, "newer-objects")}`)
      assert.deepInclude(ran, { exit: exitCodes.operator[0], code: "unfit" })
      assert.match(ran.reason, /format 2.*too old/)
    })

    it("a full disk below the objects: what cannot be flushed stays readable, and is flushed when there is room", async () => {
      const disk = await smallDisk(1)
      const cluster = await start([
        "--nats",
        nats!.urls[0]!,
        "--cluster",
        "full",
        "--data",
        join(folder, "full"),
        "--objects",
        `dir:${disk.path}/objects`,
        "--channel-bytes",
        "64M"
      ])
      const library = await connect({ servers: nats!.urls[0]! })
      try {
        const wide = await library.createCollection("wide", { dimension: 512, metric: "L2" })
        const vectors = Float32Array.from({ length: 1_000 * 512 }, (_, i) => i % 251)
        await wide.insert({ ids: Array.from({ length: 1_000 }, (_, i) => i), vectors })
        const error = await errorOf(wide.flush({ timeoutMs: 2_000 }))
        assert.isTrue(error.retry, error.code)
        assert.strictEqual(await wide.count(), 1_000)
        const [row] = await wide.get(999, { outputFields: ["vector"] })
        assert.deepStrictEqual([...row!.vector!], [...vectors.subarray(999 * 512)])
        await disk.grow(64)
        await wide.flush({ timeoutMs: 30_000 })
        assert.strictEqual((await wide.stats()).growingRows, 0)
        assert.strictEqual(await wide.count(), 1_000)
      } finally {
        await library.close()
        await cluster.end("SIGKILL")
        await disk.remove()
      }
    })
  })

  it("a full disk below an embedded directory: what was acknowledged is there, what was not is an error", async () => {
    const disk = await smallDisk(8)
    try {
      let acknowledged = 0
      let error: unknown
      const full = await open({ directory: disk.path })
      const wide = await full.createCollection("wide", { dimension: 1_024, metric: "L2" })
      const vectors = Float32Array.from({ length: 100 * 1_024 }, () => Math.random())
      for (let batch = 0; batch < 100 && error === undefined; batch++) {
        const ids = Array.from({ length: 100 }, (_, i) => batch * 100 + i)
        await wide.insert({ ids, vectors }, { timeoutMs: 1_500 }).then(
          () => (acknowledged = (batch + 1) * 100),
          (cause: unknown) => (error = cause)
        )
      }
      assert.instanceOf(error, ElanusError)
      assert.include(["ambiguous", "unavailable", "overloaded"], (error as ElanusError).code)
      await full.close()
      await disk.grow(256)
      const again = await open({ directory: disk.path })
      const ids = Array.from({ length: acknowledged }, (_, i) => i)
      assert.strictEqual((await again.collection("wide").get(ids, { outputFields: [] })).length, acknowledged)
      await again.collection("wide").insert({ ids: [100_000], vectors: vectors.slice(0, 1_024) })
      await again.close()
    } finally {
      await disk.remove()
    }
  })
})

/** A bucket that exists and takes nothing; with the credentials that `startS3` put into the environment. */
const startReadOnlyS3 = async () => {
  const path = await mkdtemp(join(folder, "sealed-"))
  await mkdir(join(path, "elanus"))
  const port = await freePort()
  const child = spawn(await findServer("versitygw"), ["--readonly", "--port", `127.0.0.1:${port}`, "posix", path], {
    env: {
      ...process.env,
      ROOT_ACCESS_KEY: process.env["AWS_ACCESS_KEY_ID"],
      ROOT_SECRET_KEY: process.env["AWS_SECRET_ACCESS_KEY"]
    },
    stdio: "ignore"
  })
  const endpoint = `http://127.0.0.1:${port}`
  const isThere = () =>
    fetch(endpoint).then(
      () => true,
      () => false
    )
  for (const begun = performance.now(); !(await isThere()); await sleep(20)) {
    if (performance.now() - begun > 20_000) assert.fail("versitygw did not start")
  }
  return {
    endpoint,
    stop: async () => {
      const gone = new Promise((resolve) => child.once("exit", resolve))
      child.kill("SIGKILL")
      await gone
    }
  }
}

/** A file system of so many MiB. Needs the right to mount: a test that cannot have it fails, and says so. */
const smallDisk = async (mebibytes: number) => {
  const path = await mkdtemp(join(folder, "disk-"))
  const mount = (...args: ReadonlyArray<string>) =>
    run("mount", [...args, path]).catch((cause: unknown) => {
      throw new Error(`a full disk can only be tried with the right to mount a tmpfs (root has it): ${String(cause)}`)
    })
  await mount("-t", "tmpfs", "-o", `size=${mebibytes}m`, "tmpfs")
  return {
    path,
    grow: (to: number) => mount("-o", `remount,size=${to}m`),
    remove: async () => {
      await run("umount", ["--lazy", path])
    }
  }
}

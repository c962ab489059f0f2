#!/usr/bin/env node
/**
 * The command `elanus`: starts a process of a cluster, and talks to one (or to a directory) as any client would.
 *
 * Answers go to stdout, as tables for people or with `--json` as one line of JSON; errors, logs and progress to stderr.
 * A script can rely on the exit code (command-output.ts has the table, and `--help` shows it):
 *
 *   0  done                                   4  somebody must look: damaged data, an unfit server or directory
 *   1  the request is wrong                   5  a bug in Elanus
 *   2  the command line is wrong              6  it may have been done or not: ambiguous
 *   3  not possible now, a retry may help
 */
import { existsSync } from "node:fs"
import { mkdir, readFile } from "node:fs/promises"
import { enableCompileCache } from "node:module"
import { homedir } from "node:os"
import { join, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Effect as Effects } from "effect"
import type * as Cli from "effect/cli"
import type { Consistency } from "../protocols/client.ts"
import type { ElanusError } from "../protocols/errors.ts"
import type { KeyType } from "../protocols/keys.ts"
import type { Metric, Role } from "../protocols/metadata.ts"
import type { NatsOptions } from "../storage/nats-connection.ts"
import type { ArrowBatch, Format, Input, Piece } from "./command-input.ts"
import type { Collection, Elanus, Hit, Key, Row } from "./elanus.ts"
import type { Settings } from "./node.ts"

// All else is loaded after this: with the compiled form of every module kept, a short command takes half the time.
enableCompileCache(join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "elanus", "compiled"))

const { Deferred, Effect, Layer, Logger, Option } = await import("effect")
const { Argument, CliConfig, CliError, CliOutput, Command, Flag, GlobalFlag } = await import("effect/cli")
const nodeServices = await import("@effect/platform-node/NodeServices")
const { failure } = await import("../protocols/errors.ts")
const {
  bytesText,
  count,
  exitCodeHelp,
  exitCodes,
  facts,
  makeProgress,
  printJson,
  printText,
  reportError,
  table,
  toElanusError,
  UsageError
} = await import("./command-output.ts")

const VERSION = "0.1.0"
const DEFAULT_NATS = "nats://127.0.0.1:4222"
const DEFAULT_PORT = 4222
const DEFAULT_DATA = "elanus-data"

// ---- flags

type Flag<A> = Cli.Flag.Flag<A>

/** A flag that may be left out, and is then undefined. */
const maybe = <A>(flag: Flag<A>): Flag<A | undefined> => Flag.map(Flag.optional(flag), Option.getOrUndefined)
const text = (name: string, metavar: string, description: string) =>
  maybe(Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description)))
const integer = (name: string, description: string) => maybe(Flag.Int(name).pipe(Flag.withDescription(description)))

const units: { readonly [unit: string]: number } = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 }
const bytes = (name: string, description: string) =>
  maybe(
    Flag.String(name).pipe(
      Flag.withMetavar("BYTES"),
      Flag.withDescription(`${description}; 64M, 8GiB and the like`),
      Flag.mapTryCatch(
        (given) => {
          const match = /^(\d+)\s*([kmgt]?)(?:i?b)?$/i.exec(given.trim())
          if (match === null) throw new Error(`"${given}" is no number of bytes`)
          return Number(match[1]) * units[match[2]!.toLowerCase()]!
        },
        (cause) => (cause as Error).message
      )
    )
  )

const json = Flag.Boolean("json").pipe(Flag.withDescription("Answer in JSON, on one line"), Flag.withDefault(false))

/** Who we are to NATS, and how the way there is protected. */
const credentialFlags = {
  user: text("user", "NAME", "User of NATS; or in the URL"),
  password: text("password", "TEXT", "Password of NATS; else ELANUS_PASSWORD"),
  token: text("token", "TEXT", "Token of NATS; else ELANUS_TOKEN"),
  creds: text("creds", "FILE", "Credentials of NATS: a JWT and its seed"),
  nkey: text("nkey", "FILE", "The seed of an NKey"),
  tlsCa: text("tls-ca", "FILE", "Who may have signed the server's certificate; turns TLS on"),
  tlsCert: text("tls-cert", "FILE", "Our certificate"),
  tlsKey: text("tls-key", "FILE", "The key of our certificate"),
  inboxPrefix: text("inbox-prefix", "SUBJECT", "Where answers may come to, if not below _INBOX")
}

const clientFlags = {
  nats: Flag.String("nats").pipe(
    Flag.withMetavar("URL"),
    Flag.withDescription(`Servers of NATS, with commas between; else ELANUS_NATS, else ${DEFAULT_NATS}`),
    Flag.withDefault(process.env["ELANUS_NATS"] || DEFAULT_NATS)
  ),
  directory: text("directory", "DIR", "No server: the embedded database in this directory"),
  database: Flag.String("database").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("The database of the collection"),
    Flag.withDefault("default")
  ),
  timeout: integer("timeout", "Milliseconds for an answer, with all retries"),
  ...credentialFlags,
  json
}

type ClientFlags = Cli.Command.Command.Config.Infer<typeof clientFlags>
type CredentialFlags = Cli.Command.Command.Config.Infer<typeof credentialFlags>

const collectionArgument = Argument.String("collection").pipe(Argument.withDescription("Name of the collection"))

// ---- the way to NATS

const readGiven = async (flag: string, path: string): Promise<Uint8Array> => {
  try {
    return new Uint8Array(await readFile(path))
  } catch (cause) {
    throw new UsageError(`--${flag}: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
}

/** What the NATS client takes, of a list of URLs and of flags. */
const natsOptions = async (urls: string, flags: CredentialFlags): Promise<NatsOptions> => {
  let user = flags.user
  let pass = flags.password ?? process.env["ELANUS_PASSWORD"]
  let isTls = flags.tlsCa !== undefined || flags.tlsCert !== undefined
  const servers = urls
    .split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "")
    .map((each) => {
      const url = URL.parse(each.includes("://") ? each : `nats://${each}`)
      if (url === null || !["nats:", "tls:"].includes(url.protocol) || url.hostname === "") {
        throw new UsageError(`--nats: ${each} is no server, as ${DEFAULT_NATS} or tls://HOST:PORT are`)
      }
      if (url.protocol === "tls:") isTls = true
      if (url.username !== "") user ??= decodeURIComponent(url.username)
      if (url.password !== "") pass ??= decodeURIComponent(url.password)
      return `${url.hostname}:${url.port || DEFAULT_PORT}`
    })
  if (servers.length === 0) throw new UsageError("--nats names no server")
  const token = flags.token ?? process.env["ELANUS_TOKEN"]
  const { credsAuthenticator, nkeyAuthenticator } = await import("nats")
  const authenticator =
    flags.creds !== undefined
      ? credsAuthenticator(await readGiven("creds", flags.creds))
      : flags.nkey !== undefined
        ? nkeyAuthenticator(
            new TextEncoder().encode(new TextDecoder().decode(await readGiven("nkey", flags.nkey)).trim())
          )
        : undefined
  const tls = {
    ...(flags.tlsCa === undefined ? {} : { caFile: resolve(flags.tlsCa) }),
    ...(flags.tlsCert === undefined ? {} : { certFile: resolve(flags.tlsCert) }),
    ...(flags.tlsKey === undefined ? {} : { keyFile: resolve(flags.tlsKey) })
  }
  return {
    servers,
    name: "elanus",
    ...(user === undefined ? {} : { user }),
    ...(user === undefined || pass === undefined ? {} : { pass }),
    ...(token === undefined ? {} : { token }),
    ...(authenticator === undefined ? {} : { authenticator }),
    ...(flags.inboxPrefix === undefined ? {} : { inboxPrefix: flags.inboxPrefix }),
    ...(isTls ? { tls } : {})
  }
}

interface NatsReport {
  readonly server: string
  readonly version: string
  /** What an operator may want to know, in words. */
  readonly notes: ReadonlyArray<string>
}

/** What can be told, from outside, of a server that we did not start. `cluster` names the streams. */
const reportNats = async (options: NatsOptions, cluster: string): Promise<NatsReport> => {
  const { NatsConnection } = await import("../storage/nats-connection.ts")
  const { bucketStream } = await import("../storage/jetstream-bucket.ts")
  const look = Effect.gen(function* () {
    const { connection, manager } = yield* NatsConnection
    const { auth_required, max_payload, tls_required, version } = connection.info!
    const server = connection.getServer()
    const notes: Array<string> = []
    const isNear = /^(?:127\.|localhost|\[?::1)/.test(server)
    if (auth_required !== true) {
      notes.push("no authentication: whoever reaches the server may read, write and drop everything")
    }
    if (!isNear && tls_required !== true && options.tls === undefined) {
      notes.push("no TLS: what is sent can be read on the way")
    }
    if (max_payload < 1024 * 1024) {
      notes.push(`max_payload is ${bytesText(max_payload)}: requests and answers of plain clients must be smaller`)
    }
    const bucket = yield* Effect.option(Effect.tryPromise(() => manager.streams.info(bucketStream(cluster, "meta"))))
    if (Option.isSome(bucket)) {
      const { num_replicas } = bucket.value.config
      if (num_replicas < 3) {
        notes.push(
          `replicas are ${num_replicas}: the loss of one server's disk loses data (start with --replicas 3, on three servers)`
        )
      }
    }
    notes.push(
      "sync_interval cannot be seen from here: without `sync_interval: always` in the server's jetstream block, a power loss loses what was acknowledged in the last two minutes"
    )
    return { server, version, notes }
  })
  return Effect.runPromise(Effect.scoped(look.pipe(Effect.provide(NatsConnection.layer(options)))))
}

// ---- commands that talk

/** Runs a command's work; what it throws becomes a message and an exit code. */
const command = (asJson: boolean, work: () => Promise<number | void>): Effects.Effect<void> =>
  Effect.promise(async () => {
    try {
      process.exitCode = (await work()) ?? exitCodes.ok[0]
    } catch (cause) {
      process.exitCode = reportError(cause, asJson)
    }
  })

/** A directory is made only by who creates a collection in it: for the others it is a name with a mistake. */
const talk = (
  flags: ClientFlags,
  work: (elanus: Elanus) => Promise<number | void>,
  isMaking = false
): Effects.Effect<void> =>
  command(flags.json, async () => {
    const { connect, open } = await import("./elanus.ts")
    const { database, directory } = flags
    if (directory !== undefined) {
      if (isMaking) await mkdir(directory, { recursive: true })
      else if (!existsSync(join(directory, "store"))) throw failure("unfit", `there is no database in ${directory}`)
    }
    const elanus =
      directory === undefined
        ? await connect({ ...(await natsOptions(flags.nats, flags)), database })
        : await open({ directory: resolve(directory), database })
    try {
      return await work(elanus)
    } finally {
      await elanus.close()
    }
  })

const within = ({ timeout }: ClientFlags, fallback?: number): { readonly timeoutMs?: number } => {
  const timeoutMs = timeout ?? fallback
  if (timeoutMs === undefined) return {}
  if (timeoutMs < 1) throw new UsageError("--timeout is a number of milliseconds, 1 or more")
  return { timeoutMs }
}

const seconds = (since: number): string => `${((performance.now() - since) / 1_000).toFixed(2)} s`

const status = Command.make("status", clientFlags, (flags) =>
  talk(flags, async (elanus) => {
    const found = await elanus.status(within(flags))
    const nats =
      flags.directory === undefined
        ? await reportNats(await natsOptions(flags.nats, flags), found.cluster).catch(() => undefined)
        : undefined
    if (flags.json) return printJson({ ...found, ...(nats === undefined ? {} : { nats }) })
    const channelsOf = (node: string) => found.channels.filter((channel) => channel.node === node).length
    printText(
      facts([
        ["cluster", found.cluster],
        ["coordinator", `${found.coordinator} (epoch ${found.epoch})`],
        ["collections", count(found.collections)],
        ["jobs", count(found.jobs)],
        ...(nats === undefined ? [] : [["nats-server", `${nats.server}, version ${nats.version}`] as const])
      ])
    )
    printText("")
    printText(
      table(
        ["node", "alive", "version", "channels", "roles"],
        found.nodes.map(({ alive, id, roles, version }) => [
          id,
          alive ? "yes" : "no",
          version,
          channelsOf(id),
          roles.join(" ")
        ])
      )
    )
    const said = [
      ...found.warnings.map((line) => `warning: ${line}`),
      ...(nats?.notes ?? []).map((line) => `note: ${line}`)
    ]
    if (said.length > 0) printText(`\n${said.join("\n")}`)
  })
).pipe(Command.withDescription("Show the nodes of a cluster, and what is not as it should be"))

// ---- collections

const create = Command.make(
  "create",
  {
    name: collectionArgument,
    dimension: Flag.Int("dimension").pipe(Flag.withDescription("Numbers in a vector, 1 to 32768")),
    metric: maybe(Flag.Literals("metric", ["L2", "IP", "COSINE"]).pipe(Flag.withDescription("COSINE if not given"))),
    idType: maybe(Flag.Literals("id-type", ["Int64", "VarChar"]).pipe(Flag.withDescription("Int64 if not given"))),
    idField: text("id-field", "NAME", "Name of the primary key; id if not given"),
    vectorField: text("vector-field", "NAME", "Name of the vector; vector if not given"),
    shards: integer("shards", "1 to 16; 1 if not given"),
    description: text("description", "TEXT", "What it is for"),
    m: integer("m", "Neighbours in the index; 16 if not given"),
    efConstruction: integer("ef-construction", "Candidates while the index is built; 200 if not given"),
    ...clientFlags
  },
  (flags) =>
    talk(
      flags,
      async (elanus) => {
        const { description, dimension, efConstruction, idField, idType, m, metric, name, shards, vectorField } = flags
        const collection = await elanus.createCollection(name, {
          dimension,
          ...(metric === undefined ? {} : { metric: metric as Metric }),
          ...(idType === undefined ? {} : { idType: idType as KeyType }),
          ...(idField === undefined ? {} : { idField }),
          ...(vectorField === undefined ? {} : { vectorField }),
          ...(shards === undefined ? {} : { shards }),
          ...(description === undefined ? {} : { description }),
          index: { ...(m === undefined ? {} : { m }), ...(efConstruction === undefined ? {} : { efConstruction }) },
          ...within(flags)
        })
        if (flags.json) return printJson(await collection.describe(within(flags)))
        printText(`created ${name}`)
      },
      true
    )
).pipe(
  Command.withDescription("Create a collection"),
  Command.withExamples([{ command: "elanus collection create books --dimension 512", description: "Of 512 numbers" }])
)

interface Description {
  readonly description: string
  readonly fields: ReadonlyArray<{
    readonly name: string
    readonly type: string
    readonly primaryKey?: boolean
    readonly params?: { readonly dim: number }
  }>
  readonly indexes: ReadonlyArray<{
    readonly indexType: string
    readonly metricType: string
    readonly params: { readonly M: number; readonly efConstruction: number }
  }>
  readonly shardsNum: number
}

const describeOf = async (collection: Collection, flags: ClientFlags) => {
  const description = (await collection.describe(within(flags))) as unknown as Description
  const key = description.fields.find(({ primaryKey }) => primaryKey === true)!
  const vector = description.fields.find(({ type }) => type === "FloatVector")!
  return {
    description,
    keyField: key.name,
    keyType: key.type as KeyType,
    vectorField: vector.name,
    dimension: vector.params!.dim
  }
}

const describe = Command.make("describe", { name: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    const { description, dimension, keyField, keyType, vectorField } = await describeOf(
      elanus.collection(flags.name),
      flags
    )
    if (flags.json) return printJson(description)
    const index = description.indexes[0]!
    printText(
      facts([
        ["collection", flags.name],
        ...(description.description === "" ? [] : [["description", description.description] as const]),
        ["key", `${keyField}: ${keyType}`],
        ["vector", `${vectorField}: ${dimension} floats, ${index.metricType}`],
        ["index", `${index.indexType}, M ${index.params.M}, efConstruction ${index.params.efConstruction}`],
        ["shards", description.shardsNum]
      ])
    )
  })
).pipe(Command.withDescription("Show what a collection is made of"))

const list = Command.make("list", clientFlags, (flags) =>
  talk(flags, async (elanus) => {
    const names = await elanus.listCollections(within(flags))
    if (flags.json) return printJson(names)
    if (names.length > 0) printText(names.join("\n"))
  })
).pipe(Command.withDescription("List the collections of a database"))

const drop = Command.make("drop", { name: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    await elanus.collection(flags.name).drop(within(flags))
    if (flags.json) return printJson({ dropped: flags.name })
    printText(`dropped ${flags.name}`)
  })
).pipe(Command.withDescription("Drop a collection with all of its rows, at once and for good"))

const stats = Command.make("stats", { name: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    const found = await elanus.collection(flags.name).stats(within(flags))
    if (flags.json) return printJson(found)
    printText(
      facts([
        ["rows", count(found.rowCount)],
        ["growing", `${count(found.growingRows)} rows, ${bytesText(found.growingBytes)}`],
        ["segments", `${found.segments}, ${found.indexedSegments} with an index, ${bytesText(found.sealedBytes)}`],
        ["shards", found.shards.length]
      ])
    )
  })
).pipe(Command.withDescription("Count the rows of a collection, and show where they are"))

const collections = Command.make("collection").pipe(
  Command.withDescription("Create, look at and drop collections"),
  Command.withSubcommands([create, describe, list, drop, stats])
)

// ---- insert

const INSERT_TIMEOUT_MS = 60_000
/** Below what one record of the log and one message of NATS take. */
const BATCH_BYTES = 400 * 1024
/** Rows that wait for company go after this, so that a slow pipe's rows are there soon. */
const IDLE_MS = 200
const BAD_SHOWN = 20

interface NewRow {
  readonly id: Key
  readonly vector: Float32Array
  readonly fields: { readonly [name: string]: unknown } | undefined
  readonly bytes: number
}

interface Batch {
  readonly ids: Array<Key>
  readonly vectors: Array<Float32Array>
  readonly fields: Array<NewRow["fields"]>
  bytes: number
  readonly first: number
  last: number
}

const insertFlags = {
  collection: collectionArgument,
  file: Argument.String("file").pipe(
    Argument.withDescription("JSON lines, Arrow IPC or .fvecs; stdin if not given, or -"),
    Argument.withDefault("-")
  ),
  format: maybe(
    Flag.Literals("format", ["jsonl", "arrow", "fvecs"]).pipe(
      Flag.withDescription("Else the file's name or its first bytes say it")
    )
  ),
  firstId: Flag.Int("first-id").pipe(
    Flag.withDescription("Of .fvecs, whose vectors have no ids: they are numbered from here"),
    Flag.withDefault(0)
  ),
  idColumn: text("id-column", "NAME", "Column of an Arrow file that is the key; else as the collection calls it"),
  vectorColumn: text("vector-column", "NAME", "Column of an Arrow file that is the vector; else as the collection's"),
  inFlight: Flag.Int("in-flight").pipe(Flag.withDescription("Requests at once"), Flag.withDefault(8)),
  keepGoing: Flag.Boolean("keep-going").pipe(
    Flag.withDescription("Report rows that are wrong and insert the others (and end with 1)"),
    Flag.withDefault(false)
  ),
  ...clientFlags
}
type InsertFlags = Cli.Command.Command.Config.Infer<typeof insertFlags>

/** Each piece of the input as a row of the collection, or as what is wrong with it. */
const readRows = async (
  input: Input,
  flags: InsertFlags,
  spec: Awaited<ReturnType<typeof describeOf>>
): Promise<AsyncIterator<ReadonlyArray<Piece<NewRow | ElanusError>>>> => {
  const { dimension, keyField, keyType, vectorField } = spec
  const { checkFields, parseBody, readKey, readVector } = await import("../actors/proxy/json.ts")
  const { readArrow, readFvecs, readLines, unitOf } = await import("./command-input.ts")
  const unit = unitOf[input.format]

  const rowOf = (where: string, key: unknown, vector: unknown, fields: NewRow["fields"]): NewRow => {
    const id = readKey(key, keyType, `${where}, ${keyField}`)
    if (vector === undefined || vector === null)
      throw failure("field-not-found", `${where}: there is no ${vectorField}`)
    const into = new Float32Array(dimension)
    readVector(vector, dimension, into, 0, `${where}, ${vectorField}`)
    checkFields(fields, where)
    const fieldBytes = fields === undefined ? 0 : Buffer.byteLength(JSON.stringify(fields))
    if (fieldBytes > limits.fieldsBytesMax) {
      throw failure("too-large", `${where}: fields of ${fieldBytes} bytes; ${limits.fieldsBytesMax} are the most`)
    }
    const keyBytes = typeof id === "string" ? Buffer.byteLength(id) + 4 : 8
    return { id, vector: into, fields, bytes: dimension * 4 + keyBytes + fieldBytes + 4 }
  }
  const rowOfLine = (where: string, line: Uint8Array): NewRow => {
    const { [keyField]: key, [vectorField]: vector, ...fields } = parseBody(line)
    return rowOf(where, key, vector, Object.keys(fields).length === 0 ? undefined : fields)
  }
  const { limits } = await import("../protocols/limits.ts")

  async function* through<A>(
    pieces: AsyncIterable<ReadonlyArray<Piece<A>>>,
    convert: (where: string, value: A, at: number) => NewRow
  ): AsyncGenerator<ReadonlyArray<Piece<NewRow | ElanusError>>> {
    for await (const group of pieces) {
      yield group.map(({ at, value }) => {
        const where = `${unit} ${at}`
        try {
          return { at, value: convert(where, value, at) }
        } catch (cause) {
          const error = toElanusError(cause)
          const isPlaced = error.reason.startsWith(where)
          return {
            at,
            value: isPlaced ? error : failure(error.code, `${where}: ${error.reason.replace("the body", "it")}`)
          }
        }
      })
    }
  }
  switch (input.format) {
    case "jsonl":
      return through(readLines(input.chunks), rowOfLine)
    case "fvecs":
      return through(readFvecs(input.chunks), (where, vector, at) => {
        const id = flags.firstId + at - 1
        return rowOf(where, keyType === "VarChar" ? String(id) : id, vector, undefined)
      })
    case "arrow": {
      const { RecordBatchReader } = await import("apache-arrow")
      const batches = (async function* () {
        try {
          const source = await input.arrow()
          yield* (await RecordBatchReader.from(
            source as AsyncIterable<Uint8Array>
          )) as unknown as AsyncIterable<ArrowBatch>
        } catch (cause) {
          throw failure("bad-request", `${input.name} is no Arrow: ${cause instanceof Error ? cause.message : cause}`)
        }
      })()
      const rows = readArrow(batches, flags.idColumn ?? keyField, flags.vectorColumn ?? vectorField)
      return through(rows, (where, { fields, key, vector }) => {
        return rowOf(where, key ?? undefined, vector, Object.keys(fields).length === 0 ? undefined : fields)
      })
    }
  }
}

const insertAll = async (elanus: Elanus, flags: InsertFlags): Promise<number> => {
  const collection = elanus.collection(flags.collection)
  const spec = await describeOf(collection, flags)
  const { openInput, unitOf } = await import("./command-input.ts")
  if (flags.file === "-" && process.stdin.isTTY) process.stderr.write("reading rows from the terminal\n")
  const input = await openInput(flags.file, flags.format as Format | undefined)
  const unit = unitOf[input.format]
  const started = performance.now()
  const progress = makeProgress("inserting", input.bytes)
  const limit = within(flags, INSERT_TIMEOUT_MS)
  const atOnce = Math.max(1, flags.inFlight)

  let stored = 0
  let skipped = 0
  /** Something in the input, or what became of a request: either ends it. */
  let wrong: ElanusError | undefined
  let lost: ElanusError | undefined
  let batch: Batch | undefined
  const inFlight = new Set<Promise<void>>()
  /** Two rows of one key must come in the file's order: the later waits until the earlier is there. */
  const keysInFlight = new Map<Key, Promise<void>>()

  const send = async (): Promise<void> => {
    const mine = batch
    batch = undefined
    if (mine === undefined || lost !== undefined) return
    while (inFlight.size >= atOnce) await Promise.race(inFlight)
    for (const id of mine.ids) await keysInFlight.get(id)
    if (lost !== undefined) return
    const vectors = new Float32Array(mine.ids.length * spec.dimension)
    mine.vectors.forEach((vector, i) => vectors.set(vector, i * spec.dimension))
    const hasFields = mine.fields.some((fields) => fields !== undefined)
    const sent = collection
      .insert({ ids: mine.ids, vectors, ...(hasFields ? { fields: mine.fields } : {}) }, limit)
      .then(
        () => {
          stored += mine.ids.length
          progress.show(stored, input.bytesRead())
        },
        (cause: unknown) => {
          const error = toElanusError(cause)
          lost ??= failure(error.code, `${unit}s ${mine.first} to ${mine.last}: ${error.reason}`)
        }
      )
      .then(() => {
        inFlight.delete(sent)
        for (const id of mine.ids) if (keysInFlight.get(id) === sent) keysInFlight.delete(id)
      })
    inFlight.add(sent)
    for (const id of mine.ids) keysInFlight.set(id, sent)
  }

  const take = async ({ at, value }: Piece<NewRow | ElanusError>): Promise<void> => {
    if (value instanceof Error) {
      skipped++
      if (!flags.keepGoing) wrong ??= value
      else if (skipped <= BAD_SHOWN) reportError(value, flags.json)
      else if (skipped === BAD_SHOWN + 1) process.stderr.write("and more of that kind\n")
      return
    }
    if (batch !== undefined && batch.bytes + value.bytes > BATCH_BYTES) await send()
    batch ??= { ids: [], vectors: [], fields: [], bytes: 0, first: at, last: at }
    batch.ids.push(value.id)
    batch.vectors.push(value.vector)
    batch.fields.push(value.fields)
    batch.bytes += value.bytes
    batch.last = at
  }

  try {
    const rows = await readRows(input, flags, spec)
    let next = rows.next()
    while (wrong === undefined && lost === undefined) {
      const timer = new AbortController()
      const idle = sleep(IDLE_MS, undefined, { signal: timer.signal }).catch(() => undefined)
      const group = await (batch === undefined ? next : Promise.race([next, idle]))
      timer.abort()
      if (group === undefined) {
        await send()
        continue
      }
      if (group.done === true) break
      next = rows.next()
      // Whoever stops early never looks at it.
      next.catch(() => undefined)
      for (const piece of group.value) {
        if (wrong === undefined && lost === undefined) await take(piece)
      }
    }
  } catch (cause) {
    wrong ??= toElanusError(cause)
  }
  await input.close().catch(() => undefined)
  // What came before a row that is wrong is stored: so the file can be put right from there on.
  await send()
  await Promise.all(inFlight)
  progress.end()

  const took = (performance.now() - started) / 1_000
  const summary = {
    rows: stored,
    ...(skipped > 0 ? { wrong: skipped } : {}),
    seconds: Number(took.toFixed(3)),
    rowsPerSecond: Math.round(stored / took),
    timestamp: String(elanus.timestamp())
  }
  if (flags.json) printJson(summary)
  else {
    const wrong = skipped > 0 ? `, ${count(skipped)} wrong` : ""
    printText(`${count(stored)} rows in ${took.toFixed(2)} s, ${count(stored / took)} rows/s${wrong}`)
  }
  // TypeScript does not see that callbacks write it.
  const failed = (lost as ElanusError | undefined) ?? wrong
  if (failed !== undefined) return reportError(failed, flags.json)
  return skipped > 0 ? exitCodes.caller[0] : exitCodes.ok[0]
}

const insert = Command.make("insert", insertFlags, (flags) => talk(flags, (elanus) => insertAll(elanus, flags))).pipe(
  Command.withDescription("Insert rows from a file or a pipe; a row whose key is there already replaces it"),
  Command.withExamples([
    {
      command: `echo '{"id":1,"vector":[0.1,0.2],"title":"A"}' | elanus insert books`,
      description: "JSON, a row a line"
    },
    { command: "elanus insert sift base.fvecs", description: "Vectors, numbered from 0" }
  ])
)

// ---- reading

const consistencies = { strong: "Strong", session: "Session", bounded: "Bounded", eventually: "Eventually" } as const
const readFlags = {
  outputFields: maybe(
    Flag.String("output-fields").pipe(
      Flag.withMetavar("NAMES"),
      Flag.withDescription("Fields to show, with commas between; * for all"),
      Flag.map((names) => names.split(",").map((name) => name.trim()))
    )
  ),
  consistency: maybe(
    Flag.String("consistency").pipe(
      Flag.withMetavar("LEVEL"),
      Flag.withDescription("strong, session, bounded or eventually"),
      Flag.mapTryCatch(
        (given): Consistency => {
          const level = consistencies[given.toLowerCase() as keyof typeof consistencies]
          if (level === undefined) throw new Error(`consistency is ${Object.keys(consistencies).join(", ")}`)
          return level
        },
        (cause) => (cause as Error).message
      )
    )
  ),
  at: maybe(
    Flag.String("at").pipe(
      Flag.withMetavar("TIMESTAMP"),
      Flag.withDescription("As it was at the timestamp of an earlier answer"),
      Flag.mapTryCatch(
        (given) => BigInt(given),
        () => "a timestamp is what an answer said of itself, a decimal number"
      )
    )
  )
}
type ReadFlags = Cli.Command.Command.Config.Infer<typeof readFlags>

const readOptions = ({ at, consistency, outputFields }: ReadFlags) => ({
  ...(outputFields === undefined ? {} : { outputFields }),
  ...(consistency === undefined ? {} : { consistency }),
  ...(at === undefined ? {} : { at })
})

/** A row as one object, its key first and as text. */
const flat = (spec: { readonly keyField: string; readonly vectorField: string }, row: Row | Hit) => ({
  [spec.keyField]: String(row.id),
  ...("distance" in row ? { distance: row.distance } : {}),
  ...row.fields,
  ...(row.vector === undefined ? {} : { [spec.vectorField]: row.vector })
})

/** Objects as a table, with a column for each name that any of them has. */
const tableOf = (rows: ReadonlyArray<{ readonly [name: string]: unknown }>): string => {
  const titles = [...new Set(rows.flatMap((row) => Object.keys(row)))]
  return table(
    titles,
    rows.map((row) =>
      titles.map((title) =>
        title === "distance" && typeof row[title] === "number" ? row[title].toFixed(6) : row[title]
      )
    )
  )
}

/** Vectors from the flags: JSON, in a file also one a line, or .fvecs. */
const readVectors = async (
  given: ReadonlyArray<string>,
  file: string | undefined
): Promise<Array<Array<number> | Float32Array>> => {
  const parse = (source: string, where: string): Array<Array<number>> => {
    let value: unknown
    try {
      value = JSON.parse(source)
    } catch (cause) {
      throw failure("bad-vector", `${where} is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`)
    }
    if (!Array.isArray(value)) throw failure("bad-vector", `${where} must be an array of numbers`)
    return (value.length > 0 && value.every((each) => Array.isArray(each)) ? value : [value]) as Array<Array<number>>
  }
  if (given.length > 0) return given.flatMap((each) => parse(each, "--vector"))
  const { openInput, readFvecs, readLines } = await import("./command-input.ts")
  const path = file ?? "-"
  if (path === "-" && process.stdin.isTTY) throw new UsageError("give --vector, --file, or vectors on stdin")
  const input = await openInput(path, path.endsWith(".fvecs") ? "fvecs" : "jsonl")
  const vectors: Array<Array<number> | Float32Array> = []
  if (input.format === "fvecs") {
    for await (const group of readFvecs(input.chunks)) vectors.push(...group.map(({ value }) => value))
  } else {
    for await (const group of readLines(input.chunks)) {
      for (const { at, value } of group) vectors.push(...parse(new TextDecoder().decode(value), `line ${at}`))
    }
  }
  return vectors
}

const search = Command.make(
  "search",
  {
    collection: collectionArgument,
    vector: Flag.String("vector").pipe(
      Flag.withMetavar("JSON"),
      Flag.withDescription("What to look for, [0.1, 0.2]; may be given again"),
      Flag.atLeast(0)
    ),
    file: text("file", "FILE", "Vectors to look for: JSON, one a line, or .fvecs; - for stdin"),
    limit: Flag.Int("limit").pipe(Flag.withDescription("Hits for each vector"), Flag.withDefault(10)),
    offset: integer("offset", "Hits to leave out before them"),
    ef: integer("ef", "Candidates that the index keeps: the more, the better the recall"),
    ...readFlags,
    ...clientFlags
  },
  (flags) =>
    talk(flags, async (elanus) => {
      const vectors = await readVectors(flags.vector, flags.file)
      const collection = elanus.collection(flags.collection)
      const spec = await describeOf(collection, flags)
      const started = performance.now()
      const lists = await collection.search(vectors, {
        limit: flags.limit,
        ...(flags.offset === undefined ? {} : { offset: flags.offset }),
        ...(flags.ef === undefined ? {} : { ef: flags.ef }),
        ...readOptions(flags),
        ...within(flags)
      })
      const took = seconds(started)
      const results = lists.map((hits) => hits.map((hit) => flat(spec, hit)))
      if (flags.json) return printJson({ results, timestamp: String(elanus.timestamp()) })
      results.forEach((hits, i) => {
        if (results.length > 1) printText(`${i === 0 ? "" : "\n"}vector ${i + 1}`)
        printText(hits.length === 0 ? "nothing found" : tableOf(hits))
      })
      process.stderr.write(`${took}\n`)
    })
).pipe(
  Command.withDescription("Find the rows whose vectors are nearest"),
  Command.withExamples([
    {
      command: "elanus search books --vector '[0.1, 0.2]' --limit 3 --output-fields title",
      description: "Three of them"
    }
  ])
)

const idsArgument = Argument.String("id").pipe(
  Argument.withDescription("Keys; negative ones after --, and - alone for one a line on stdin"),
  Argument.atLeast(1)
)

const readIds = async (given: ReadonlyArray<string>): Promise<Array<string>> => {
  if (given.length !== 1 || given[0] !== "-") return [...given]
  const { openInput, readLines } = await import("./command-input.ts")
  const { chunks } = await openInput("-", "jsonl")
  const ids: Array<string> = []
  for await (const group of readLines(chunks)) {
    for (const { value } of group) ids.push(new TextDecoder().decode(value).trim())
  }
  return ids
}

const get = Command.make(
  "get",
  { collection: collectionArgument, ids: idsArgument, ...readFlags, ...clientFlags },
  (flags) =>
    talk(flags, async (elanus) => {
      const collection = elanus.collection(flags.collection)
      const spec = await describeOf(collection, flags)
      const ids = await readIds(flags.ids)
      const found = await collection.get(ids, { ...readOptions(flags), ...within(flags) })
      const rows = found.map((row) => flat(spec, row))
      if (flags.json) return printJson({ rows, timestamp: String(elanus.timestamp()) })
      if (rows.length > 0) printText(tableOf(rows))
      process.stderr.write(`${count(rows.length)} of ${count(new Set(ids).size)} found\n`)
    })
).pipe(Command.withDescription("Show rows by their keys"))

const remove = Command.make("delete", { collection: collectionArgument, ids: idsArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    const ids = await readIds(flags.ids)
    const { count: asked, timestamp } = await elanus.collection(flags.collection).delete(ids, within(flags))
    if (flags.json) return printJson({ deleted: asked, timestamp: String(timestamp) })
    printText(`deleted, where there was one, the rows of ${count(asked)} ${asked === 1 ? "key" : "keys"}`)
  })
).pipe(Command.withDescription("Delete rows by their keys"))

const FLUSH_TIMEOUT_MS = 120_000
const flush = Command.make("flush", { collection: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    const started = performance.now()
    await elanus.collection(flags.collection).flush(within(flags, FLUSH_TIMEOUT_MS))
    const took = performance.now() - started
    if (flags.json) return printJson({ flushed: flags.collection, milliseconds: Math.round(took) })
    printText(`flushed ${flags.collection} in ${seconds(started)}`)
  })
).pipe(Command.withDescription("Seal and store what is in memory, and wait until query nodes serve it"))

// ---- start

const STOP_MS = 10_000
const STATUS_RETRY_MS = 100
const signals = { SIGINT: 130, SIGTERM: 143 } as const
const roleNames = ["coordinator", "streaming-node", "query-node", "data-node", "proxy"] as const

const startFlags = {
  role: Flag.Literals("role", roleNames).pipe(
    Flag.withDescription("Play this role; may be given again; all if not given"),
    Flag.atLeast(0)
  ),
  nats: text("nats", "URL", "Servers of NATS, with commas between; if not given, starts one of its own"),
  port: Flag.Int("port").pipe(Flag.withDescription("Of its own nats-server"), Flag.withDefault(DEFAULT_PORT)),
  objects: text(
    "objects",
    "PLACE",
    "dir:PATH or s3://BUCKET/PREFIX?endpoint=...&region=...; dir:DATA/objects if not given"
  ),
  data: Flag.String("data").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription("Where this process keeps what it keeps"),
    Flag.withDefault(DEFAULT_DATA)
  ),
  cluster: Flag.String("cluster").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("Several clusters may share one NATS, but not their clients"),
    Flag.withDefault("main")
  ),
  replicas: Flag.Int("replicas").pipe(
    Flag.withDescription("Of log and metadata, on as many servers of NATS"),
    Flag.withDefault(1)
  ),
  channelBytes: bytes("channel-bytes", "What each of the 16 channels of the log may hold; 8GiB if not given"),
  segmentBytes: bytes("segment-bytes", "A segment is sealed at so many bytes of vectors; 64MiB if not given"),
  segmentAgeMs: integer("segment-age-ms", "A segment is sealed after this time"),
  indexRowsMin: integer("index-rows-min", "A segment of fewer rows gets no index; 1024 if not given"),
  loadedBytes: bytes("loaded-bytes", "Most bytes of segments that a query node holds; 16GiB if not given"),
  growingBytes: bytes("growing-bytes", "Most bytes of rows that only memory and log hold; 1GiB if not given"),
  leaseTtlMs: integer("lease-ttl-ms", "A node that was not heard of for so long is gone; 30000 if not given"),
  evidenceMs: integer("evidence-ms", "A node that nobody reaches for so long is gone; 2000 if not given"),
  ...credentialFlags,
  json
}
type StartFlags = Cli.Command.Command.Config.Infer<typeof startFlags>

const settingsOf = (flags: StartFlags): Partial<Settings> => {
  const given = {
    segmentBytesMax: flags.segmentBytes,
    segmentAgeMaxMs: flags.segmentAgeMs,
    indexRowsMin: flags.indexRowsMin,
    loadedBytesMax: flags.loadedBytes,
    growingBytesMax: flags.growingBytes,
    leaseTtlMs: flags.leaseTtlMs,
    evidenceMs: flags.evidenceMs
  }
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined && value < 1) throw new UsageError(`${name} must be 1 or more`)
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

const checkStart = ({ cluster, port, replicas }: StartFlags): void => {
  if (cluster === "v1") throw new UsageError('a cluster may not be called "v1": clients talk below that name')
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(cluster)) {
    throw new UsageError("--cluster is a name of at most 64 letters, digits, _ and -")
  }
  if (![1, 3, 5].includes(replicas)) throw new UsageError("--replicas is 1, 3 or 5")
  if (port < 1 || port > 65_535) throw new UsageError("--port is a number from 1 to 65535")
}

/** A store of objects that may only be read opens like any other; who is going to write to it finds out before it begins. */
const tryObjects = Effect.fnUntraced(function* (node: string, where: string) {
  const { Objects } = yield* Effect.promise(() => import("../storage/objects.ts"))
  const objects = yield* Objects
  const key = `probe/${node}`
  const outcome = yield* objects.put(key, [new TextEncoder().encode(node)])
  if (outcome._tag === "Done") return yield* Effect.asVoid(objects.remove(key))
  const reason = `objects at ${where} cannot be written: ${outcome.detail}`
  // With no room it can still serve what there is.
  if (outcome._tag === "Refused" && outcome.reason === "full") return yield* Effect.logWarning(reason)
  return yield* failure("unfit", reason)
})

/** Plays the roles until it is told to stop, or something ends that it cannot do without. */
const play = Effect.fnUntraced(function* (flags: StartFlags) {
  const { startOwnServer } = yield* Effect.promise(() => import("./command-server.ts"))
  const roles = yield* Effect.promise(() => import("./roles.ts"))
  const { natsLayer } = yield* Effect.promise(() => import("./places.ts"))
  const { Bus } = yield* Effect.promise(() => import("./bus.ts"))
  const { Catalog } = yield* Effect.promise(() => import("./catalog.ts"))
  const { Node } = yield* Effect.promise(() => import("./node.ts"))
  const { Meta } = yield* Effect.promise(() => import("../storage/meta.ts"))
  const { metadata, metaKey } = yield* Effect.promise(() => import("../protocols/metadata.ts"))
  const { databaseSubject } = yield* Effect.promise(() => import("../protocols/subjects.ts"))

  const data = resolve(flags.data)
  const server =
    flags.nats !== undefined
      ? undefined
      : yield* Effect.acquireRelease(
          Effect.tryPromise({ try: () => startOwnServer(join(data, "nats"), flags.port), catch: toElanusError }),
          ({ stop }) => Effect.promise(stop)
        )
  if (server !== undefined) process.once("exit", server.stopNow)
  const nats = yield* Effect.tryPromise({
    try: () => natsOptions(server?.url ?? flags.nats!, flags),
    catch: (cause) => cause
  })
  // As it may be shown: without the password that it may have been given with.
  const url = [nats.servers ?? []]
    .flat()
    .map((each) => `nats://${each}`)
    .join(",")
  const objects = flags.objects ?? `dir:${join(data, "objects")}`
  const wanted: ReadonlyArray<Role> = flags.role.length === 0 ? roles.allRoles : [...new Set(flags.role)]
  const ports = yield* Layer.build(
    natsLayer({
      nats,
      objects,
      cache: join(data, "cache"),
      cluster: flags.cluster,
      replicas: flags.replicas,
      channelBytesMax: flags.channelBytes,
      settings: settingsOf(flags)
    })
  )

  const serve = Effect.gen(function* () {
    const node = yield* Node
    const catalog = yield* Catalog
    const bus = yield* Bus
    if (wanted.includes("streaming-node") || wanted.includes("data-node")) yield* tryObjects(node.id, objects)
    const newer = (reason: string) => failure("unfit", `${reason}: this version of Elanus is too old for the cluster`)
    const format = yield* (yield* Meta).get(metaKey.format)
    yield* Effect.try({
      try: () => Option.map(format, ({ value }) => metadata.format.decode(value)),
      catch: (cause) => newer(cause instanceof Error ? cause.message : String(cause))
    })
    const unreadable = catalog.changed
      .until(() => catalog.unreadable() !== undefined)
      .pipe(Effect.andThen(Effect.suspend(() => Effect.fail(newer(catalog.unreadable()!)))))

    const run = Effect.gen(function* () {
      yield* roles.play(wanted)
      // Whole, it is ready when it answers; a part of a cluster, when it waits for the others.
      if (wanted.length === roles.allRoles.length) {
        const ask = bus.request(databaseSubject("default", "status"), new Uint8Array(0), { timeoutMs: 5_000 })
        const isAnswer = Effect.match(ask, {
          onFailure: () => false,
          onSuccess: ({ headers }) => headers === undefined || !("Nats-Service-Error-Code" in headers)
        })
        while (!(yield* isAnswer)) yield* Effect.sleep(STATUS_RETRY_MS)
      }
      const milliseconds = Math.round(performance.now())
      if (flags.json) {
        printJson({
          ready: true,
          node: node.id,
          roles: wanted,
          cluster: node.cluster,
          nats: url,
          objects,
          milliseconds
        })
      } else {
        const what = wanted.length === roles.allRoles.length ? "all roles" : wanted.join(", ")
        printText(
          `ready: node ${node.id} of cluster ${node.cluster} plays ${what} on ${url}, objects at ${objects} (${milliseconds} ms)`
        )
      }
      if (server === undefined) {
        const report = yield* Effect.option(Effect.tryPromise(() => reportNats(nats, flags.cluster)))
        if (Option.isSome(report)) for (const note of report.value.notes) yield* Effect.logInfo(`nats-server: ${note}`)
      }
      return yield* Effect.never
    })
    return yield* Effect.raceFirst(run, unreadable)
  }).pipe(Effect.provideContext(ports))

  if (server === undefined) return yield* serve
  const ended = Effect.promise(() => server.ended).pipe(
    Effect.andThen(
      Effect.fail(failure("unfit", `our nats-server ended: ${join(data, "nats", "nats-server.log")} may say why`))
    )
  )
  return yield* Effect.raceFirst(serve, ended)
})

const start = Command.make("start", startFlags, (flags) =>
  Effect.gen(function* () {
    const told = yield* Deferred.make<void>()
    const context = yield* Effect.context<never>()
    let stopping = false
    const stop = (code: number) => {
      if (stopping) process.exit(code)
      stopping = true
      setTimeout(() => process.exit(code), STOP_MS).unref()
      Effect.runForkWith(context)(Deferred.succeed(told, undefined))
    }
    for (const [signal, code] of Object.entries(signals)) process.on(signal, () => stop(code))
    const work = Effect.suspend(() => {
      checkStart(flags)
      return Effect.scoped(Effect.raceFirst(play(flags), Deferred.await(told)))
    })
    const exit = yield* Effect.exit(work)
    process.exitCode = exit._tag === "Success" ? exitCodes.ok[0] : reportError(firstOf(exit.cause), flags.json)
  })
).pipe(
  Command.withDescription("Start a process of a cluster: all of it, or some roles"),
  Command.withExamples([
    { command: "elanus start", description: "A cluster of one, with a nats-server of its own" },
    {
      command: "elanus start --role query-node --nats nats://127.0.0.1:4222 --objects s3://vectors",
      description: "A query node of a larger one"
    }
  ])
)

/** What an effect failed of, whether it was expected or not. */
const firstOf = (cause: { readonly reasons: ReadonlyArray<object> }): unknown => {
  const [first] = cause.reasons as ReadonlyArray<{ readonly error?: unknown; readonly defect?: unknown }>
  return first?.error ?? first?.defect ?? cause
}

// ---- the program

const elanus = Command.make("elanus").pipe(
  Command.withDescription(`A vector database made of actors on NATS.\n\n${exitCodeHelp}`),
  Command.withSubcommands([start, status, collections, insert, search, get, remove, flush])
)

const program = Command.runWith(elanus, { version: VERSION })(process.argv.slice(2)).pipe(
  Effect.catch((error) =>
    Effect.sync(() => {
      // Help that was asked for by its flag succeeds; this is a command line that says too little or something wrong.
      process.exitCode = CliError.isCliError(error) ? exitCodes.usage[0] : reportError(error, false)
    })
  ),
  Effect.provide(
    Layer.mergeAll(
      nodeServices.layer,
      CliOutput.layerPresenter({
        // The whole help would hide what is wrong.
        present: (event) =>
          event._tag !== "InvalidInvocation"
            ? CliOutput.defaultPresenter.present(event)
            : Effect.sync(() => {
                const reasons = event.errors.map(({ message }) => message).join("\n")
                process.stderr.write(`elanus: ${reasons}\nSee ${event.commandPath.join(" ")} --help\n`)
              })
      }),
      CliConfig.layer({
        builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel]
      }),
      Layer.succeed(Logger.LogToStderr, true)
    )
  )
)

// Whoever reads no further (`| head`) has what they wanted.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 5))

try {
  await Effect.runPromise(program)
} catch (cause) {
  process.exitCode = reportError(cause, process.argv.includes("--json"))
}
// Everything is closed: nothing that a driver still holds may keep the process.
setTimeout(() => process.exit(), 1_000).unref()

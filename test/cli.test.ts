/**
 * The command line as a newcomer and a script meet it: real processes, its own nats-server, rows from pipes and files
 * of every format, exit codes, JSON that parses, and everything still there after a kill.
 */
import {
  Field,
  FixedSizeList,
  Float32,
  makeData,
  makeVector,
  Table,
  tableToIPC,
  Utf8,
  vectorFromArray
} from "apache-arrow"
import { jetstreamManager } from "@nats-io/jetstream"
import { connect } from "nats"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { failure } from "../protocols/errors.ts"
import { exitCodeOf, exitCodes, toElanusError } from "../runtime/cli/exit.ts"
import { freePort, type NatsServer, startNatsServer } from "../runtime/nats-server.ts"
import { elanus, type RunOptions, type Started, start } from "./support/command.ts"

const DIMENSION = 4

let folder = ""
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "elanus-cli-"))
})
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }))

/** A command that must succeed; what it said, as JSON. */
const ok = async (args: ReadonlyArray<string>, options?: RunOptions): Promise<any> => {
  const { code, stderr, stdout } = await elanus([...args, "--json"], options)
  assert.strictEqual(code, 0, `elanus ${args.join(" ")}\n${stdout}${stderr}`)
  assert.strictEqual(stdout.trimEnd().split("\n").length, 1, "one line of JSON")
  return JSON.parse(stdout)
}

/** A command that must fail: with this exit code, and this error on stderr. */
const fails = async (
  args: ReadonlyArray<string>,
  exit: number,
  code: string,
  options?: RunOptions
): Promise<string> => {
  const ran = await elanus([...args, "--json"], options)
  assert.strictEqual(ran.code, exit, `elanus ${args.join(" ")}\n${ran.stdout}${ran.stderr}`)
  const last = ran.stderr.trimEnd().split("\n").at(-1)!
  const { error } = JSON.parse(last) as { error: { code: string; reason: string } }
  assert.strictEqual(error.code, code, last)
  return error.reason
}

const vectorOf = (id: number) => [id, id % 7, 1, 0]
const lines = (ids: ReadonlyArray<number>) =>
  ids.map((id) => JSON.stringify({ id, vector: vectorOf(id), title: `row ${id}`, even: id % 2 === 0 })).join("\n")
const fvecs = (ids: ReadonlyArray<number>): Uint8Array => {
  const bytes = Buffer.alloc(ids.length * 4 * (1 + DIMENSION))
  ids.forEach((id, i) => {
    const at = i * 4 * (1 + DIMENSION)
    bytes.writeInt32LE(DIMENSION, at)
    vectorOf(id).forEach((value, d) => bytes.writeFloatLE(value, at + 4 + d * 4))
  })
  return bytes
}
const arrow = (ids: ReadonlyArray<number>, format: "file" | "stream"): Uint8Array => {
  const type = new FixedSizeList(DIMENSION, new Field("item", new Float32()))
  const data = Float32Array.from(ids.flatMap(vectorOf))
  const child = makeData({ type: new Float32(), length: data.length, data })
  const table = new Table({
    id: makeVector(BigInt64Array.from(ids, BigInt)),
    vector: makeVector(makeData({ type, length: ids.length, child })),
    title: vectorFromArray(
      ids.map((id) => (id % 10 === 0 ? null : `row ${id}`)),
      new Utf8()
    )
  })
  return tableToIPC(table, format)
}
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

describe("a cluster of one process with its own nats-server", () => {
  let port = 0
  let data = ""
  let cluster: Started | undefined
  let client: ReadonlyArray<string> = []
  const begin = () => start(["--data", data, "--port", String(port), "--channel-bytes", "64M"])
  const serverPid = async () => Number(await readFile(join(data, "nats", "nats-server.pid"), "utf8"))

  beforeAll(async () => {
    port = await freePort()
    data = join(folder, "data")
    cluster = await begin()
    client = ["--nats", `nats://127.0.0.1:${port}`]
  })
  afterAll(async () => {
    await cluster?.end("SIGTERM")
  })

  const run = (...args: ReadonlyArray<string>) => ok([...args, ...client])

  it("says in one line that it is ready", () => {
    const { milliseconds, nats, node, objects, ready, roles } = cluster!.ready
    assert.deepInclude(
      { ready, nats, objects },
      {
        ready: true,
        nats: `nats://127.0.0.1:${port}`,
        objects: `dir:${join(data, "objects")}`
      }
    )
    assert.match(node, /^n[0-9a-z]+$/)
    assert.sameMembers([...roles], ["coordinator", "streaming-node", "query-node", "data-node", "proxy"])
    assert.isAbove(milliseconds, 0)
  })

  it("creates, describes and lists collections", async () => {
    await Promise.all([
      run("collection", "create", "books", "--dimension", "4", "--metric", "L2"),
      run("collection", "create", "files", "--dimension", "4", "--metric", "L2", "--shards", "3")
    ])
    const [description, names, status] = await Promise.all([
      run("collection", "describe", "books"),
      run("collection", "list"),
      run("status")
    ])
    assert.strictEqual(description.fields[1].params.dim, 4)
    assert.deepStrictEqual(names, ["books", "files"])
    assert.strictEqual(status.nodes.length, 1)
    assert.match(status.nats.notes.join("\n"), /no authentication/)
    assert.notMatch(status.nats.notes.join("\n"), /sync_interval/)
  })

  it("inserts from pipes and files of every format, and shows the rows", async () => {
    const put = async (name: string, bytes: Uint8Array) => {
      await writeFile(join(folder, name), bytes)
      return join(folder, name)
    }
    const [piped, vectors, file, stream] = await Promise.all([
      ok(["insert", "books", ...client], { input: `${lines(range(0, 40))}\n\n${lines(range(40, 50))}` }),
      run("insert", "files", await put("base.fvecs", fvecs(range(0, 100)))),
      run("insert", "files", await put("base.arrow", arrow(range(100, 200), "file"))),
      ok(["insert", "files", ...client], { input: arrow(range(200, 300), "stream") })
    ])
    assert.deepStrictEqual([piped.rows, vectors.rows, file.rows, stream.rows], [50, 100, 100, 100])
    assert.isAbove(piped.rowsPerSecond, 0)
    await ok(["insert", "files", "--format", "arrow", ...client], { input: arrow(range(300, 310), "file") })
  })

  it("searches, gets and deletes", async () => {
    const [found, several, got, files] = await Promise.all([
      run("search", "books", "--vector", "[7,0,1,0]", "--limit", "2", "--output-fields", "title,vector"),
      ok(["search", "books", "--limit", "1", ...client], { input: "[1,1,1,0]\n[2,2,1,0]\n" }),
      run("get", "books", "3", "49", "1000"),
      run("get", "files", "5", "150", "200", "309", "--output-fields", "title")
    ])
    assert.deepStrictEqual(found.results[0][0], { id: "7", distance: 0, title: "row 7", vector: [7, 0, 1, 0] })
    assert.deepStrictEqual(
      several.results.map((hits: any) => hits[0].id),
      ["1", "2"]
    )
    assert.deepStrictEqual(got.rows, [
      { id: "3", title: "row 3", even: false, vector: vectorOf(3) },
      { id: "49", title: "row 49", even: false, vector: vectorOf(49) }
    ])
    assert.match(got.timestamp, /^\d+$/)
    assert.deepStrictEqual(files.rows, [
      { id: "5" },
      { id: "150", title: null },
      { id: "200", title: null },
      { id: "309", title: "row 309" }
    ])
    const removed = await run("delete", "books", "3", "4")
    assert.strictEqual(removed.deleted, 2)
    const earlier = await run("get", "books", "3", "--at", got.timestamp, "--output-fields", "title")
    assert.deepStrictEqual(earlier.rows, [{ id: "3", title: "row 3" }])
  })

  it("keeps the last of rows with one key, however many requests they are", async () => {
    await run("collection", "create", "twice", "--dimension", "4", "--id-type", "VarChar")
    const text = "x".repeat(20_000)
    const rows = range(0, 120).map((i) => JSON.stringify({ id: `k${i % 3}`, vector: [i, 1, 1, 1], text }))
    await ok(["insert", "twice", ...client], { input: rows.join("\n") })
    const { rows: found } = await run("get", "twice", "k0", "k1", "k2", "--output-fields", "vector")
    assert.deepStrictEqual(
      found.map(({ vector }: any) => vector[0]),
      [117, 118, 119]
    )
  })

  it("says which line is wrong, and has the ones before it", async () => {
    await run("collection", "create", "lines", "--dimension", "4")
    const input = `${lines([1, 2])}\n{"id":3,"vector":[1,2]}\n${lines([4])}\n{"id":5\n${lines([6])}\n{"id":9007199254740993,"vector":[1,1,1,1]}\n`
    const reason = await fails(["insert", "lines", ...client], 1, "wrong-dimension", { input })
    assert.match(reason, /^line 3, vector: /)
    assert.strictEqual((await run("collection", "stats", "lines")).rowCount, 2)
    const ran = await elanus(["insert", "lines", "--keep-going", ...client], { input })
    assert.strictEqual(ran.code, 1)
    assert.match(ran.stdout, /^4 rows in .* 3 wrong\n$/)
    assert.match(
      ran.stderr,
      /line 3, vector: .*\n.*line 5: it is not JSON.*\n.*line 7: 9007199254740993 is beyond 2\^53/
    )
    assert.strictEqual((await run("collection", "stats", "lines")).rowCount, 4)
  })

  it("prints tables for people", async () => {
    const [found, listed] = await Promise.all([
      elanus(["search", "books", "--vector", "[7,0,1,0]", "--limit", "1", "--output-fields", "title", ...client]),
      elanus(["collection", "list", ...client])
    ])
    assert.strictEqual(found.stdout, "id  distance  title\n 7  0.000000  row 7\n")
    assert.match(listed.stdout, /^books\nfiles\n/)
  })

  it("flushes, and counts", async () => {
    await Promise.all([run("flush", "books"), run("flush", "files")])
    const [books, files] = await Promise.all([run("collection", "stats", "books"), run("collection", "stats", "files")])
    assert.deepInclude(books, { rowCount: 48, growingRows: 0, segments: 1 })
    assert.deepInclude(files, { rowCount: 310, growingRows: 0 })
  })

  it("has everything after it and its nats-server were killed", async () => {
    await ok(["insert", "books", ...client], { input: lines([3, 77]) })
    const server = await serverPid()
    await cluster!.end("SIGKILL")
    process.kill(server, "SIGKILL")
    cluster = await begin()
    const [got, books, files] = await Promise.all([
      run("get", "books", "3", "4", "5", "77", "--output-fields", "title"),
      run("collection", "stats", "books"),
      run("collection", "stats", "files")
    ])
    assert.deepStrictEqual(
      got.rows,
      [3, 5, 77].map((id) => ({ id: String(id), title: `row ${id}` }))
    )
    assert.strictEqual(books.rowCount, 50)
    assert.strictEqual(files.rowCount, 310)
  })

  it("takes over the nats-server that it left when it alone was killed, and is refused while it lives", async () => {
    const reason = await fails(["start", "--data", data, "--port", String(port)], exitCodes.operator[0], "unfit")
    assert.include(reason, "is in use")
    const server = await serverPid()
    await cluster!.end("SIGKILL")
    await fails(["status", "--timeout", "500", ...client], exitCodes.cluster[0], "unavailable")
    cluster = await begin()
    assert.strictEqual(await serverPid(), server)
    assert.strictEqual((await run("collection", "stats", "books")).rowCount, 50)
  })

  it("drops", async () => {
    await run("collection", "drop", "files")
    const [names] = await Promise.all([
      run("collection", "list"),
      fails(["collection", "stats", "files", ...client], exitCodes.caller[0], "collection-not-found")
    ])
    assert.notInclude(names, "files")
  })

  it("stops in order, and takes its nats-server along", async () => {
    const server = await serverPid()
    assert.strictEqual(await cluster!.end("SIGINT"), 0)
    assert.throws(() => process.kill(server, 0))
    await fails(["status", ...client], exitCodes.cluster[0], "unavailable")
  })
})

describe("role processes on one nats-server", () => {
  let nats: NatsServer | undefined
  const started: Array<Started> = []
  beforeAll(async () => {
    nats = await startNatsServer({
      storeDir: join(folder, "nats"),
      extraConfig: `authorization { users: [
        { user: role, password: secret }
        { user: looker, password: open, permissions: { publish: "$JS.API.INFO", subscribe: "_INBOX.>" } }
        { user: client, password: open, permissions: { publish: "elanus.v1.default.>", subscribe: "_INBOX.>" } }
      ] }`
    })
  })
  afterAll(async () => {
    await Promise.all(started.map((each) => each.end("SIGKILL")))
    await nats?.stop("SIGKILL")
  })

  it("are one database, for clients that may do nothing else", async () => {
    const at = `127.0.0.1:${nats!.port}`
    const place = [
      "--nats",
      `nats://role:secret@${at}`,
      "--objects",
      `dir:${join(folder, "shared")}`,
      "--channel-bytes",
      "64M"
    ]
    const begin = async (name: string, ...roles: ReadonlyArray<string>) => {
      const each = roles.flatMap((role) => ["--role", role])
      started.push(await start([...place, "--data", join(folder, name), ...each]))
    }
    await Promise.all([
      begin("workers", "streaming-node", "query-node", "data-node"),
      begin("head", "coordinator", "proxy")
    ])
    assert.notInclude(
      started.map(({ ready }) => ready.roles.length),
      5
    )
    assert.deepStrictEqual(
      started.map(({ ready }) => ready.nats),
      [`nats://${at}`, `nats://${at}`]
    )
    const env = { ELANUS_NATS: `nats://client:open@${at}` }
    await ok(["collection", "create", "books", "--dimension", "4", "--metric", "L2", "--shards", "2"], { env })
    await ok(["insert", "books"], { env, input: lines(range(0, 100)) })
    await ok(["flush", "books"], { env })
    const [status, found, stats] = await Promise.all([
      ok(["status"], { env }),
      ok(["search", "books", "--vector", "[50,1,1,0]", "--limit", "1", "--consistency", "strong"], { env }),
      ok(["collection", "stats", "books"], { env })
    ])
    assert.strictEqual(status.nodes.length, 2)
    assert.strictEqual(found.results[0][0].id, "50")
    assert.deepInclude(stats, { rowCount: 100, growingRows: 0 })
    const logged = started[0]!.stderr() + started[1]!.stderr()
    assert.match(logged, /^\[\d\d:\d\d:\d\d\] INFO: nats-server: sync_interval cannot be seen/m)
    const [other, stranger] = await Promise.all([
      fails(["collection", "list", "--database", "other"], exitCodes.operator[0], "unfit", { env }),
      fails(["collection", "list", "--nats", `nats://client:wrong@${at}`], exitCodes.operator[0], "unfit")
    ])
    assert.match(other, /Permissions Violation/)
    assert.match(stranger, /refuses us/)
  })

  it("are not told to try again what cannot succeed", async () => {
    const at = `127.0.0.1:${nats!.port}`
    const secret = join(folder, "no.seed")
    await writeFile(secret, "no seed\n")
    const begin = ["start", "--cluster", "never", "--data", join(folder, "never")]
    const { operator, usage } = exitCodes
    for (const [args, [exit], code, reason] of [
      [[...begin, "--nats", `nats://role:secret@${at}`, "--replicas", "3"], operator, "unfit", /replicas > 1/],
      [[...begin, "--nats", `nats://client:open@${at}`], operator, "unfit", /Permissions Violation .*JS\.API\.INFO/],
      [[...begin, "--nats", `nats://looker:open@${at}`], operator, "unfit", /Permissions Violation .*JS\.API\.STREAM/],
      [["status", "--nats", `tls://role:secret@${at}`], operator, "unfit", /has no TLS/],
      [["status", "--nats", `nats://${at}`, "--nkey", secret], usage, "usage", /^--nkey: .*no\.seed/],
      [["status", "--nats", `nats://${at}`, "--creds", secret], usage, "usage", /^--creds: .*no\.seed/]
    ] as const) {
      assert.match(await fails(args, exit, code), reason)
    }
  })
})

describe("an embedded directory", () => {
  it("takes the same commands, one process after the other", async () => {
    const place = ["--directory", join(folder, "embedded")]
    await fails(["collection", "list", ...place], exitCodes.operator[0], "unfit")
    assert.isFalse(existsSync(join(folder, "embedded")))
    await ok(["collection", "create", "books", "--dimension", "4", "--metric", "L2", ...place])
    await ok(["insert", "books", ...place], { input: lines(range(0, 20)) })
    const { results } = await ok(["search", "books", "--vector", "[3,3,1,0]", "--limit", "1", ...place])
    assert.strictEqual(results[0][0].id, "3")
  })

  it("is not blamed for a file that is not there", async () => {
    const place = ["--directory", join(folder, "blameless")]
    await ok(["collection", "create", "books", "--dimension", "4", ...place])
    const absent = join(folder, "absent.jsonl")
    for (const [args, reason] of [
      [["insert", "books", absent], `there is no file ${absent}`],
      [["insert", "books", folder], `${folder} is a directory`],
      [["search", "books", "--file", absent], `there is no file ${absent}`],
      [["search", "books", "--file", folder], `${folder} is a directory`]
    ] as const) {
      assert.strictEqual(await fails([...args, ...place], exitCodes.usage[0], "usage"), reason)
    }
  })
})

describe("a port that is taken", () => {
  const refusalAt = (port: number) =>
    fails(["start", "--data", join(folder, `at-${port}`), "--port", String(port)], exitCodes.operator[0], "unfit")

  it("by a nats-server may be used, by another program only left", async () => {
    const nats = await startNatsServer({ storeDir: join(folder, "taken"), name: "theirs" })
    const other = createServer((socket) => socket.end("220 at your service\r\n"))
    await new Promise<void>((done) => other.listen(0, "127.0.0.1", done))
    const { port } = other.address() as AddressInfo
    try {
      const [byNats, byOther] = await Promise.all([refusalAt(nats.port), refusalAt(port)])
      assert.match(byNats, /is taken by the nats-server theirs: use that one with --nats nats:/)
      assert.strictEqual(byOther, `port ${port} is taken by another program: give another --port`)
    } finally {
      other.close()
      await nats.stop("SIGKILL")
    }
  })
})

describe("a nats-server without room for a new cluster", () => {
  const wide = ["--channel-bytes", "256M"]
  const place = (name: string, url: string) => ["start", "--nats", url, "--data", join(folder, name)]
  const streamsOf = async (url: string) => {
    const connection = await connect({ servers: url })
    const names: Array<string> = []
    for await (const name of (await jetstreamManager(connection)).streams.names()) names.push(name)
    await connection.close()
    return names
  }

  it("is said to need it before anything is made, and takes a smaller one", { timeout: 120_000 }, async () => {
    const small = await startNatsServer({
      storeDir: join(folder, "small"),
      extraConfig: `jetstream { store_dir: ${JSON.stringify(join(folder, "small"))}, max_file_store: 2GB }`
    })
    try {
      const reason = await fails([...place("small-1", small.url), ...wide], exitCodes.operator[0], "unfit")
      assert.match(reason, /sets 4 GiB aside \(16 channels of 0\.25 GiB\), .*insufficient storage/)
      assert.match(reason, /raise max_file_store .* --channel-bytes/)
      assert.deepStrictEqual(await streamsOf(small.url), [])
      // Who makes no channels need not know how large they are, and may be there first.
      const node = await start(["--role", "query-node", "--nats", small.url, "--data", join(folder, "small-node")])
      await fails([...place("small-1", small.url), ...wide], exitCodes.operator[0], "unfit")
      await node.end("SIGTERM")
      const smaller = ["--nats", small.url, "--data", join(folder, "small-2"), "--channel-bytes", "64M"]
      const started = await start(smaller)
      assert.isFalse((await streamsOf(small.url)).includes("ELANUS_main_ROOM"))
      await started.end("SIGTERM")
      // It is the cluster's already: there is nothing more to set aside.
      await (await start(smaller)).end("SIGTERM")
    } finally {
      await small.stop("SIGKILL")
    }
  })

  it("nor an account has more than its limit", async () => {
    const limited = await startNatsServer({
      storeDir: join(folder, "limited"),
      extraConfig: `accounts { A { jetstream: { max_file: 3GB }, users: [{ user: role, password: secret }] } }`
    })
    try {
      const url = `nats://role:secret@127.0.0.1:${limited.port}`
      const reason = await fails([...place("limited-1", url), ...wide], exitCodes.operator[0], "unfit")
      assert.match(reason, /sets 4 GiB aside .* the account has 3 GiB left of 3 GiB: /)
    } finally {
      await limited.stop("SIGKILL")
    }
  })
})

describe("a machine without a nats-server", () => {
  it("is told what it tries, and in the end what was tried, by an error of the operator's", async () => {
    const bin = join(folder, "bin")
    await mkdir(bin)
    await writeFile(join(bin, "go"), "#!/bin/sh\necho no network >&2\nexit 1\n", { mode: 0o755 })
    const env = {
      PATH: bin,
      HOME: join(folder, "home"),
      XDG_CACHE_HOME: "",
      ELANUS_NATS_SERVER: "",
      // A proxy that is not there: no release comes through.
      NODE_USE_ENV_PROXY: "1",
      HTTPS_PROXY: `http://127.0.0.1:${await freePort()}`,
      NO_PROXY: ""
    }
    const port = String(await freePort())
    const { code, stderr } = await elanus(["start", "--data", join(folder, "none"), "--port", port], { env })
    assert.strictEqual(code, exitCodes.operator[0], stderr)
    const [withGo, fromRelease, error, ...tried] = stderr.trimEnd().split("\n")
    assert.match(withGo!, /^getting nats-server with Go, .* \.\.\.$/)
    assert.match(fromRelease!, /^getting nats-server from its release, .* \.\.\.$/)
    assert.strictEqual(error, "elanus: There is no nats-server that Elanus can use. Tried:")
    assert.match(tried.join("\n"), /^ {2}- ELANUS_NATS_SERVER is not set\n[^]*no network[^]*GOBIN=[^]*\(unfit\)$/)
    assert.notMatch(stderr, /^\s+at /m)
  })
})

/** Command lines that are refused with this exit code, in words like these; a few at once. */
const allWrong = async (
  wrong: ReadonlyArray<readonly [args: ReadonlyArray<string>, code: number, stderr: RegExp]>
): Promise<void> => {
  for (let from = 0; from < wrong.length; from += 6) {
    await Promise.all(
      wrong.slice(from, from + 6).map(async ([args, code, stderr]) => {
        const ran = await elanus(args)
        assert.strictEqual(ran.code, code, `${args.join(" ")}\n${ran.stderr}`)
        assert.match(ran.stderr, stderr)
      })
    )
  }
}

describe("exit codes", () => {
  it("refuse numbers with which nothing works, and say the least that does", async () => {
    await allWrong([
      [["start", "--channel-bytes", "0"], 2, /--channel-bytes: .* 16MiB or more/],
      [["start", "--channel-bytes", "16383K"], 2, /--channel-bytes: .* 16MiB or more/],
      [["start", "--segment-bytes", "1"], 2, /--segment-bytes: .* 64KiB or more/],
      [["start", "--growing-bytes", "1"], 2, /--growing-bytes: .* 1MiB or more/],
      [["start", "--loaded-bytes", "1"], 2, /--loaded-bytes: .* 1MiB or more/],
      [["start", "--lease-ttl-ms", "999"], 2, /--lease-ttl-ms: .* 1000 or more/],
      [["start", "--evidence-ms", "0"], 2, /--evidence-ms: .* 100 or more/],
      [["start", "--segment-age-ms", "0"], 2, /--segment-age-ms: .* 100 or more/],
      [["start", "--index-rows-min", "0"], 2, /--index-rows-min: .* 1 or more/],
      [["search", "books", "--vector", "[1]", "--ef", "0"], 2, /--ef: .* 1 or more/],
      [["insert", "books", "--in-flight", "0"], 2, /--in-flight: .* 1 or more/],
      [["status", "--directory", folder, "--nats", "nats://127.0.0.1"], 2, /leave out --nats/]
    ])
  })

  it("are by whose fault it is", () => {
    assert.strictEqual(exitCodeOf(failure("bad-vector", "")), 1)
    assert.strictEqual(exitCodeOf(failure("overloaded", "")), 3)
    assert.strictEqual(exitCodeOf(failure("damaged", "")), 4)
    assert.strictEqual(exitCodeOf(failure("internal", "")), 5)
    assert.strictEqual(exitCodeOf(failure("ambiguous", "")), 6)
    assert.strictEqual(exitCodeOf(failure("outcome-unknown", "")), 6)
    assert.strictEqual(toElanusError(new TypeError("x is not a function")).code, "internal")
    assert.strictEqual(toElanusError(Object.assign(new Error("EACCES: no"), { code: "EACCES" })).code, "unfit")
  })

  it("tell a wrong command line from a wrong request", async () => {
    const port = await freePort()
    const wrong: ReadonlyArray<readonly [args: ReadonlyArray<string>, code: number, stderr: RegExp]> = [
      [["serch", "books"], 2, /Did you mean[^]*search/],
      [["search"], 2, /collection/],
      [["search", "books", "--limit", "many"], 2, /limit/],
      [["search", "books", "--consistency", "perfect"], 2, /strong, session/],
      [["start", "--cluster", "v1"], 2, /v1/],
      [["start", "--objects", "foo"], 2, /--objects: .*not at foo/],
      [["start", "--objects", "s3://"], 2, /--objects: /],
      [["start", "--objects", "dir:"], 2, /--objects: dir: needs a path/],
      [["start", "--channel-bytes", "lots"], 2, /no number of bytes/],
      [["collection", "list", "--nats", "http://127.0.0.1"], 2, /is no server/],
      [["collection", "list", "--creds", join(folder, "absent.creds")], 2, /--creds: ENOENT/],
      [["collection", "list", "--nats", `nats://127.0.0.1:${port}`], 3, /no NATS server/]
    ]
    await allWrong(wrong)
    const help = await elanus(["--help"])
    assert.strictEqual(help.code, 0)
    for (const [code, meaning] of Object.values(exitCodes)) assert.include(help.stdout, `${code}  ${meaning}`)
  })

  it("help says what a flag is if it is not given", async () => {
    const [started, found] = await Promise.all([elanus(["start", "--help"]), elanus(["search", "--help"])])
    const words = ({ stdout }: { readonly stdout: string }) => stdout.replaceAll(/\s+/g, " ")
    for (const each of ["4222 if", "elanus-data if", "main if", "1 if"])
      assert.include(words(started), `; ${each} not given`)
    for (const each of ["10 if", "default if", "10000 if"]) assert.include(words(found), `; ${each} not given`)
  })
})

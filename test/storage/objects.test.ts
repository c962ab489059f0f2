/**
 * What every object store must do, run against each adapter: a directory, a real S3 server, and the simulated store
 * inside of a world. One model, a Map, says what is right; the awkward cases have tests of their own.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, Stream } from "effect"
import { once } from "node:events"
import { createServer } from "node:http"
import { chmod, mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import { compareKeys } from "../../protocols/keys.ts"
import { ledgerOf } from "../../sim/ledger.ts"
import { simObjects } from "../../sim/objects.ts"
import { here } from "../../sim/world.ts"
import { openObjects } from "../../storage/objects-open.ts"
import { Objects } from "../../storage/objects.ts"
import type { StorageError } from "../../storage/outcome.ts"
import { type S3Server, startS3 } from "../support/s3.ts"
import { inWorlds } from "../support/simulated.ts"
import { randomOf } from "./random.ts"

let folder = ""
let s3: S3Server
let fresh = 0

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "elanus-objects-"))
  s3 = await startS3()
  s3.useCredentials()
})

afterAll(async () => {
  await s3?.stop()
  await rm(folder, { recursive: true, force: true })
})

const s3Url = (prefix: string, bucket = s3.bucket) =>
  `s3://${bucket}/${prefix}?endpoint=${s3.endpoint}&region=us-east-1`

type Place = Layer.Layer<Objects, StorageError>

interface Store {
  readonly name: string
  /** A place that no test has used. */
  readonly place: Effect.Effect<Place>
  readonly run: <A, E>(program: () => Effect.Effect<A, E>) => Promise<A> | void
}

const opened = (url: () => string) => Effect.sync(() => Layer.fresh(openObjects(url())))

const stores: ReadonlyArray<Store> = [
  {
    name: "directory",
    place: opened(() => `dir:${join(folder, `store-${fresh++}`)}`),
    run: (program) => Effect.runPromise(program())
  },
  { name: "s3", place: opened(() => s3Url(`store-${fresh++}`)), run: (program) => Effect.runPromise(program()) },
  {
    name: "simulated",
    place: here(({ world }) => Effect.succeed(Layer.succeed(Objects)(simObjects(world, ledgerOf(world)).objects))),
    run: inWorlds
  }
]

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (value: Uint8Array) => new TextDecoder().decode(value)

const at = <A, E>(place: Place, body: (objects: Objects["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    return yield* body(yield* Objects)
  }).pipe(Effect.provide(place))

const within = <A, E>(url: string, body: (objects: Objects["Service"]) => Effect.Effect<A, E>) =>
  at(openObjects(url), body)

const keysOf = (objects: Objects["Service"], prefix = "") =>
  Effect.map(Stream.runCollect(objects.list(prefix)), (found) => found.map(({ key }) => key))

const reasonOf = <A>(effect: Effect.Effect<A, StorageError>) =>
  Effect.match(effect, { onFailure: (error) => error.reason as string, onSuccess: () => "success" })

const oddNames = [
  "with space/and more ",
  "up/..",
  "a/../b",
  "../../escape",
  "./here",
  "...",
  "*",
  '?<>|:"\\',
  "ünï/көд/鍵/🗝️",
  "%",
  "%2e%2e/%2F",
  "100%25",
  ".hidden/.file",
  "+plus=/equals=+",
  "UPPER/upper/Upper",
  "tab\tand\u0001control",
  "a//b",
  "tail/",
  "/front",
  "~",
  "-",
  "_",
  "&amp;'\"",
  `long/${"x".repeat(79)}`,
  `long/${"x".repeat(80)}`,
  `long/${"x".repeat(81)}/y`,
  `long/${"y".repeat(200)}`,
  "con",
  "nul.txt",
  "trailing.",
  ".tmp/x"
]

for (const { name, place, run } of stores) {
  describe(name, () => {
    const test = <A, E>(title: string, program: () => Effect.Effect<A, E>) =>
      it(title, async () => {
        await run(program)
      })
    const somewhere = <A, E>(body: (objects: Objects["Service"]) => Effect.Effect<A, E>) =>
      Effect.flatMap(place, (where) => at(where, body))

    test("does what a map would do, for any sequence of calls", () =>
      Effect.gen(function* () {
        const random = randomOf(`objects ${name}`)
        const url = yield* place
        const names = ["a", "b/c", "b/d", "b-e", "b/c2/f", "z z", "ключ/1", "ключ/2"]
        const model = new Map<string, Uint8Array>()
        yield* at(url, (objects) =>
          Effect.gen(function* () {
            for (let step = 0; step < 150; step++) {
              const key = random.pick(names)
              const kind = random.below(5)
              if (kind === 0) {
                const parts = Array.from({ length: random.below(4) }, () => random.bytes(random.below(300)))
                const outcome = yield* objects.put(key, parts)
                assert.strictEqual(outcome._tag, model.has(key) ? "Refused" : "Done", random.seed)
                if (!model.has(key)) model.set(key, Buffer.concat(parts))
              } else if (kind === 1) {
                assert.strictEqual((yield* objects.remove(key))._tag, "Done", random.seed)
                model.delete(key)
              } else if (kind === 2) {
                const range =
                  random.below(2) === 0 ? undefined : { offset: random.below(400), length: random.below(400) }
                const found = yield* Effect.exit(objects.get(key, range))
                const held = model.get(key)
                if (held === undefined) assert.isTrue(Exit.isFailure(found), random.seed)
                else {
                  assert.isTrue(Exit.isSuccess(found), `${random.seed}: ${String(found)}`)
                  const expected = range === undefined ? held : held.subarray(range.offset, range.offset + range.length)
                  if (Exit.isSuccess(found)) {
                    assert.deepStrictEqual([...found.value], [...expected], random.seed)
                    assert.strictEqual(found.value.byteOffset, 0)
                    assert.strictEqual(found.value.buffer.byteLength, found.value.length)
                  }
                }
              } else if (kind === 3) {
                const info = yield* objects.head(key)
                const held = model.get(key)
                const expected = held === undefined ? Option.none() : Option.some({ key, bytes: held.length })
                assert.deepStrictEqual(info, expected, random.seed)
              } else {
                const prefix = random.pick(["", "b", "b/", "b/c", "ключ/", "nothing", "z z"])
                const expected = [...model.keys()].filter((held) => held.startsWith(prefix)).sort(compareKeys)
                assert.deepStrictEqual(yield* keysOf(objects, prefix), expected, random.seed)
              }
            }
          })
        )
        // Opened again, all is as it was.
        yield* at(url, (objects) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* keysOf(objects), [...model.keys()].sort(compareKeys), random.seed)
            for (const [key, held] of model) assert.deepStrictEqual([...(yield* objects.get(key))], [...held])
          })
        )
      }))

    test("lets one of sixteen puts at once win, and keeps its bytes", () =>
      somewhere((objects) =>
        Effect.gen(function* () {
          const outcomes = yield* Effect.all(
            Array.from({ length: 16 }, (_, i) => objects.put("contended", [bytes(`writer ${i}`)])),
            { concurrency: "unbounded" }
          )
          const winners = outcomes.flatMap((outcome, i) => (outcome._tag === "Done" ? [i] : []))
          assert.strictEqual(winners.length, 1)
          for (const outcome of outcomes) {
            if (outcome._tag === "Done") continue
            assert.isTrue(
              outcome._tag === "Unavailable" || (outcome._tag === "Refused" && outcome.reason === "conflict")
            )
          }
          assert.strictEqual(text(yield* objects.get("contended")), `writer ${winners[0]}`)
        })
      ))

    test("reads ranges up to the end, and nothing past it", () =>
      somewhere((objects) =>
        Effect.gen(function* () {
          yield* objects.put("ten", [bytes("01234"), bytes("56789")])
          yield* objects.put("empty", [])
          const get = (offset: number, length: number, key = "ten") =>
            Effect.map(objects.get(key, { offset, length }), text)
          assert.strictEqual(yield* get(3, 4), "3456")
          assert.strictEqual(yield* get(8, 100), "89")
          assert.strictEqual(yield* get(10, 5), "")
          assert.strictEqual(yield* get(1000, 5), "")
          assert.strictEqual(yield* get(2, 0), "")
          assert.strictEqual(yield* get(0, 10, "empty"), "")
          assert.strictEqual((yield* objects.get("empty")).length, 0)
          assert.deepStrictEqual(yield* objects.head("empty"), Option.some({ key: "empty", bytes: 0 }))
        })
      ))

    test("says of what is not there that it is missing", () =>
      somewhere((objects) =>
        Effect.gen(function* () {
          assert.strictEqual(yield* reasonOf(objects.get("nothing")), "missing")
          assert.strictEqual(yield* reasonOf(objects.get("nothing", { offset: 0, length: 5 })), "missing")
          assert.strictEqual(yield* reasonOf(objects.get("nothing", { offset: 5, length: 0 })), "missing")
          assert.isTrue(Option.isNone(yield* objects.head("nothing")))
          assert.deepStrictEqual(yield* keysOf(objects), [])
          assert.strictEqual((yield* objects.remove("nothing"))._tag, "Done")
          yield* objects.put("once", [bytes("1")])
          assert.strictEqual((yield* objects.remove("once"))._tag, "Done")
          assert.strictEqual((yield* objects.remove("once"))._tag, "Done")
          assert.strictEqual(yield* reasonOf(objects.get("once")), "missing")
        })
      ))

    test("takes names of any printable text, and stays where it is", () =>
      somewhere((objects) =>
        Effect.gen(function* () {
          for (const key of oddNames) {
            assert.strictEqual((yield* objects.put(key, [bytes(key)]))._tag, "Done", JSON.stringify(key))
          }
          for (const key of oddNames) {
            assert.strictEqual(text(yield* objects.get(key)), key)
            assert.strictEqual((yield* objects.put(key, [bytes("again")]))._tag, "Refused", JSON.stringify(key))
          }
          const listed = yield* keysOf(objects)
          assert.deepStrictEqual([...listed].sort(compareKeys), [...oddNames].sort(compareKeys))
          if (name === "directory") assert.deepStrictEqual(listed, [...oddNames].sort(compareKeys))
          for (const prefix of [
            "",
            ".",
            "..",
            "a/",
            "a/.",
            "long/x",
            "100%",
            "ü",
            "/",
            "%",
            "tab\t",
            `long/${"x".repeat(80)}`
          ]) {
            const expected = oddNames.filter((key) => key.startsWith(prefix)).sort(compareKeys)
            assert.deepStrictEqual([...(yield* keysOf(objects, prefix))].sort(compareKeys), expected, prefix)
          }
          for (const key of ["", "x".repeat(2000), "lone \ud800 surrogate"]) {
            const outcome = yield* objects.put(key, [bytes("x")])
            assert.isTrue(outcome._tag === "Refused" && outcome.reason === "invalid", JSON.stringify(key.slice(0, 20)))
            assert.strictEqual(yield* reasonOf(objects.get(key)), "missing")
          }
          for (const key of oddNames) assert.strictEqual((yield* objects.remove(key))._tag, "Done")
          assert.deepStrictEqual(yield* keysOf(objects), [])
          if (name === "directory") {
            const outside = (yield* Effect.promise(() => readdir(folder))).filter(
              (entry) => !entry.startsWith("store-")
            )
            assert.deepStrictEqual(outside, [])
          }
        })
      ))

    test("lists more than a page in order", () =>
      somewhere((objects) =>
        Effect.gen(function* () {
          const names = Array.from({ length: 1_050 }, (_, i) => `n/${i}`)
          yield* Effect.forEach(names, (key) => objects.put(key, []), { concurrency: 16 })
          assert.deepStrictEqual(yield* keysOf(objects, "n/"), [...names].sort(compareKeys))
        })
      ))

    test("keeps 20 MB given in parts", () =>
      somewhere((objects) =>
        Effect.gen(function* () {
          const random = randomOf(`large ${name}`)
          const parts = Array.from({ length: 5 }, (_, i) => random.bytes(4_000_000 + i))
          const whole = Buffer.concat(parts)
          assert.strictEqual((yield* objects.put("large", parts))._tag, "Done")
          assert.isTrue(whole.equals(yield* objects.get("large")))
          const middle = yield* objects.get("large", { offset: 7_999_999, length: 12 })
          assert.deepStrictEqual([...middle], [...whole.subarray(7_999_999, 8_000_011)])
          // A store may refuse before it has read all, and the connection then breaks: ambiguous is an honest answer.
          const again = yield* objects.put("large", [random.bytes(20_000_000)])
          assert.isTrue(
            again._tag === "Ambiguous" || (again._tag === "Refused" && again.reason === "conflict"),
            again._tag
          )
          assert.isTrue(whole.equals(yield* objects.get("large")))
        })
      ))
  })
}

describe("a directory", () => {
  it.live("keeps a name and the same name as a folder apart", () =>
    within(`dir:${join(folder, `store-${fresh++}`)}`, (objects) =>
      Effect.gen(function* () {
        const names = [
          "..",
          "../..",
          ".tmp",
          ".tmp/x",
          "a",
          "a-b",
          "a/b",
          "a0",
          "a/b/c",
          "a/b/c/d",
          `${"p".repeat(80)}`,
          `${"p".repeat(80)}!`,
          `${"p".repeat(80)}/x`
        ]
        for (const key of names) assert.strictEqual((yield* objects.put(key, [bytes(key)]))._tag, "Done", key)
        assert.deepStrictEqual(yield* keysOf(objects), [...names].sort(compareKeys))
      })
    )
  )

  it.live("is refused where it cannot be", () =>
    Effect.gen(function* () {
      const file = join(folder, "a-file")
      yield* Effect.promise(() => writeFile(file, "x"))
      const open = (url: string) => reasonOf(within(url, () => Effect.void))
      assert.strictEqual(yield* open(`dir:${join(file, "below")}`), "unfit")
      assert.strictEqual(yield* open("dir:"), "unfit")
      assert.strictEqual(yield* open("ftp://somewhere"), "unfit")
      assert.strictEqual(yield* open("s3://bucket/?wrong=1"), "unfit")
      yield* Effect.promise(() => rm(file))
    })
  )

  it.live("that went away has lost nothing: it is unavailable, not empty", () =>
    Effect.gen(function* () {
      const path = join(folder, "goes-away")
      yield* within(`dir:${path}`, (objects) =>
        Effect.gen(function* () {
          yield* objects.put("a", [bytes("1")])
          yield* Effect.promise(() => rm(path, { recursive: true }))
          assert.strictEqual(yield* reasonOf(objects.get("a")), "unavailable")
          assert.strictEqual(yield* reasonOf(objects.head("a")), "unavailable")
          assert.strictEqual(yield* reasonOf(Stream.runDrain(objects.list(""))), "unfit")
          assert.strictEqual((yield* objects.put("b/c", [bytes("1")]))._tag, "Unavailable")
          assert.strictEqual((yield* objects.remove("a"))._tag, "Unavailable")
        })
      )
    })
  )

  it.live("that is read-only takes nothing", () =>
    Effect.gen(function* () {
      if (process.getuid?.() === 0) return // root may write anywhere: there is nothing to see
      const path = join(folder, "read-only")
      yield* within(`dir:${path}`, () => Effect.void)
      yield* Effect.promise(() => chmod(path, 0o500))
      assert.strictEqual(yield* reasonOf(within(`dir:${path}`, () => Effect.void)), "unfit")
      yield* Effect.promise(() => chmod(path, 0o700))
    })
  )
})

describe("a bucket", () => {
  it.live("that is not there is named", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(within(s3Url("", "no-such-bucket"), () => Effect.void))
      assert.strictEqual(error.reason, "unfit")
      assert.include(error.detail, "no-such-bucket")
    })
  )

  it.live("whose server is gone: nothing is done, and nothing is claimed", () =>
    Effect.gen(function* () {
      const own = yield* Effect.promise(startS3)
      const url = `s3://${own.bucket}/?endpoint=${own.endpoint}`
      yield* within(url, (objects) =>
        Effect.gen(function* () {
          yield* Effect.promise(own.stop)
          assert.notStrictEqual((yield* objects.put("a", [bytes("1")]))._tag, "Done")
          assert.strictEqual((yield* objects.put("a", [bytes("1")]))._tag, "Unavailable")
          assert.strictEqual(yield* reasonOf(objects.get("a")), "unavailable")
          assert.strictEqual(yield* reasonOf(Stream.runDrain(objects.list(""))), "unavailable")
        })
      )
      assert.strictEqual(yield* reasonOf(within(url, () => Effect.void)), "unavailable")
    })
  )

  it.live("is refused if its store ignores conditions", () =>
    Effect.gen(function* () {
      const fake = yield* Effect.promise(() => fakeS3(() => 200))
      const error = yield* Effect.flip(within(`s3://b/?endpoint=${fake.endpoint}`, () => Effect.void))
      yield* Effect.promise(fake.stop)
      assert.strictEqual(error.reason, "unfit")
      assert.include(error.detail, "If-None-Match")
    })
  )

  it.live("tells the four outcomes of a put apart", () =>
    Effect.gen(function* () {
      const puts: Array<number | "hang up"> = [200, 412, 409, 503, 500, "hang up", 400, 403, 507, 412, 200]
      const fake = yield* Effect.promise(() => fakeS3(() => puts.shift()!))
      const tags = yield* within(`s3://b/?endpoint=${fake.endpoint}`, (objects) =>
        Effect.gen(function* () {
          const found: Array<string> = []
          while (puts.length > 0) {
            const outcome = yield* objects.put("a", [bytes("1")])
            found.push(outcome._tag === "Refused" ? outcome.reason : outcome._tag)
          }
          return found
        })
      )
      yield* Effect.promise(fake.stop)
      const expected = [
        "Unavailable",
        "Ambiguous",
        "Ambiguous",
        "Ambiguous",
        "invalid",
        "Unavailable",
        "full",
        "conflict"
      ]
      assert.deepStrictEqual(tags, [...expected, "Done"])
    })
  )
})

/** A server that answers each PUT as told, and agrees to all else. */
const fakeS3 = async (put: () => number | "hang up") => {
  const server = createServer((request, response) => {
    request.resume()
    request.on("end", () => {
      const status = request.method === "PUT" ? put() : request.method === "DELETE" ? 204 : 200
      if (status === "hang up") return request.socket.destroy()
      response.writeHead(status).end()
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  return {
    endpoint: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`,
    stop: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    }
  }
}

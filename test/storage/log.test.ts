/** One suite for every adapter of `Log`: by property against a model, and the awkward questions one by one. */
import { jetstreamManager } from "@nats-io/jetstream"
import { Context, Effect, Exit, Fiber, Layer, type Scope, Stream } from "effect"
import { connect } from "nats"
import { describe, expect, it } from "vitest"
import { limits } from "../../protocols/limits.ts"
import { channelStream, channelSubject, layer as jetStreamLog } from "../../storage/log-jetstream.ts"
import { Log, type LogEntry } from "../../storage/log.ts"
import { NatsConnection } from "../../storage/nats-connection.ts"
import type { Outcome, StorageError } from "../../storage/outcome.ts"
import { randomFrom, seeds } from "../support/random.ts"
import {
  bytesOf,
  collect,
  createHeard,
  describeWorlds,
  eventually,
  type Place,
  type PlaceOptions,
  tagOf,
  textOf,
  valueOf,
  type World
} from "../support/storage.ts"

type LogService = Log["Service"]
type Program<A> = Effect.Effect<A, unknown, Scope.Scope>

const channel = 3
const fenceLength = limits.pipelineDepth + 1

const openLog = (place: Place, options?: Parameters<Place["open"]>[0]) =>
  Effect.map(place.open(options), (context) => Context.get(context, Log))

/** A log with an empty channel. */
const newLog = Effect.fnUntraced(function* (world: World, options?: PlaceOptions) {
  const place = yield* world.place(options)
  const log = yield* openLog(place)
  yield* createHeard(log, channel)
  return { place, log }
})

const append = (log: LogService, text: string, expectedLast: number) =>
  Effect.flatten(log.append(channel, bytesOf(text), expectedLast))

/** All of `texts` handed over before any outcome is awaited. */
const pipeline = Effect.fnUntraced(function* (log: LogService, texts: ReadonlyArray<string>, expectedLast: number) {
  const outcomes: Array<Effect.Effect<Outcome<number>>> = []
  for (const [index, text] of texts.entries()) {
    outcomes.push(yield* log.append(channel, bytesOf(text), expectedLast + index))
  }
  return yield* Effect.all(outcomes, { concurrency: "unbounded" })
})

const batchOf = (text: string) => Array.from({ length: fenceLength }, () => bytesOf(text))
const readAll = (log: LogService) => collect(log.read(channel, 1, Number.MAX_SAFE_INTEGER))
const lines = (entries: ReadonlyArray<LogEntry>) => entries.map(({ sequence, data }) => `${sequence} ${textOf(data)}`)
const reasonOf = (exit: Exit.Exit<unknown, StorageError>) =>
  Exit.isSuccess(exit) ? "success" : JSON.stringify(exit.cause.reasons)

/** As the owner of a channel does after a doubt or at a takeover: stopper, then fence. Tells where the fence begins. */
const takeover = Effect.fnUntraced(function* (log: LogService, name: string) {
  const stopped = valueOf(yield* log.appendBatch(channel, batchOf(`stopper ${name}`), undefined))
  const fenced = valueOf(yield* log.appendBatch(channel, batchOf(`fence ${name}`), stopped))
  return fenced - fenceLength + 1
})

describe("the largest record on NATS", () => {
  it("is what the server that we are connected to takes", async () => {
    const connection: { info?: { max_payload: number } } = { info: { max_payload: 8 * 1024 * 1024 } }
    const nats = NatsConnection.of({ connection } as unknown as NatsConnection["Service"])
    const layer = jetStreamLog({ cluster: "c", replicas: 1 }).pipe(Layer.provide(Layer.succeed(NatsConnection, nats)))
    const log = await Effect.runPromise(Effect.provide(Log, layer))
    expect(log.recordBytesMax).toBe(limits.recordBytesMax)
    delete connection.info // while it connects again
    expect(log.recordBytesMax).toBe(limits.recordBytesMax)
    connection.info = { max_payload: 64 * 1024 }
    expect(log.recordBytesMax).toBe(64 * 1024 - limits.payloadMargin)
    expect(tagOf(await Effect.runPromise(Effect.flatten(log.append(1, new Uint8Array(60_000), 0))))).toBe("invalid")
  })
})

describeWorlds("log", (world) => {
  const test = (title: string, program: () => Program<unknown>, timeout?: number) =>
    it(title, () => world.run(program), timeout)

  describe("by property", () => {
    for (const seed of seeds) {
      test(`any 150 operations do what the model does (seed ${seed})`, () => property(world, seed))
    }
  })

  test("a channel is made once, and one that was not is missing", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      expect(reasonOf(yield* Effect.exit(log.create(channel)))).toContain("unfit")
      expect(reasonOf(yield* Effect.exit(log.open(channel + 1)))).toContain("missing")
      const state = yield* log.open(channel)
      expect({ ...state, bytesMax: 0, incarnation: "" }).toEqual({
        first: 1,
        last: 0,
        bytes: 0,
        bytesMax: 0,
        incarnation: ""
      })
      expect(state.incarnation).not.toBe("")
      yield* log.create(channel + 1)
      expect((yield* log.open(channel + 1)).incarnation).not.toBe(state.incarnation)
    }))

  test("an empty range ends at once, and so does one past the end", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      expect(yield* readAll(log)).toEqual([])
      expect(valueOf(yield* append(log, "a", 0))).toBe(1)
      expect(yield* collect(log.read(channel, 2, 1))).toEqual([])
      expect(yield* collect(log.read(channel, 2, 9))).toEqual([])
      expect(lines(yield* collect(log.read(channel, 1, 9)))).toEqual(["1 a"])
    }))

  test("a hole in a pipeline refuses all that is behind it", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      const handed = yield* Effect.all(
        [0, 1, 2, 7, 3, 4].map((expected) => log.append(channel, bytesOf(`after ${expected}`), expected))
      )
      const outcomes = yield* Effect.all(handed, { concurrency: "unbounded" })
      // The one with the wrong expectation takes no place, so those behind it go on; a hole is a missing one.
      expect(outcomes.map(tagOf)).toEqual(["Done", "Done", "Done", "conflict", "Done", "Done"])
      const behind = yield* pipeline(log, ["x", "y", "z"], 6)
      expect(behind.map(tagOf)).toEqual(["conflict", "conflict", "conflict"])
      expect((yield* log.open(channel)).last).toBe(5)
      expect(valueOf(yield* append(log, "next", 5))).toBe(6)
    }))

  test("of writers that race for one place one wins", () =>
    Effect.gen(function* () {
      const { place, log } = yield* newLog(world)
      const others = world.isShared ? [yield* openLog(place), yield* openLog(place)] : []
      const writers = [log, ...others, log, log]
      for (let round = 0; round < 20; round++) {
        const outcomes = yield* Effect.all(
          writers.map((writer, index) => append(writer, `${round} ${index}`, round)),
          { concurrency: "unbounded" }
        )
        expect(outcomes.map(tagOf).sort()).toEqual(["Done", ...Array(writers.length - 1).fill("conflict")])
      }
      expect((yield* readAll(log)).length).toBe(20)
    }))

  test("a batch is stored whole or not at all", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      expect(valueOf(yield* append(log, "a", 0))).toBe(1)
      expect(tagOf(yield* log.appendBatch(channel, batchOf("b"), 0))).toBe("conflict")
      const large = new Uint8Array(log.recordBytesMax + 1)
      expect(tagOf(yield* log.appendBatch(channel, [bytesOf("b"), large], 1))).toBe("invalid")
      expect(tagOf(yield* Effect.flatten(log.append(channel, large, 1)))).toBe("invalid")
      expect(tagOf(yield* log.appendBatch(channel, [], 1))).toBe("invalid")
      expect((yield* log.open(channel)).last).toBe(1)
      expect(valueOf(yield* log.appendBatch(channel, batchOf("c"), 1))).toBe(1 + fenceLength)
      expect(valueOf(yield* log.appendBatch(channel, [bytesOf("d")], 1 + fenceLength))).toBe(2 + fenceLength)
      expect(valueOf(yield* log.appendBatch(channel, batchOf("e"), undefined))).toBe(2 + 2 * fenceLength)
    }))

  test("on an empty log one of several fences wins", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      const outcomes = yield* Effect.all(
        ["a", "b", "c", "d"].map((name) => log.appendBatch(channel, batchOf(name), 0)),
        { concurrency: "unbounded" }
      )
      expect(outcomes.map(tagOf).sort()).toEqual(["Done", "conflict", "conflict", "conflict"])
      expect((yield* readAll(log)).length).toBe(fenceLength)
    }))

  test("records of every size come back as they were", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      const random = randomFrom(7)
      const block = random.bytes(1024)
      const filled = (length: number) => {
        const data = new Uint8Array(length)
        for (let at = 0; at < length; at += block.length) data.set(block.subarray(0, length - at), at)
        return data
      }
      // More than two windows of a reader in all.
      const sizes = [0, 1, 100, 65_536, ...Array<number>(48).fill(log.recordBytesMax)]
      const handed = []
      for (const [index, size] of sizes.entries()) handed.push(yield* log.append(channel, filled(size), index))
      const outcomes = yield* Effect.all(handed, { concurrency: "unbounded" })
      expect(outcomes.map(tagOf)).toEqual(sizes.map(() => "Done"))
      const entries = yield* readAll(log)
      expect(entries.map(({ data }) => data.length)).toEqual(sizes)
      for (const { data } of entries) {
        expect(data.byteOffset).toBe(0)
        expect(Buffer.compare(data, filled(data.length))).toBe(0)
      }
    }))

  test("a purge keeps the newest record and every sequence", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      yield* Effect.map(pipeline(log, ["a", "b", "c", "d"], 0), (outcomes) => outcomes.forEach(valueOf))
      const full = (yield* log.open(channel)).bytes
      expect(valueOf(yield* log.purge(channel, 3))).toBe(3)
      expect(lines(yield* readAll(log))).toEqual(["3 c", "4 d"])
      expect((yield* log.open(channel)).bytes).toBeLessThan(full)
      expect(valueOf(yield* log.purge(channel, 2))).toBe(3)
      expect(valueOf(yield* log.purge(channel, 99))).toBe(4)
      const { first, last } = yield* log.open(channel)
      expect([first, last]).toEqual([4, 4])
      expect(tagOf(yield* append(log, "x", 0))).toBe("conflict")
      expect(valueOf(yield* append(log, "e", 4))).toBe(5)
      expect(lines(yield* collect(log.read(channel, 1, 5)))).toEqual(["4 d", "5 e"])
      expect(lines(yield* collect(log.read(channel, 5, 5)))).toEqual(["5 e"])
    }))

  test("a full log refuses, and a purge makes room", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world, { channelBytesMax: 64 * 1024 })
      const record = "r".repeat(8 * 1024)
      let last = 0
      let refusal: Outcome<number> | undefined
      while (refusal === undefined && last < 20) {
        const outcome = yield* append(log, record, last)
        if (outcome._tag === "Done") last = outcome.value
        else refusal = outcome
      }
      expect(tagOf(refusal!)).toBe("full")
      expect(last).toBeGreaterThan(4)
      expect(tagOf(yield* log.appendBatch(channel, [bytesOf(record), bytesOf(record)], last))).toBe("full")
      const state = yield* log.open(channel)
      expect(state.last).toBe(last)
      expect(state.bytes).toBeLessThanOrEqual(state.bytesMax)
      valueOf(yield* log.purge(channel, last))
      expect(valueOf(yield* append(log, record, last))).toBe(last + 1)
    }))

  test("a follower gets all there is and all that comes", () =>
    Effect.gen(function* () {
      const { log } = yield* newLog(world)
      yield* pipeline(log, ["a", "b", "c"], 0)
      const follower = yield* log.follow(channel, 2).pipe(Stream.take(4), collect, Effect.forkChild)
      const ahead = yield* log.follow(channel, 5).pipe(Stream.take(1), collect, Effect.forkChild)
      // One that waits for what is not there yet changes nothing for those that read what is.
      const waiting = yield* log.follow(channel, 50).pipe(Stream.runDrain, Effect.forkChild)
      expect(lines(yield* collect(log.read(channel, 1, 3)))).toEqual(["1 a", "2 b", "3 c"])
      yield* pipeline(log, ["d", "e"], 3)
      expect(lines(yield* readAll(log)).length).toBe(5)
      yield* Fiber.interrupt(waiting)
      expect(lines(yield* Fiber.join(follower))).toEqual(["2 b", "3 c", "4 d", "5 e"])
      expect(lines(yield* Fiber.join(ahead))).toEqual(["5 e"])
    }))

  test("a single record does not fence a pipeline, a batch longer than it does", () =>
    Effect.gen(function* () {
      const { log: naive } = yield* newLog(world)
      yield* append(naive, "first", 0)
      // The old owner's are on their way while the new one's record takes the place of the first of them.
      expect(valueOf(yield* append(naive, "epoch", 1))).toBe(2)
      const late = yield* pipeline(naive, ["2", "3", "4", "5", "6", "7"], 1)
      expect(late.map(tagOf)).toEqual(["conflict", "Done", "Done", "Done", "Done", "Done"])

      const { log: fenced } = yield* newLog(world)
      yield* append(fenced, "first", 0)
      expect(valueOf(yield* fenced.appendBatch(channel, batchOf("fence"), 1))).toBe(1 + fenceLength)
      const stale = Array.from({ length: limits.pipelineDepth }, (_, index) => `stale ${index}`)
      expect((yield* pipeline(fenced, stale, 1)).map(tagOf)).toEqual(stale.map(() => "conflict"))
      expect((yield* fenced.open(channel)).last).toBe(1 + fenceLength)
    }))

  test("a takeover stops a writer that keeps its pipeline full", () =>
    Effect.gen(function* () {
      const { place, log: old } = yield* newLog(world)
      const heir = world.isShared ? yield* openLog(place) : old
      for (let round = 0; round < 5; round++) {
        const start = (yield* old.open(channel)).last
        const writer = yield* Effect.forkChild(keepFull(old, `old ${round}`, start))
        // Only once it is at full speed.
        yield* eventually(
          Effect.flatMap(heir.open(channel), ({ last }) =>
            last > start + limits.pipelineDepth ? Effect.void : Effect.fail("slow")
          )
        )
        const fence = yield* takeover(heir, `${round}`)
        const acknowledged = yield* Fiber.join(writer)
        yield* expectNothingStale(heir, `old ${round}`, fence, acknowledged)
      }
    }))

  if (!world.isShared) {
    test("a store that is opened again has everything, and takes one at a time", () =>
      Effect.gen(function* () {
        const place = yield* world.place()
        const incarnation = yield* Effect.scoped(
          Effect.gen(function* () {
            const log = yield* openLog(place)
            yield* log.create(channel)
            yield* pipeline(log, ["a", "b", "c"], 0)
            valueOf(yield* log.purge(channel, 2))
            expect(reasonOf(yield* Effect.exit(openLog(place)))).toMatch(/unfit.*one process at a time/)
            return (yield* log.open(channel)).incarnation
          })
        )
        const log = yield* openLog(place)
        expect((yield* log.open(channel)).incarnation).toBe(incarnation)
        expect(lines(yield* readAll(log))).toEqual(["2 b", "3 c"])
        expect(tagOf(yield* append(log, "x", 0))).toBe("conflict")
        expect(valueOf(yield* append(log, "d", 3))).toBe(4)
      }))
  } else serverTests(world, test)
})

/** What happens to servers. Their configuration is a matter of real ones alone. */
const serverTests = (
  world: World,
  test: (title: string, program: () => Program<unknown>, timeout?: number) => void
) => {
  const { nats } = world
  if (nats !== undefined) {
    test("a stream that could lose data is unfit", () =>
      Effect.gen(function* () {
        const nc = yield* Effect.acquireRelease(
          Effect.promise(() => connect({ servers: [...nats().urls] })),
          (nc) => Effect.promise(() => nc.close())
        )
        const jsm = yield* Effect.promise(() => jetstreamManager(nc))
        const { log } = yield* newLog(world)
        const stream = yield* streamOf(jsm, log)
        yield* Effect.promise(() => jsm.streams.update(stream, { max_age: 600_000_000_000 }))
        expect(reasonOf(yield* Effect.exit(log.open(channel)))).toMatch(/unfit.*max_age/)
      }))
  }

  test("a log that was lost is missing, and one made in its place is another", () =>
    Effect.gen(function* () {
      const { place, log } = yield* newLog(world)
      yield* pipeline(log, ["a", "b", "c"], 0)
      const { incarnation } = yield* log.open(channel)
      yield* place.servers.lose(channel)
      expect(reasonOf(yield* Effect.exit(log.open(channel)))).toContain("missing")
      expect(reasonOf(yield* Effect.exit(readAll(log)))).toContain("missing")
      expect(tagOf(yield* append(log, "d", 3))).toBe("Unavailable")
      yield* createHeard(log, channel)
      // Until it was opened, it is the old one that ends too early.
      expect(reasonOf(yield* Effect.exit(readAll(log)))).toContain("unavailable")
      expect((yield* log.open(channel)).incarnation).not.toBe(incarnation)
      expect(yield* readAll(log)).toEqual([])
      expect(tagOf(yield* append(log, "d", 3))).toBe("conflict")
      expect(valueOf(yield* append(log, "a", 0))).toBe(1)
    }))

  test("acknowledged records survive the death of the server, and the client comes back", () =>
    Effect.gen(function* () {
      const { log, place } = yield* newLog(world)
      const names = Array.from({ length: 200 }, (_, index) => `record ${index}`)
      let last = 0
      for (let at = 0; at < names.length; at += 50) {
        const outcomes = yield* pipeline(log, names.slice(at, at + 50), at)
        last = valueOf(outcomes[outcomes.length - 1]!)
      }
      // One of three, or the only one.
      yield* place.servers.kill(0)
      yield* place.servers.restart(0)
      yield* place.servers.usable
      const entries = yield* eventually(Effect.filterOrFail(readAll(log), ({ length }) => length === names.length))
      expect(lines(entries)).toEqual(names.map((name, index) => `${index + 1} ${name}`))
      const next = yield* eventually(
        Effect.filterOrFail(append(log, "next", last), (outcome) => outcome._tag === "Done")
      )
      expect(valueOf(next)).toBe(last + 1)
    }))

  test("an append whose acknowledgement was lost is decided by reading up to a fence", () =>
    Effect.gen(function* () {
      const { log, place } = yield* newLog(world)
      yield* pipeline(log, ["a", "b"], 0)
      const handed = []
      for (let index = 0; index < 8; index++)
        handed.push(yield* log.append(channel, bytesOf(`doubt ${index}`), 2 + index))
      // The server ends with them in its socket, on its disk, or anywhere between.
      yield* place.servers.kill(0)
      const outcomes = yield* Effect.all(handed, { concurrency: "unbounded" })
      for (const outcome of outcomes) expect(["Done", "Ambiguous"]).toContain(tagOf(outcome))
      yield* place.servers.restart(0)
      yield* place.servers.usable
      // Above the port: a fence, read up to it, and what lies below it is stored, what does not can never be.
      const fence = yield* eventually(
        Effect.gen(function* () {
          const { last } = yield* log.open(channel)
          const outcome = yield* log.appendBatch(channel, batchOf("fence"), last)
          return outcome._tag === "Done" ? outcome.value - fenceLength + 1 : yield* Effect.fail(outcome)
        })
      )
      const below = yield* eventually(collect(log.read(channel, 3, fence - 1)))
      const stored = below.map(({ data }) => textOf(data)).filter((text) => text.startsWith("doubt"))
      // A prefix, since they were pipelined, and at least what was acknowledged.
      expect(stored).toEqual(stored.map((_, index) => `doubt ${index}`))
      expect(stored.length).toBeGreaterThanOrEqual(outcomes.filter(({ _tag }) => _tag === "Done").length)
      let last = fence + fenceLength - 1
      for (let index = stored.length; index < 8; index++) last = valueOf(yield* append(log, `doubt ${index}`, last))
      const all = (yield* readAll(log)).map(({ data }) => textOf(data)).filter((text) => text.startsWith("doubt"))
      expect(all).toEqual(Array.from({ length: 8 }, (_, index) => `doubt ${index}`))
    }))

  test("nothing of an old owner lands behind a fence when its server was paused and goes on", () =>
    Effect.gen(function* () {
      const { place, log: heir } = yield* newLog(world)
      const { servers } = place
      const paused = yield* servers.leaderOf(channel)
      // The old owner knows only the server that pauses, and so does not go elsewhere.
      const old = yield* openLog(place, { via: [paused] })
      const others = Array.from({ length: servers.count }, (_, index) => index).filter((index) => index !== paused)
      const next = others.length === 0 ? heir : yield* openLog(place, { via: others })
      yield* pipeline(old, ["a", "b", "c"], 0)
      yield* servers.pause(paused)
      const outcome = yield* Effect.ensuring(
        Effect.gen(function* () {
          const stale = Array.from({ length: limits.pipelineDepth }, (_, index) => `old ${index}`)
          const writer = yield* Effect.forkChild(pipeline(old, stale, 3))
          if (others.length === 0) {
            // All of it waits in the sockets of one server, which then takes it in whatever order it likes.
            const taking = yield* Effect.forkChild(takeover(next, "heir"))
            yield* Effect.yieldNow
            yield* servers.continue(paused)
            const fence = yield* Fiber.join(taking)
            return { fence, outcomes: yield* Fiber.join(writer) }
          }
          // The other two elect a leader; until then the stopper has nobody to take it.
          const fence = yield* eventually(takeoverTry(next, "heir"))
          yield* servers.continue(paused)
          return { fence, outcomes: yield* Fiber.join(writer) }
        }),
        servers.continue(paused)
      )
      yield* servers.usable
      const acknowledged = outcome.outcomes.filter(({ _tag }) => _tag === "Done").length
      yield* eventually(expectNothingStale(next, "old", outcome.fence, acknowledged))
      // And by now all replicas agree, also the one that was away.
      const fence = yield* eventually(takeoverTry(heir, "again"))
      yield* expectNothingStale(heir, "old", fence, acknowledged)
    }))
}

/** As `takeover`, but it may be tried again: every stopper is a new one, and only the last fence counts. */
const takeoverTry = Effect.fnUntraced(function* (log: LogService, name: string) {
  const stopped = yield* log.appendBatch(channel, batchOf(`stopper ${name}`), undefined)
  if (stopped._tag !== "Done") return yield* Effect.fail(stopped)
  const fenced = yield* log.appendBatch(channel, batchOf(`fence ${name}`), stopped.value)
  return fenced._tag === "Done" ? fenced.value - fenceLength + 1 : yield* Effect.fail(fenced)
})

/** The stream of a channel, found by the incarnation that the port tells. */
const streamOf = (jsm: Awaited<ReturnType<typeof jetstreamManager>>, log: LogService) =>
  Effect.flatMap(log.open(channel), ({ incarnation }) =>
    Effect.promise(async () => {
      for await (const { config } of jsm.streams.list()) {
        if (config.metadata?.["elanus-incarnation"] === incarnation) {
          const cluster = config.name.slice("ELANUS_".length, -`_CHANNEL_${channel}`.length)
          expect(config.name).toBe(channelStream(cluster, channel))
          expect(config.subjects).toEqual([channelSubject(cluster, channel)])
          return config.name
        }
      }
      throw new Error("no stream")
    })
  )

/** Writes with all of the pipeline in flight until something is refused; tells how many were acknowledged. */
const keepFull = Effect.fnUntraced(function* (log: LogService, name: string, start: number) {
  const inFlight: Array<Effect.Effect<Outcome<number>>> = []
  let acknowledged = 0
  let isRefused = false
  for (let next = start; !isRefused || inFlight.length > 0;) {
    while (!isRefused && inFlight.length < limits.pipelineDepth) {
      inFlight.push(yield* log.append(channel, bytesOf(`${name} ${next}`), next))
      next++
    }
    const outcome = yield* inFlight.shift()!
    if (outcome._tag === "Done") acknowledged++
    else isRefused = true
  }
  return acknowledged
})

/** All of `name` that was acknowledged is there, none of it behind the fence, and the fence is whole. */
const expectNothingStale = Effect.fnUntraced(function* (
  log: LogService,
  name: string,
  fence: number,
  acknowledged: number
) {
  const entries = yield* readAll(log)
  expect(entries.map(({ sequence }) => sequence)).toEqual(entries.map((_, index) => index + 1))
  const own = entries.filter(({ data }) => textOf(data).startsWith(`${name} `))
  expect(own.filter(({ sequence }) => sequence >= fence)).toEqual([])
  expect(own.length).toBeGreaterThanOrEqual(acknowledged)
  const fenced = entries.slice(fence - 1, fence - 1 + fenceLength)
  expect(new Set(fenced.map(({ data }) => textOf(data))).size).toBe(1)
  expect(textOf(fenced[0]!.data)).toMatch(/^fence/)
})

/** Random operations on the log and on an array, which must not differ. */
const property = Effect.fnUntraced(function* (world: World, seed: number) {
  const { log } = yield* newLog(world)
  const random = randomFrom(seed)
  const model: Array<string> = []
  let first = 1
  let count = 0
  const newText = () => `${count++} ${"x".repeat(random.below(200))}`
  const check = (holds: unknown, expected: unknown, what: string) =>
    expect(holds, `seed ${seed}, operation ${what}`).toEqual(expected)

  for (let step = 0; step < 150; step++) {
    const kind = random.pick([
      "append",
      "append",
      "wrong",
      "pipeline",
      "batch",
      "batch",
      "purge",
      "read",
      "open"
    ] as const)
    const what = `${step} ${kind}`
    const last = model.length
    if (kind === "append") {
      const text = newText()
      check(yield* append(log, text, last), { _tag: "Done", value: last + 1 }, what)
      model.push(text)
    } else if (kind === "wrong") {
      const expected = random.chance(0.5) ? last + 1 + random.below(3) : Math.max(0, last - 1 - random.below(3))
      if (expected !== last) check(tagOf(yield* append(log, newText(), expected)), "conflict", what)
    } else if (kind === "pipeline") {
      const texts = Array.from({ length: 1 + random.below(20) }, newText)
      // What is behind the one left out has nothing to stand on.
      const hole = random.chance(0.3) ? random.below(texts.length) : texts.length
      const handed = []
      for (const [index, text] of texts.entries()) {
        if (index !== hole) handed.push(yield* log.append(channel, bytesOf(text), last + index))
      }
      const outcomes = yield* Effect.all(handed, { concurrency: "unbounded" })
      const expected = [...texts.keys()].filter((index) => index !== hole)
      check(
        outcomes.map(tagOf),
        expected.map((index) => (index < hole ? "Done" : "conflict")),
        what
      )
      model.push(...texts.slice(0, hole))
    } else if (kind === "batch") {
      const texts = Array.from({ length: 1 + random.below(10) }, newText)
      const expected = random.pick([undefined, last, last, last + 1])
      const outcome = yield* log.appendBatch(channel, texts.map(bytesOf), expected)
      if (expected === last + 1) check(tagOf(outcome), "conflict", what)
      else {
        check(outcome, { _tag: "Done", value: last + texts.length }, what)
        model.push(...texts)
      }
    } else if (kind === "purge") {
      const before = random.below(last + 3)
      check(tagOf(yield* log.purge(channel, before)), "Done", what)
      first = Math.max(first, Math.min(before, last))
    } else if (kind === "read") {
      const from = 1 + random.below(last + 2)
      const to = from + random.below(30) - 1
      const expected = model.map((text, index) => `${index + 1} ${text}`)
      const start = Math.max(from, first)
      check(lines(yield* collect(log.read(channel, from, to))), start > to ? [] : expected.slice(start - 1, to), what)
    } else {
      const state = yield* log.open(channel)
      check([state.first, state.last], [last === 0 ? 1 : first, last], what)
    }
  }
  const expected = model.map((text, index) => `${index + 1} ${text}`).slice(first - 1)
  check(lines(yield* readAll(log)), expected, "at the end")
})

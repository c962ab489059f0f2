/** What an owner does by itself, in a simulated cluster: what it makes of a backlog, and how soon it is back. */
import { Effect, Exit } from "effect"
import { afterEach, assert, describe, it } from "vitest"
import { limits } from "../../protocols/limits.ts"
import { Bus } from "../../runtime/bus.ts"
import { allRoles } from "../../runtime/roles.ts"
import { makeClient, type SimClient } from "../../sim/client.ts"
import { Cluster } from "../../sim/cluster.ts"
import { sealed } from "../../sim/sealed.ts"
import { on, World } from "../../sim/world.ts"
import { forSeeds } from "../support/seeds.ts"

const shape = { dimension: 2, metric: "L2", keyType: "Int64", shards: 1 } as const

interface Told {
  readonly client: SimClient
  readonly cluster: Cluster
}

/** Runs a program of a client: one channel, and a query node of its own. */
const inCluster = (world: World, timeoutMs: number, program: (told: Told) => Effect.Effect<void, unknown>) => {
  const cluster = new Cluster(world, {
    nodes: [
      { name: "a", roles: allRoles.filter((role) => role !== "query-node") },
      { name: "q", roles: ["query-node"] }
    ],
    settings: { channels: 1, segmentBytesMax: 1_000 }
  })
  const asks = Effect.gen(function* () {
    const client = yield* makeClient(yield* Bus, { manner: "library", form: "binary", timeoutMs })
    yield* program({ client, cluster })
  })
  const whole = Effect.gen(function* () {
    cluster.start()
    yield* cluster.ready
    const exit = yield* on(cluster.client("client"), Effect.scoped(Effect.provide(asks, cluster.broker.layer)))
    assert.isTrue(Exit.isSuccess(exit), String(exit))
  })
  sealed(() => world.run(whole))
}

const create = Effect.fnUntraced(function* ({ ask, makingId }: SimClient, name: string) {
  yield* ask(name, { _tag: "Create", request: yield* makingId, shape })
})

const insert = Effect.fnUntraced(function* ({ ask, requestId }: SimClient, name: string, key: bigint, bytes = 0) {
  const rows = [{ key, vector: Float32Array.of(1, 2), fields: { text: "x".repeat(bytes) } }]
  const asked = { _tag: "Upsert", verb: "insert", request: yield* requestId(name), rows } as const
  return (yield* ask(name, asked, shape)).timestamp
})

const segments = ({ objects }: Cluster) => [...objects.held.keys()].filter((key) => key.endsWith(".arrow"))

const attempts = ({ ledger }: Cluster) => {
  const alive = new Set<string>()
  for (const fact of ledger.facts) {
    if (fact._tag !== "Committed") continue
    for (const { key, value } of fact.changes) {
      if (!key.startsWith("attempt.")) continue
      if (value === undefined) alive.delete(key)
      else alive.add(key)
    }
  }
  return alive.size
}

/** As if manifests were full, or had room again. */
const setRoom = (bytes: number) => void ((limits as { manifestBytesMax: number }).manifestBytesMax = bytes)
const ROOM = limits.manifestBytesMax

describe("the upkeep of an owner", () => {
  afterEach(() => setRoom(ROOM))

  it("writes nothing for a manifest that has no room for it", () => {
    inCluster(new World("no room"), 3_000, ({ client, cluster }) =>
      Effect.gen(function* () {
        yield* create(client, "books")
        yield* insert(client, "books", 1n)
        setRoom(1_000)
        yield* Effect.flip(client.ask("books", { _tag: "Flush" }))
        yield* Effect.sleep(60_000)
        assert.strictEqual(segments(cluster).length + attempts(cluster), 0)
        setRoom(ROOM)
        yield* Effect.sleep(70_000)
        assert.strictEqual(segments(cluster).length, 1)
      })
    )
  })

  it("leaves no attempt of a flush that is refused, and tries it seldom", () => {
    const world = new World("refused")
    inCluster(world, 3_000, ({ client, cluster }) =>
      Effect.gen(function* () {
        yield* create(client, "books")
        yield* insert(client, "books", 1n)
        // Full whenever its commit comes.
        world.fires = (site) => {
          if (site === "before a flush") setRoom(ROOM)
          if (site === "between a flush's objects and its commit") setRoom(100)
          return false
        }
        yield* Effect.flip(client.ask("books", { _tag: "Flush" }))
        yield* Effect.sleep(10 * 60_000)
        assert.isAbove(segments(cluster).length, 5)
        assert.isBelow(segments(cluster).length, 25)
        assert.strictEqual(attempts(cluster), 0)
      })
    )
  })

  it("has one attempt of a flush that was announced twice", () => {
    const world = new World("twice")
    inCluster(world, 3_000, ({ client, cluster }) =>
      Effect.gen(function* () {
        yield* create(client, "books")
        yield* insert(client, "books", 1n)
        world.fires = (site) => site === "a coordinator is asked twice"
        yield* client.ask("books", { _tag: "Flush" })
        yield* Effect.sleep(5_000)
        assert.strictEqual(segments(cluster).length, 1)
        assert.strictEqual(attempts(cluster), 0)
      })
    )
  })

  it("flushes what came while the objects were away as one, however often it was asked to", () => {
    inCluster(new World("backlog"), 3_000, ({ client, cluster }) =>
      Effect.gen(function* () {
        yield* create(client, "books")
        cluster.objects.faults.away = 1
        for (let key = 0n; key < 10n; key++) {
          yield* insert(client, "books", key)
          yield* Effect.flip(client.ask("books", { _tag: "Flush" }))
        }
        cluster.objects.heal()
        yield* client.ask("books", { _tag: "Flush" })
        // The unit that waited all the while, and one with all the rest.
        assert.strictEqual(segments(cluster).length, 2)
      })
    )
  })

  it("flushes the next unit when the manifest has the last one, though no query node answers", () => {
    inCluster(new World("units"), 3_000, ({ client, cluster }) =>
      Effect.gen(function* () {
        yield* create(client, "books")
        cluster.process("q").pause(8_000)
        for (let key = 0n; key < 3n; key++) yield* insert(client, "books", key, 1_000)
        yield* Effect.sleep(2_000)
        assert.strictEqual(segments(cluster).length, 3)
      })
    )
  })

  it("gives every shard its turn, though the flushes of others fail again and again", () => {
    const world = new World("turns")
    inCluster(world, 3_000, ({ client, cluster }) =>
      Effect.gen(function* () {
        world.fires = (site) => site === "a flush is given up"
        const names = ["a", "b", "c", "d", "e", "f", "g"]
        for (const name of names) yield* create(client, name)
        for (const name of names) yield* insert(client, name, 1n, 1_000)
        yield* Effect.sleep(3_000)
        // The collection is in the name of the object that its try has left.
        const tried = new Set(segments(cluster).map((key) => key.split("/")[1]))
        assert.strictEqual(tried.size, names.length)
      })
    )
  })

  it("has the segments of a shard loaded when somebody asks, though nothing else happens", () => {
    const world = new World("asked")
    inCluster(world, 10_000, ({ client, cluster }) =>
      Effect.gen(function* () {
        yield* create(client, "books")
        const written = yield* insert(client, "books", 1n)
        yield* client.ask("books", { _tag: "Flush" })
        // Until the checkpoint is behind it: whoever owns the channel afterwards reads nothing of the shard.
        yield* Effect.sleep(5_000)
        cluster.process("a").crash()
        cluster.process("a").start()
        yield* Effect.sleep(60_000)
        const asked = world.now
        // At a time that is closed: nothing is written for it.
        const level = { consistency: "Session", at: written, token: 0n } as const
        const { answer } = yield* client.ask("books", { _tag: "Count", level })
        assert.deepStrictEqual(answer, { _tag: "Counted", rows: 1 })
        assert.isBelow(world.now - asked, 1_000)
      })
    )
  })

  it("ends with an owner that is followed by the next one in a moment", () => {
    forSeeds(5, (seed) => {
      const world = new World(seed)
      inCluster(world, 10_000, ({ client }) =>
        Effect.gen(function* () {
          let times = 0
          world.fires = (site) => site === "an owner begins anew" && times++ === 0
          yield* create(client, "books")
          const began = world.now
          yield* insert(client, "books", 1n)
          yield* client.ask("books", { _tag: "Flush" })
          yield* Effect.sleep(1_000)
          yield* insert(client, "books", 2n)
          assert.isAbove(times, 0)
          assert.isBelow(world.now - began, 2_500)
        })
      )
    })
  })
})

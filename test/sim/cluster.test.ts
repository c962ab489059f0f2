/** The whole database in a simulated world, each role a process of its own: it works, and every run of a seed is the same run. */
import { Effect, Exit, Fiber } from "effect"
import { execFile } from "node:child_process"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"
import { Bus } from "../../runtime/bus.ts"
import { allRoles } from "../../runtime/roles.ts"
import { makeClient } from "../../sim/client.ts"
import { Cluster } from "../../sim/cluster.ts"
import { sealed } from "../../sim/sealed.ts"
import { on, World } from "../../sim/world.ts"
import { forSeeds } from "../support/seeds.ts"
import { story } from "../support/story.ts"

const run = promisify(execFile)
const program = join(import.meta.dirname, "../support/story.ts")

describe("a cluster", () => {
  it("takes rows, seals, flushes, indexes, and finds what it was given", () => {
    forSeeds(5, (seed) => {
      const { indexes, segments } = story(seed, { preempt: [0, 0.02, 0.2][seed % 3]!, crashes: 0 })
      assert.isAtLeast(segments, 4)
      assert.isAtLeast(indexes, 1)
    })
  })

  it("does so while its processes die and come back", () => {
    forSeeds(20, (seed) => {
      story(seed, { preempt: [0, 0.02, 0.2][seed % 3]!, crashes: 4 })
    })
  })

  it("runs the same way again, here and in any other process", async () => {
    for (const [seed, preempt, crashes] of [
      [1, 0.1, 0],
      [2, 0.02, 3]
    ] as const) {
      const here = story(seed, { preempt, crashes })
      assert.strictEqual(story(seed, { preempt, crashes }).hash, here.hash)
      assert.notStrictEqual(story(seed + 100, { preempt, crashes }).hash, here.hash)
      const { stdout } = await run(
        process.execPath,
        [
          "--hash-seed=4711",
          "--random-seed=7",
          "--max-old-space-size=300",
          "--no-opt",
          program,
          ...[seed, preempt, crashes].map(String)
        ],
        { cwd: tmpdir(), env: { ...process.env, TZ: "Asia/Kathmandu", LC_ALL: "tr_TR.UTF-8", LANG: "tr_TR.UTF-8" } }
      )
      const there = JSON.parse(stdout) as { readonly hash: string; readonly events: number }
      assert.deepStrictEqual([there.hash, there.events], [here.hash, here.events])
    }
  })
})

describe("processes", () => {
  const inCluster = (name: string, program: (cluster: Cluster, world: World) => Effect.Effect<unknown>) => {
    const world = new World(name)
    const cluster = new Cluster(world, { nodes: ["a", "b"].map((each) => ({ name: each, roles: allRoles })) })
    sealed(() => world.run(program(cluster, world)))
  }
  const states = ({ processes }: Cluster) => [...processes.values()].map(({ state }) => state)

  it("begin, crash and stop, each time as somebody else", () => {
    inCluster("lives", (cluster, world) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(states(cluster), ["down", "down"])
        cluster.start()
        yield* cluster.ready
        assert.deepStrictEqual(states(cluster), ["up", "up"])
        const [a, b] = [cluster.process("a"), cluster.process("b")]
        const first = a.id
        assert.match(first, /^n/)
        assert.notStrictEqual(first, b.id)
        a.crash()
        assert.deepStrictEqual([a.state, a.id], ["down", ""])
        yield* Effect.sleep(10_000)
        assert.strictEqual(a.state, "down")
        a.start()
        yield* cluster.ready
        assert.strictEqual(a.state, "up")
        assert.notStrictEqual(a.id, first)
        const began = world.now
        b.stop()
        assert.strictEqual(b.state, "stopping")
        yield* cluster.until(() => b.state === "down")
        // It said goodbye by itself, long before anybody would kill it.
        assert.isBelow(world.now - began, 1_000)
        yield* Effect.sleep(60_000)
        assert.deepStrictEqual(states(cluster), ["up", "down"])
      })
    )
  })

  it("are begun again when they end by themselves, and only then", () => {
    inCluster("ended", (cluster) =>
      Effect.gen(function* () {
        const a = cluster.process("a")
        cluster.broker.network.block(a.node, "both")
        const seen = new Set<string>()
        a.start()
        for (let i = 0; i < 40; i++) {
          yield* Effect.sleep(500)
          seen.add(a.state)
        }
        assert.deepStrictEqual([...seen].toSorted(), ["down", "starting"])
        assert.isAbove(a.node.life, 1)
        cluster.broker.heal()
        yield* cluster.until(() => a.state === "up")
        cluster.broker.network.block(a.node, "both")
        a.crash()
        a.start()
        yield* cluster.until(() => a.state === "down")
        a.crash()
        yield* Effect.sleep(20_000)
        assert.strictEqual(a.state, "down")
      })
    )
  })

  it("that do not end when they are told to are killed", () => {
    inCluster("stuck", (cluster, world) =>
      Effect.gen(function* () {
        cluster.start()
        yield* cluster.ready
        const a = cluster.process("a")
        a.pause(100_000)
        a.stop()
        const began = world.now
        yield* cluster.until(() => a.state === "down")
        assert.strictEqual(world.now - began, 10_000)
      })
    )
  })

  it("cost next to nothing while nobody asks", () => {
    inCluster("idle", (cluster, world) =>
      Effect.gen(function* () {
        cluster.start()
        yield* cluster.ready
        yield* Effect.sleep(60_000)
        const { events } = world
        yield* Effect.sleep(600_000)
        assert.isBelow((world.events - events) / 600, 200)
      })
    )
  })

  it("share a machine for clients by its name", () => {
    inCluster("clients", (cluster, world) =>
      Effect.gen(function* () {
        const one = cluster.client("one")
        assert.strictEqual(cluster.client("one"), one)
        assert.notStrictEqual(cluster.client("other"), one)
        const waiting = yield* Effect.forkChild(on(one, Effect.as(Effect.sleep(10), world.now)))
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Success")
      })
    )
  })

  it("say what is damaged before whoever asks gives up", () => {
    inCluster("rot", (cluster) =>
      Effect.gen(function* () {
        cluster.start()
        yield* cluster.ready
        const asks = Effect.gen(function* () {
          const client = yield* makeClient(yield* Bus, { manner: "library", form: "binary", timeoutMs: 20_000 })
          const shape = { dimension: 2, metric: "L2", keyType: "Int64", shards: 2 } as const
          const rows = [1n, 2n, 3n, 4n].map((key) => ({ key, vector: Float32Array.of(1, 2), fields: {} }))
          const level = { consistency: "Strong", token: 0n, at: undefined } as const
          yield* client.ask("books", { _tag: "Create", request: yield* client.makingId, shape })
          const request = yield* client.requestId("books")
          yield* client.ask("books", { _tag: "Upsert", verb: "insert", request, rows }, shape)
          yield* client.ask("books", { _tag: "Flush" })
          for (const key of cluster.objects.held.keys()) cluster.objects.rot(key)
          for (const each of cluster.processes.values()) {
            each.crash()
            each.start()
          }
          yield* cluster.ready
          const read = yield* Effect.flip(client.ask("books", { _tag: "Count", level }))
          assert.match(read.reason, /segment \S+ on query node .* damaged/)
        })
        const exit = yield* on(cluster.client("client"), Effect.scoped(Effect.provide(asks, cluster.broker.layer)))
        assert.isTrue(Exit.isSuccess(exit), String(exit))
      })
    )
  })
})

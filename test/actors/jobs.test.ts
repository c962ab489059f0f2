/** What becomes of an index whose segment cannot be read, for a while or until somebody has mended it. */
import { Effect, Exit } from "effect"
import { assert, describe, it } from "vitest"
import { metadata } from "../../protocols/metadata.ts"
import { Bus } from "../../runtime/bus.ts"
import { allRoles } from "../../runtime/roles.ts"
import { makeClient } from "../../sim/client.ts"
import { Cluster } from "../../sim/cluster.ts"
import { sealed } from "../../sim/sealed.ts"
import { on, World } from "../../sim/world.ts"
import { Meta } from "../../storage/meta.ts"

const shape = { dimension: 2, metric: "L2", keyType: "Int64", shards: 1 } as const

/** Runs a program in a cluster with one segment that is to have an index, and no data node yet: that is "d". */
const withJob = (seed: string, program: (cluster: Cluster) => Effect.Effect<void, unknown, Meta>) => {
  const world = new World(seed)
  const cluster = new Cluster(world, {
    nodes: [
      { name: "c", roles: ["coordinator"] },
      { name: "a", roles: allRoles.filter((role) => role !== "coordinator" && role !== "data-node") },
      { name: "d", roles: ["data-node"] }
    ],
    settings: { channels: 1, indexRowsMin: 1 }
  })
  const story = Effect.gen(function* () {
    const { ask, makingId, requestId } = yield* makeClient(yield* Bus, {
      manner: "library",
      form: "binary",
      timeoutMs: 10_000
    })
    yield* ask("books", { _tag: "Create", request: yield* makingId, shape })
    const rows = [{ key: 1n, vector: Float32Array.of(1, 2), fields: {} }]
    yield* ask("books", { _tag: "Upsert", verb: "insert", request: yield* requestId("books"), rows }, shape)
    yield* ask("books", { _tag: "Flush" })
    yield* program(cluster)
  })
  const whole = Effect.gen(function* () {
    cluster.process("c").start()
    cluster.process("a").start()
    yield* cluster.ready
    const exit = yield* on(cluster.client("client"), Effect.scoped(Effect.provide(story, cluster.broker.layer)))
    assert.isTrue(Exit.isSuccess(exit), String(exit))
  })
  sealed(() => world.run(whole))
}

const jobs = Effect.map(
  Effect.flatMap(Meta, (meta) => meta.snapshot),
  ({ entries }) =>
    entries.filter(({ key }) => key.startsWith("job.")).map(({ value }) => metadata.job.decode(value).state)
)
const indexes = ({ objects }: Cluster) => [...objects.held.keys()].filter((key) => key.endsWith(".hnsw")).length

describe("an index job", () => {
  it("waits for a store that is away, however long, and does not ask it all the time", () => {
    withJob("away", (cluster) =>
      Effect.gen(function* () {
        cluster.objects.faults.away = 1
        cluster.process("d").start()
        yield* Effect.sleep(10 * 60_000)
        assert.deepStrictEqual((yield* jobs).length, 1)
        assert.isBelow(cluster.objects.counts["away"]!, 60)
        cluster.objects.heal()
        yield* Effect.sleep(70_000)
        assert.deepStrictEqual(yield* jobs, [])
        assert.strictEqual(indexes(cluster), 1)
      })
    )
  })

  it("is given up when its segment is damaged, and tried again by the next coordinator", () => {
    withJob("damaged", (cluster) =>
      Effect.gen(function* () {
        const { held } = cluster.objects
        const segment = [...held.keys()].find((key) => key.endsWith(".arrow"))!
        const whole = held.get(segment)!.slice()
        cluster.objects.rot(segment)
        cluster.process("d").start()
        yield* Effect.sleep(60_000)
        assert.deepStrictEqual(yield* jobs, ["failed"])
        held.get(segment)!.set(whole)
        yield* Effect.sleep(60_000)
        assert.strictEqual(indexes(cluster), 0)
        cluster.process("c").crash()
        cluster.process("c").start()
        yield* Effect.sleep(60_000)
        assert.deepStrictEqual(yield* jobs, [])
        assert.strictEqual(indexes(cluster), 1)
      })
    )
  })
})

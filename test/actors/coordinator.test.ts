/** What a coordinator does with much at once, in a simulated cluster whose metadata was filled before it began. */
import { Effect, Exit } from "effect"
import { assert, describe, it } from "vitest"
import { type Collection, emptyManifest, type Manifest, metadata, metaKey } from "../../protocols/metadata.ts"
import { allRoles } from "../../runtime/roles.ts"
import { Cluster } from "../../sim/cluster.ts"
import { sealed } from "../../sim/sealed.ts"
import { on, World } from "../../sim/world.ts"
import type { Change } from "../../storage/meta.ts"
import { Meta } from "../../storage/meta.ts"

const MANY = 1_100

const collectionOf = (id: string): Collection => ({
  id,
  spec: {
    database: "default",
    name: id,
    description: "",
    keyField: "id",
    keyType: "Int64",
    keyLengthMax: 0,
    vectorField: "vector",
    dimension: 2,
    metric: "L2",
    shards: 1,
    index: { m: 16, efConstruction: 100 }
  },
  channels: [0],
  created: 1n,
  request: id,
  state: "ready"
})

const manifestOf = (id: string): Manifest => {
  const object = { key: `segments/${id}/0/x.arrow`, bytes: 1, crc32: 0 }
  const times = { rows: 1, minTimestamp: 1n, maxTimestamp: 1n, deletesThrough: 0 }
  return { ...emptyManifest(id, 0), segments: [{ id: `s-${id}`, ...times, data: object, filter: object, index: null }] }
}

/** Commits the changes as a coordinator of another time would have. */
const fill = Effect.fnUntraced(function* (changes: ReadonlyArray<Change>) {
  const meta = yield* Meta
  let { head } = yield* meta.snapshot
  for (let from = 0; from < changes.length; from += 500) {
    const outcome = yield* meta.commit(changes.slice(from, from + 500), head)
    if (outcome._tag !== "Done") return assert.fail(outcome.detail)
    head = outcome.value
  }
})

const entriesBelow = (prefix: string) =>
  Effect.map(
    Effect.flatMap(Meta, (meta) => meta.snapshot),
    ({ entries }) => entries.filter(({ key }) => key.startsWith(prefix))
  )

describe("a coordinator that takes over", () => {
  it("gives away more segments than a commit has keys, and channels whose owner left as many attempts", () => {
    const world = new World("many")
    const cluster = new Cluster(world, { nodes: [{ name: "a", roles: allRoles }], settings: { channels: 2 } })
    const names = Array.from({ length: MANY }, (_, i) => `z-${i}`)
    const gone = "n-gone"
    const program = Effect.gen(function* () {
      yield* fill([
        ...names.flatMap((id) => [
          { key: metaKey.collection(id), value: metadata.collection.encode(collectionOf(id)) },
          { key: metaKey.manifest(id, 0), value: metadata.manifest.encode(manifestOf(id)) },
          {
            key: metaKey.attempt(`t-${id}`),
            value: metadata.attempt.encode({
              id: `t-${id}`,
              kind: "flush",
              collection: id,
              shard: 0,
              segment: "",
              node: gone
            })
          }
        ]),
        {
          key: metaKey.assignment(0),
          value: metadata.assignment.encode({ channel: 0, node: gone, order: { epoch: 1, number: 1 } })
        }
      ])
      cluster.start()
      yield* cluster.ready
      yield* Effect.sleep(20_000)
      const node = cluster.process("a").id
      for (const { value } of yield* entriesBelow("assignment.")) {
        assert.strictEqual(metadata.assignment.decode(value).node, node)
      }
      assert.lengthOf(yield* entriesBelow("assignment."), 2)
      assert.lengthOf(yield* entriesBelow("placement."), MANY)
      assert.lengthOf(yield* entriesBelow("attempt."), 0)
    })
    const whole = Effect.gen(function* () {
      const exit = yield* on(cluster.client("operator"), Effect.scoped(Effect.provide(program, cluster.broker.layer)))
      assert.isTrue(Exit.isSuccess(exit), String(exit))
    })
    sealed(() => world.run(whole))
  })
})

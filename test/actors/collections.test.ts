/**
 * When a collection is gone: not before every owner of its channels has written down that it knows. And that one request
 * makes one collection, though it may be gone when it is asked again.
 */
import { Effect, Exit, Fiber, Stream } from "effect"
import { assert, describe, it } from "vitest"
import { collectionCalls, collectionKeeper } from "../../actors/coordinator/collections.ts"
import type { Oracle } from "../../actors/coordinator/oracle.ts"
import type { Draft, Truth } from "../../actors/coordinator/truth.ts"
import { formatRequestId } from "../../protocols/client.ts"
import { limits } from "../../protocols/limits.ts"
import { checkpointZero, type Collection, type CollectionSpec, metaKey } from "../../protocols/metadata.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { fromMillis } from "../../protocols/timestamp.ts"
import { makeSignal } from "../../runtime/signal.ts"
import { Objects } from "../../storage/objects.ts"
import { World } from "../../sim/world.ts"

const key = metaKey.collection("1")
const books = { id: "1", channels: [0, 2], state: "ready" } as unknown as Collection
const CLOSED_AT = 7

/** A truth of these values, which commits at once. */
const truthOf = (values: Map<string, unknown>): Truth => {
  const changed = makeSignal()
  const draft = {
    get: (_: string, name: string) => values.get(name),
    all: (kind: string) => [...values].filter(([name]) => name.startsWith(`${kind}.`)).map(([, value]) => value),
    put: (_: string, name: string, value: unknown) => values.set(name, value),
    remove: (name: string) => values.delete(name)
  } as unknown as Draft
  let ids = 0
  const commit = <A, E>(change: (draft: Draft) => A) =>
    Effect.suspend((): Effect.Effect<A, E> => {
      try {
        return Effect.succeed(change(draft))
      } catch (refused) {
        return Effect.fail(refused as E)
      } finally {
        changed.notify()
      }
    })
  return { ...draft, changed, commit, newId: () => `made-${++ids}` } as unknown as Truth
}

const noObjects = { list: () => Stream.empty } as unknown as Objects["Service"]

describe("a collection that is dropped", () => {
  it("is gone when the owners of all its channels know, and no sooner", () => {
    const values = new Map<string, unknown>([[key, books]])
    const state = () => (values.get(key) as Collection | undefined)?.state
    const truth = truthOf(values)

    /** What the key of each channel says that its owner knows of the metadata. */
    const known = new Map<number, number>()
    const catalog = {
      changed: makeSignal(),
      leased: makeSignal(),
      collection: () => values.get(key),
      schema: () => CLOSED_AT,
      owner: (channel: number) => ({ key: { checkpoint: { ...checkpointZero, metadata: known.get(channel) ?? 0 } } })
    }
    const tells = (channel: number, revision: number) =>
      Effect.suspend(() => {
        known.set(channel, revision)
        catalog.leased.notify()
        return Effect.sleep(1_000)
      })

    const program = Effect.gen(function* () {
      const { DropCollection } = collectionCalls(truth, {} as Oracle)
      const asked = yield* Effect.forkChild(DropCollection({ collection: "1" }))
      yield* Effect.sleep(10)
      assert.strictEqual(state(), "closing")
      const keeper = yield* Effect.forkChild(collectionKeeper(truth, "1"))
      yield* tells(0, CLOSED_AT)
      yield* tells(2, CLOSED_AT - 1)
      assert.strictEqual(state(), "closing")
      assert.isUndefined(asked.pollUnsafe())
      // Asked again while it goes on, it waits as well.
      const again = yield* Effect.forkChild(DropCollection({ collection: "1" }))
      yield* tells(2, CLOSED_AT + 1)
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(asked)))
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(again)))
      assert.notStrictEqual(state(), "closing")
      yield* Fiber.await(keeper)
      assert.isUndefined(state())
    })
    new World("drop").run(
      program.pipe(
        Effect.provideService(Catalog, catalog as unknown as Catalog["Service"]),
        Effect.provideService(Objects, noObjects)
      )
    )
  })
})

describe("a request for a collection", () => {
  it("makes one and no more, though it was dropped when it is asked again", () => {
    const values = new Map<string, unknown>([[metaKey.format, { channels: 4 }]])
    const truth = truthOf(values)
    let ms = 1_700_000_000_000
    const oracle = { grant: () => Effect.succeed({ first: fromMillis(ms) }) } as unknown as Oracle
    const { CreateCollection, DropCollection } = collectionCalls(truth, oracle)
    const spec = { database: "d", name: "books", shards: 2 } as unknown as CollectionSpec
    const make = (request: string) =>
      Effect.gen(function* () {
        const asked = yield* Effect.forkChild(Effect.result(CreateCollection({ request, spec })))
        yield* Effect.sleep(10)
        for (const each of truth.all("collection")) {
          if (each.state === "creating") yield* collectionKeeper(truth, each.id)
        }
        const answer = yield* Effect.flatten(Fiber.await(asked))
        return answer._tag === "Success" ? answer.success.id : answer.failure.code
      })
    const drop = (id: string) =>
      Effect.gen(function* () {
        const asked = yield* Effect.forkChild(DropCollection({ collection: id }))
        yield* Effect.sleep(10)
        yield* collectionKeeper(truth, id)
        yield* Effect.flatten(Fiber.await(asked))
      })
    const catalog = {
      changed: makeSignal(),
      leased: makeSignal(),
      collection: (id: string) => values.get(metaKey.collection(id)),
      schema: () => CLOSED_AT,
      owner: () => ({ key: { checkpoint: { ...checkpointZero, metadata: CLOSED_AT } } })
    }
    const dated = (unique: bigint) => formatRequestId({ issued: fromMillis(ms), unique })

    const program = Effect.gen(function* () {
      const [first, second, undated] = [dated(1n), dated(2n), formatRequestId({ issued: 0n, unique: 3n })]
      assert.strictEqual(yield* make(first), "made-1")
      assert.strictEqual(yield* make(first), "made-1")
      assert.strictEqual(yield* make(second), "collection-exists")
      yield* drop("made-1")
      assert.deepStrictEqual([...truth.all("collection")], [])
      assert.strictEqual(yield* make(first), "made-1")
      assert.deepStrictEqual([...truth.all("collection")], [])
      assert.strictEqual(yield* make(second), "made-2")
      yield* drop("made-2")
      ms += limits.dedupeAgeMs + 1
      // Whatever it made then is forgotten, and it is never made again.
      assert.strictEqual(yield* make(undated), "made-3")
      assert.deepStrictEqual([...truth.all("gone")], [])
      assert.strictEqual(yield* make(first), "outcome-unknown")
      assert.strictEqual(yield* make(undated), "made-3")
    })
    new World("asked again").run(
      program.pipe(
        Effect.orDie,
        Effect.provideService(Catalog, catalog as unknown as Catalog["Service"]),
        Effect.provideService(Objects, noObjects)
      )
    )
  })
})

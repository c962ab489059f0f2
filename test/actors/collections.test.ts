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
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { checkpointZero, type Collection, type CollectionSpec, metaKey } from "../../protocols/metadata.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { fromMillis } from "../../protocols/timestamp.ts"
import { makeSignal } from "../../runtime/signal.ts"
import { Objects } from "../../storage/objects.ts"
import { ambiguous, done, refused, unavailable } from "../../storage/outcome.ts"
import { World } from "../../sim/world.ts"

const key = metaKey.collection("1")
const books = { id: "1", channels: [0, 2], state: "ready" } as unknown as Collection
const CLOSED_AT = 7

/** A truth of these values, which commits at once, and as much at once as a store takes. */
const truthOf = (values: Map<string, unknown>): Truth => {
  const changed = makeSignal()
  const viewOf = (entries: ReadonlyMap<string, unknown>) => ({
    get: (_: string, name: string) => entries.get(name),
    all: (kind: string) => [...entries].filter(([name]) => name.startsWith(`${kind}.`)).map(([, value]) => value)
  })
  let ids = 0
  const commit = <A>(change: (draft: Draft) => A) =>
    Effect.suspend((): Effect.Effect<A, ElanusError> => {
      const next = new Map(values)
      let keys = 0
      const draft = {
        ...viewOf(next),
        put: (_: string, name: string, value: unknown) => void (keys++, next.set(name, value)),
        remove: (name: string) => void (keys++, next.delete(name))
      } as unknown as Draft
      try {
        const value = change(draft)
        if (keys >= limits.commitKeysMax) return Effect.fail(failure("overloaded", `${keys} keys`))
        values.clear()
        for (const [name, each] of next) values.set(name, each)
        return Effect.succeed(value)
      } catch (refused) {
        return Effect.fail(refused as ElanusError)
      } finally {
        changed.notify()
      }
    })
  return { ...viewOf(values), changed, commit, newId: () => `made-${++ids}` } as unknown as Truth
}

/** More than a commit has keys. */
const MANY = 1_500

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

describe("a collection that leaves more than a commit takes", () => {
  it("is gone as any other", () => {
    const values = new Map<string, unknown>([[key, { ...books, state: "dropping" }]])
    for (let i = 0; i < MANY; i++) {
      values.set(metaKey.attempt(`a${i}`), { id: `a${i}`, collection: "1" })
      values.set(metaKey.job(`j${i}`), { id: `j${i}`, collection: "1" })
    }
    values.set(metaKey.attempt("other"), { id: "other", collection: "2" })
    new World("large drop").run(
      collectionKeeper(truthOf(values), "1").pipe(
        Effect.timeout(60_000),
        Effect.provideService(Catalog, {} as Catalog["Service"]),
        Effect.provideService(Objects, noObjects)
      )
    )
    assert.deepStrictEqual([...values.keys()].sort(), [metaKey.attempt("other"), metaKey.gone("1")])
  })
})

describe("the objects of a collection that is dropped", () => {
  it("are removed, though the store refuses at first", () => {
    const values = new Map<string, unknown>([[key, { ...books, state: "dropping" }]])
    const held = new Set(["a", "b", "c"].map((name) => `segments/1/0/${name}.arrow`))
    const outcomes = [done(undefined), unavailable("503"), refused("invalid", "403"), ambiguous("500")]
    const objects = {
      list: (prefix: string) =>
        Stream.fromIterable(
          [...held].filter((each) => each.startsWith(prefix)).map((each) => ({ key: each, bytes: 1 }))
        ),
      remove: (name: string) =>
        Effect.sync(() => {
          const outcome = outcomes.shift() ?? done(undefined)
          if (outcome._tag === "Done") held.delete(name)
          return outcome
        })
    } as unknown as Objects["Service"]
    new World("refused removals").run(
      collectionKeeper(truthOf(values), "1").pipe(
        Effect.timeout(60_000),
        Effect.provideService(Catalog, {} as Catalog["Service"]),
        Effect.provideService(Objects, objects)
      )
    )
    assert.deepStrictEqual([...held], [])
    assert.deepStrictEqual([...values.keys()], [metaKey.gone("1")])
  })
})

describe("a request for a collection", () => {
  it("is carried out, however many are to be forgotten", () => {
    const values = new Map<string, unknown>([[metaKey.format, { channels: 4 }]])
    for (let i = 0; i < MANY; i++) values.set(metaKey.gone(`g${i}`), { id: `g${i}`, created: 1n, state: "dropped" })
    const truth = truthOf(values)
    const oracle = { grant: () => Effect.succeed({ first: fromMillis(1_700_000_000_000) }) } as unknown as Oracle
    const { CreateCollection } = collectionCalls(truth, oracle)
    const program = Effect.gen(function* () {
      for (let i = 0; i < MANY / 50; i++) {
        const spec = { database: "d", name: `n${i}`, shards: 1 } as unknown as CollectionSpec
        const request = formatRequestId({ issued: 0n, unique: BigInt(i + 1) })
        yield* Effect.forkChild(CreateCollection({ request, spec }))
        yield* Effect.sleep(1)
      }
    })
    new World("much to forget").run(Effect.scoped(program))
    assert.lengthOf([...truth.all("collection")], MANY / 50)
    assert.lengthOf([...truth.all("gone")], 0)
  })

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

/** One suite for every adapter of `Meta`: by property against a model, and the awkward questions one by one. */
import { jetstreamManager } from "@nats-io/jetstream"
import { Kvm } from "@nats-io/kv"
import { Context, Effect, Exit, Fiber, Option, type Scope, Stream } from "effect"
import { connect } from "nats"
import { describe, expect, it } from "vitest"
import { limits } from "../../protocols/limits.ts"
import { bootstrap, bucketStream, escapeKey, unescapeKey } from "../../storage/jetstream-bucket.ts"
import { type Change, type Entry, Meta } from "../../storage/meta.ts"
import { isBelow } from "../../storage/meta-rules.ts"
import { NatsConnection } from "../../storage/nats-connection.ts"
import type { StorageError } from "../../storage/outcome.ts"
import type { Nats } from "../support/nats.ts"
import { randomFrom, seeds } from "../support/random.ts"
import {
  bytesOf,
  describeWorlds,
  eventually,
  natsLayer,
  oddKeys,
  type Place,
  tagOf,
  textOf,
  valueOf,
  type World
} from "../support/storage.ts"
import { told, watching } from "../support/watching.ts"

const openMeta = (place: Place, options?: Parameters<Place["open"]>[0]) =>
  Effect.map(place.open(options), (context) => Context.get(context, Meta))
const newMeta = Effect.fnUntraced(function* (world: World) {
  const place = yield* world.place()
  return { place, meta: yield* openMeta(place) }
})

const put = (key: string, value: string): Change => ({ key, value: bytesOf(value) })
const drop = (key: string): Change => ({ key, value: undefined })
const pairs = (entries: Iterable<Entry>) => [...entries].map(({ key, value }) => `${key}=${textOf(value)}`).sort()
const reasonOf = (exit: Exit.Exit<unknown, StorageError>) =>
  Exit.isSuccess(exit) ? "success" : JSON.stringify(exit.cause.reasons)

describe("keys in subjects", () => {
  it("come back as they were, in tokens that a key-value client takes", () => {
    for (const key of oddKeys) {
      expect(escapeKey(key)).toMatch(/^[-/_=.A-Za-z0-9]+$/)
      expect(escapeKey(key)).not.toMatch(/^\.|\.$|\.\./)
      expect(unescapeKey(escapeKey(key))).toBe(key)
    }
    expect(new Set(oddKeys.map(escapeKey)).size).toBe(oddKeys.length)
    expect(escapeKey("collection.7.shard-2")).toBe("collection.7.shard-2")
  })
})

describeWorlds("meta", (world) => {
  const test = (title: string, program: () => Effect.Effect<unknown, unknown, Scope.Scope>) =>
    it(title, () => world.run(program))

  for (const seed of seeds) {
    test(`any 120 operations do what the model does (seed ${seed})`, () => property(world, seed))
  }

  test("an absent key is none, an empty value is not", () =>
    Effect.gen(function* () {
      const { meta } = yield* newMeta(world)
      expect(yield* meta.get("a")).toEqual(Option.none())
      expect(yield* meta.snapshot).toEqual({ head: 0, entries: [] })
      const head = valueOf(yield* meta.commit([put("a", "")], 0))
      expect(Option.map(yield* meta.get("a"), ({ key, value, revision }) => [key, value.length, revision])).toEqual(
        Option.some(["a", 0, head])
      )
      const gone = valueOf(yield* meta.commit([drop("a"), drop("never")], head))
      expect(yield* meta.get("a")).toEqual(Option.none())
      expect(yield* meta.snapshot).toEqual({ head: gone, entries: [] })
      expect(valueOf(yield* meta.commit([put("a", "again")], gone))).toBeGreaterThan(gone)
    }))

  test("a commit that builds on another head changes nothing, whichever key it is about", () =>
    Effect.gen(function* () {
      const { meta } = yield* newMeta(world)
      const first = valueOf(yield* meta.commit([put("a", "1")], 0))
      const second = valueOf(yield* meta.commit([put("b", "1"), put("c", "1")], first))
      for (const head of [0, first, second + 1]) {
        expect(tagOf(yield* meta.commit([put("d", "x")], head))).toBe("conflict")
        expect(tagOf(yield* meta.commit([put("d", "x"), drop("a")], head))).toBe("conflict")
      }
      const { head, entries } = yield* meta.snapshot
      expect([head, pairs(entries)]).toEqual([second, ["a=1", "b=1", "c=1"]])
    }))

  test("of commits that race for one head one wins", () =>
    Effect.gen(function* () {
      const { place, meta } = yield* newMeta(world)
      const writers = world.isShared ? [meta, yield* openMeta(place), yield* openMeta(place)] : [meta, meta, meta]
      let head = 0
      for (let round = 0; round < 20; round++) {
        const outcomes = yield* Effect.all(
          writers.map((writer, index) => {
            // Some are a single change and some a batch, and of different keys.
            const changes = [put(`key-${index}`, `${round}`), put(`more-${index}`, `${round}`)]
            return writer.commit(changes.slice(0, 1 + ((round + index) % 2)), head)
          }),
          { concurrency: "unbounded" }
        )
        expect(outcomes.map(tagOf).sort()).toEqual(["Done", "conflict", "conflict"])
        head = (yield* meta.snapshot).head
        expect(outcomes.filter(({ _tag }) => _tag === "Done").map(valueOf)).toEqual([head])
      }
    }))

  test("what can never be committed is refused as that, and what just can is taken", () =>
    Effect.gen(function* () {
      const { meta } = yield* newMeta(world)
      const many = (count: number) => Array.from({ length: count }, (_, index) => put(`k.${index}`, `${index}`))
      expect(tagOf(yield* meta.commit([], 0))).toBe("invalid")
      expect(tagOf(yield* meta.commit([put("", "x")], 0))).toBe("invalid")
      expect(tagOf(yield* meta.commit([put("x".repeat(1_001), "x")], 0))).toBe("invalid")
      expect(tagOf(yield* meta.commit([put("a\ud800", "x")], 0))).toBe("invalid")
      expect(tagOf(yield* meta.commit([put("a", "1"), put("a", "2")], 0))).toBe("invalid")
      expect(tagOf(yield* meta.commit(many(limits.commitKeysMax + 1), 0))).toBe("invalid")
      const block = "v".repeat(limits.commitBytesMax / 8)
      const large = Array.from({ length: 8 }, (_, index) => put(`large-${index}`, block))
      expect(tagOf(yield* meta.commit(large, 0))).toBe("invalid")
      expect((yield* meta.snapshot).head).toBe(0)
      const head = valueOf(yield* meta.commit(many(limits.commitKeysMax), 0))
      const next = valueOf(yield* meta.commit(large.slice(1), head))
      expect((yield* meta.snapshot).entries.length).toBe(limits.commitKeysMax + 7)
      expect(tagOf(yield* meta.commit([put("a", "1")], head))).toBe("conflict")
      expect(valueOf(yield* meta.commit([put("a", "1")], next))).toBe(next + 1)
    }))

  test("keys may be of any characters", () =>
    Effect.gen(function* () {
      const { meta } = yield* newMeta(world)
      const head = valueOf(
        yield* meta.commit(
          oddKeys.map((key) => put(key, `<${key}>`)),
          0
        )
      )
      for (const key of oddKeys) {
        expect(Option.map(yield* meta.get(key), ({ key, value }) => [key, textOf(value)])).toEqual(
          Option.some([key, `<${key}>`])
        )
      }
      expect(pairs((yield* meta.snapshot).entries)).toEqual(oddKeys.map((key) => `${key}=<${key}>`).sort())
      const take = yield* watching(meta.watch(""))
      expect((yield* take(oddKeys.length + 1)).sort()).toEqual(
        [...oddKeys.map((key) => `${key}=<${key}>`), "CaughtUp"].sort()
      )
      valueOf(yield* meta.commit(oddKeys.map(drop), head))
      expect((yield* take(oddKeys.length)).sort()).toEqual(oddKeys.map((key) => `-${key}`).sort())
    }))

  test("a watch tells what there is, once that it has caught up, and then each change", () =>
    Effect.gen(function* () {
      const { meta } = yield* newMeta(world)
      const empty = yield* watching(meta.watch("nothing.here"))
      expect(yield* empty(1)).toEqual(["CaughtUp"])
      let head = valueOf(yield* meta.commit([put("a.1", "1"), put("a.2", "1"), put("ab", "1"), put("a", "1")], 0))
      head = valueOf(yield* meta.commit([drop("a.2"), put("b", "1")], head))
      const all = yield* watching(meta.watch(""))
      const below = yield* watching(meta.watch("a"))
      expect((yield* all(5)).slice(0, 4).sort()).toEqual(["a.1=1", "a=1", "ab=1", "b=1"])
      expect(yield* below(2)).toEqual(["a.1=1", "CaughtUp"])
      head = valueOf(yield* meta.commit([put("a.1", "2"), put("ab", "2"), put("a.3.x", "")], head))
      head = valueOf(yield* meta.commit([drop("a.1")], head))
      valueOf(yield* meta.commit([put("nothing.here.is", "1")], head))
      expect(yield* all(5)).toEqual(["a.1=2", "ab=2", "a.3.x=", "-a.1", "nothing.here.is=1"])
      expect(yield* below(3)).toEqual(["a.1=2", "a.3.x=", "-a.1"])
      expect(yield* empty(1)).toEqual(["nothing.here.is=1"])
    }))

  test("a watch that starts among commits misses none", () =>
    Effect.gen(function* () {
      const { place, meta } = yield* newMeta(world)
      const reader = world.isShared ? yield* openMeta(place) : meta
      const keys = 12
      const commits = 120
      const writer = yield* Effect.gen(function* () {
        let head = 0
        for (let count = 0; count < commits; count++) {
          const other = (count + 5) % keys
          const changes = [
            put(`k.${count % keys}`, `${count}`),
            count % 3 === 0 ? drop(`k.${other}`) : put(`k.${other}`, `${count}`)
          ]
          head = valueOf(yield* meta.commit(changes, head))
        }
        return head
      }).pipe(Effect.forkChild)
      const caches = yield* Effect.all(
        Array.from({ length: 8 }, (_, index) =>
          Effect.gen(function* () {
            yield* Effect.sleep(index * 5)
            // Up to the last commit, which is the last that any watch can tell.
            const cache = new Map<string, string>()
            yield* reader.watch("k").pipe(
              Stream.takeUntil((event) => {
                if (event._tag === "Put") cache.set(event.entry.key, textOf(event.entry.value))
                else if (event._tag === "Deleted") cache.delete(event.key)
                return (
                  event._tag !== "CaughtUp" &&
                  (event._tag === "Put" ? event.entry.revision : event.revision) === commits * 2
                )
              }),
              Stream.runDrain
            )
            return [...cache].map(([key, value]) => `${key}=${value}`).sort()
          })
        ),
        { concurrency: "unbounded" }
      )
      expect(yield* Fiber.join(writer)).toBe(commits * 2)
      const final = pairs((yield* meta.snapshot).entries)
      for (const cache of caches) expect(cache).toEqual(final)
    }))

  test("a snapshot taken among commits is of one head", () =>
    Effect.gen(function* () {
      const { place, meta } = yield* newMeta(world)
      const reader = world.isShared ? yield* openMeta(place) : meta
      const writer = yield* Effect.gen(function* () {
        for (let head = 0, count = 0; count < 60; count++) {
          // Both always change together, so they are equal at every head.
          head = valueOf(yield* meta.commit([put("left", `${count}`), put("right", `${count}`)], head))
          yield* Effect.sleep(1)
        }
      }).pipe(Effect.forkChild)
      for (let count = 0; count < 10; count++) {
        // A writer without a pause may leave no head to take a picture of; then it says so.
        const picture = yield* eventually(reader.snapshot)
        const values = picture.entries.map(({ value }) => textOf(value))
        expect(values[0]).toBe(values[1])
        if (values.length > 0) expect(picture.head).toBe(2 * Number(values[0]) + 2)
      }
      yield* Fiber.join(writer)
    }))

  if (!world.isShared) {
    test("a store that is opened again has everything", () =>
      Effect.gen(function* () {
        const place = yield* world.place()
        const head = yield* Effect.scoped(
          Effect.gen(function* () {
            const meta = yield* openMeta(place)
            const head = valueOf(yield* meta.commit([put("a", "1"), put("b", "2")], 0))
            return valueOf(yield* meta.commit([drop("a")], head))
          })
        )
        const meta = yield* openMeta(place)
        const snapshot = yield* meta.snapshot
        expect([snapshot.head, pairs(snapshot.entries)]).toEqual([head, ["b=2"]])
        expect(tagOf(yield* meta.commit([put("c", "1")], head - 1))).toBe("conflict")
        expect(valueOf(yield* meta.commit([put("c", "1")], head))).toBe(head + 1)
      }))
  } else {
    serverTests(world, test)
    if (world.nats !== undefined) natsTests(world.nats, test)
  }
})

/** What only real servers have: streams that somebody else configures, and other clients. */
const natsTests = (
  nats: () => Nats,
  test: (title: string, program: () => Effect.Effect<unknown, unknown, Scope.Scope>) => void
) => {
  const connection = () =>
    Effect.acquireRelease(
      Effect.promise(() => connect({ servers: [...nats().urls] })),
      (nc) => Effect.promise(() => nc.close())
    )
  const bootstrapped = (cluster: string) =>
    bootstrap({ cluster, replicas: nats().replicas }).pipe(
      // "unavailable" is an invitation to try again, which three servers on a busy machine may well send.
      Effect.retry({ times: 5, while: ({ reason }) => reason === "unavailable" }),
      Effect.provide(NatsConnection.layer({ servers: [...nats().urls] }))
    )

  test("a lost bucket is not made again", () =>
    Effect.gen(function* () {
      const jsm = yield* Effect.flatMap(connection(), (nc) => Effect.promise(() => jetstreamManager(nc)))
      const cluster = `lost-${nats().replicas}`
      const open = () => Effect.scoped(Effect.exit(Effect.provide(Meta, natsLayer(nats(), cluster))))
      expect(reasonOf(yield* open())).toContain("missing")
      // Twice at once, and once more.
      yield* Effect.all([bootstrapped(cluster), bootstrapped(cluster)], { concurrency: "unbounded" })
      yield* bootstrapped(cluster)
      const meta = yield* Effect.map(Effect.provide(Meta, natsLayer(nats(), cluster)), (meta) => meta)
      expect(meta).toBeDefined()
      yield* Effect.promise(() => jsm.streams.delete(bucketStream(cluster, "live")))
      expect(reasonOf(yield* Effect.exit(bootstrapped(cluster)))).toMatch(/damaged.*live/)
      yield* Effect.promise(() => jsm.streams.delete(bucketStream(cluster, "meta")))
      // Now nothing of this cluster is left, as if it had never been.
      yield* bootstrapped(cluster)
      yield* Effect.promise(() => jsm.streams.add({ name: `ELANUS_${cluster}_CHANNEL_0`, subjects: [`${cluster}.x`] }))
      yield* Effect.promise(() => jsm.streams.delete(bucketStream(cluster, "meta")))
      expect(reasonOf(yield* Effect.exit(bootstrapped(cluster)))).toMatch(/damaged.*CHANNEL_0/)
    }))

  test("a bucket that could lose data is unfit", () =>
    Effect.gen(function* () {
      const jsm = yield* Effect.flatMap(connection(), (nc) => Effect.promise(() => jetstreamManager(nc)))
      const cluster = `unfit-${nats().replicas}`
      yield* bootstrapped(cluster)
      yield* Effect.promise(() => jsm.streams.update(bucketStream(cluster, "meta"), { max_age: 600_000_000_000 }))
      const opened = Effect.scoped(Effect.exit(Effect.provide(Meta, natsLayer(nats(), cluster))))
      expect(reasonOf(yield* opened)).toMatch(/unfit.*max_age/)
    }))

  test("any client of key-value stores can read it", () =>
    Effect.gen(function* () {
      const nc = yield* connection()
      const cluster = `kv-${nats().replicas}`
      yield* bootstrapped(cluster)
      yield* Effect.gen(function* () {
        const meta = yield* Meta
        const head = valueOf(yield* meta.commit([put("a.b", "1"), put("c", "2")], 0))
        valueOf(yield* meta.commit([drop("c")], head))
      }).pipe(Effect.provide(natsLayer(nats(), cluster)))
      const kv = yield* Effect.promise(() => new Kvm(nc).open(`elanus-${cluster}-meta`))
      const entry = yield* Effect.promise(() => kv.get("a.b"))
      expect([entry?.operation, entry?.string()]).toEqual(["PUT", "1"])
      expect((yield* Effect.promise(() => kv.get("c")))?.operation).toBe("DEL")
    }))
}

/** What happens to servers. */
const serverTests = (
  world: World,
  test: (title: string, program: () => Effect.Effect<unknown, unknown, Scope.Scope>) => void
) => {
  test("a watch that is renewed after its server died misses nothing", () =>
    Effect.gen(function* () {
      const { place, meta: writer } = yield* newMeta(world)
      // Connected to the server that dies.
      const meta = yield* openMeta(place, { via: Array.from({ length: place.servers.count }, (_, index) => index) })
      const cache = new Map<string, string>()
      let renewals = 0
      // As whoever uses the port must do it: anew after a failure, and what the new picture lacks is gone.
      yield* Effect.gen(function* () {
        let seen = new Set<string>()
        yield* meta.watch("k").pipe(
          Stream.runForEach((event) =>
            Effect.sync(() => {
              if (event._tag === "Put") {
                cache.set(event.entry.key, textOf(event.entry.value))
                seen.add(event.entry.key)
              } else if (event._tag === "Deleted") cache.delete(event.key)
              else {
                for (const key of [...cache.keys()]) if (!seen.has(key)) cache.delete(key)
                seen = new Set()
              }
            })
          ),
          Effect.catch(() => Effect.sync(() => renewals++)),
          Effect.andThen(Effect.sleep(20))
        )
      }).pipe(Effect.forever, Effect.forkScoped)

      const model = new Map<string, string>()
      let head = 0
      const change = (count: number) => {
        const key = `k.${count % 7}`
        const changes = [count % 4 === 3 ? drop(key) : put(key, `${count}`)]
        return eventually(
          Effect.gen(function* () {
            const outcome = yield* writer.commit(changes, head)
            if (outcome._tag === "Done") head = outcome.value
            else {
              // Perhaps it was written: the head that there is now decides, since nobody else writes.
              head = (yield* writer.snapshot).head
              return yield* Effect.fail(outcome)
            }
          })
        ).pipe(Effect.tap(() => Effect.sync(() => (count % 4 === 3 ? model.delete(key) : model.set(key, `${count}`)))))
      }
      for (let count = 0; count < 30; count++) yield* change(count)
      yield* place.servers.kill(0)
      const restarted = yield* Effect.forkChild(place.servers.restart(0))
      for (let count = 0; count < 30; count++) yield* change(count + 1)
      yield* Fiber.join(restarted)
      yield* place.servers.usable
      for (let count = 0; count < 5; count++) yield* change(count)
      const expected = pairs((yield* eventually(writer.snapshot)).entries)
      expect(expected).toEqual([...model].map(([key, value]) => `${key}=${value}`).sort())
      yield* eventually(
        Effect.sync(() => [...cache].map(([key, value]) => `${key}=${value}`).sort()).pipe(
          Effect.filterOrFail((now) => JSON.stringify(now) === JSON.stringify(expected))
        )
      )
      expect(renewals).toBeGreaterThan(0)
    }))

  test("a watch and a get do not hang when the servers answer nothing", () =>
    Effect.gen(function* () {
      const { meta, place } = yield* newMeta(world)
      const { servers } = place
      const take = yield* watching(meta.watch(""))
      expect(yield* take(1)).toEqual(["CaughtUp"])
      const all = Array.from({ length: servers.count }, (_, index) => index)
      yield* Effect.forEach(all, servers.pause)
      yield* Effect.gen(function* () {
        const asked = [Effect.exit(meta.get("a")), Effect.exit(take(1))] as const
        for (const exit of yield* Effect.all(asked, { concurrency: 2 })) expect(reasonOf(exit)).toContain("unavailable")
      }).pipe(Effect.ensuring(Effect.forEach(all, servers.continue)))
      yield* servers.usable
      expect(yield* eventually(meta.get("a"))).toEqual(Option.none())
    }))
}

/** Random commits on the metadata and on a map, with watches that must agree in the end. */
const property = Effect.fnUntraced(function* (world: World, seed: number) {
  const { meta } = yield* newMeta(world)
  const random = randomFrom(seed)
  const keys = [...oddKeys.slice(0, 6), "a", "a.b", "a.b.c", "a.d", "ab"]
  const model = new Map<string, string>()
  let head = 0
  let count = 0
  const check = (holds: unknown, expected: unknown, what: string) =>
    expect(holds, `seed ${seed}, operation ${what}`).toEqual(expected)
  const modelPairs = () => [...model].map(([key, value]) => `${key}=${value}`).sort()
  const modelBelow = (prefix: string) => {
    const below = [...model].filter(([key]) => isBelow(prefix, key))
    return below.map(([key, value]) => `${key}=${value}`).sort()
  }
  const prefixes = ["", "a", "a.b", "absent"]

  for (let step = 0; step < 120; step++) {
    const kind = random.pick(["commit", "commit", "commit", "stale", "get", "snapshot", "watch"] as const)
    const what = `${step} ${kind}`
    if (kind === "commit" || kind === "stale") {
      const chosen = keys.filter(() => random.chance(0.3))
      if (chosen.length === 0) continue
      const changes = chosen.map((key) => (random.chance(0.3) ? drop(key) : put(key, `${count++}`)))
      if (kind === "stale") {
        const stale = head === 0 || random.chance(0.5) ? head + 1 + random.below(5) : random.below(head)
        check(tagOf(yield* meta.commit(changes, stale)), "conflict", what)
        continue
      }
      const next = valueOf(yield* meta.commit(changes, head))
      check(next, head + changes.length, what)
      head = next
      for (const { key, value } of changes) {
        if (value === undefined) model.delete(key)
        else model.set(key, textOf(value))
      }
    } else if (kind === "get") {
      const key = random.pick(keys)
      const found = Option.map(yield* meta.get(key), ({ value }) => textOf(value))
      check(found, Option.fromNullishOr(model.get(key)), what)
    } else if (kind === "snapshot") {
      const snapshot = yield* meta.snapshot
      check([snapshot.head, pairs(snapshot.entries)], [head, modelPairs()], what)
    } else {
      const prefix = random.pick(prefixes)
      const events = yield* meta.watch(prefix).pipe(
        Stream.takeUntil(({ _tag }) => _tag === "CaughtUp"),
        Stream.runCollect
      )
      check([...events].map(told).slice(0, -1).sort(), modelBelow(prefix), `${what} ${prefix}`)
    }
  }
})

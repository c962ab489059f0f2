/** One suite for every adapter of `Leases`: by property against a model, and the awkward questions one by one. */
import { Context, Effect, Option, type Scope, Stream } from "effect"
import { expect, it } from "vitest"
import { Leases } from "../../storage/leases.ts"
import { randomFrom, seeds } from "../support/random.ts"
import {
  bytesOf,
  describeWorlds,
  eventually,
  oddKeys,
  type Place,
  tagOf,
  textOf,
  valueOf,
  type World
} from "../support/storage.ts"
import { told, watching } from "../support/watching.ts"

const openLeases = (place: Place) => Effect.map(place.open(), (context) => Context.get(context, Leases))
const newLeases = Effect.fnUntraced(function* (world: World) {
  const place = yield* world.place()
  return { place, leases: yield* openLeases(place) }
})

const valueAt = (leases: Leases["Service"], key: string) =>
  Effect.map(leases.get(key), (found) => Option.getOrUndefined(Option.map(found, ({ value }) => textOf(value))))

describeWorlds("leases", (world) => {
  const test = (title: string, program: () => Effect.Effect<unknown, unknown, Scope.Scope>) =>
    it(title, () => world.run(program))

  for (const seed of seeds) {
    test(`any 150 operations do what the model does (seed ${seed})`, () => property(world, seed))
  }

  test("a key is written by its revision, and revisions of all keys only grow", () =>
    Effect.gen(function* () {
      const { leases } = yield* newLeases(world)
      expect(yield* leases.get("a")).toEqual(Option.none())
      expect(tagOf(yield* leases.put("a", bytesOf("1"), 7))).toBe("conflict")
      const first = valueOf(yield* leases.put("a", bytesOf("1"), 0))
      expect(tagOf(yield* leases.put("a", bytesOf("2"), 0))).toBe("conflict")
      const other = valueOf(yield* leases.put("b", bytesOf(""), 0))
      const second = valueOf(yield* leases.put("a", bytesOf("2"), first))
      expect(tagOf(yield* leases.put("a", bytesOf("3"), first))).toBe("conflict")
      expect(tagOf(yield* leases.remove("a", first))).toBe("conflict")
      expect([first, other, second]).toEqual([first, other, second].toSorted((a, b) => a - b))
      expect(new Set([first, other, second]).size).toBe(3)
      expect(Option.map(yield* leases.get("a"), ({ revision }) => revision)).toEqual(Option.some(second))
      expect(yield* valueAt(leases, "b")).toBe("")
    }))

  test("a removed key is written again from nothing, any number of times", () =>
    Effect.gen(function* () {
      const { leases } = yield* newLeases(world)
      let highest = 0
      for (let round = 0; round < 5; round++) {
        const revision = valueOf(yield* leases.put("a", bytesOf(`${round}`), 0, round % 2 === 0 ? 60_000 : undefined))
        expect(revision).toBeGreaterThan(highest)
        highest = revision
        valueOf(yield* leases.remove("a", revision))
        expect(yield* leases.get("a")).toEqual(Option.none())
        expect(tagOf(yield* leases.put("a", bytesOf("x"), revision))).toBe("conflict")
      }
    }))

  test("of those that race for a key one gets it", () =>
    Effect.gen(function* () {
      const { place, leases } = yield* newLeases(world)
      const holders = world.isShared ? [leases, yield* openLeases(place), yield* openLeases(place)] : [leases, leases]
      let expected = 0
      for (let round = 0; round < 20; round++) {
        const outcomes = yield* Effect.all(
          holders.map((holder, index) => holder.put("key", bytesOf(`${index}`), expected, 60_000)),
          { concurrency: "unbounded" }
        )
        const winners = outcomes.filter(({ _tag }) => _tag === "Done")
        expect(outcomes.map(tagOf).sort()).toEqual(["Done", ...Array(holders.length - 1).fill("conflict")])
        const revision = valueOf(winners[0]!)
        expect(yield* valueAt(leases, "key")).toBe(`${outcomes.indexOf(winners[0]!)}`)
        // Every other round they race for one that went.
        if (round % 2 === 0) valueOf(yield* leases.remove("key", revision))
        expected = round % 2 === 0 ? 0 : revision
      }
    }))

  test("a time to live that cannot be kept is refused", () =>
    Effect.gen(function* () {
      const { leases } = yield* newLeases(world)
      for (const ttlMs of [0, 1, 999, 1_500]) {
        expect(tagOf(yield* leases.put("a", bytesOf("1"), 0, ttlMs))).toBe("invalid")
      }
      expect(tagOf(yield* leases.put("", bytesOf("1"), 0))).toBe("invalid")
      expect(yield* leases.get("a")).toEqual(Option.none())
    }))

  test("a key that is not renewed goes, its watchers hear it, and it can be had again", () =>
    Effect.gen(function* () {
      const { leases } = yield* newLeases(world)
      const take = yield* watching(leases.watch("node"))
      expect(yield* take(1)).toEqual(["CaughtUp"])
      const stays = valueOf(yield* leases.put("node.stays", bytesOf("1"), 0))
      const lost = valueOf(yield* leases.put("node.lost", bytesOf("1"), 0, 1_000))
      let kept = valueOf(yield* leases.put("node.kept", bytesOf("0"), 0, 1_000))
      expect(yield* take(3)).toEqual(["node.stays=1", "node.lost=1", "node.kept=0"])
      // Renewed often enough while the other one is not.
      const heard: Array<string> = []
      for (let renewal = 1; !heard.includes("-node.lost"); renewal++) {
        yield* Effect.sleep(250)
        kept = valueOf(yield* leases.put("node.kept", bytesOf(`${renewal}`), kept, 1_000))
        for (let event = ""; event !== `node.kept=${renewal}`;) {
          event = (yield* take(1))[0]!
          heard.push(event)
        }
      }
      expect(heard.filter((event) => event.startsWith("-"))).toEqual(["-node.lost"])
      expect(yield* leases.get("node.lost")).toEqual(Option.none())
      expect(Option.map(yield* leases.get("node.stays"), ({ revision }) => revision)).toEqual(Option.some(stays))
      expect(tagOf(yield* leases.put("node.lost", bytesOf("2"), lost, 1_000))).toBe("conflict")
      const again = valueOf(yield* leases.put("node.lost", bytesOf("2"), 0))
      expect(again).toBeGreaterThan(kept)
      // Without a time to live it stays, and so does a lease that was made one that stays.
      valueOf(yield* leases.put("node.kept", bytesOf("for ever"), kept))
      expect(yield* take(2)).toEqual(["node.lost=2", "node.kept=for ever"])
      yield* Effect.sleep(1_500)
      expect([yield* valueAt(leases, "node.lost"), yield* valueAt(leases, "node.kept")]).toEqual(["2", "for ever"])
    }))

  test("a watch tells what there is, once that it has caught up, and then each change", () =>
    Effect.gen(function* () {
      const { leases } = yield* newLeases(world)
      const revision = valueOf(yield* leases.put("a.1", bytesOf("1"), 0, 60_000))
      const gone = valueOf(yield* leases.put("a.2", bytesOf("1"), 0))
      valueOf(yield* leases.remove("a.2", gone))
      valueOf(yield* leases.put("b", bytesOf("1"), 0))
      const take = yield* watching(leases.watch("a"))
      expect(yield* take(2)).toEqual(["a.1=1", "CaughtUp"])
      const next = valueOf(yield* leases.put("a.1", bytesOf("2"), revision))
      valueOf(yield* leases.put("ab", bytesOf("1"), 0))
      valueOf(yield* leases.remove("a.1", next))
      expect(yield* take(2)).toEqual(["a.1=2", "-a.1"])
    }))

  test("keys may be of any characters", () =>
    Effect.gen(function* () {
      const { leases } = yield* newLeases(world)
      for (const key of oddKeys) valueOf(yield* leases.put(key, bytesOf(`<${key}>`), 0, 60_000))
      for (const key of oddKeys) expect(yield* valueAt(leases, key)).toBe(`<${key}>`)
    }))

  if (!world.isShared) {
    test("after a restart what expires is gone, the rest is there, and revisions go on", () =>
      Effect.gen(function* () {
        const place = yield* world.place()
        let highest = 0
        for (let round = 0; round < 3; round++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const leases = yield* openLeases(place)
              expect(yield* leases.get("lease")).toEqual(Option.none())
              const durable = yield* leases.get("durable")
              expect(Option.map(durable, ({ value }) => textOf(value))).toEqual(
                round === 0 ? Option.none() : Option.some(`${round - 1}`)
              )
              const lease = valueOf(yield* leases.put("lease", bytesOf("1"), 0, 60_000))
              expect(lease).toBeGreaterThan(highest)
              const expected = Option.match(durable, { onNone: () => 0, onSome: ({ revision }) => revision })
              highest = valueOf(yield* leases.put("durable", bytesOf(`${round}`), expected))
              expect(highest).toBeGreaterThan(lease)
              highest = valueOf(yield* leases.put("lease", bytesOf("2"), lease, 60_000))
            })
          )
        }
      }))
  } else {
    test("leases and the keys that stay survive the death of the server", () =>
      Effect.gen(function* () {
        const { leases, place } = yield* newLeases(world)
        const lease = valueOf(yield* leases.put("lease", bytesOf("1"), 0, 60_000))
        valueOf(yield* leases.put("stays", bytesOf("1"), 0))
        valueOf(yield* leases.put("short", bytesOf("1"), 0, 1_000))
        yield* place.servers.kill(0)
        yield* place.servers.restart(0)
        yield* place.servers.usable
        expect(yield* eventually(valueAt(leases, "lease"))).toBe("1")
        expect(yield* eventually(valueAt(leases, "stays"))).toBe("1")
        yield* eventually(Effect.filterOrFail(leases.get("short"), Option.isNone))
        const renewed = yield* eventually(
          Effect.filterOrFail(leases.put("lease", bytesOf("2"), lease, 60_000), ({ _tag }) => _tag !== "Unavailable")
        )
        // An election may leave a write in doubt, and a reader decides that.
        if (renewed._tag !== "Done") expect(renewed._tag).toBe("Ambiguous")
        else expect(yield* eventually(valueAt(leases, "lease"))).toBe("2")
      }))
  }
})

/** Random operations on the leases and on a map. What expires does so in the test of its own. */
const property = Effect.fnUntraced(function* (world: World, seed: number) {
  const { leases } = yield* newLeases(world)
  const random = randomFrom(seed)
  const keys = [...oddKeys.slice(0, 5), "channel.1", "channel.2", "channel"]
  const model = new Map<string, { readonly value: string; readonly revision: number }>()
  let highest = 0
  // Wrong expectations are revisions of other times and keys. (That of a removal is nobody's to expect: a port may keep it or not.)
  const given = [0]
  const check = (holds: unknown, expected: unknown, what: string) =>
    expect(holds, `seed ${seed}, operation ${what}`).toEqual(expected)

  for (let step = 0; step < 150; step++) {
    const kind = random.pick(["put", "put", "put", "remove", "get", "watch"] as const)
    const key = random.pick(keys)
    const what = `${step} ${kind} ${key}`
    const revision = model.get(key)?.revision ?? 0
    const expected = random.chance(0.75) ? revision : random.pick([...given, highest + 1_000])
    if (kind === "put") {
      const outcome = yield* leases.put(key, bytesOf(`${step}`), expected, random.chance(0.5) ? 3_600_000 : undefined)
      if (expected !== revision) {
        check(tagOf(outcome), "conflict", what)
        continue
      }
      check(valueOf(outcome) > highest, true, what)
      highest = valueOf(outcome)
      given.push(highest)
      model.set(key, { value: `${step}`, revision: highest })
    } else if (kind === "remove") {
      if (revision === 0) continue
      check(tagOf(yield* leases.remove(key, expected)), expected === revision ? "Done" : "conflict", what)
      if (expected === revision) model.delete(key)
    } else if (kind === "get") {
      const found = Option.map(yield* leases.get(key), ({ value, revision }) => ({ value: textOf(value), revision }))
      check(found, Option.fromNullishOr(model.get(key)), what)
    } else {
      const events = yield* leases.watch("").pipe(
        Stream.takeUntil(({ _tag }) => _tag === "CaughtUp"),
        Stream.runCollect
      )
      const all = [...model].map(([key, { value }]) => `${key}=${value}`).sort()
      check([...events].map(told).slice(0, -1).sort(), all, what)
    }
  }
})

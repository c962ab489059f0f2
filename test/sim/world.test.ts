/** The world itself: what runs when, what the trace says of it, and that nothing of the real world comes in. */
import { Clock, Deferred, Effect, Hash, Random } from "effect"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { setTimeout as wait } from "node:timers/promises"
import { assert, describe, it } from "vitest"
import { Leak, sealed } from "../../sim/sealed.ts"
import { firstDifference, type Keep, lineOf, parting, Trace } from "../../sim/trace.ts"
import { on, World } from "../../sim/world.ts"
import { forSeeds } from "../support/seeds.ts"

/** Nodes that wake each other, sleep and draw. `odd` says what one of them does differently, late. */
const busy = (seed: number, options: { readonly keep?: Keep; readonly odd?: boolean } = {}) => {
  const world = new World(seed, { preempt: 0.1, keep: options.keep })
  const [a, b] = ["a", "b"].map((name) => world.node(name))
  const work = Effect.gen(function* () {
    for (let i = 0; i < 300; i++) {
      yield* Effect.sleep(yield* Random.nextBetween(0, 10))
      yield* on(i % 2 === 0 ? a! : b!, Effect.sleep(1))
      if (options.odd === true && i === 250) yield* Effect.sleep(0.001)
    }
  })
  world.run(Effect.all([work, work], { concurrency: "unbounded" }))
  return world.trace
}

describe("a trace", () => {
  it("is the same for the same seed, and for no other", () => {
    const hashes = new Set<string>()
    forSeeds(5, (seed) => {
      const trace = busy(seed)
      assert.strictEqual(trace.hash, busy(seed).hash)
      assert.isAbove(trace.checkpoints.length, 2)
      hashes.add(trace.hash)
    })
    assert.strictEqual(hashes.size, 5)
  })

  it("says where two runs part", () => {
    assert.isUndefined(parting(busy(1), busy(1)))
    const keep = parting(busy(1), busy(1, { odd: true }))!
    assert.strictEqual(keep.to - keep.from, 999)
    const [one, other] = [busy(1, { keep }), busy(1, { keep, odd: true })]
    const first = one.kept.findIndex((event, i) => lineOf(event) !== lineOf(other.kept[i]!))
    assert.isAtLeast(first, 0)
    const said = firstDifference(one.kept, other.kept)!
    assert.include(said, lineOf(one.kept[first]!))
    assert.include(said, lineOf(other.kept[first]!))
    assert.isUndefined(firstDifference(one.kept, busy(1, { keep }).kept))
  })

  it("knows each part of an event", () => {
    const hashOf = (...events: ReadonlyArray<readonly [number, string, number, number, string]>) => {
      const trace = new Trace()
      for (const event of events) trace.add(...event)
      return trace.hash
    }
    const hashes = [
      hashOf([1, "a", 7, 0, "turn"]),
      hashOf([1.0000000001, "a", 7, 0, "turn"]),
      hashOf([1, "b", 8, 0, "turn"]),
      hashOf([1, "a", 7, 1, "turn"]),
      hashOf([1, "a", 7, 0, "tunr"]),
      hashOf([1, "a", 7, 0, "turn"], [1, "a", 7, 0, "turn"])
    ]
    assert.strictEqual(new Set(hashes).size, hashes.length)
  })
})

describe("a world", () => {
  it("gives a fiber that is woken or begun a turn of its own, even where nobody loses one", () => {
    const world = new World("woken", { preempt: 0 })
    const seen: Array<string> = []
    world.run(
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const waiter = Deferred.await(gate).pipe(Effect.andThen(Effect.sync(() => seen.push("woken"))))
        yield* Effect.forkChild(waiter, { startImmediately: true })
        yield* Effect.sleep(1)
        const events = world.events
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.forkChild(
          Effect.sync(() => seen.push("begun")),
          { startImmediately: true }
        )
        yield* Effect.sync(() => seen.push("the one who woke them"))
        assert.strictEqual(world.events, events)
        yield* Effect.sleep(1)
      })
    )
    assert.strictEqual(seen[0], "the one who woke them")
    assert.sameMembers(seen, ["woken", "begun", "the one who woke them"])
  })

  it("forgets what was cancelled", () => {
    const world = new World("cancelled")
    const seen: Array<string> = []
    world.run(
      Effect.gen(function* () {
        world.after(5, () => seen.push("cancelled")).cancel()
        world.after(5, () => seen.push("kept"))
        yield* Effect.timeoutOption(Effect.sleep(1), 1_000_000)
        yield* Effect.sleep(10)
      })
    )
    assert.deepStrictEqual(seen, ["kept"])
    assert.isBelow(world.now, 100)
  })

  it("has clocks that are wrong, drift and jump, while time itself goes on", () => {
    const world = new World("clocks")
    const node = world.node("node")
    const clocks = Effect.gen(function* () {
      return [yield* Clock.currentTimeMillis, Number(yield* Clock.monotonicTimeNanos) / 1e6] as const
    })
    const read = Effect.flatten(on(node, clocks))
    world.run(
      Effect.gen(function* () {
        const [wall, monotonic] = yield* read
        node.drift(100_000)
        yield* Effect.sleep(10_000)
        const [drifted, later] = yield* read
        assert.approximately(drifted - wall, 11_000, 2)
        assert.approximately(later - monotonic, 10_000, 1)
        node.skewMs -= 60_000
        assert.approximately((yield* read)[0] - wall, -49_000, 2)
        node.heal()
        yield* Effect.sleep(10_000)
        assert.approximately((yield* read)[0] - wall, -39_000, 2)
      })
    )
  })

  it("has machines that are slow", () => {
    const world = new World("slow", { preempt: 0 })
    const node = world.node("node")
    const turns = Effect.repeat(Effect.yieldNow, { times: 9 })
    const took = Effect.gen(function* () {
      const began = world.now
      yield* Effect.flatten(on(node, turns))
      return world.now - began
    })
    world.run(
      Effect.gen(function* () {
        assert.strictEqual(yield* took, 0)
        node.slowMs = 100
        assert.isAbove(yield* took, 100)
        node.heal()
        assert.strictEqual(yield* took, 0)
      })
    )
  })
})

describe("a seal", () => {
  const leaks: { readonly [name: string]: () => unknown } = {
    "Date.now": () => Date.now(),
    "new Date": () => new Date(),
    "a time zone": () => new Date(0).getHours(),
    "performance.now": () => performance.now(),
    "process.hrtime": () => process.hrtime(),
    "process.hrtime.bigint": () => process.hrtime.bigint(),
    "process.memoryUsage": () => process.memoryUsage(),
    setTimeout: () => setTimeout(() => undefined, 1),
    setInterval: () => clearInterval(setInterval(() => undefined, 1)),
    setImmediate: () => setImmediate(() => undefined),
    queueMicrotask: () => queueMicrotask(() => undefined),
    "timers/promises": () => wait(1),
    "Math.random": () => Math.random(),
    "crypto.randomUUID": () => crypto.randomUUID(),
    "node:crypto": () => randomUUID(),
    "crypto.getRandomValues": () => crypto.getRandomValues(new Uint8Array(1)),
    "AbortSignal.timeout": () => AbortSignal.timeout(1),
    "a promise": () => Promise.resolve(1).then(() => 2),
    "a file": () => readFileSync(import.meta.filename),
    fetch: () => fetch("http://127.0.0.1:1"),
    "a language": () => "a".localeCompare("b"),
    WeakRef: () => new WeakRef({})
  }

  for (const [name, leak] of Object.entries(leaks)) {
    it(`keeps out ${name}, and only while it is closed`, async () => {
      assert.throws(() => sealed(leak), Leak)
      if (name !== "fetch" && name !== "process.memoryUsage") await leak()
    })
  }

  it("lets in what is the same everywhere", () => {
    const seen = sealed(() => [new Date(5).toISOString(), new Date(5) instanceof Date, Buffer.allocUnsafe(2)[1]])
    assert.deepStrictEqual(seen, ["1970-01-01T00:00:00.005Z", true, 0xa5])
  })

  it("lets Effect compare what two fibers died of, the same way every time", () => {
    const hashes = [1, 2].map(() => sealed(() => Hash.hash({ why: () => {} })))
    assert.strictEqual(hashes[0], hashes[1])
  })

  it("is open again after what was in it failed", () => {
    assert.throws(() => sealed(() => assert.fail("inside")), /inside/)
    assert.isAbove(Date.now(), 0)
  })

  it("shows what Effect would ask of the real world", () => {
    const leaky = (effect: Effect.Effect<unknown>) => () => sealed(() => new World("leaky").run(effect))
    assert.throws(leaky(Effect.promise(() => Promise.resolve(1))), /a promise belongs to the real world/)
    assert.throws(leaky(Effect.sync(() => Math.random())), /Math.random belongs to the real world/)
  })
})

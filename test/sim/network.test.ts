/**
 * What can go wrong between a node and the broker, one fault at a time: each must do to those who are connected what
 * the real one does. A fault that does nothing would make every other test of the simulator worthless.
 */
import { Clock, Context, Deferred, Effect, Fiber, Layer, Option, type Scope, Stream } from "effect"
import { assert, describe, it } from "vitest"
import { type Broker, type BrokerOptions, simBroker } from "../../sim/broker.ts"
import { on, type SimNode, World } from "../../sim/world.ts"
import { limits } from "../../protocols/limits.ts"
import { Bus, type BusError } from "../../runtime/bus.ts"
import { Leases } from "../../storage/leases.ts"
import { Log } from "../../storage/log.ts"
import { Meta } from "../../storage/meta.ts"
import type { Outcome } from "../../storage/outcome.ts"
import { follow } from "../../storage/watched.ts"
import { forSeeds } from "../support/seeds.ts"
import { bytesOf, collect, eventually, tagOf, textOf, valueOf } from "../support/storage.ts"

const CHANNEL = 1
const soon = { timeoutMs: 2_000 }

interface Place {
  readonly world: World
  readonly broker: Broker
  readonly a: SimNode
  readonly b: SimNode
}

/** Runs a program on the node that it begins on, in worlds of some seeds. */
const inPlaces = (
  program: (place: Place) => Effect.Effect<void, unknown, Scope.Scope>,
  options: BrokerOptions = {}
): void =>
  forSeeds(6, (seed) => {
    const world = new World(`network ${seed}`, { preempt: [0, 0.1][seed % 2]! })
    const broker = simBroker(world, options)
    world.run(Effect.scoped(program({ world, broker, a: world.node("a"), b: world.node("b") })))
  })

type Ports = Bus | Log | Meta | Leases

/** Ports of a node, which it keeps until it crashes. */
const portsOf = (broker: Broker, node: SimNode, layer = broker.layer): Effect.Effect<Context.Context<Ports>> =>
  Effect.flatMap(Deferred.make<Context.Context<Ports>>(), (made) => {
    node.start(
      Effect.scoped(
        Effect.flatMap(Layer.build(layer), (ports) => Effect.andThen(Deferred.succeed(made, ports), Effect.never))
      )
    )
    return Deferred.await(made)
  })

/** Answers on the subject, as the node; what it got, in order. */
const echoing = Effect.fnUntraced(function* (
  node: SimNode,
  ports: Context.Context<Ports>,
  subject: string,
  queue?: string
) {
  const got: Array<string> = []
  const bus = Context.get(ports, Bus)
  const ready = yield* Deferred.make<void>()
  const serving = bus.serve(subject, queue === undefined ? {} : { queue }, ({ data }) => {
    got.push(textOf(data))
    return Effect.succeed({ data })
  })
  node.start(Effect.scoped(Effect.andThen(serving, Effect.andThen(Deferred.succeed(ready, undefined), Effect.never))))
  yield* Deferred.await(ready)
  return got
})

/** The answer, or why there is none, and after how many milliseconds. */
const asking = (ports: Context.Context<Ports>, subject: string, text: string, options = soon) =>
  Effect.gen(function* () {
    const before = yield* Clock.currentTimeMillis
    const answer = yield* Effect.matchEffect(Context.get(ports, Bus).request(subject, bytesOf(text), options), {
      onSuccess: ({ data }) => Effect.succeed(textOf(data)),
      onFailure: (error: BusError) => Effect.succeed(error.reason)
    })
    return { answer, ms: (yield* Clock.currentTimeMillis) - before }
  })

const as = <A, E>(node: SimNode, effect: Effect.Effect<A, E>) => Effect.flatten(on(node, effect))

describe("a connection", () => {
  it("keeps the order of what is sent on it, also to a node that stood still", () => {
    inPlaces(({ a, b, broker, world }) =>
      Effect.gen(function* () {
        Object.assign(broker.network.faults, { latencyMs: [0.1, 50], tail: 0.1, tailMs: 500 })
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        const got = yield* echoing(b, there, "x")
        const sent = Array.from({ length: 200 }, (_, index) => String(index))
        world.after(100, () => b.pause(3_000))
        yield* as(
          a,
          Effect.forEach(sent, (text) =>
            Effect.andThen(Context.get(here, Bus).publish("x", bytesOf(text)), Effect.sleep(2))
          )
        )
        yield* Effect.sleep(10_000)
        assert.deepStrictEqual(got, sent)
      })
    )
  })

  it("keeps what is sent while its way is blocked, until it is free again", () => {
    inPlaces(({ a, b, broker, world }) =>
      Effect.gen(function* () {
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        const got = yield* echoing(b, there, "x")
        for (const [ways, isHandledBefore] of [
          ["up", false],
          ["down", true],
          ["both", false]
        ] as const) {
          got.length = 0
          broker.network.block(a, ways)
          world.after(5_000, () => broker.network.mend(a))
          const { answer, ms } = yield* as(a, asking(here, "x", "1"))
          assert.deepStrictEqual([answer, Math.round(ms / 100)], ["timeout", 20], ways)
          assert.strictEqual(got.length, isHandledBefore ? 1 : 0, ways)
          yield* Effect.sleep(5_000)
          assert.strictEqual(got.length, 1, ways)
          assert.strictEqual((yield* as(a, asking(here, "x", "2"))).answer, "2")
        }
        assert.isAbove(broker.counts["blocked up"]! + broker.counts["blocked both"]!, 0)
      })
    )
  })

  it("is given up after a silence, and another one made when that is possible", () => {
    inPlaces(({ a, b, broker, world }) =>
      Effect.gen(function* () {
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        const got = yield* echoing(b, there, "x")
        broker.network.block(a, "both")
        world.after(60_000, () => broker.network.mend(a))
        const first = yield* as(a, asking(here, "x", "1", { timeoutMs: 30_000 }))
        assert.strictEqual(first.answer, "timeout")
        assert.isTrue(first.ms >= 10_000 && first.ms <= 15_000, `${first.ms} ms`)
        assert.strictEqual((yield* as(a, asking(here, "x", "2"))).answer, "disconnected")
        yield* Effect.sleep(60_000)
        assert.strictEqual((yield* as(a, asking(here, "x", "3"))).answer, "3")
        assert.deepStrictEqual(got, ["3"], "what was in flight is lost")
      })
    )
  })

  it("that was given up may still bring what was sent on it, behind what was sent later", () => {
    inPlaces(({ a, b, broker, world }) =>
      Effect.gen(function* () {
        broker.network.faults.late = 1
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        const got = yield* echoing(b, there, "x")
        broker.network.block(a, "up")
        world.after(20_000, () => broker.network.mend(a))
        assert.strictEqual((yield* as(a, asking(here, "x", "late"))).answer, "timeout")
        yield* Effect.sleep(30_000)
        assert.deepStrictEqual(got, ["late"])
        assert.isAbove(broker.counts["late connection"]!, 0)
      })
    )
  })

  it("that breaks tells who waits, loses what is in flight, and comes back with all that is served", () => {
    inPlaces(({ a, b, broker, world }) =>
      Effect.gen(function* () {
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        yield* echoing(b, there, "x")
        const bus = Context.get(there, Bus)
        b.start(
          Effect.scoped(
            Effect.andThen(
              bus.serve("never", {}, () => Effect.never),
              Effect.never
            )
          )
        )
        yield* Effect.sleep(10)
        world.after(100, () => broker.network.disconnect(a))
        const { answer, ms } = yield* as(a, asking(here, "never", ""))
        assert.deepStrictEqual([answer, Math.round(ms / 10)], ["timeout", 10])
        assert.strictEqual((yield* as(a, asking(here, "x", "1"))).answer, "disconnected")
        yield* Effect.sleep(1_000)
        assert.strictEqual((yield* as(a, asking(here, "x", "2"))).answer, "2")
        // Of the one who serves: nobody is there until it is back.
        broker.network.disconnect(b)
        yield* Effect.sleep(2)
        assert.strictEqual((yield* as(a, asking(here, "x", "3"))).answer, "nobody")
        yield* Effect.sleep(1_000)
        assert.strictEqual((yield* as(a, asking(here, "x", "4"))).answer, "4")
        assert.strictEqual(
          yield* as(
            b,
            Effect.map(asking(there, "never", "", { timeoutMs: 10 }), ({ answer }) => answer)
          ),
          "timeout"
        )
      })
    )
  })

  it("of a node that crashed is over at once, unless nobody can say so", () => {
    inPlaces(({ a, b, broker }) =>
      Effect.gen(function* () {
        const here = yield* portsOf(broker, a)
        yield* echoing(b, yield* portsOf(broker, b), "x")
        b.crash()
        yield* Effect.sleep(5)
        assert.strictEqual((yield* as(a, asking(here, "x", ""))).answer, "nobody")
        yield* echoing(b, yield* portsOf(broker, b), "x")
        broker.network.block(b, "both")
        b.crash()
        yield* Effect.sleep(1_000)
        assert.strictEqual((yield* as(a, asking(here, "x", ""))).answer, "timeout")
        broker.network.mend(b)
        yield* Effect.sleep(5)
        assert.strictEqual((yield* as(a, asking(here, "x", ""))).answer, "nobody")
      })
    )
  })

  it("with too much on its way down is broken by the server", () => {
    inPlaces(({ a, b, broker }) =>
      Effect.gen(function* () {
        broker.network.faults.pendingBytesMax = 100_000
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        const got = yield* echoing(b, there, "x")
        b.pause(5_000)
        const bus = Context.get(here, Bus)
        yield* as(
          a,
          Effect.forEach(Array.from({ length: 20 }), () => bus.publish("x", new Uint8Array(10_000)))
        )
        yield* Effect.sleep(10_000)
        assert.isAbove(broker.counts["slow consumer"]!, 0)
        assert.isBelow(got.length, 20)
        assert.strictEqual((yield* as(a, asking(here, "x", "again"))).answer, "again")
      })
    )
  })

  it("takes longer where the node is slow, and where messages are large", () => {
    inPlaces(({ a, b, broker }) =>
      Effect.gen(function* () {
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        yield* echoing(b, there, "x")
        const usual = (yield* as(a, asking(here, "x", "1"))).ms
        broker.network.slow(b, 200)
        const slow = (yield* as(a, asking(here, "x", "1"))).ms
        broker.network.slow(b, 1)
        broker.network.faults.bytesPerMs = 100
        const large = (yield* as(a, asking(here, "x", "x".repeat(20_000)))).ms
        assert.isBelow(usual, 5)
        assert.isAbove(slow, 2 * 200 * broker.network.faults.latencyMs[0])
        assert.isAtLeast(large, 4 * 200)
      })
    )
  })

  it("shares nothing: who changes bytes changes his own", () => {
    inPlaces(({ a, b, broker }) =>
      Effect.gen(function* () {
        const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
        const kept: Array<Uint8Array> = []
        const serving = Context.get(there, Bus).serve("x", {}, ({ data }) => {
          kept.push(data)
          const reply = data.slice()
          kept.push(reply)
          return Effect.succeed({ data: reply })
        })
        b.start(Effect.scoped(Effect.andThen(serving, Effect.never)))
        yield* Effect.sleep(10)
        const sent = bytesOf("sent")
        const asked = yield* Effect.forkChild(as(a, Context.get(here, Bus).request("x", sent, soon)))
        yield* Effect.yieldNow
        const got = (yield* Fiber.join(asked)).data
        kept.push(got)
        sent.fill(0)
        for (const [index, bytes] of kept.entries()) {
          assert.strictEqual(textOf(bytes), "sent", `copy ${index}`)
          bytes.fill(1)
        }
        const log = Context.get(here, Log)
        const record = bytesOf("record")
        yield* as(a, log.create(CHANNEL))
        yield* as(a, Effect.flatten(log.append(CHANNEL, record, 0)))
        record.fill(0)
        const [entry] = yield* as(a, collect(log.read(CHANNEL, 1, 1)))
        entry!.data.fill(0)
        assert.strictEqual(textOf((yield* as(a, collect(log.read(CHANNEL, 1, 1))))[0]!.data), "record")
      })
    )
  })
})

const append = (log: Log["Service"], text: string, expectedLast: number): Effect.Effect<Outcome<number>> =>
  Effect.flatten(log.append(CHANNEL, bytesOf(text), expectedLast))

/** All handed over before any outcome is awaited. */
const pipeline = Effect.fnUntraced(function* (log: Log["Service"], count: number) {
  const outcomes: Array<Effect.Effect<Outcome<number>>> = []
  for (let index = 0; index < count; index++) {
    outcomes.push(yield* log.append(CHANNEL, bytesOf(`old ${index}`), index))
  }
  return yield* Effect.all(outcomes, { concurrency: "unbounded" })
})

/** How long something takes in virtual time. */
const timed = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const before = yield* Clock.currentTimeMillis
    const value = yield* effect
    return { value, ms: (yield* Clock.currentTimeMillis) - before }
  })

describe("a server", () => {
  const three = { replicas: 3 }
  const others = (index: number) => [0, 1, 2].filter((one) => one !== index)

  it("that crashed is followed by another leader, and nothing that was stored is lost", () => {
    inPlaces(
      ({ a, broker }) =>
        Effect.gen(function* () {
          const log = Context.get(yield* portsOf(broker, a), Log)
          yield* as(a, log.create(CHANNEL))
          for (let last = 0; last < 10; last++)
            assert.strictEqual(valueOf(yield* as(a, append(log, `${last}`, last))), last + 1)
          const leader = broker.leaderOf(CHANNEL)!
          broker.servers.crash(broker.servers.all[leader]!, 60_000)
          const { ms, value } = yield* as(
            a,
            timed(eventually(Effect.filterOrFail(append(log, "10", 10), ({ _tag }) => _tag === "Done")))
          )
          assert.strictEqual(valueOf(value), 11)
          assert.isTrue(ms > 3_900 && ms < 15_000, `${ms} ms`)
          assert.notStrictEqual(broker.leaderOf(CHANNEL), leader)
          const read = yield* as(a, eventually(collect(log.read(CHANNEL, 1, 11))))
          assert.deepStrictEqual(
            read.map(({ data }) => textOf(data)),
            Array.from({ length: 11 }, (_, index) => `${index}`)
          )
        }),
      three
    )
  })

  it("that stands still is not: silence; one that crashed is soon known to be away", () => {
    const tags: { [kind: string]: Array<string> } = { pause: [], crash: [] }
    for (const kind of ["pause", "crash"] as const) {
      inPlaces(
        ({ a, broker }) =>
          Effect.gen(function* () {
            // By way of a server that lives on.
            yield* as(
              a,
              Effect.scoped(
                Effect.flatMap(Layer.build(broker.layer), (ports) => Context.get(ports, Log).create(CHANNEL))
              )
            )
            const leader = broker.leaderOf(CHANNEL)!
            const log = Context.get(yield* portsOf(broker, a, broker.layerVia(others(leader))), Log)
            broker.servers[kind](broker.servers.all[leader]!, 60_000)
            while (broker.leaderOf(CHANNEL) === (kind === "pause" ? leader : undefined)) {
              const fiber = yield* Effect.forkChild(as(a, append(log, "x", 0)))
              yield* Effect.sleep(100)
              const exit = fiber.pollUnsafe()
              tags[kind]!.push(exit === undefined ? "silence" : exit._tag === "Success" ? tagOf(exit.value) : "died")
              if (tags[kind]!.at(-1) === "Done") break
            }
          }),
        three
      )
    }
    assert.deepStrictEqual([...new Set(tags["pause"])], ["silence"])
    assert.includeMembers([...new Set(tags["crash"])], ["silence", "Unavailable"])
  })

  it("that lost touch tells what it knew, and stores nothing", () => {
    inPlaces(
      ({ a, b, broker }) =>
        Effect.gen(function* () {
          yield* as(
            a,
            Effect.scoped(Effect.flatMap(Layer.build(broker.layer), (ports) => Context.get(ports, Log).create(CHANNEL)))
          )
          const leader = broker.leaderOf(CHANNEL)!
          const inside = Context.get(yield* portsOf(broker, a, broker.layerVia([leader])), Log)
          const outside = Context.get(yield* portsOf(broker, b, broker.layerVia(others(leader))), Log)
          assert.strictEqual(valueOf(yield* as(a, append(inside, "before", 0))), 1)
          broker.servers.cutOff(broker.servers.all[leader]!, 30_000)
          const lost = yield* Effect.forkChild(as(a, append(inside, "lost", 1)))
          assert.strictEqual((yield* as(a, inside.open(CHANNEL))).last, 1)
          yield* as(b, eventually(Effect.filterOrFail(append(outside, "after", 1), ({ _tag }) => _tag === "Done")))
          assert.strictEqual(tagOf(yield* Fiber.join(lost)), "Ambiguous")
          yield* Effect.sleep(6_000)
          assert.strictEqual((yield* Effect.flip(as(a, inside.open(CHANNEL)))).reason, "unavailable")
          yield* Effect.sleep(40_000)
          const read = yield* as(a, collect(inside.read(CHANNEL, 1, 2)))
          assert.deepStrictEqual(
            read.map(({ data }) => textOf(data)),
            ["before", "after"]
          )
        }),
      three
    )
  })

  it("that lost touch reaches those who are on it, and no others", () => {
    inPlaces(
      ({ a, b, broker }) =>
        Effect.gen(function* () {
          const [alone, also] = [
            yield* portsOf(broker, a, broker.layerVia([0])),
            yield* portsOf(broker, a, broker.layerVia([0]))
          ]
          const far = yield* portsOf(broker, b, broker.layerVia([1]))
          yield* echoing(a, also, "near")
          yield* echoing(b, far, "far")
          broker.servers.cutOff(broker.servers.all[0]!, 30_000)
          assert.strictEqual((yield* as(a, asking(alone, "near", "1"))).answer, "1")
          assert.strictEqual((yield* as(a, asking(alone, "far", "2"))).answer, "timeout")
          assert.strictEqual((yield* as(b, asking(far, "near", "3"))).answer, "timeout")
          yield* Effect.sleep(10_000)
          assert.strictEqual((yield* as(a, asking(alone, "far", "4"))).answer, "nobody")
          yield* Effect.sleep(20_000)
          assert.strictEqual((yield* as(a, asking(alone, "far", "5"))).answer, "5")
        }),
      three
    )
  })

  it("that goes on before another was elected carries out what reached it meanwhile, after those who asked gave up", () => {
    inPlaces(
      ({ a, b, broker }) =>
        Effect.gen(function* () {
          yield* as(
            a,
            Effect.scoped(Effect.flatMap(Layer.build(broker.layer), (ports) => Context.get(ports, Log).create(CHANNEL)))
          )
          const leader = broker.leaderOf(CHANNEL)!
          const log = Context.get(yield* portsOf(broker, b, broker.layerVia(others(leader))), Log)
          broker.servers.pause(broker.servers.all[leader]!, 3_900)
          const stuck = yield* Effect.forkChild(as(b, append(log, "held", 0)))
          yield* Effect.sleep(3_000)
          assert.strictEqual(broker.entries(CHANNEL).length, 0)
          assert.strictEqual(tagOf(yield* Fiber.join(stuck)), "Done")
          assert.isAbove(broker.counts["heldInElection"]!, 0)
        }),
      three
    )
  })

  it("alone holds what reached it while it stood still, and then it is too late for a fence to be first", () => {
    inPlaces(({ a, b, broker }) =>
      Effect.gen(function* () {
        const [old, heir] = [Context.get(yield* portsOf(broker, a), Log), Context.get(yield* portsOf(broker, b), Log)]
        yield* as(a, old.create(CHANNEL))
        broker.servers.pause(broker.servers.all[0]!, 8_000)
        const stale = yield* Effect.forkChild(as(a, pipeline(old, 64)))
        yield* Effect.sleep(6_000)
        assert.deepStrictEqual([...new Set((yield* Fiber.join(stale)).map(tagOf))], ["Ambiguous"])
        yield* Effect.sleep(5_000)
        // All that its writer had given up is there.
        assert.strictEqual((yield* as(b, heir.open(CHANNEL))).last, 64)
      })
    )
  })

  it("that lost power forgets the newest of what it said was stored, and gives its sequences again", () => {
    const lost: Array<number> = []
    inPlaces(
      ({ a, broker }) =>
        Effect.gen(function* () {
          const log = Context.get(yield* portsOf(broker, a), Log)
          yield* as(a, log.create(CHANNEL))
          for (let last = 0; last < 20; last++) valueOf(yield* as(a, append(log, `${last}`, last)))
          const { incarnation } = yield* as(a, log.open(CHANNEL))
          broker.losePower(2_000, 10)
          yield* Effect.sleep(12_000)
          const state = yield* as(a, eventually(log.open(CHANNEL)))
          lost.push(20 - state.last)
          assert.isAtLeast(state.last, 10)
          assert.strictEqual(state.incarnation, incarnation, "nothing says so")
          assert.strictEqual(valueOf(yield* as(a, append(log, "new", state.last))), state.last + 1)
          assert.isTrue(broker.ledger.facts.some((fact) => fact._tag === "Lost") === state.last < 20)
        }),
      three
    )
    assert.isAbove(Math.max(...lost), 0)
  })
})

describe("a stream", () => {
  /** Commits with a fault that strikes always; how long it took, and if it was stored when its writer was told, and later. */
  const withFault = (name: "lostAnswer" | "lostRequest" | "late") => {
    const seen: Array<string> = []
    inPlaces(({ a, broker, world }) =>
      Effect.gen(function* () {
        const ports = yield* portsOf(broker, a)
        const [meta, leases] = [Context.get(ports, Meta), Context.get(ports, Leases)]
        broker.faults[name] = 1
        const { ms, value } = yield* as(a, timed(meta.commit([{ key: "k", value: bytesOf("1") }], 0)))
        const told = broker.ledger.facts.length
        const put = yield* as(a, leases.put("k", bytesOf("1"), 0))
        broker.faults[name] = 0
        yield* Effect.sleep(30_000)
        const isThere = Option.isSome(yield* as(a, meta.get("k")))
        assert.strictEqual(Option.isSome(yield* as(a, leases.get("k"))), isThere)
        if (value._tag === "Ambiguous") assert.strictEqual(Math.round(ms / 1_000), limits.commitTimeoutMs / 1_000)
        seen.push(`${value._tag}, ${told === 0 ? "not there" : "there"}, ${isThere ? "there" : "not there"}`)
        assert.strictEqual(broker.counts[name], 2)
        assert.isTrue(put._tag === "Ambiguous" || name === "late")
        assert.isBelow(world.now, 60_000)
      })
    )
    return [...new Set(seen)].sort()
  }

  it("stores what nobody hears of", () => {
    assert.deepStrictEqual(withFault("lostAnswer"), ["Ambiguous, there, there"])
  })
  it("never gets what nobody hears of", () => {
    assert.deepStrictEqual(withFault("lostRequest"), ["Ambiguous, not there, not there"])
  })
  it("gets what its writer gave up", () => {
    assert.include(withFault("late"), "Ambiguous, not there, there")
  })

  it("lets no straggler in behind a fence, and lets it in behind a single record", () => {
    for (const length of [1, limits.pipelineDepth + 1]) {
      let stored = 0
      inPlaces(({ a, b, broker }) =>
        Effect.gen(function* () {
          const [old, heir] = [Context.get(yield* portsOf(broker, a), Log), Context.get(yield* portsOf(broker, b), Log)]
          yield* as(a, old.create(CHANNEL))
          broker.faults.late = 1
          const writing = yield* Effect.forkChild(as(a, pipeline(old, 10)))
          yield* Effect.sleep(5)
          broker.faults.late = 0
          const fence = Array.from({ length }, () => bytesOf("fence"))
          // Where nothing has arrived yet.
          const fenced = yield* as(b, heir.appendBatch(CHANNEL, fence, 0))
          yield* Fiber.join(writing)
          yield* Effect.sleep(20_000)
          if (fenced._tag !== "Done") return
          stored += broker
            .entries(CHANNEL)
            .filter(({ data, sequence }) => sequence > length && textOf(data).startsWith("old")).length
        })
      )
      if (length === 1) assert.isAbove(stored, 0)
      else assert.strictEqual(stored, 0)
    }
  })

  it("lets a lease go early or late, by its own clock", () => {
    const lives: Array<number> = []
    inPlaces(({ a, broker, world }) =>
      Effect.gen(function* () {
        const leases = Context.get(yield* portsOf(broker, a), Leases)
        a.skewMs = 3_600_000
        broker.faults.expiryMs = 900
        for (let index = 0; index < 5; index++) {
          yield* as(a, leases.put(`k.${index}`, bytesOf(""), 0, 1_000))
          const began = world.now
          yield* as(
            a,
            Effect.repeat(Effect.andThen(Effect.sleep(5), leases.get(`k.${index}`)), { until: Option.isNone })
          )
          lives.push(world.now - began)
        }
      })
    )
    assert.isBelow(Math.min(...lives), 500)
    assert.isAbove(Math.max(...lives), 1_500)
    assert.isBelow(Math.max(...lives), 2_000)
  })

  it("is read from replicas that are behind, and a watch breaks and begins anew, and ends up right", () => {
    const counts: { [name: string]: number } = {}
    inPlaces(
      ({ a, b, broker, world }) =>
        Effect.gen(function* () {
          const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
          const meta = Context.get(here, Meta)
          Object.assign(broker.faults, { behind: 0.7, behindMs: 2_000, broken: 0.1 })
          const picture = new Map<string, string>()
          let pictures = 0
          b.start(
            Effect.scoped(
              Effect.andThen(
                follow(
                  () => Context.get(there, Meta).watch(""),
                  (key, entry) => (entry === undefined ? picture.delete(key) : picture.set(key, textOf(entry.value))),
                  { caughtUp: () => pictures++ }
                ),
                Effect.never
              )
            )
          )
          let head = 0
          let late = 0
          for (let index = 0; index < 90; index++) {
            const key = `k${index % 7}`
            const value = index % 5 === 4 ? undefined : bytesOf(`${index}`)
            head = valueOf(yield* as(a, meta.commit([{ key, value }], head)))
            if (index % 10 === 3) broker.network.disconnect(b)
            yield* Effect.sleep(200)
            if (picture.get(key) !== (value === undefined ? undefined : `${index}`)) late++
          }
          assert.isAbove(late, 0)
          assert.isAbove(pictures, 3)
          broker.heal()
          yield* Effect.sleep(10_000)
          const { entries } = yield* as(a, meta.snapshot)
          assert.deepStrictEqual(
            [...picture].map(([key, value]) => `${key}=${value}`).sort(),
            entries.map(({ key, value }) => `${key}=${textOf(value)}`).sort()
          )
          for (const [name, many] of Object.entries(broker.counts)) counts[name] = (counts[name] ?? 0) + many
          assert.isBelow(world.now, 120_000)
        }),
      { replicas: 3 }
    )
    assert.isAbove(counts["behind"]!, 5)
    assert.isAbove(counts["broken"]!, 5)
  })

  it("does not hear a node that is cut off from it, nor is heard, while everybody else is", () => {
    for (const cutMs of [2_000, 20_000]) {
      inPlaces(({ a, b, broker }) =>
        Effect.gen(function* () {
          const [there, here] = [yield* portsOf(broker, b), yield* portsOf(broker, a)]
          yield* echoing(b, there, "echo")
          const [meta, theirs] = [Context.get(here, Meta), Context.get(there, Meta)]
          const seen: Array<string> = []
          b.start(
            Effect.scoped(
              Effect.andThen(
                follow(
                  () => theirs.watch(""),
                  (key) => seen.push(key)
                ),
                Effect.never
              )
            )
          )
          let head = valueOf(yield* as(a, meta.commit([{ key: "before", value: bytesOf("") }], 0)))
          yield* Effect.sleep(100)
          broker.streams.cut(b)
          head = valueOf(yield* as(a, meta.commit([{ key: "meanwhile", value: bytesOf("") }], head)))
          const tried = yield* as(b, theirs.commit([{ key: "never", value: bytesOf("") }], head))
          assert.strictEqual(tried._tag, "Ambiguous")
          assert.strictEqual((yield* as(b, Effect.flip(theirs.get("before")))).reason, "unavailable")
          assert.strictEqual((yield* asking(here, "echo", "hello")).answer, "hello")
          yield* Effect.sleep(cutMs)
          assert.deepStrictEqual(seen, ["before"])
          broker.streams.mend(b)
          yield* Effect.sleep(10_000)
          assert.deepStrictEqual(seen, ["before", "meanwhile"])
          assert.strictEqual((yield* as(b, theirs.commit([{ key: "after", value: bytesOf("") }], head)))._tag, "Done")
        })
      )
    }
  })

  it("is full past what it is given", () => {
    inPlaces(({ a, broker }) =>
      Effect.gen(function* () {
        const log = Context.get(yield* portsOf(broker, a), Log)
        yield* as(a, log.create(CHANNEL))
        broker.faults.channelBytesMax = 10_000
        assert.strictEqual(tagOf(yield* as(a, append(log, "x".repeat(9_000), 0))), "Done")
        assert.strictEqual(tagOf(yield* as(a, append(log, "x".repeat(9_000), 1))), "full")
        assert.strictEqual((yield* as(a, log.open(CHANNEL))).bytesMax, 10_000)
        broker.heal()
        assert.strictEqual(tagOf(yield* as(a, append(log, "x".repeat(9_000), 1))), "Done")
      })
    )
  })
})

describe("one seed", () => {
  it("is one run: the same trace, to the last event", () => {
    const run = (seed: string) => {
      const world = new World(seed)
      const broker = simBroker(world, { replicas: 3 })
      Object.assign(broker.faults, {
        lostAnswer: 0.1,
        late: 0.1,
        behind: 0.5,
        oldLeader: 0.2,
        electionEveryMs: 5_000,
        electionMs: 2_000
      })
      Object.assign(broker.network.faults, { tail: 0.1, tailMs: 300 })
      world.run(
        Effect.scoped(
          Effect.gen(function* () {
            const meta = Context.get(yield* Layer.build(broker.layer), Meta)
            yield* Effect.forkChild(Effect.ignore(Stream.runDrain(meta.watch(""))))
            for (let index = 0; index < 50; index++) {
              const { head } = yield* eventually(meta.snapshot)
              yield* meta.commit([{ key: `k${index % 5}`, value: bytesOf(`${index}`) }], head)
            }
          })
        )
      )
      return `${world.events} ${world.trace.hash}`
    }
    assert.strictEqual(run("same"), run("same"))
    assert.notStrictEqual(run("same"), run("other"))
  })
})

/**
 * The kernel's promises (runtime/actor.ts), tried in the simulated world: every fiber may lose its turn before any
 * operation, and a node may crash after any event.
 */
import { Effect, Exit, Fiber } from "effect"
import { assert, describe, it } from "vitest"
import { assign, setup } from "xstate"
import { activate, type Keep } from "../../runtime/actor.ts"
import type { Standing } from "../../runtime/lifecycle.ts"
import { either, makeSignal, type Signal } from "../../runtime/signal.ts"
import { ask, on, type SimNode, World } from "../../sim/world.ts"
import { forSeeds } from "../support/seeds.ts"

/** Every node takes a while for what it does, and not the same while each time. */
const work = (world: World, mostMs: number) => {
  const chance = world.chance("work")
  return Effect.suspend(() => Effect.sleep(chance.between(mostMs / 10, mostMs)))
}

/**
 * A gate is opened and closed by messages, and closes by itself after a while. `stay` counts how often it was opened;
 * an event of a duty says in which stay the duty began.
 */
const gate = setup({
  types: {} as {
    context: { readonly stay: number; readonly early: number; readonly passed: number }
    events:
      | { type: "Open" }
      | { type: "Close" }
      | { type: "Pass" }
      | { type: "Aged"; stay: number }
      | { type: "Swept"; stay: number }
      | { type: "Raze" }
    tags: "age" | "sweep" | "guard"
  }
}).createMachine({
  id: "gate",
  context: { stay: 0, early: 0, passed: 0 },
  initial: "open",
  states: {
    open: {
      tags: ["age", "guard"],
      on: {
        Pass: { target: "open", actions: assign({ passed: ({ context }) => context.passed + 1 }) },
        Close: "closed",
        Aged: {
          target: "closed",
          actions: assign({ early: ({ context, event }) => context.early + (event.stay === context.stay ? 0 : 1) })
        },
        Raze: "razed"
      }
    },
    closed: {
      tags: ["sweep", "guard"],
      on: {
        Open: { target: "open", actions: assign({ stay: ({ context }) => context.stay + 1 }) },
        Swept: {
          target: "open",
          actions: assign({
            stay: ({ context }) => context.stay + 1,
            early: ({ context, event }) => context.early + (event.stay === context.stay ? 0 : 1)
          })
        },
        Raze: "razed"
      }
    },
    razed: { type: "final" }
  }
})
type Gate = typeof gate

/** A gate whose duties note when they run. */
const activateGate = (world: World, ageMs: number, keep?: Keep<Gate>) => {
  const running = new Map<string, number>([
    ["age", 0],
    ["sweep", 0],
    ["guard", 0]
  ])
  const begun = { age: 0, sweep: 0, guard: 0 }
  const noted = <A>(duty: "age" | "sweep" | "guard", body: Effect.Effect<A>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        begun[duty]++
        running.set(duty, running.get(duty)! + 1)
      }),
      () => body,
      () => Effect.sync(() => running.set(duty, running.get(duty)! - 1))
    )
  const actor = activate(
    gate,
    (self) => {
      const waits = (type: "Aged" | "Swept") =>
        Effect.gen(function* () {
          const { stay } = self.standing().context
          yield* Effect.andThen(Effect.yieldNow, work(world, ageMs))
          return { type, stay }
        })
      return Effect.succeed({
        on: {},
        duties: {
          age: noted("age", waits("Aged")),
          sweep: noted("sweep", waits("Swept")),
          guard: noted("guard", Effect.never)
        }
      })
    },
    keep
  )
  return { actor, begun, running }
}

/** What a key in the metadata is to a kept actor: compare-and-set by revision, and reads, both slow. */
const makeStore = () => {
  const values: Array<Standing<Gate>> = []
  const counts = { saving: 0, savingMost: 0 }
  const slow = <A>(world: World, decide: () => A) => {
    const chance = world.chance(`store ${values.length}`)
    return ask<A>((_, reply) => world.after(chance.between(0, 2), () => reply.give(decide(), chance.between(0, 2))))
  }
  const keep = (world: World): Keep<Gate> => {
    let revision = 0
    return {
      load: slow(world, () => {
        revision = values.length
        return values[revision - 1]
      }),
      save: (standing) =>
        Effect.gen(function* () {
          counts.savingMost = Math.max(counts.savingMost, ++counts.saving)
          const outcome = yield* slow(world, () => {
            if (values.length !== revision) return "stale" as const
            revision = values.push(standing)
            return "saved" as const
          })
          counts.saving--
          return outcome
        })
    }
  }
  return { values, counts, keep }
}

const preempts = (seed: number) => ({ preempt: [0, 0.01, 0.1, 0.3][seed % 4]! })

describe("moves", () => {
  it("happen one at a time, and none is lost", () => {
    forSeeds(100, (seed) => {
      const world = new World(`moves ${seed}`, preempts(seed))
      const store = makeStore()
      const passed = world.run(
        Effect.scoped(
          Effect.gen(function* () {
            const actor = yield* activateGate(world, 1e9, store.keep(world)).actor
            yield* Effect.forEach(
              Array.from({ length: 20 }),
              () => Effect.andThen(work(world, 5), actor.advance({ type: "Pass" })),
              { concurrency: "unbounded" }
            )
            return actor.standing().context.passed
          })
        )
      )
      assert.strictEqual(passed, 20)
      assert.strictEqual(store.counts.savingMost, 1)
      assert.deepStrictEqual(
        store.values.map(({ context }) => context.passed),
        Array.from({ length: 20 }, (_, index) => index + 1)
      )
    })
  })

  it("that the table lacks die, and leave the actor as it was", () => {
    forSeeds(20, (seed) => {
      const world = new World(`lacking ${seed}`, preempts(seed))
      world.run(
        Effect.scoped(
          Effect.gen(function* () {
            const actor = yield* activateGate(world, 1e9).actor
            const exit = yield* Effect.exit(actor.advance({ type: "Open" }))
            assert.isTrue(Exit.hasDies(exit))
            assert.include(JSON.stringify(exit), "NoSuchMove")
            assert.isFalse(yield* actor.tryAdvance({ type: "Open" }))
            assert.strictEqual(actor.standing().value, "open")
            assert.isTrue(yield* actor.tryAdvance({ type: "Close" }))
            assert.strictEqual(actor.standing().value, "closed")
          })
        )
      )
    })
  })

  it("of a duty that the table lacks are heard of", () => {
    const world = new World("a wrong duty")
    const wrong = Effect.scoped(
      Effect.andThen(
        activate(gate, () =>
          Effect.succeed({
            on: {},
            duties: {
              age: Effect.succeed({ type: "Open" } as const),
              sweep: Effect.never,
              guard: Effect.never
            }
          })
        ),
        Effect.never
      )
    )
    assert.throws(() => world.run(wrong), /duty age of gate died.*NoSuchMove|NoSuchMove/s)
  })
})

describe("duties", () => {
  it("run exactly while they are owed, whatever messages come in between", () => {
    forSeeds(500, (seed) => {
      const world = new World(`owed ${seed}`, preempts(seed))
      world.run(
        Effect.scoped(
          Effect.gen(function* () {
            const chance = world.chance("messages")
            const ageMs = chance.pick([0.5, 1, 10, 200])
            const { actor: make, begun, running } = activateGate(world, ageMs)
            const actor = yield* make
            const messages = Effect.gen(function* () {
              for (let i = 0; i < 15; i++) {
                yield* work(world, chance.pick([0.1, 1, ageMs]))
                yield* actor.tryAdvance({ type: chance.pick(["Open", "Close", "Pass"] as const) })
              }
            })
            yield* Effect.forEach([1, 2, 3], () => messages, { concurrency: "unbounded" })
            assert.strictEqual(actor.standing().context.early, 0, "an event of an earlier stay was counted")
            assert.strictEqual(begun.guard, 1, "what both states owe went on")
            yield* actor.advance({ type: "Raze" })
            yield* Effect.sleep(1)
            assert.deepStrictEqual([...running.values()], [0, 0, 0])
            assert.strictEqual(yield* actor.ended, "final")
          })
        )
      )
    })
  })

  it("are those of the state, once each, as soon as it is quiet", () => {
    forSeeds(100, (seed) => {
      const world = new World(`quiet ${seed}`, preempts(seed))
      world.run(
        Effect.scoped(
          Effect.gen(function* () {
            const { actor: make, running } = activateGate(world, 1e9)
            const actor = yield* make
            for (let i = 0; i < 20; i++) {
              yield* actor.tryAdvance({ type: world.chance(`${i}`).pick(["Open", "Close", "Pass"] as const) })
              if (world.chance(`wait ${i}`).happens(0.5)) continue
              yield* Effect.sleep(0.001)
              const open = actor.standing().value === "open"
              assert.deepStrictEqual([...running.values()], open ? [1, 0, 1] : [0, 1, 1])
            }
          })
        )
      )
    })
  })

  it("that end and are still owed run again, ever later, until the state changes", () => {
    const world = new World("again", { preempt: 0 })
    world.run(
      Effect.scoped(
        Effect.gen(function* () {
          const times: Array<number> = []
          const actor = yield* activate(gate, () =>
            Effect.succeed({
              on: {},
              duties: {
                age: Effect.sync(() => {
                  times.push(Math.round(world.now))
                  return { type: "Pass" } as const
                }),
                sweep: Effect.never,
                guard: Effect.never
              }
            })
          )
          yield* Effect.sleep(60_000)
          const gaps = times.slice(1).map((time, index) => time - times[index]!)
          assert.deepStrictEqual(gaps.slice(0, 10), [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000])
          yield* actor.advance({ type: "Close" })
          yield* actor.advance({ type: "Open" })
          times.length = 0
          yield* Effect.sleep(120)
          assert.strictEqual(times.length, 2, "a new stay begins with the shortest wait")
        })
      )
    )
  })
})

describe("standings", () => {
  it("are saved before anybody sees them, and restarts begin with them", () => {
    forSeeds(200, (seed) => {
      const world = new World(`saved ${seed}`, preempts(seed))
      const store = makeStore()
      const node = world.node("node")
      const chance = world.chance("crashes")
      let actor: { readonly standing: () => Standing<Gate> } | undefined
      const saved = new Set<string>()
      let known = 0
      const isSaved = (standing: Standing<Gate>) => {
        while (known < store.values.length) saved.add(JSON.stringify(store.values[known++]))
        return saved.has(JSON.stringify(standing)) || (standing.context.stay === 0 && standing.value === "open")
      }
      const seen = () => {
        if (actor !== undefined) assert.isTrue(isSaved(actor.standing()), "it was seen and not saved")
      }
      let savedAtBoot: Standing<Gate> | undefined
      const live = Effect.scoped(
        Effect.gen(function* () {
          savedAtBoot = store.values.at(-1)
          const made = yield* activateGate(world, 3, store.keep(world)).actor
          actor = made
          assert.isTrue(
            made.standing().context.stay >= (savedAtBoot?.context.stay ?? 0),
            "a restart goes on from there"
          )
          yield* Effect.never
        })
      )
      node.start(live)
      world.afterEach = seen
      world.run(
        Effect.gen(function* () {
          for (let i = 0; i < 5; i++) {
            yield* Effect.sleep(chance.between(0, 30))
            node.crash()
            actor = undefined
            node.start(live)
          }
          yield* Effect.sleep(200)
        })
      )
      const stays = store.values.map(({ context }) => context.stay)
      assert.deepStrictEqual(
        stays,
        stays.toSorted((a, b) => a - b)
      )
      assert.isAbove(stays.at(-1)!, 5, "it goes on after every crash")
    })
  })

  it("that somebody else wrote since end the activation, and its duties", () => {
    forSeeds(100, (seed) => {
      const world = new World(`stale ${seed}`, preempts(seed))
      const store = makeStore()
      world.run(
        Effect.scoped(
          Effect.gen(function* () {
            const first = activateGate(world, 1e9, store.keep(world))
            const older = yield* first.actor
            const newer = yield* activateGate(world, 1e9, store.keep(world)).actor
            yield* newer.advance({ type: "Close" })
            const was = older.standing()
            const stands = yield* older.advance({ type: "Pass" })
            assert.deepStrictEqual(stands, was)
            assert.strictEqual(yield* older.ended, "stale")
            yield* Effect.sleep(1)
            assert.deepStrictEqual([...first.running.values()], [0, 0, 0])
            yield* older.tryAdvance({ type: "Pass" })
            assert.strictEqual(store.values.length, 1)
          })
        )
      )
    })
  })

  it("that are final are ended at once, after a restart too", () => {
    const world = new World("final again")
    const store = makeStore()
    const once = Effect.scoped(
      Effect.gen(function* () {
        const actor = yield* activateGate(world, 1e9, store.keep(world)).actor
        yield* actor.tryAdvance({ type: "Raze" })
        return yield* actor.ended
      })
    )
    assert.deepStrictEqual(world.run(Effect.all([once, once])), ["final", "final"])
  })

  it("that nobody keeps begin anew", () => {
    const world = new World("fresh")
    const node = world.node("node")
    const begin = Effect.scoped(
      Effect.gen(function* () {
        const actor = yield* activateGate(world, 1e9).actor
        const { value } = actor.standing()
        yield* actor.advance({ type: "Close" })
        return value
      })
    )
    const values = world.run(
      Effect.gen(function* () {
        const first = yield* on(node, begin)
        node.crash()
        return [first, yield* on(node, begin)]
      })
    )
    assert.deepStrictEqual(values, [Exit.succeed("open"), Exit.succeed("open")])
  })
})

/** Three steps, each of which leaves something in the world, and may find that it did so before. */
const steps = setup({
  types: {} as {
    context: Record<string, never>
    events: { type: "First" } | { type: "Second" } | { type: "Third" }
    tags: "first" | "second" | "third"
  }
}).createMachine({
  id: "steps",
  context: {},
  initial: "begun",
  states: {
    begun: { tags: ["first"], on: { First: "one" } },
    one: { tags: ["second"], on: { Second: "two" } },
    two: { tags: ["third"], on: { Third: "three" } },
    three: { type: "final" }
  }
})

describe("a crash", () => {
  /** Runs to the end, crashing after event number `crashAt`; says how many events there were. */
  const runWith = (seed: number, crashAt: number): number => {
    const world = new World(`crash ${seed}`, { preempt: 0.2 })
    const disk: { value: string; revision: number } = { value: "begun", revision: 0 }
    const written: Array<string> = []
    const chance = world.chance("disk")
    let ends = 0
    let loser = 0
    const slow = <A>(decide: () => A) =>
      ask<A>((_, reply) => world.after(chance.between(0, 2), () => reply.give(decide(), chance.between(0, 2))))
    const life = Effect.scoped(
      Effect.gen(function* () {
        let revision = 0
        const keep: Keep<typeof steps> = {
          load: slow(() => {
            revision = disk.revision
            return { value: disk.value as "begun", context: {} }
          }),
          save: ({ value }) =>
            slow(() => {
              if (revision !== disk.revision) {
                loser++
                return "stale" as const
              }
              disk.value = value
              revision = ++disk.revision
              return "saved" as const
            })
        }
        const write = <const T extends string>(what: string, type: T) =>
          slow(() => {
            if (!written.includes(what)) written.push(what)
            return { type }
          })
        const actor = yield* activate(
          steps,
          () =>
            Effect.succeed({
              on: {},
              duties: {
                first: write("first", "First"),
                second: write("second", "Second"),
                third: write("third", "Third")
              }
            }),
          keep
        )
        if ((yield* actor.ended) === "final") ends++
        yield* Effect.never
      })
    )
    const node = world.node("node")
    const restart = (node: SimNode) => {
      node.crash()
      node.start(life)
    }
    node.start(life)
    world.afterEach = () => {
      if (world.events === crashAt) restart(node)
    }
    world.run(
      Effect.gen(function* () {
        // A save of the old life may still land and make the new one stale: whoever keeps actors brings it back.
        for (let i = 0; ends === 0 && i < 50; i++) {
          const before = loser
          yield* Effect.sleep(20)
          if (loser > before) restart(node)
        }
      })
    )
    assert.deepStrictEqual(written, ["first", "second", "third"], `crash at ${crashAt}`)
    assert.strictEqual(disk.value, "three", `crash at ${crashAt}`)
    assert.strictEqual(disk.revision, 3, `crash at ${crashAt}`)
    assert.isAbove(ends, 0)
    return world.events
  }

  it("after any event, and a restart, come to the same end", () => {
    forSeeds(4, (seed) => {
      const events = runWith(seed, 0)
      assert.isAbove(events, 30)
      for (let crashAt = 1; crashAt <= events; crashAt++) runWith(seed, crashAt)
    })
  })

  it("runs no finalizer, and nothing of the old life goes on", () => {
    const world = new World("no finalizer")
    const node = world.node("node")
    const happened: Array<string> = []
    node.start(
      Effect.sleep(10).pipe(
        Effect.andThen(Effect.sync(() => happened.push("woke"))),
        Effect.ensuring(Effect.sync(() => happened.push("finalizer")))
      )
    )
    world.run(
      Effect.andThen(
        Effect.sleep(5),
        Effect.andThen(
          Effect.sync(() => node.crash()),
          Effect.sleep(20)
        )
      )
    )
    assert.deepStrictEqual(happened, [])
  })
})

describe("a signal", () => {
  it("is never missed, whenever a waiter loses its turn", () => {
    forSeeds(300, (seed) => {
      const world = new World(`signal ${seed}`, { preempt: 0.3 })
      const signal = makeSignal()
      let count = 0
      world.run(
        Effect.all(
          [
            Effect.forEach([1, 2, 3, 4, 5], (wanted) => signal.until(() => count >= wanted)),
            Effect.forEach([1, 2, 3, 4, 5], () =>
              Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => {
                  count++
                  signal.notify()
                })
              )
            ),
            signal.within(1e6, () => count >= 3)
          ],
          { concurrency: "unbounded" }
        )
      )
    })
  })
})

describe("who waits for a signal", () => {
  /** What it said, and when, of a world in which each of two signals is given once. */
  const waited = (wait: (one: Signal, other: Signal, has: (name: string) => boolean) => Effect.Effect<unknown>) => {
    const world = new World("waits")
    const [one, other] = [makeSignal(), makeSignal()]
    const given = new Set<string>()
    const give = (name: string, signal: Signal, atMs: number) =>
      Effect.delay(
        Effect.sync(() => {
          given.add(name)
          signal.notify()
        }),
        atMs
      )
    return world.run(
      Effect.gen(function* () {
        yield* Effect.forkChild(give("one", one, 100))
        yield* Effect.forkChild(give("other", other, 200))
        const said = yield* wait(one, other, (name) => given.has(name))
        return [said, world.now]
      })
    )
  }

  it("goes on when it holds, and gives up in time", () => {
    assert.deepStrictEqual(
      waited((one, _, has) => one.within(150, () => has("one"))),
      [true, 100]
    )
    assert.deepStrictEqual(
      waited((one, _, has) => one.within(50, () => has("one"))),
      [false, 50]
    )
    // It hears of the one alone.
    assert.deepStrictEqual(
      waited((one, _, has) => one.within(500, () => has("other"))),
      [false, 500]
    )
    assert.deepStrictEqual(
      waited((one) => one.within(500, () => true)),
      [true, 0]
    )
  })

  it("hears of either of two", () => {
    for (const [name, at] of [
      ["one", 100],
      ["other", 200]
    ] as const) {
      assert.deepStrictEqual(
        waited((one, other, has) => either(one, other).within(500, () => has(name))),
        [true, at]
      )
      assert.deepStrictEqual(
        waited((one, other, has) => either(one, other).until(() => has(name))),
        [undefined, at]
      )
    }
  })

  it("is forgotten when it is interrupted", () => {
    const signal = makeSignal()
    let looks = 0
    const looking = () => ++looks < 0
    new World("interrupted").run(
      Effect.gen(function* () {
        const both = [signal.until(looking), signal.within(1e6, looking)]
        for (const wait of both)
          yield* Effect.flatMap(Effect.forkChild(wait), (fiber) =>
            Effect.andThen(Effect.sleep(1), Fiber.interrupt(fiber))
          )
      })
    )
    const before = looks
    signal.notify()
    assert.strictEqual(looks, before)
  })
})

describe("the world", () => {
  it("is the same for the same seed, and differs between seeds", () => {
    const trace = (seed: number) => {
      const world = new World(`trace ${seed}`, { preempt: 0.2 })
      const lines: Array<string> = []
      world.afterEach = () => lines.push(`${world.now}`)
      world.run(
        Effect.forEach(
          [1, 2, 3, 4],
          (n) =>
            Effect.andThen(
              work(world, 10 * n),
              Effect.sync(() => lines.push(`${n}`))
            ),
          {
            concurrency: "unbounded"
          }
        )
      )
      return lines.join("\n")
    }
    assert.strictEqual(trace(1), trace(1))
    assert.notStrictEqual(trace(1), trace(2))
  })

  it("finds a race between a look and an act only because turns can be lost", () => {
    const racesOf = (preempt: number) => {
      let races = 0
      for (let seed = 0; seed < 200; seed++) {
        const world = new World(`race ${seed}`, { preempt })
        let value = 0
        const add = Effect.flatMap(
          Effect.sync(() => value),
          (seen) => Effect.sync(() => (value = seen + 1))
        )
        world.run(Effect.all([add, add], { concurrency: "unbounded" }))
        if (value !== 2) races++
      }
      return races
    }
    assert.strictEqual(racesOf(0), 0)
    assert.isAbove(racesOf(0.2), 10)
  })

  it("reports what waits for the real world, and what never ends", () => {
    assert.throws(() => new World(1).run(Effect.promise(() => Promise.resolve(1))), /deadlock/)
    assert.throws(() => new World(1, { eventsMax: 1_000 }).run(Effect.forever(Effect.sleep(1))), /no end after/)
    const circle = Effect.gen(function* () {
      while (true) yield* Effect.suspend(() => Effect.void)
    })
    assert.throws(() => new World(1, { preempt: 0 }).run(circle), /round in a circle/)
  })
})

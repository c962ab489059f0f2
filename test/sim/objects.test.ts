/** What a simulated store does wrong: every kind strikes, none lies, and what was read wrong does not get past a checksum. */
import { Effect, Option, Stream } from "effect"
import { assert, describe, it } from "vitest"
import { crc32 } from "../../protocols/checksum.ts"
import { limits } from "../../protocols/limits.ts"
import { flatBuilder, flatIndexes, simCompute } from "../../sim/compute.ts"
import { ledgerOf } from "../../sim/ledger.ts"
import { drawObjectFaults, noObjectFaults, type ObjectFaults, simObjects } from "../../sim/objects.ts"
import { on, World } from "../../sim/world.ts"
import { joined } from "../../storage/framed-file.ts"
import { encodeIndex } from "../../storage/index-file.ts"
import { flatIndex } from "../../storage/index-flat.ts"
import { forSeeds } from "../support/seeds.ts"

const bytesOf = (text: string) => new TextEncoder().encode(text)

describe("a simulated store", () => {
  it("never says what is not so, whatever goes wrong", () => {
    const seen = new Set<string>()
    forSeeds(60, (seed) => {
      const world = new World(`store ${seed}`)
      const chance = world.chance("story")
      const ledger = ledgerOf(world)
      const store = simObjects(world, ledger, drawObjectFaults(world.chance("faults")))
      const nodes = ["a", "b", "c"].map((name) => world.node(name))
      const objects = store.objects
      /** By name: what somebody tried to put there. */
      const tried = new Map<string, Array<Uint8Array>>()

      const step = (node: (typeof nodes)[number]) => {
        const key = `k${chance.below(8)}`
        const bytes = bytesOf(`${key} of ${chance.next()}`)
        const there = store.held.get(key)
        const kind = chance.below(4)
        if (kind === 0) {
          tried.set(key, [...(tried.get(key) ?? []), bytes])
          return Effect.map(objects.put(key, [bytes.slice(0, 3), bytes.slice(3)]), (outcome) => {
            seen.add(outcome._tag === "Refused" ? outcome.reason : outcome._tag)
            const stored = ledger.facts.some((fact) => fact._tag === "Put" && Buffer.from(fact.data).equals(bytes))
            if (outcome._tag === "Done") assert.isTrue(stored)
            if (outcome._tag === "Refused" || outcome._tag === "Unavailable") assert.isFalse(stored, outcome.detail)
          })
        }
        if (kind === 1 && chance.happens(0.3)) {
          return Effect.map(objects.remove(key), (outcome) => seen.add(`remove ${outcome._tag}`))
        }
        if (kind === 2) {
          return Effect.map(Effect.result(objects.head(key)), (found) => {
            if (found._tag === "Failure") assert.strictEqual(found.failure.reason, "unavailable")
            else if (Option.isSome(found.success)) assert.isTrue(tried.has(key))
          })
        }
        return Effect.map(Effect.result(objects.get(key)), (found) => {
          if (found._tag === "Failure") return seen.add(`get ${found.failure.reason}`)
          const right = tried.get(key)!.some((each) => crc32(each) === crc32(found.success))
          if (!right) assert.isAbove((store.counts["truncated"] ?? 0) + (store.counts["flipped"] ?? 0), 0)
          return seen.add(right ? "get right" : "get wrong")
        }).pipe(Effect.andThen(Effect.sync(() => there !== undefined && seen.add(`life ${node.life > 0}`))))
      }
      const client = (node: (typeof nodes)[number]) =>
        Effect.gen(function* () {
          for (let i = 0; i < 40; i++) yield* Effect.suspend(() => step(node))
        })
      world.run(
        Effect.gen(function* () {
          for (const node of nodes) node.start(client(node))
          for (let i = 0; i < 10; i++) {
            yield* Effect.sleep(chance.between(0, 2_000))
            const node = chance.pick(nodes)
            if (chance.happens(0.5)) store.cut.add(node)
            else store.cut.delete(node)
            if (chance.happens(0.3)) {
              node.crash()
              node.start(client(node))
            }
          }
          yield* Effect.sleep(100 * limits.objectTimeoutMs)
          // Healed, it answers everybody at once, and with what is there.
          store.heal()
          const held = [...store.held].map(([key, bytes]) => [key, bytes.length] as const)
          const listed = yield* Effect.flatten(on(nodes[0]!, Stream.runCollect(objects.list(""))))
          assert.sameDeepMembers(
            listed.map(({ bytes, key }) => [key, bytes] as const),
            held
          )
          for (const [key, bytes] of store.held) {
            assert.deepStrictEqual(yield* Effect.flatten(on(nodes[1]!, objects.get(key))), bytes)
          }
        })
      )
      for (const kind of Object.keys(store.counts)) seen.add(`struck ${kind}`)
    })
    const kinds = Object.keys(noObjectFaults()).filter((kind) => kind !== "latencyMs" && kind !== "bytesPerMs")
    const outcomes = ["Done", "conflict", "Unavailable", "Ambiguous", "remove Done", "remove Ambiguous"]
    const reads = ["get right", "get wrong", "get missing", "get unavailable"]
    const expected = [
      ...outcomes,
      ...reads,
      ...[...kinds, "cut", "conflict", "contended"].map((kind) => `struck ${kind}`)
    ]
    assert.deepStrictEqual(
      expected.filter((each) => !seen.has(each)),
      []
    )
  })

  const alone = (
    faults: Partial<ObjectFaults>,
    story: (store: ReturnType<typeof simObjects>, world: World) => Effect.Effect<unknown>
  ) => {
    const world = new World("alone")
    const store = simObjects(world, ledgerOf(world), { ...noObjectFaults(), ...faults })
    world.run(story(store, world))
    return store
  }

  it("may have done what it did not answer, now or later", () => {
    const outcomes = new Set<string>()
    const store = alone({ timeout: 1 }, ({ held, objects }, world) =>
      Effect.gen(function* () {
        const open = new Set<string>()
        for (let i = 0; i < 50; i++) {
          const began = world.now
          assert.strictEqual((yield* objects.put(`k${i}`, [bytesOf("x")]))._tag, "Ambiguous")
          assert.strictEqual(world.now - began, limits.objectTimeoutMs)
          if (held.has(`k${i}`)) outcomes.add("done")
          else open.add(`k${i}`)
        }
        yield* Effect.sleep(3 * limits.objectTimeoutMs)
        for (const key of open) outcomes.add(held.has(key) ? "later" : "never")
      })
    )
    assert.sameMembers([...outcomes], ["done", "later", "never"])
    assert.strictEqual(store.counts["timeout"], 50)
  })

  it("keeps what rotted", () => {
    alone({}, ({ held, objects, rot }) =>
      Effect.gen(function* () {
        yield* objects.put("k", [bytesOf("whole")])
        rot("k")
        const [once, again] = [yield* Effect.orDie(objects.get("k")), yield* Effect.orDie(objects.get("k"))]
        assert.notDeepEqual(once, bytesOf("whole"))
        assert.deepStrictEqual(once, again)
        assert.deepStrictEqual(held.get("k"), once)
      })
    )
  })

  it("stores what a buffer holds when it is sent, not when it was given", () => {
    alone({}, ({ held, objects }) =>
      Effect.gen(function* () {
        const bytes = bytesOf("before")
        const put = yield* Effect.forkChild(objects.put("k", [bytes]), { startImmediately: true })
        yield* Effect.sleep(0.1)
        bytes.set(bytesOf("behind"))
        yield* Effect.sleep(1_000)
        assert.isDefined(put.pollUnsafe())
        assert.deepStrictEqual(held.get("k"), bytesOf("behind"))
      })
    )
  })
})

describe("simulated compute", () => {
  const deletes = { bytes: new Uint8Array(8), length: 8, crc32: 0 }

  it("does one task after the other, and dies of some", () => {
    const world = new World("compute")
    const threads = simCompute(world, { taskMs: 10, slow: 0.5, died: 0.5 })
    const node = world.node("node")
    const compute = threads.of(node)
    const faults: Array<string> = []
    const run = Effect.suspend(() => Effect.flip(compute.run("open-deletes", { ...deletes, bytes: new Uint8Array(8) })))
    const all = Effect.forEach(Array.from({ length: 40 }), () => Effect.map(run, ({ fault }) => faults.push(fault)), {
      concurrency: "unbounded"
    })
    world.run(Effect.flatten(on(node, all)))
    assert.strictEqual(faults.length, 40)
    assert.deepStrictEqual(new Set(faults), new Set(["task", "worker"]))
    assert.strictEqual(faults.filter((fault) => fault === "worker").length, threads.counts["died"])
    assert.isAbove(threads.counts["slow"]!, 5)
  })

  it("goes with its process", () => {
    const world = new World("crash")
    const threads = simCompute(world)
    const node = world.node("node")
    let ended = 0
    world.run(
      Effect.gen(function* () {
        node.start(Effect.exit(threads.of(node).run("open-deletes", deletes)), () => ended++)
        yield* Effect.sleep(0.01)
        node.crash()
        yield* Effect.sleep(1_000)
      })
    )
    assert.strictEqual(ended, 0)
  })

  it("builds indexes that find exactly what a scan finds, and no damaged one", () => {
    const world = new World("index")
    const chance = world.chance("vectors")
    const facts = { metric: "L2", dimension: 4, count: 50, M: 4, efConstruction: 8 } as const
    const vectors = Float32Array.from({ length: 200 }, () => chance.between(-1, 1))
    const file = joined(encodeIndex(flatBuilder.engine, facts, flatBuilder.build(vectors, facts, undefined)))
    world.run(
      Effect.gen(function* () {
        const index = yield* flatIndexes.load(file, vectors)
        const query = vectors.slice(0, 4)
        assert.deepStrictEqual(index.search(query, 7, 0), flatIndex("L2", 4, vectors).search(query, 7, 0))
        for (let i = 0; i < 100; i++) {
          const wrong = file.slice()
          wrong[chance.below(file.length)]! ^= 1 << chance.below(8)
          assert.strictEqual((yield* Effect.flip(flatIndexes.load(wrong))).reason, "damaged")
        }
        assert.strictEqual((yield* Effect.flip(flatIndexes.load(file, vectors.slice(4)))).reason, "damaged")
        const short = joined(encodeIndex(flatBuilder.engine, facts, new Uint8Array(796)))
        assert.strictEqual((yield* Effect.flip(flatIndexes.load(short))).reason, "damaged")
      })
    )
  })
})

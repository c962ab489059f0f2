/**
 * One run of a small simulated cluster, each role a process of its own: everything that a collection lives through, asked
 * for through the proxy, while the answers are compared with a Map. Started as a program it prints what became of it, so
 * that runs in other processes can be compared: `node test/support/story.ts SEED PREEMPT CRASHES`.
 */
import { Effect, Fiber } from "effect"
import { pathToFileURL } from "node:url"
import type { ReadLevel } from "../../protocols/client.ts"
import type { Key } from "../../protocols/keys.ts"
import { Bus } from "../../runtime/bus.ts"
import { allRoles } from "../../runtime/roles.ts"
import { makeClient } from "../../sim/client.ts"
import { Cluster } from "../../sim/cluster.ts"
import type { AnswerHit, AskedRow } from "../../sim/history.ts"
import { sealed } from "../../sim/sealed.ts"
import type { Keep, TraceEvent } from "../../sim/trace.ts"
import { on, World } from "../../sim/world.ts"

const DIMENSION = 4
const SHARDS = 2
const ROWS = 120
const shape = { dimension: DIMENSION, metric: "L2", keyType: "Int64", shards: SHARDS } as const
const strong: ReadLevel = { consistency: "Strong", token: 0n, at: undefined }
const settings = { channels: 3, segmentBytesMax: 400, indexRowsMin: 8, leaseTtlMs: 3_000 }

export interface StoryOptions {
  readonly preempt: number
  /** Processes that are crashed and begun again, one after the other, while all of it goes on. */
  readonly crashes: number
  readonly keep?: Keep
}

export interface Told {
  readonly hash: string
  readonly events: number
  readonly ms: number
  readonly segments: number
  readonly indexes: number
  readonly checkpoints: ReadonlyArray<string>
  readonly kept: ReadonlyArray<TraceEvent>
}

class Wrong extends Error {}

const same = (what: string, found: unknown, expected: unknown): void => {
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new Wrong(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`)
  }
}

export const story = (seed: string | number, { crashes, keep, preempt }: StoryOptions): Told => {
  const world = new World(seed, { preempt, keep })
  const chance = world.chance("story")
  const cluster = new Cluster(world, { nodes: allRoles.map((role) => ({ name: role, roles: [role] })), settings })
  const model = new Map<Key, AskedRow>()
  const quarter = () => (chance.below(33) - 16) / 4
  const rowOf = (key: number): AskedRow => ({
    key,
    vector: Float32Array.from({ length: DIMENSION }, quarter),
    fields: { of: key }
  })

  const distances = (query: Float32Array) =>
    [...model.values()]
      .map(({ key, vector }) => ({ key, distance: vector.reduce((sum, x, i) => sum + (x - query[i]!) ** 2, 0) }))
      .sort((a, b) => a.distance - b.distance)

  const client = Effect.gen(function* () {
    const { ask, makingId, requestId } = yield* makeClient(yield* Bus, {
      manner: "library",
      form: "binary",
      timeoutMs: 60_000
    })
    const upsert = Effect.fnUntraced(function* (verb: "insert" | "upsert", rows: ReadonlyArray<AskedRow>) {
      const { answer } = yield* ask("books", { _tag: "Upsert", verb, request: yield* requestId("books"), rows }, shape)
      same(verb, answer, { _tag: "Written", count: rows.length })
      for (const row of rows) model.set(row.key, row)
    })
    const remove = Effect.fnUntraced(function* (keys: ReadonlyArray<Key>) {
      yield* ask("books", { _tag: "Delete", request: yield* requestId("books"), keys }, shape)
      for (const key of keys) model.delete(key)
    })
    const check = Effect.fnUntraced(function* () {
      const counted = yield* ask("books", { _tag: "Count", level: strong }, shape)
      same("count", counted.answer, { _tag: "Counted", rows: model.size })
      const query = Float32Array.from({ length: DIMENSION }, quarter)
      const wanted = { fields: true, vector: true }
      const search = { _tag: "Search", level: strong, queries: [query], limit: 10, offset: 0, wanted } as const
      const { answer } = yield* ask("books", search, shape)
      const [hits] = (answer as { readonly lists: ReadonlyArray<ReadonlyArray<AnswerHit>> }).lists
      same(
        "distances",
        hits!.map(({ distance }) => distance),
        distances(query)
          .slice(0, 10)
          .map(({ distance }) => distance)
      )
      for (const { fields, key, vector } of hits!) {
        const row = model.get(key)
        same(`row ${key}`, [fields, [...(vector ?? [])]], [row?.fields, [...(row?.vector ?? [])]])
      }
      const keys = Array.from({ length: ROWS }, (_, i) => i)
      const got = yield* ask(
        "books",
        { _tag: "Get", level: strong, keys, wanted: { fields: false, vector: false } },
        shape
      )
      const found = (got.answer as { readonly rows: ReadonlyArray<{ readonly key: Key }> }).rows.map(({ key }) => key)
      same(
        "get",
        found.toSorted((a, b) => Number(a) - Number(b)),
        keys.filter((key) => model.has(key))
      )
    })

    yield* ask("books", { _tag: "Create", request: yield* makingId, shape })
    yield* check()
    for (let from = 0; from < ROWS; from += 20) {
      yield* upsert(
        "insert",
        Array.from({ length: 20 }, (_, i) => rowOf(from + i))
      )
      yield* remove(Array.from({ length: 5 }, () => chance.below(ROWS)))
      yield* upsert(
        "upsert",
        Array.from({ length: 5 }, () => rowOf(chance.below(ROWS))).filter(
          ({ key }, i, all) => all.findIndex((one) => one.key === key) === i
        )
      )
      yield* check()
    }
    yield* ask("books", { _tag: "Flush" })
    yield* check()
    yield* Effect.sleep(5_000)
    yield* check()
    yield* remove([...model.keys()].slice(0, 30))
    yield* check()
    const { answer } = yield* ask("books", { _tag: "Stats" })
    same("stats", answer, { _tag: "Counted", rows: model.size })
  })

  const killer = Effect.gen(function* () {
    for (let i = 0; i < crashes; i++) {
      yield* Effect.sleep(chance.between(100, 3_000))
      const process = cluster.process(chance.pick(allRoles))
      process.crash()
      yield* Effect.sleep(chance.between(10, 3_000))
      process.start()
    }
  })

  const whole = Effect.gen(function* () {
    cluster.start()
    yield* cluster.ready
    const killing = yield* Effect.forkChild(killer)
    const ended = yield* on(cluster.client("client"), client.pipe(Effect.provide(cluster.broker.layer), Effect.scoped))
    yield* ended
    yield* Fiber.join(killing)
  })
  sealed(() => world.run(whole))
  const names = [...cluster.objects.held.keys()]
  return {
    hash: world.trace.hash,
    events: world.events,
    ms: world.now,
    segments: names.filter((name) => name.endsWith(".arrow")).length,
    indexes: names.filter((name) => name.endsWith(".hnsw")).length,
    checkpoints: world.trace.checkpoints,
    kept: world.trace.kept
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [, , seed = "1", preempt = "0.1", crashes = "0"] = process.argv
  const { events, hash, indexes, ms, segments } = story(seed, { preempt: Number(preempt), crashes: Number(crashes) })
  process.stdout.write(`${JSON.stringify({ hash, events, ms, segments, indexes })}\n`)
}

/**
 * The simulated broker against real servers: random sequences of operations on log, metadata and leases must have the
 * same results on both, down to every sequence and revision. What has no order (who of several wins a race) is asked
 * in a way that has one answer.
 */
import { type Context, Deferred, Effect, Layer, Option, type Scope, Stream } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { simBroker } from "../../sim/broker.ts"
import { World } from "../../sim/world.ts"
import { bootstrap } from "../../storage/jetstream-bucket.ts"
import { Leases } from "../../storage/leases.ts"
import { Log } from "../../storage/log.ts"
import { type Entry, Meta, type WatchEvent } from "../../storage/meta.ts"
import { NatsConnection } from "../../storage/nats-connection.ts"
import type { Outcome, StorageError } from "../../storage/outcome.ts"
import { type Nats, startNats, startNatsCluster } from "../support/nats.ts"
import { randomFrom, type RandomSource } from "../support/random.ts"
import { bytesOf, collect, createHeard, natsLayer, oddKeys, type Ports, textOf } from "../support/storage.ts"

const CHANNELS = [1, 2]
const KEYS = ["a", "a.b", "a.b.c", "ab", "node.1", "node.2", ...oddKeys.slice(0, 3)]
const RECORD_MAX = 512 * 1024
/** A real server sets it aside. */
const CHANNEL_BYTES_MAX = 16 * 1024 * 1024

type Op =
  | {
      readonly _tag: "append"
      readonly channel: number
      readonly texts: ReadonlyArray<string>
      readonly off: number
      readonly hole: number
    }
  | {
      readonly _tag: "batch"
      readonly channel: number
      readonly texts: ReadonlyArray<string>
      readonly off: number | undefined
    }
  | { readonly _tag: "race"; readonly channel: number; readonly writers: number; readonly batch: number }
  | { readonly _tag: "invalid"; readonly channel: number; readonly many: number }
  | { readonly _tag: "read"; readonly channel: number; readonly from: number; readonly length: number }
  | { readonly _tag: "follow"; readonly channel: number; readonly from: number }
  | { readonly _tag: "purge"; readonly channel: number; readonly before: number }
  | { readonly _tag: "open"; readonly channel: number }
  | { readonly _tag: "create"; readonly channel: number }
  | {
      readonly _tag: "commit"
      readonly changes: ReadonlyArray<readonly [key: string, value: string | undefined]>
      readonly off: number
    }
  | { readonly _tag: "commits"; readonly writers: number }
  | { readonly _tag: "snapshot" }
  | {
      readonly _tag: "put"
      readonly key: string
      readonly value: string
      readonly expected: "right" | "none" | number
      readonly ttlMs: number | undefined
    }
  | { readonly _tag: "remove"; readonly key: string; readonly expected: "right" | number }
  | { readonly _tag: "get"; readonly of: "meta" | "leases"; readonly key: string }
  | { readonly _tag: "watch"; readonly of: "meta" | "leases"; readonly prefix: string }
  /** Longer than the shortest time to live. */
  | { readonly _tag: "wait" }

const OPERATIONS = 30

const draw = (random: RandomSource, index: number, waits: boolean): Op => {
  const channel = random.pick([...CHANNELS, 1, 1, 9])
  const texts = () =>
    Array.from({ length: 1 + random.below(5) }, (_, at) => `${index}.${at} ${"x".repeat(random.below(300))}`)
  const off = () => random.pick([0, 0, 0, -1, 1, -5, 64])
  const of = random.pick(["meta", "leases"] as const)
  const key = random.pick(KEYS)
  switch (random.below(waits ? 17 : 16)) {
    case 0:
    case 1:
      return { _tag: "append", channel, texts: texts(), off: off(), hole: random.below(8) }
    case 2:
      return { _tag: "batch", channel, texts: texts(), off: random.pick([undefined, off()]) }
    case 3:
      return { _tag: "race", channel, writers: 2 + random.below(3), batch: random.pick([1, 2, 65]) }
    case 4:
      return { _tag: "invalid", channel, many: random.pick([0, 1, 2, 1_001]) }
    case 5:
      return { _tag: "read", channel, from: 1 + random.below(60), length: random.below(40) }
    case 6:
      return { _tag: "follow", channel, from: 1 + random.below(30) }
    case 7:
      return { _tag: "purge", channel, before: random.below(80) }
    case 8:
      return random.chance(0.7) ? { _tag: "open", channel } : { _tag: "create", channel: random.pick(CHANNELS) }
    case 9:
    case 10: {
      const chosen = KEYS.filter(() => random.chance(0.3))
      const changes = chosen.map((key) => [key, random.chance(0.3) ? undefined : `${index}`] as const)
      if (random.chance(0.05) && changes.length > 0) changes.push(changes[0]!)
      return { _tag: "commit", changes, off: off() }
    }
    case 11:
      return random.chance(0.5) ? { _tag: "commits", writers: 2 + random.below(3) } : { _tag: "snapshot" }
    case 12:
    case 13: {
      const expected = random.pick(["right", "right", "none", "none", random.below(20)] as const)
      const ttlMs = random.pick([undefined, 3_600_000, waits ? 1_000 : 60_000, 1_500])
      return { _tag: "put", key, value: `${index}`, expected, ttlMs }
    }
    case 14:
      return { _tag: "remove", key, expected: random.chance(0.8) ? "right" : random.below(20) }
    case 15:
      return random.chance(0.5)
        ? { _tag: "get", of, key }
        : { _tag: "watch", of, prefix: random.pick(["", "a", "node", "none"]) }
    default:
      return { _tag: "wait" }
  }
}

const said = (outcome: Outcome<unknown>): string =>
  outcome._tag === "Done" ? `done ${String(outcome.value)}` : outcome._tag === "Refused" ? outcome.reason : outcome._tag
const failed = ({ reason }: StorageError) => Effect.succeed(reason)
const found = (entry: Option.Option<Entry>) =>
  Option.match(entry, { onNone: () => "none", onSome: (one) => `${one.key}=${textOf(one.value)}@${one.revision}` })
const told = (event: WatchEvent) =>
  event._tag === "Put"
    ? found(Option.some(event.entry))
    : event._tag === "Deleted"
      ? `-${event.key}@${event.revision}`
      : event._tag

/** What the operations of a seed say, one after the other. */
const results = Effect.fnUntraced(function* (seed: number) {
  const log = yield* Log
  const meta = yield* Meta
  const leases = yield* Leases
  const random = randomFrom(seed)
  const waits = seed % 10 === 0
  const revisions = new Map<string, number>()
  const lines: Array<string> = []
  for (const channel of CHANNELS) yield* createHeard(log, channel)

  // What was acknowledged, which is all that there is.
  const lasts = new Map<number, number>()
  const lastOf = (channel: number) => lasts.get(channel) ?? 0
  const written = (channel: number, outcomes: ReadonlyArray<Outcome<number>>) => {
    for (const outcome of outcomes) if (outcome._tag === "Done") lasts.set(channel, outcome.value)
    return outcomes.map(said).sort().join()
  }
  let head = 0
  const committed = (outcomes: ReadonlyArray<Outcome<number>>) => {
    for (const outcome of outcomes) if (outcome._tag === "Done") head = outcome.value
    return outcomes.map(said).sort().join()
  }

  const perform = Effect.fnUntraced(function* (op: Op): Effect.fn.Return<string, StorageError> {
    switch (op._tag) {
      case "append": {
        const start = lastOf(op.channel) + op.off
        const handed = []
        for (const [at, text] of op.texts.entries()) {
          if (at !== op.hole) handed.push(yield* log.append(op.channel, bytesOf(text), Math.max(0, start + at)))
        }
        return written(op.channel, yield* Effect.all(handed, { concurrency: "unbounded" }))
      }
      case "batch": {
        const expected = op.off === undefined ? undefined : Math.max(0, lastOf(op.channel) + op.off)
        return written(op.channel, [yield* log.appendBatch(op.channel, op.texts.map(bytesOf), expected)])
      }
      case "race": {
        const last = lastOf(op.channel)
        const batch = Array.from({ length: op.batch }, () => bytesOf("race"))
        const writers = Array.from({ length: op.writers }, () => log.appendBatch(op.channel, batch, last))
        return written(op.channel, yield* Effect.all(writers, { concurrency: "unbounded" }))
      }
      case "invalid": {
        const batch = Array.from({ length: op.many }, () => new Uint8Array(op.many === 1_001 ? 1 : RECORD_MAX + 1))
        return said(yield* log.appendBatch(op.channel, batch, undefined))
      }
      case "read": {
        const read = yield* collect(log.read(op.channel, op.from, op.from + op.length - 1))
        return read.map(({ data, sequence }) => `${sequence} ${textOf(data)}`).join()
      }
      case "follow": {
        const state = yield* log.open(op.channel)
        const many = state.last - Math.max(op.from, state.first) + 1
        if (many <= 0) return "nothing to follow"
        const read = yield* collect(log.follow(op.channel, op.from).pipe(Stream.take(many)))
        return read.map(({ data, sequence }) => `${sequence} ${textOf(data)}`).join()
      }
      case "purge":
        return said(yield* log.purge(op.channel, op.before))
      case "open": {
        const { first, last } = yield* log.open(op.channel)
        return `${first} to ${last}`
      }
      case "create":
        yield* log.create(op.channel)
        return "created"
      case "commit": {
        const changes = op.changes.map(([key, value]) => ({
          key,
          value: value === undefined ? undefined : bytesOf(value)
        }))
        return committed([yield* meta.commit(changes, Math.max(0, head + op.off))])
      }
      case "commits": {
        const expected = head
        const writers = Array.from({ length: op.writers }, () =>
          meta.commit([{ key: "race", value: bytesOf("1") }], expected)
        )
        return committed(yield* Effect.all(writers, { concurrency: "unbounded" }))
      }
      case "snapshot": {
        const { entries, head } = yield* meta.snapshot
        return `${head}: ${entries
          .map((entry) => found(Option.some(entry)))
          .sort()
          .join()}`
      }
      case "put": {
        const known = revisions.get(op.key) ?? 0
        const expected = op.expected === "right" ? known : op.expected === "none" ? 0 : op.expected
        const outcome = yield* leases.put(op.key, bytesOf(op.value), expected, op.ttlMs)
        if (outcome._tag === "Done") revisions.set(op.key, outcome.value)
        return said(outcome)
      }
      case "remove": {
        const outcome = yield* leases.remove(
          op.key,
          op.expected === "right" ? (revisions.get(op.key) ?? 0) : op.expected
        )
        if (outcome._tag === "Done") revisions.delete(op.key)
        return said(outcome)
      }
      case "get":
        return found(yield* (op.of === "meta" ? meta : leases).get(op.key))
      case "watch": {
        const watch = (op.of === "meta" ? meta : leases).watch(op.prefix)
        const events = yield* collect(Stream.takeUntil(watch, ({ _tag }) => _tag === "CaughtUp"))
        return events.map(told).sort().join()
      }
      case "wait":
        yield* Effect.sleep(1_700)
        return "waited"
    }
  })

  // Whoever watches from the beginning on is told the newest change of each key, and those before it if it is in time.
  const heard = new Map<string, string>()
  const begun = yield* Deferred.make<void>()
  const ended = yield* Deferred.make<void>()
  const hear = (event: WatchEvent) => {
    if (event._tag === "CaughtUp") return Deferred.succeed(begun, undefined)
    const key = event._tag === "Put" ? event.entry.key : event.key
    heard.set(key, told(event))
    return key === "end" ? Deferred.succeed(ended, undefined) : Effect.void
  }
  yield* Effect.forkChild(Stream.runForEach(leases.watch(""), hear))
  yield* Deferred.await(begun)
  for (let index = 0; index < OPERATIONS; index++) {
    const op = draw(random, index, waits)
    const result = yield* Effect.catch(perform(op), failed)
    lines.push(`${index} ${JSON.stringify(op).slice(0, 100)} => ${result}`)
  }
  lines.push(said(yield* leases.put("end", bytesOf(""), 0)))
  yield* Deferred.await(ended)
  return [...lines, `heard ${[...heard.values()].sort().join()}`]
})

const simulated = (seed: number, replicas: number): ReadonlyArray<string> => {
  const world = new World(`conformance ${seed}`, { preempt: 0.02 })
  const { layer } = simBroker(world, { replicas, channelBytesMax: CHANNEL_BYTES_MAX })
  return world.run(Effect.scoped(Effect.provide(results(seed), layer)))
}

const real = (seed: number, nats: Nats): Effect.Effect<ReadonlyArray<string>, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const cluster = `same-${seed}`
    yield* bootstrap({ cluster, replicas: nats.replicas }).pipe(
      Effect.provide(NatsConnection.layer({ servers: [...nats.urls] }))
    )
    const ports: Context.Context<Ports> = yield* Layer.build(
      Layer.fresh(natsLayer(nats, cluster, { channelBytesMax: CHANNEL_BYTES_MAX }))
    )
    return yield* Effect.provideContext(results(seed), ports)
  })

const suites = [
  { name: "one server", start: () => startNats(), sequences: 200 },
  { name: "a cluster of three", start: () => startNatsCluster(), sequences: 20 }
]

describe.each(suites)("the simulated broker and $name", ({ sequences, start }) => {
  let nats: Nats
  beforeAll(async () => {
    nats = await start()
  }, 120_000)
  afterAll(() => nats?.stop())

  it(`say the same to ${sequences} sequences of ${OPERATIONS} operations`, async () => {
    const seeds = Array.from({ length: sequences }, (_, index) => index + 1)
    const one = (seed: number) =>
      Effect.map(Effect.scoped(real(seed, nats)), (lines) => {
        expect(simulated(seed, nats.replicas), `seed ${seed}`).toEqual(lines)
      })
    await Effect.runPromise(Effect.forEach(seeds, one, { concurrency: 8, discard: true }))
  })
})

/**
 * The plan's clients at work: each carries out its operations, in their order and not before their time, and writes
 * down what it asked and what it was told. What an operation writes or looks for comes of its own id alone.
 */
import { Clock, Effect, Fiber, Semaphore } from "effect"
import type { ElanusError } from "../protocols/errors.ts"
import type { Key, KeyType } from "../protocols/keys.ts"
import type { Timestamp } from "../protocols/timestamp.ts"
import type { Bus } from "../runtime/bus.ts"
import type { Patience } from "../runtime/client/ask.ts"
import { makeClient } from "./client.ts"
import { type Asked, type AskedRow, type History, isWrite, outcomeOf, type Shape, type Wanted } from "./history.ts"
import type { Client, Level, Op, Output } from "./plan.ts"
import { type Chance, chanceOf } from "./world.ts"

/** The key with a number: small ones and huge ones, and texts that are not all ASCII. */
export const keyOf = (number: number, type: KeyType): Key => {
  if (type === "VarChar") return number % 5 === 4 ? `ключ ${number} 🪁` : `key-${number}`
  if (number % 7 === 3) return (1n << 60n) + BigInt(number)
  return number % 5 === 4 ? -number : number
}

/** Quarters: sums of products of them are exact, so that two ways to add them up agree to the last bit. */
const vectorOf = (chance: Chance, dimension: number): Float32Array => {
  const isZero = chance.happens(0.03)
  return Float32Array.from({ length: dimension }, () => (isZero ? 0 : (chance.below(33) - 16) / 4))
}

export const rowsOf = (
  seed: string,
  op: { readonly id: number; readonly keys: ReadonlyArray<number> },
  shape: Shape
): ReadonlyArray<AskedRow> =>
  op.keys.map((number, row) => ({
    key: keyOf(number, shape.keyType),
    vector: vectorOf(chanceOf(`${seed} op ${op.id} row ${row}`), shape.dimension),
    fields: { op: op.id, row }
  }))

const queriesOf = (seed: string, { id, vectors }: { readonly id: number; readonly vectors: number }, shape: Shape) =>
  Array.from({ length: vectors }, (_, i) => vectorOf(chanceOf(`${seed} op ${id} query ${i}`), shape.dimension))

const wantedOf = (output: Output): Wanted => ({
  fields: output === "fields" || output === "all",
  vector: output === "vector" || output === "all"
})

/** One client of a plan, whose times count from now, on the node whose code is running; what it has not begun after `forMs` it leaves. Never fails: what goes wrong is in the history. */
export const runClient = Effect.fnUntraced(function* (
  seed: string,
  plan: Client,
  bus: Bus["Service"],
  history: History,
  forMs = Infinity
): Effect.fn.Return<void> {
  const clock = yield* Clock.Clock
  const monotonic = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000n) / 1_000
  const client = yield* makeClient(bus, plan)
  const gate = yield* Semaphore.make(plan.depth)
  /** Of every answer: what a read can go back to. */
  const timestamps: Array<Timestamp> = []

  const levelOf = ({ consistency, travel }: Level) => ({
    consistency,
    token: client.token(),
    at: travel === undefined ? undefined : timestamps[Math.floor(travel * timestamps.length)]
  })

  /** What there is to ask, with all that must be found out before. */
  const prepare = Effect.fnUntraced(function* (
    op: Op,
    leftMs: Patience
  ): Effect.fn.Return<readonly [Asked, Shape?], ElanusError> {
    switch (op.kind) {
      case "create": {
        const { dimension, keyType, metric, shards } = op
        const shape = { dimension, keyType, metric, shards }
        return [{ _tag: "Create", request: yield* client.makingId, shape }]
      }
      case "drop":
        return [{ _tag: "Drop" }]
      case "flush":
        return [{ _tag: "Flush" }]
      case "list":
        return [{ _tag: "List" }]
      case "stats":
        return [{ _tag: "Stats" }]
      case "count":
        return [{ _tag: "Count", level: levelOf(op.level) }]
      case "insert":
      case "upsert": {
        const shape = yield* client.shape(op.collection, leftMs)
        const request = yield* client.requestId(op.collection, leftMs)
        return [{ _tag: "Upsert", verb: op.kind, request, rows: rowsOf(seed, op, shape) }, shape]
      }
      case "delete": {
        const shape = yield* client.shape(op.collection, leftMs)
        const request = yield* client.requestId(op.collection, leftMs)
        return [{ _tag: "Delete", request, keys: op.keys.map((number) => keyOf(number, shape.keyType)) }, shape]
      }
      case "get": {
        const shape = yield* client.shape(op.collection, leftMs)
        const keys = op.keys.map((number) => keyOf(number, shape.keyType))
        return [{ _tag: "Get", level: levelOf(op.level), keys, wanted: wantedOf(op.output) }, shape]
      }
      case "search": {
        const shape = yield* client.shape(op.collection, leftMs)
        const { limit, offset } = op
        const queries = queriesOf(seed, op, shape)
        const wanted = wantedOf(op.output)
        return [{ _tag: "Search", level: levelOf(op.level), queries, limit, offset, wanted }, shape]
      }
    }
  })

  const perform = Effect.fnUntraced(function* (op: Op) {
    const leftMs = client.patience()
    const prepared = yield* Effect.result(prepare(op, leftMs))
    if (prepared._tag === "Failure") {
      history.skip(op.id, op.collection, prepared.failure)
      return
    }
    const [asked, shape] = prepared.success
    const { collection, id } = op
    const operation = history.begin({
      id,
      client: plan.name,
      session: plan.manner === "library",
      timeoutMs: plan.timeoutMs,
      collection,
      asked
    })
    const told = yield* Effect.result(client.ask(collection, asked, shape, leftMs))
    if (told._tag === "Success") {
      // A proxy that was begun just now has seen none.
      if (told.success.timestamp > 0n) timestamps.push(told.success.timestamp)
      history.end(operation, { _tag: "Ok", ...told.success })
    } else history.end(operation, outcomeOf(told.failure, isWrite(operation)))
  })

  const begun = monotonic()
  const running: Array<Fiber.Fiber<void>> = []
  for (const op of plan.ops) {
    const early = begun + op.at - monotonic()
    if (early > 0) yield* Effect.sleep(early)
    yield* gate.take(1)
    if (monotonic() - begun > forMs) break
    running.push(yield* Effect.forkChild(Effect.ensuring(perform(op), gate.release(1))))
  }
  for (const fiber of running) yield* Fiber.await(fiber)
})

/** What a query node answers when a segment goes while it is read, and to owners that follow each other. */
import { Clock, Effect } from "effect"
import { assert, describe, it } from "vitest"
import { queryNode } from "../../actors/query-node/query-node.ts"
import { type ElanusError } from "../../protocols/errors.ts"
import { keyColumn } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import type { DeleteFile } from "../../protocols/metadata.ts"
import { decodeAnswer, type SuccessOf } from "../../protocols/protocol.ts"
import { noTail, QueryNodeProtocol, type SegmentRead, type TailKeys } from "../../protocols/query-node.ts"
import { Bus, type Message, type Reply } from "../../runtime/bus.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { makeSignal } from "../../runtime/signal.ts"
import { World } from "../../sim/world.ts"
import { Compute } from "../../storage/compute.ts"
import { type VectorIndex, VectorIndexes } from "../../storage/index.ts"
import { Objects } from "../../storage/objects.ts"
import { StorageError } from "../../storage/outcome.ts"

const { calls } = QueryNodeProtocol
type Loaded = SuccessOf<typeof calls.Load>["segments"][number]
const object = { key: "o", bytes: 1, crc32: 0 }
const segment = (id: string) => ({
  id,
  rows: 1,
  minTimestamp: 1n,
  maxTimestamp: 1n,
  data: object,
  filter: object,
  deletesThrough: 0,
  index: object
})
const columns = {
  keys: keyColumn("Int64", [1n]),
  timestamps: BigUint64Array.of(1n),
  dimension: 2,
  vectors: new Float32Array(2),
  fields: undefined
}

type Ask = (name: keyof typeof calls, payload: Uint8Array) => Effect.Effect<Uint8Array | ElanusError>

interface Stores {
  readonly index?: VectorIndex
  readonly get?: Objects["Service"]["get"]
}

/** Runs `program` with a query node whose every object is the one row, and hides nothing. */
const withNode = <A>(
  program: (ask: Ask) => Effect.Effect<A>,
  { get = () => Effect.succeed(new Uint8Array(1)), index = oneRow }: Stores = {}
): A => {
  const handlers = new Map<string, (message: Message) => Effect.Effect<Reply>>()
  const ask: Ask = (name, data) =>
    Effect.suspend(() =>
      Effect.map(handlers.get(name)!({ subject: name, data } as Message), (reply) => decodeAnswer(reply.data))
    )
  const bus = {
    serve: (subject: string, _: object, handler: (message: Message) => Effect.Effect<Reply>) =>
      Effect.sync(() => handlers.set(subject.split(".").at(-1)!, handler))
  }
  return new World("query node").run(
    Effect.scoped(Effect.andThen(queryNode, program(ask))).pipe(
      Effect.provideService(Bus, bus as unknown as Bus["Service"]),
      Effect.provideService(Catalog, {
        changed: makeSignal(),
        leased: makeSignal(),
        collection: () => ({ state: "ready" })
      } as unknown as Catalog["Service"]),
      Effect.provideService(Objects, { get } as unknown as Objects["Service"]),
      Effect.provideService(Compute, { run: () => Effect.succeed(columns) } as unknown as Compute["Service"]),
      Effect.provideService(VectorIndexes, { load: () => Effect.succeed(index) }),
      Effect.provide(Node.layer("0.0.0", {}))
    )
  )
}

const oneRow: VectorIndex = {
  count: 1,
  dimension: 2,
  search: () => ({ rows: Uint32Array.of(0), ranks: Float64Array.of(0) }),
  hide: () => {},
  dispose: () => {}
}
const load = (epoch: bigint, ids: ReadonlyArray<string>, deletes: ReadonlyArray<DeleteFile> = []) =>
  calls.Load.payload.encode({
    epoch,
    collection: "1",
    metric: "L2",
    segments: ids.map(segment),
    deletes,
    flushedTo: deletes.at(-1)?.to ?? 0
  })
const readOf = (
  knownEpoch: bigint,
  knownLsn: number,
  segments: ReadonlyArray<string>,
  tail: TailKeys
): SegmentRead => ({
  knownEpoch,
  knownLsn,
  collection: "1",
  shard: 0,
  segments,
  timestamp: 2n,
  tail
})
const codeOf = (answer: Uint8Array | ElanusError) => (answer instanceof Uint8Array ? "ok" : answer.code)

describe("a query node", () => {
  it("says of a segment that goes during a search that it is not here", () => {
    let searched = 0
    let release: Effect.Effect<unknown> = Effect.void
    const code = withNode(
      (ask) => {
        release = ask("Release", calls.Release.payload.encode({ collection: "1" }))
        return Effect.gen(function* () {
          yield* ask("Load", load(1n, ["a", "b"]))
          const read = readOf(1n, 1, ["a", "b"], noTail(0, 0))
          const queries = new Float32Array(2)
          return codeOf(yield* ask("Search", calls.Search.payload.encode({ read, limit: 1, ef: 1, queries })))
        })
      },
      {
        index: {
          ...oneRow,
          search: (...question) => {
            // In its first pause, as somebody else would.
            if (++searched === 1) Effect.runFork(release)
            return oneRow.search(...question)
          }
        }
      }
    )
    assert.strictEqual(searched, 1)
    assert.strictEqual(code, "not-here")
  })

  it("tells a new owner what it was told, and is told nothing by the one before from then on", () => {
    const { known, codes } = withNode((ask) =>
      Effect.gen(function* () {
        const count = (read: SegmentRead) => Effect.map(ask("Count", calls.Count.payload.encode(read)), codeOf)
        const loaded = (epoch: bigint) =>
          Effect.map(ask("Load", load(epoch, ["a"])), (answer) => {
            if (!(answer instanceof Uint8Array)) return answer.code
            const [{ applied, knownEpoch, knownLsn }] = calls.Load.success.decode(answer).segments as [Loaded]
            return { applied, knownEpoch, knownLsn }
          })
        const keys = keyColumn("Int64", [1n])
        const codes: Array<string> = []
        const known = [yield* loaded(10n)]
        codes.push(yield* count(readOf(10n, 77, ["a"], noTail(0, 77))))
        known.push(yield* loaded(10n))
        // A part that goes ahead moves no position, and its keys hide rows all the same.
        const part = readOf(10n, 78, ["a"], { after: 77, upTo: 77, keys, timestamps: BigUint64Array.of(2n) })
        codes.push(codeOf(yield* ask("Apply", calls.Apply.payload.encode(part))))
        known.push(yield* loaded(20n))
        codes.push(yield* count(readOf(10n, 79, ["a"], noTail(77, 79))))
        known.push(yield* loaded(10n))
        // One that has not looked at what is known here.
        codes.push(yield* count(readOf(30n, 90, ["a"], noTail(77, 90))))
        codes.push(yield* count(readOf(20n, 80, ["a"], noTail(77, 80))))
        known.push(yield* loaded(20n))
        return { known, codes }
      })
    )
    assert.deepStrictEqual(codes, ["ok", "ok", "moved", "not-here", "ok"])
    assert.deepStrictEqual(known, [
      { applied: 0, knownEpoch: 0n, knownLsn: 0 },
      { applied: 77, knownEpoch: 10n, knownLsn: 77 },
      { applied: 77, knownEpoch: 10n, knownLsn: 78 },
      "moved",
      { applied: 80, knownEpoch: 20n, knownLsn: 80 }
    ])
  })

  it("fetches a delete file once for all segments, and none again that it has", () => {
    const fetched: Array<string> = []
    let away = "3"
    const get: Objects["Service"]["get"] = (key) =>
      Effect.suspend(() => {
        if (key !== "o") fetched.push(key)
        return key === away
          ? Effect.fail(new StorageError({ reason: "unavailable", detail: "away" }))
          : Effect.succeed(new Uint8Array(1))
      })
    const files = [1, 2, 3, 4].map((to): DeleteFile => ({
      id: `${to}`,
      object: { ...object, key: `${to}` },
      keys: 1,
      from: to - 1,
      to,
      newestRequest: 1n
    }))
    const seen = withNode(
      (ask) =>
        Effect.gen(function* () {
          const loaded = Effect.map(ask("Load", load(1n, ["a", "b"], files)), (answer) =>
            answer instanceof Uint8Array
              ? calls.Load.success.decode(answer).segments.map(({ applied, state }) => `${state} ${applied}`)
              : answer.code
          )
          const failed = yield* loaded
          const first = fetched.splice(0)
          away = ""
          return { failed, first, last: yield* loaded, second: fetched.splice(0) }
        }),
      { get }
    )
    assert.deepStrictEqual(seen, {
      failed: ["failed 2", "failed 2"],
      first: ["1", "2", "3"],
      last: ["loaded 4", "loaded 4"],
      second: ["3", "4"]
    })
  })

  it("answers who has it load segments when all are there, and who waits for long, how far it is", () => {
    let tookMs = 300
    const get: Objects["Service"]["get"] = () =>
      Effect.suspend(() => Effect.as(Effect.sleep(tookMs), new Uint8Array(1)))
    const told = withNode(
      (ask) =>
        Effect.gen(function* () {
          const began = yield* Clock.currentTimeMillis
          const loaded = (ids: ReadonlyArray<string>) =>
            Effect.gen(function* () {
              const answer = yield* ask("Load", load(1n, ids))
              const { segments } = calls.Load.success.decode(answer as Uint8Array)
              return [(yield* Clock.currentTimeMillis) - began, ...segments.map(({ state }) => state)]
            })
          const soon = yield* loaded(["a", "b"])
          tookMs = 0.6 * limits.loadPatienceMs
          return [soon, yield* loaded(["a", "c"]), yield* loaded(["c"])]
        }),
      { get }
    )
    // A segment is its rows and its index, one after the other.
    assert.deepStrictEqual(told, [
      [600, "loaded", "loaded"],
      [600 + limits.loadPatienceMs, "loaded", "loading"],
      [600 + 1.2 * limits.loadPatienceMs, "loaded"]
    ])
  })
})

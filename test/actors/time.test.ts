/** Who may say what time it is, while coordinators come and go. */
import { Clock, Effect } from "effect"
import { assert, describe, it } from "vitest"
import { makeOracle } from "../../actors/coordinator/oracle.ts"
import type { Truth } from "../../actors/coordinator/truth.ts"
import { deadlineIn } from "../../actors/proxy/deadline.ts"
import { makeRequests } from "../../actors/proxy/requests.ts"
import { makeIsGivenOut } from "../../actors/streaming-node/given-out.ts"
import { Chain } from "../../actors/streaming-node/chain.ts"
import { Stamps } from "../../actors/streaming-node/stamps.ts"
import { makePending, write, WriteQueue } from "../../actors/streaming-node/writer.ts"
import { CoordinatorProtocol, type Grant } from "../../protocols/coordinator.ts"
import { failure } from "../../protocols/errors.ts"
import { keyColumn } from "../../protocols/keys.ts"
import { checkpointZero } from "../../protocols/metadata.ts"
import { encodeAnswer } from "../../protocols/protocol.ts"
import { decodeRecord, type RecordHeader } from "../../protocols/record.ts"
import { StreamingNodeProtocol } from "../../protocols/streaming-node.ts"
import { Sites } from "../../runtime/buggify.ts"
import { Bus } from "../../runtime/bus.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { makeSignal } from "../../runtime/signal.ts"
import { Log } from "../../storage/log.ts"
import { collectionOf, specOf } from "../support/collection.ts"
import { inWorlds } from "../support/simulated.ts"

const NOW = 0

/** What an oracle grants whose term began at `floor`. */
const granted = (floor: bigint, after: number, count = 1): Grant => {
  const first = floor + BigInt(after)
  return { first, last: first + BigInt(count) - 1n, floor }
}

describe("an oracle", () => {
  it("that was deposed gives out time, and proves none", () => {
    inWorlds(() =>
      Effect.gen(function* () {
        let isDeposed = false
        const truth = {
          get: () => undefined,
          commit: () => (isDeposed ? Effect.fail(failure("deposed", "")) : Effect.void)
        } as unknown as Truth
        const { grant } = yield* makeOracle(truth)
        const before = yield* grant("proven", 1)
        isDeposed = true
        assert.isAbove(Number((yield* grant("reader", 1)).first), Number(before.first))
        assert.isAbove(Number((yield* grant("writer", 10)).first), Number(before.first))
        assert.strictEqual((yield* Effect.flip(grant("proven", 1))).code, "deposed")
      })
    )
  })
})

describe("a time that an owner has not seen", () => {
  const old = granted(0n, 500)
  const proven = granted(1_000n, 500)
  const ask = (at: bigint) => {
    const asked: Array<string> = []
    const isGivenOut = makeIsGivenOut((kind) =>
      Effect.sync(() => {
        asked.push(kind)
        return kind === "proven" ? proven : old
      })
    )
    return Effect.map(isGivenOut(new Stamps(10n, 0n), at), (isIt) => ({ isIt, asked }))
  }

  it("is given out if any oracle is beyond it, and is not only if one is not that was not deposed", () => {
    inWorlds(() =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* ask(10n), { isIt: true, asked: [] })
        assert.deepStrictEqual(yield* ask(old.first), { isIt: true, asked: ["reader"] })
        assert.deepStrictEqual(yield* ask(proven.first), { isIt: true, asked: ["reader", "proven"] })
        assert.deepStrictEqual(yield* ask(proven.first + 1n), { isIt: false, asked: ["reader", "proven"] })
      })
    )
  })
})

describe("a strong read of many shards", () => {
  const collection = collectionOf("1", { spec: specOf({ shards: 2 }), channels: [0, 1] })
  const { Count } = StreamingNodeProtocol.calls
  const { Grant } = CoordinatorProtocol.calls

  /** Its time, and what oracles were asked, where any of them may be one that was deposed. */
  const read = (token: bigint) => {
    const asked: Array<string> = []
    const times = new Set<bigint>()
    const bus = {
      payloadMax: 1_000_000,
      request: (subject: string, data: Uint8Array) =>
        Effect.sync(() => {
          if (subject.endsWith(".Grant")) {
            const { kind } = Grant.payload.decode(data)
            asked.push(kind)
            return { data: encodeAnswer(Grant.success, kind === "proven" ? granted(1_000n, 500) : granted(0n, 500)) }
          }
          const { timestamp } = Count.payload.decode(data).time
          times.add(timestamp)
          return { data: encodeAnswer(Count.success, { rows: 0, timestamp, lsn: 1 }) }
        })
    }
    const catalog = {
      changed: makeSignal(),
      leased: makeSignal(),
      collection: () => collection,
      schema: () => 1,
      owner: () => ({ node: "n", epoch: 1n, revision: 1, key: { log: "" } })
    }
    const level = { consistency: "Strong", token, at: undefined } as const
    const program = Effect.gen(function* () {
      const { count } = yield* makeRequests
      yield* count(collection, level, deadlineIn(yield* Clock.Clock, 1_000))
      return { asked, times: [...times] }
    })
    return program.pipe(
      Effect.provideService(Bus, bus as unknown as Bus["Service"]),
      Effect.provideService(Catalog, catalog as unknown as Catalog["Service"]),
      Effect.provide(Node.layer("0.0.0", {}))
    )
  }

  it("takes no token for a time that is above all, if the oracle is below it", () => {
    inWorlds(() =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* read(400n), { asked: ["reader"], times: [500n] })
        assert.deepStrictEqual(yield* read(1_200n), { asked: ["reader", "proven"], times: [1_500n] })
        // The owners say whether it is from the future.
        assert.deepStrictEqual(yield* read(2_000n), { asked: ["reader", "proven"], times: [2_000n] })
      })
    )
  })
})

describe("the floor of an owner", () => {
  it("is not that of a record which got its timestamp before", () => {
    inWorlds(() =>
      Effect.gen(function* () {
        const stamps = new Stamps(10n, 0n)
        stamps.accept(granted(0n, 100, 100), yield* Clock.currentTimeMillis)
        const queue = new WriteQueue()
        const body = { _tag: "Delete", keys: keyColumn("Int64", [1]) } as const
        queue.add(makePending({ collection: "c", shard: 0, schema: 1, request: { issued: 1n, unique: 1n }, body }))
        const sent: Array<RecordHeader> = []
        const append = (_: number, bytes: Uint8Array) => {
          sent.push(decodeRecord(bytes).header)
          return Effect.succeed(Effect.succeed({ _tag: "Ambiguous", detail: "" }))
        }
        const writing = write({
          who: { channel: 0, epoch: 1n, nonce: 1n },
          incarnation: 1,
          chain: new Chain(checkpointZero),
          queue,
          stamps,
          changed: makeSignal(),
          grant: Effect.void,
          recordBytesMax: () => 1_000,
          acknowledged: () => {}
        })
        // It stands still before it is sent.
        const fires = (site: string) => site === "before a record is sent"
        const waits = Effect.provideService(writing, Sites, { fires, time: (most) => most })
        const learns = Effect.andThen(
          Effect.sleep(100),
          Effect.sync(() => stamps.learnFloor(1_000n))
        )
        const both = Effect.all([waits, learns], { concurrency: "unbounded" })
        yield* Effect.provideService(both, Log, { append } as unknown as Log["Service"])
        assert.deepStrictEqual(
          sent.map(({ floor, timestamp }) => ({ floor, timestamp })),
          [{ floor: 0n, timestamp: 100n }]
        )
      })
    )
  })

  it("is the newest that any grant has shown, also behind a fence that is older", () => {
    const stamps = new Stamps(10n, 0n)
    assert.isTrue(stamps.accept(granted(1_000n, 0, 100), NOW))
    stamps.learnFloor(0n)
    assert.strictEqual(stamps.floor, 1_000n)
    assert.isFalse(stamps.accept(granted(0n, 500, 100), NOW))
    assert.strictEqual(stamps.take(NOW), 1_000n)
  })

  it("is that of a reader's grant too", () => {
    const stamps = new Stamps(10n, 0n)
    assert.isTrue(stamps.accept(granted(0n, 100, 100), NOW))
    stamps.learn(granted(1_000n, 500), NOW)
    assert.strictEqual(stamps.floor, 1_000n)
    assert.isFalse(stamps.accept(granted(0n, 300, 100), NOW))
    assert.strictEqual(stamps.take(NOW), 1_501n)
  })
})

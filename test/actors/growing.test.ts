/**
 * What an owner holds in memory, against models that a reader can check by eye: the growing rows of a shard with their
 * versions (growing.ts), the keys that sealed segments must hide (tail.ts), and the requests that were applied
 * (requests.ts), and whose the records are (epochs.ts). Operations are drawn by a seed, records come in the order of the log.
 */
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { Chain } from "../../actors/streaming-node/chain.ts"
import { Growing, type GrowingSegment, ownKeys } from "../../actors/streaming-node/growing.ts"
import { handOff } from "../../actors/streaming-node/handoff.ts"
import { Owner } from "../../actors/streaming-node/owner.ts"
import type { QueryNodes } from "../../actors/streaming-node/reading.ts"
import { Requests } from "../../actors/streaming-node/requests.ts"
import { Stamps } from "../../actors/streaming-node/stamps.ts"
import { Tail } from "../../actors/streaming-node/tail.ts"
import { hashKey, type Key, type KeyColumn, keyColumn, keysOf, type KeyType } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import { type Checkpoint, checkpointZero, emptyManifest } from "../../protocols/metadata.ts"
import type { Entry, LogRecord, RequestId } from "../../protocols/record.ts"
import { fieldBytesAt, fieldColumn, parseFields } from "../../protocols/rows.ts"
import { fromMillis, type Timestamp } from "../../protocols/timestamp.ts"
import { Sites } from "../../runtime/buggify.ts"
import type { Catalog } from "../../runtime/catalog.ts"
import { defaultSettings, type Settings } from "../../runtime/node.ts"
import { makeSignal } from "../../runtime/signal.ts"
import { metrics, rank } from "../../storage/distance.ts"
import { TopK } from "../../storage/top-k.ts"
import { collectionOf } from "../support/collection.ts"
import { randomFrom, type RandomSource } from "../support/random.ts"
import { forSeeds } from "../support/seeds.ts"

// ---- growing rows

interface ModelRow {
  readonly key: Key
  readonly vector: Float32Array
  readonly fields: unknown
  readonly lsn: number
  readonly timestamp: Timestamp
  readonly segment: number
  hidden: number
}

/** Every row ever written, as a plain list. */
class Model {
  rows: Array<ModelRow> = []
  /** Of the segments that are there: (from, to], the last without an end. */
  segments: Array<{ readonly number: number; readonly from: number; to: number }> = [
    { number: 0, from: 0, to: Infinity }
  ]

  hide(key: Key, lsn: number): void {
    for (const row of this.rows) if (row.key === key && row.hidden === Infinity) row.hidden = lsn
  }
  upsert(row: Omit<ModelRow, "hidden" | "segment">): void {
    this.hide(row.key, row.lsn)
    this.rows.push({ ...row, hidden: Infinity, segment: this.segments.at(-1)!.number })
  }
  seal(to: number): boolean {
    const active = this.segments.at(-1)!
    if (to <= active.from) return false
    active.to = to
    this.segments.push({ number: active.number + 1, from: to, to: Infinity })
    return true
  }
  drop(flushedTo: number): void {
    this.segments = this.segments.filter(({ to }) => to > flushedTo)
    this.rows = this.rows.filter(({ segment }) => segment >= this.segments[0]!.number)
  }
  visible(lsn: number): ReadonlyArray<ModelRow> {
    return this.rows.filter((row) => row.lsn <= lsn && row.hidden > lsn)
  }
}

const keyOf = (type: KeyType, n: number): Key => (type === "Int64" ? n - 5 : `k${n}`)

/** Keys as they lie in a record: in the middle of a buffer that is otherwise somebody else's. */
const inRecord = (column: KeyColumn): KeyColumn => {
  if (column.type !== "Int64") return column
  const buffer = new ArrayBuffer(4_096)
  const values = new BigInt64Array(buffer, 64, column.count)
  values.set(column.values)
  return { ...column, values }
}

const vectorLike = (random: RandomSource, dimension: number) =>
  Float32Array.from({ length: dimension }, () => random.below(2_000) / 1_000 - 1)

const check = (growing: Growing, model: Model, lsn: number, keys: ReadonlyArray<Key>, random: RandomSource) => {
  const { dimension, metric } = growing
  const seen = model.visible(lsn)
  assert.deepStrictEqual(
    growing.segments.map(({ from, to }) => [from, to]),
    model.segments.map(({ from, to }) => [from, to])
  )
  assert.strictEqual(
    growing.segments.reduce((total, segment) => total + segment.count(lsn), 0),
    seen.length,
    `rows seen at ${lsn}`
  )
  for (const key of keys) {
    const found = growing.find(key, lsn)
    const expected = seen.filter((row) => row.key === key)
    assert.isAtMost(expected.length, 1, "the model sees one version at most")
    assert.strictEqual(found === undefined ? 0 : 1, expected.length, `${key} at ${lsn}`)
    if (found === undefined) continue
    const { row, segment } = found
    assert.strictEqual(segment.key(row), key)
    assert.strictEqual(segment.vector(row).length, dimension)
    assert.deepStrictEqual([...segment.vector(row).subarray(0, 20)], [...expected[0]!.vector.subarray(0, 20)])
    assert.deepStrictEqual(parseFields(segment.fields(row)), expected[0]!.fields)
    assert.isTrue(segment.visible(row, lsn))
  }

  const query = new Float32Array(dimension)
  query.set(vectorLike(random, Math.min(dimension, 20)))
  const k = 1 + random.below(8)
  const top = new TopK(k)
  let base = 0
  const owner: Array<readonly [number, GrowingSegment]> = []
  for (const segment of growing.segments) {
    owner.push([base, segment])
    for (let index = 0; index < segment.blocks.length; index++) segment.scan(index, query, lsn, base, top)
    base += segment.rows
  }
  const { ranks, rows } = top.finish()
  const nearest = seen
    .map(({ key, vector }) => ({ key, rank: rank(metric, query, 0, vector, 0, dimension) }))
    .sort((a, b) => a.rank - b.rank)
    .slice(0, k)
  assert.strictEqual(rows.length, nearest.length)
  nearest.forEach((expected, index) => assert.closeTo(ranks[index]!, expected.rank, 1e-5))
  rows.forEach((row, index) => {
    const [first, segment] = owner.findLast(([first]) => first <= row)!
    const key = segment.key(row - first)
    const row_ = seen.find((one) => one.key === key)
    assert.isDefined(row_, `${key} was hit and is not seen at ${lsn}`)
    assert.closeTo(rank(metric, query, 0, row_!.vector, 0, dimension), ranks[index]!, 1e-5)
  })
}

describe("growing rows", () => {
  it("are at every lsn those of a plain list, through overwrites, deletes, seals and adoptions", () => {
    forSeeds(70, (seed) => {
      const random = randomFrom(seed)
      const type = random.pick(["Int64", "VarChar"] as const)
      // A dimension so large that few rows fill a block, now and then.
      const dimension = random.chance(0.1) ? 100_000 : random.pick([1, 3, 8, 17])
      const metric = random.pick(metrics)
      const growing = new Growing(dimension, metric, 0)
      const model = new Model()
      const all = Array.from({ length: 12 }, (_, n) => keyOf(type, n))
      let lsn = 0
      let flushedTo = 0
      const operations = dimension > 1_000 ? 8 : 60
      for (let i = 0; i < operations; i++) {
        const timestamp = BigInt(1_000 + lsn * 3)
        const kind = random.below(10)
        if (kind < 6) {
          lsn++
          // One record holds entries of several requests.
          for (let entries = 1 + random.below(2); entries > 0; entries--) {
            if (random.chance(0.3)) {
              const keys = Array.from({ length: 1 + random.below(4) }, () => random.pick(all))
              growing.remove(inRecord(keyColumn(type, keys)), lsn)
              for (const key of keys) model.hide(key, lsn)
              continue
            }
            const count = 1 + random.below(5)
            const keys = Array.from({ length: count }, () => random.pick(all))
            const vectors = new Float32Array(count * dimension)
            for (let row = 0; row < count; row++)
              vectors.set(vectorLike(random, Math.min(dimension, 20)), row * dimension)
            const fields = keys.map(() => random.pick([{}, { a: random.below(9) }]))
            const column = inRecord(keyColumn(type, keys))
            const record = { keys: ownKeys(column), dimension, vectors: vectors.slice(), fields: fieldColumn(fields) }
            growing.upsert(record, lsn, timestamp)
            keys.forEach((key, row) =>
              model.upsert({
                key,
                vector: vectors.slice(row * dimension, (row + 1) * dimension),
                fields: fields[row]!,
                lsn,
                timestamp
              })
            )
            // The record's bytes are used again for something else: what grows must not notice.
            if (column.type === "Int64") column.values.fill(-77n)
            record.vectors.fill(7)
            record.fields?.bytes.fill(0)
          }
        } else if (kind < 8) {
          assert.strictEqual(growing.seal(lsn) !== undefined, model.seal(lsn))
        } else if (random.chance(0.5)) {
          // A manifest is adopted: of one or more sealed segments.
          const sealed = model.segments.filter(({ to }) => to < Infinity)
          if (sealed.length > 0) flushedTo = random.pick(sealed).to
          growing.drop(flushedTo)
          model.drop(flushedTo)
        }
        // Reads below what was adopted are for the sealed segments.
        check(growing, model, flushedTo + random.below(lsn - flushedTo + 2), all, random)
      }
      for (let at = flushedTo; at <= lsn; at++) check(growing, model, at, all, random)
      assert.strictEqual(growing.rows, model.rows.length)
      assert.isAtLeast(growing.bytes, model.rows.length * (dimension * 4 + 4))
    })
  })

  it("are sealed with every version, in the order of the log", () => {
    forSeeds(30, (seed) => {
      const random = randomFrom(seed)
      const type = random.pick(["Int64", "VarChar"] as const)
      const dimension = random.pick([2, 60_000])
      const growing = new Growing(dimension, "L2", 0)
      const written: Array<{ key: Key; timestamp: Timestamp; first: number; fields: unknown }> = []
      for (let lsn = 1; lsn <= 4; lsn++) {
        const keys = Array.from({ length: 1 + random.below(4) }, () => keyOf(type, random.below(5)))
        const fields = keys.map(() => random.pick([{}, { a: random.below(9) }]))
        const vectors = new Float32Array(keys.length * dimension)
        keys.forEach((_, row) => (vectors[row * dimension] = random.below(100)))
        growing.upsert(
          { keys: keyColumn(type, keys), dimension, vectors, fields: fieldColumn(fields) },
          lsn,
          BigInt(lsn)
        )
        keys.forEach((key, row) =>
          written.push({ key, timestamp: BigInt(lsn), first: vectors[row * dimension]!, fields: fields[row]! })
        )
      }
      const sealed = growing.seal(4)!
      const columns = sealed.columns(type)
      // Of one key in one record the last: the others are seen by no read.
      const kept = written.filter(
        ({ key, timestamp }, i) => !written.slice(i + 1).some((one) => one.key === key && one.timestamp === timestamp)
      )
      assert.deepStrictEqual(
        keysOf(columns.keys),
        kept.map(({ key }) => key)
      )
      assert.deepStrictEqual(
        [...columns.timestamps],
        kept.map(({ timestamp }) => timestamp)
      )
      kept.forEach(({ fields, first }, row) => {
        const block = columns.vectorBlocks[Math.floor(row / columns.rowsPerBlock)]!
        assert.strictEqual(block[(row % columns.rowsPerBlock) * dimension], first)
        assert.deepStrictEqual(parseFields(fieldBytesAt(columns.fields, row)), fields)
      })
      assert.deepStrictEqual(
        [...sealed.keyColumns()].flatMap(keysOf),
        written.map(({ key }) => key)
      )
    })
  })

  it("that were adopted are let go of, also where newer versions point back at them", async () => {
    const { setFlagsFromString } = await import("node:v8")
    const { runInNewContext } = await import("node:vm")
    setFlagsFromString("--expose-gc")
    const collect = runInNewContext("gc") as () => void
    const growing = new Growing(4, "L2", 0)
    const write = (lsn: number) =>
      growing.upsert(
        { keys: keyColumn("Int64", [1, 2]), dimension: 4, vectors: new Float32Array(8), fields: undefined },
        lsn,
        BigInt(lsn)
      )
    const sealed: Array<WeakRef<GrowingSegment>> = []
    for (let lsn = 1; lsn <= 5; lsn++) {
      write(lsn)
      sealed.push(new WeakRef(growing.seal(lsn)!))
    }
    write(6)
    growing.drop(4)
    for (let i = 0; i < 20 && sealed.slice(0, 4).some((one) => one.deref() !== undefined); i++) {
      await new Promise((resolve) => setImmediate(resolve))
      collect()
    }
    assert.deepStrictEqual(
      sealed.map((one) => one.deref() !== undefined),
      [false, false, false, false, true]
    )
    assert.isDefined(growing.find(1, 5))
    assert.isDefined(growing.find(1, 6))
  })
})

// ---- tail keys

describe("tail keys", () => {
  it("are those above the flushed lsn, in order, with the time from which they hide", () => {
    forSeeds(150, (seed) => {
      const random = randomFrom(seed)
      const type = random.pick(["Int64", "VarChar"] as const)
      const tail = new Tail(0)
      let model: Array<{ readonly lsn: number; readonly key: Key; readonly timestamp: bigint }> = []
      let lsn = 0
      let base = 0
      for (let i = 0; i < 40; i++) {
        if (random.chance(0.7)) {
          // Records that have nothing for this shard leave their lsn out; some have several entries.
          lsn += random.below(3)
          if (lsn <= base) lsn = base + 1
          const keys = Array.from({ length: random.below(4) }, () => keyOf(type, random.below(20)))
          const timestamp = BigInt(lsn) * 10n
          tail.add({ lsn, timestamp, keys: keyColumn(type, keys), kind: random.pick(["Upsert", "Delete"] as const) })
          for (const key of keys) model.push({ lsn, key, timestamp })
        } else if (random.chance(0.3)) {
          const flushedTo = random.below(lsn + 1)
          tail.drop(flushedTo)
          base = Math.max(base, flushedTo)
          model = model.filter((one) => one.lsn > base)
        }
        assert.strictEqual(tail.base, base)
        assert.strictEqual(tail.keys, model.length)
        const after = base + random.below(lsn - base + 2)
        const upTo = after + random.below(10)
        const odd = (hash: number) => hash % 2 === 1
        for (const mayHold of [() => true, odd, () => false]) {
          const parts = tail.keysFor(type, after, upTo, mayHold)
          assert.strictEqual(parts.length, 1)
          const { keys, timestamps, ...range } = parts[0]!
          const expected = model.filter((one) => one.lsn > after && one.lsn <= upTo && mayHold(hashKey(one.key)))
          assert.deepStrictEqual(range, { after, upTo })
          assert.deepStrictEqual(
            keysOf(keys),
            expected.map(({ key }) => key)
          )
          assert.deepStrictEqual(
            [...timestamps],
            expected.map(({ timestamp }) => timestamp)
          )
        }
        assert.deepStrictEqual(
          tail.between(after, upTo).flatMap(({ keys }) => keysOf(keys)),
          model.filter((one) => one.lsn > after && one.lsn <= upTo).map(({ key }) => key)
        )
      }
    })
  })
})

// ---- requests

describe("requests", () => {
  it("are remembered as long as they are young, and never forgotten above the floor", () => {
    forSeeds(50, (seed) => {
      const random = randomFrom(seed)
      const requests = new Requests(0n)
      const model: Array<{ readonly shard: string; readonly id: RequestId; readonly lsn: number; timestamp: bigint }> =
        []
      let nowMs = 1_700_000_000_000
      let floor = 0n
      for (let i = 0; i < 60; i++) {
        nowMs += random.pick([1, 1_000, 60_000])
        const timestamp = fromMillis(nowMs)
        if (random.chance(0.7)) {
          const shard = random.pick(["a/0", "a/1", "b/0"])
          const id = {
            issued: fromMillis(nowMs - random.below(2 * limits.dedupeAgeMs)),
            unique: BigInt(random.below(1_000))
          }
          if (id.issued < floor) continue // an owner answers it without applying it
          requests.remember(shard, id, { timestamp, lsn: i })
          const again = model.findIndex(
            (one) => one.shard === shard && one.id.issued === id.issued && one.id.unique === id.unique
          )
          if (again >= 0) model.splice(again, 1)
          model.push({ shard, id, lsn: i, timestamp })
        } else {
          const durable = random.chance(0.2) ? fromMillis(nowMs - random.below(limits.dedupeAgeMs)) : 0n
          requests.advance(timestamp, durable)
          const byAge = fromMillis(nowMs - limits.dedupeAgeMs)
          for (const each of [durable, byAge]) if (each > floor) floor = each
        }
        assert.strictEqual(requests.floor, floor)
        for (const { id, lsn, shard, timestamp } of model) {
          const found = requests.find(shard, id)
          if (id.issued >= floor) assert.deepInclude(found, { lsn, timestamp })
          else if (found !== undefined) assert.deepInclude(found, { lsn, timestamp })
          assert.isUndefined(requests.find(shard, { ...id, unique: 5_000n }))
          assert.isUndefined(requests.find("c/0", id))
        }
        const [from, to] = [random.below(60), random.below(60)]
        for (const shard of ["a/0", "a/1", "b/0", "c/0"]) {
          const young = (one: { readonly id: RequestId }) => one.id.issued >= floor
          assert.sameDeepMembers(
            requests
              .of(shard, from, to)
              .filter(young)
              .map(({ id, lsn }) => ({ id, lsn })),
            model
              .filter((one) => one.shard === shard && one.lsn > from && one.lsn <= to && young(one))
              .map(({ id, lsn }) => ({ id, lsn }))
          )
        }
      }
    })
  })

  it("are looked through seldom, and not for every record", () => {
    const requests = new Requests(0n)
    const start = 1_700_000_000_000
    const count = 10_000
    let looks = 0
    for (let i = 0; i < count; i++) {
      const issued = fromMillis(start + i)
      const id = {
        get issued() {
          looks++
          return issued
        },
        unique: BigInt(i)
      }
      requests.remember("a/0", id, { timestamp: 1n, lsn: i })
    }
    looks = 0
    // Ten seconds of a channel with a record each millisecond.
    for (let i = 0; i < 10_000; i++) requests.advance(fromMillis(start + limits.dedupeAgeMs + i), 0n)
    assert.isBelow(looks, 10 * count)
    assert.isUndefined(requests.find("a/0", { issued: fromMillis(start), unique: 0n }))
    assert.isDefined(requests.find("a/0", { issued: fromMillis(start + 9_999), unique: 9_999n }))
  })
})

describe("an owner", () => {
  it("seals behind a record, and not between two of its entries", () => {
    // One row fills a segment.
    const owner = ownerOf(1n, checkpointZero, { ...defaultSettings, segmentBytesMax: 8 })
    for (const lsn of [1, 2]) owner.apply(recordOf(1n, lsn, [10 * lsn, 10 * lsn + 1]), lsn, 0)
    const [shard] = owner.shards.values()
    const units = shard!.growing.segments.map(({ from, rows, to }) => ({ from, to, rows }))
    assert.deepStrictEqual(units, [
      { from: 0, to: 1, rows: 2 },
      { from: 1, to: 2, rows: 2 },
      { from: 2, to: Infinity, rows: 0 }
    ])
  })

  it("tells whose a record was, also below its checkpoint", () => {
    const first = ownerOf(30n, checkpointZero)
    // The third owner began where the log of the first had gone on, and lost that.
    for (const [epoch, lsn] of [
      [10n, 1],
      [10n, 2],
      [20n, 3],
      [30n, 4],
      [30n, 5]
    ] as const) {
      first.apply(recordOf(epoch, lsn, [lsn]), lsn, 0)
    }
    const known = (owner: Owner) =>
      (
        [
          [10n, 2],
          [10n, 3],
          [20n, 3],
          [10n, 4],
          [20n, 4],
          [30n, 5],
          [30n, 6],
          [0n, 0]
        ] as const
      ).map(([knownEpoch, knownLsn]) => owner.lost({ knownEpoch, knownLsn }) === undefined)
    const said = [true, false, true, false, false, true, false, true]
    assert.deepStrictEqual(known(first), said)
    const place = first.place(4)!
    const later = ownerOf(40n, { ...checkpointZero, ...place, epochs: first.epochs.upTo(4) })
    later.apply(recordOf(30n, 5, [5]), 5, 0)
    assert.deepStrictEqual(known(later), said)
    // One that was saved before the third began says nothing of it.
    assert.deepStrictEqual(first.epochs.upTo(3), [
      { epoch: 10n, from: 1 },
      { epoch: 20n, from: 3 }
    ])
  })

  it("compares nothing with what was so many owners ago", () => {
    const owner = ownerOf(40n, checkpointZero)
    for (let lsn = 1; lsn <= 40; lsn++) owner.apply(recordOf(BigInt(lsn), lsn, []), lsn, 0)
    assert.strictEqual(owner.epochs.upTo(40).length, 32)
    assert.isUndefined(owner.lost({ knownEpoch: 1n, knownLsn: 2 }))
    assert.isDefined(owner.lost({ knownEpoch: 1n, knownLsn: 9 }))
  })

  it("hears from a query node of a record that its log lost", async () => {
    const owner = ownerOf(20n, checkpointZero)
    owner.apply(recordOf(10n, 1, [1]), 1, 0)
    owner.apply(recordOf(20n, 2, []), 2, 0)
    const [shard] = owner.shards.values()
    const handed = (knownEpoch: bigint, knownLsn: number) => {
      const loaded = { id: "s", state: "loaded", applied: 2, knownEpoch, knownLsn, indexed: true, detail: "" }
      const queryNodes = { call: () => Effect.succeed({ segments: [loaded] }) } as unknown as QueryNodes
      return Effect.runPromise(handOff(queryNodes, owner, shard!))
    }
    assert.strictEqual(await handed(10n, 1), "adopted")
    assert.isUndefined(owner.behind)
    // The log is as long as what the node knows, and its last record is another one.
    assert.match(await handed(10n, 2), /record 2 of epoch 10 was acknowledged, and the log has one of epoch 20 there/)
    assert.isDefined(owner.behind)
  })

  it("adopts no manifest that ends within what it holds as one", async () => {
    const manifest = { ...emptyManifest("c", 0), segments: [{ id: "s" }] as never }
    const owner = ownerOf(20n, checkpointZero, defaultSettings, () => manifest)
    owner.apply(recordOf(20n, 1, [1]), 1, 0)
    owner.apply(recordOf(20n, 2, [2]), 2, 0)
    const [shard] = owner.shards.values()
    // By our own last activation, say, which knew one record less.
    Object.assign(manifest, { version: 1, flushedTo: 1, flushedEpoch: 20n })
    const nobody = { call: () => assert.fail("nobody loads it") } as unknown as QueryNodes
    assert.match(await Effect.runPromise(handOff(nobody, owner, shard!)), /flushed by an earlier owner/)
    assert.isUndefined(shard!.view)
  })

  it("finds a flush of a record that its log lost, whatever took its place", async () => {
    const manifest = { ...emptyManifest("c", 0), segments: [{ id: "s" }] as never }
    const owner = ownerOf(20n, checkpointZero, defaultSettings, () => manifest)
    owner.apply(recordOf(20n, 1, []), 1, 0)
    owner.apply(recordOf(20n, 2, [1]), 2, 0)
    assert.isDefined(owner.nextCheckpoint())
    // Committed after the fence, by the owner before: its record 2 is not ours.
    Object.assign(manifest, { version: 1, flushedTo: 2, flushedEpoch: 10n })
    assert.isUndefined(owner.nextCheckpoint())
    const nobody = { call: () => assert.fail("nobody loads it") } as unknown as QueryNodes
    const [shard] = owner.shards.values()
    const said = await Effect.runPromise(handOff(nobody, owner, shard!))
    assert.match(said, /record 2 of epoch 10 was flushed, and the log has one of epoch 20 there/)
    assert.strictEqual(owner.behind, said)
    Object.assign(manifest, { flushedEpoch: 20n })
    assert.isDefined(owner.nextCheckpoint())
    Object.assign(manifest, { flushedTo: 3 })
    assert.match(owner.lostFlush(manifest) ?? "", /record 3 was flushed, and the log ends at 2/)
  })
})

const ownerOf = (
  epoch: bigint,
  checkpoint: Checkpoint,
  settings: Settings = defaultSettings,
  manifest = () => ({ ...emptyManifest("c", 0), segments: [{ id: "s" }] as never })
): Owner => {
  const collection = collectionOf("c")
  return new Owner({
    node: "n",
    who: { channel: 0, epoch, nonce: 1n },
    settings,
    sites: Sites.defaultValue(),
    catalog: {
      collection: () => collection,
      manifest,
      placement: () => ({ nodes: { s: "q" } })
    } as unknown as Catalog["Service"],
    changed: makeSignal(),
    chain: new Chain(checkpoint),
    stamps: new Stamps(0n, 0n),
    requests: new Requests(0n),
    checkpoint,
    keyRevision: 1
  })
}

const recordOf = (epoch: bigint, lsn: number, keys: ReadonlyArray<number>): LogRecord => {
  const header = { channel: 0, epoch, incarnation: 1, lsn, previous: 0n, timestamp: BigInt(lsn), floor: 0n, nonce: 1n }
  const entries = keys.map((key): Entry => ({
    collection: "c",
    shard: 0,
    schema: 1,
    request: { issued: 1n, unique: BigInt(key) },
    body: {
      _tag: "Upsert",
      rows: { keys: keyColumn("Int64", [key]), dimension: 2, vectors: Float32Array.of(1, 2), fields: undefined }
    }
  }))
  return { header: { ...header, kind: keys.length === 0 ? "fence" : "rows" }, entries, hash: BigInt(lsn) }
}

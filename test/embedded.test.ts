/**
 * The library on a directory of its own: what a program that embeds Elanus relies on. The same actors as on NATS, so
 * this is also where the behaviour of a database is asked for, from growing and from sealed data.
 */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { Shard } from "../actors/streaming-node/shard.ts"
import { WriteQueue } from "../actors/streaming-node/writer.ts"
import { limits } from "../protocols/limits.ts"
import { type Elanus, open } from "../runtime/elanus.ts"
import { randomFrom } from "./support/random.ts"
import { makeWorkload } from "./support/workload.ts"

let directory: string
let db: Elanus
const settings = { segmentBytesMax: 16 * 1024, indexRowsMin: 100 }
const reopen = async () => {
  await db.close()
  db = await open({ directory, settings })
}
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "elanus-embedded-"))
  db = await open({ directory, settings })
})
afterEach(async () => {
  await db.close()
  await rm(directory, { recursive: true, force: true })
})

describe("an embedded database", () => {
  it("gives fields back as they went in, growing, sealed, and after a restart", async () => {
    const fields = {
      nothing: null,
      yes: true,
      no: false,
      integer: 42,
      negative: -7,
      large: 9007199254740991,
      double: 1.5,
      tiny: 5e-324,
      huge: 1.7976931348623157e308,
      text: 'Łódź 日本 🪁 \u0000 " \\',
      empty: "",
      list: [1, "two", null, [3, [4]], {}],
      nested: { a: { b: { c: [true, { d: null }] } }, "odd key. with >*": 1 }
    }
    const rows = await db.createCollection("rows", { dimension: 2, metric: "L2" })
    await rows.insert([
      { id: 1, vector: [0.1, -0], ...fields },
      { id: "-9223372036854775808", vector: [1, 1] },
      { id: 9223372036854775807n, vector: [2, 2], only: "here" }
    ])
    const check = async () => {
      const found = await rows.get([1, -9223372036854775808n, "9223372036854775807"])
      expect(found.map(({ id }) => id)).toEqual([1, -9223372036854775808n, 9223372036854775807n])
      expect(found[0]!.fields).toEqual(fields)
      expect(found[0]!.vector).toEqual(Float32Array.of(0.1, -0))
      expect(found[1]!.fields).toEqual({})
      const [nearest] = await rows.search([2, 2], { limit: 1, outputFields: ["only", "text"] })
      expect(nearest).toMatchObject({ id: 9223372036854775807n, distance: 0, fields: { only: "here" } })
    }
    await check()
    await rows.flush()
    await check()
    expect((await rows.stats()).growingRows).toBe(0)
    await db.close()
    db = await open({ directory, settings })
    const again = db.collection("rows")
    expect((await again.get(1))[0]!.fields).toEqual(fields)
  })

  it.each(["L2", "IP", "COSINE"] as const)(
    "searches by %s as a brute force would, on any mix of growing and sealed",
    async (metric) => {
      const random = randomFrom(5)
      const dimension = 12
      const rows = await db.createCollection("rows", { dimension, metric, shards: 3, idType: "VarChar" })
      const model = new Map<string, Float32Array>()
      const vectorOf = () => Float32Array.from({ length: dimension }, () => random.below(2_000) / 1_000 - 1)
      for (let round = 0; round < 4; round++) {
        const batch = Array.from({ length: 150 }, () => ({ id: `k${random.below(400)}`, vector: vectorOf() }))
        await rows.upsert(batch)
        for (const { id, vector } of batch) model.set(id, vector)
        if (round < 3) await rows.flush()
      }
      await rows.upsert([{ id: "zero", vector: new Float32Array(dimension) }])
      model.set("zero", new Float32Array(dimension))
      const score = (a: Float32Array, b: Float32Array) => {
        let dot = 0
        let square = 0
        let aa = 0
        let bb = 0
        for (let d = 0; d < dimension; d++) {
          dot += a[d]! * b[d]!
          square += (a[d]! - b[d]!) ** 2
          aa += a[d]! ** 2
          bb += b[d]! ** 2
        }
        if (metric === "L2") return square
        return metric === "IP" ? dot : aa === 0 || bb === 0 ? 0 : dot / Math.sqrt(aa * bb)
      }
      const queries = Array.from({ length: 20 }, vectorOf)
      const lists = await rows.search(queries, { limit: 10, ef: 400 })
      lists.forEach((hits, q) => {
        const exact = [...model.values()]
          .map((vector) => score(queries[q]!, vector))
          .toSorted((a, b) => (metric === "L2" ? a - b : b - a))
        expect(hits).toHaveLength(10)
        hits.forEach(({ distance, id }, i) => {
          expect(distance).toBeCloseTo(score(queries[q]!, model.get(id as string)!), 4)
          expect(distance).toBeCloseTo(exact[i]!, 4)
        })
      })
      expect(await rows.count()).toBe(model.size)
      const all = await rows.search(queries[0]!, { limit: 1_000, ef: 1_000 })
      expect(all).toHaveLength(model.size)
      const behind = await rows.search(queries[0]!, { limit: 5, offset: 7, ef: 1_000 })
      expect(behind.map(({ id }) => id)).toEqual(all.slice(7, 12).map(({ id }) => id))
    }
  )

  it("agrees with a model through writes, deletes, flushes and restarts", async () => {
    for (const [name, shards, idType] of [
      ["one", 1, "Int64"],
      ["many", 16, "VarChar"]
    ] as const) {
      const load = await makeWorkload(db, { name, seed: shards, shards, dimension: 6, idType, timeoutMs: 20_000 })
      let steps = 0
      await load.run(() => ++steps > 60)
      await db.collection(name).flush({ timeoutMs: 20_000 })
      await load.audit()
    }
    await reopen()
    expect(await db.listCollections()).toEqual(["many", "one"])
  })

  it("keeps what stood when it was written and deleted in one breath", async () => {
    const rows = await db.createCollection("rows", { dimension: 2, metric: "L2" })
    // Sent without waiting, so that many of them share a record of the log; which of one key comes last is not said.
    const all = Array.from({ length: 200 }, (_, id) => [
      rows.upsert([{ id, vector: [id, 1], version: 1 }]),
      rows.upsert([{ id, vector: [id, 2], version: 2 }]),
      id % 2 === 0 ? rows.delete(id) : rows.upsert([{ id, vector: [id, 3], version: 3 }])
    ])
    await Promise.all(all.flat())
    const standing = async () => {
      const found = await rows.get(Array.from({ length: 200 }, (_, id) => id))
      expect(await rows.count()).toBe(found.length)
      expect(await rows.search([0, 0], { limit: 300 })).toHaveLength(found.length)
      return found.map(({ fields, id }) => [id, fields["version"]])
    }
    const before = await standing()
    expect(before.length).toBeLessThan(200)
    await rows.flush()
    expect(await standing()).toEqual(before)
    await rows.upsert([{ id: 0, vector: [0, 0], version: 3 }])
    await rows.delete([0, 1])
    await rows.flush()
    expect(await standing()).toEqual(before.filter(([id]) => Number(id) > 1))
  })

  it("reads right after more keys were overwritten than one message holds", async () => {
    await db.close()
    db = await open({ directory })
    const rows = await db.createCollection("rows", { dimension: 2, metric: "L2" })
    const count = 120_000
    const put = (shift: number) =>
      rows.upsert({
        ids: BigInt64Array.from({ length: count }, (_, i) => BigInt(i)),
        vectors: Float32Array.from({ length: count * 2 }, (_, i) => (i % 2 === 0 ? i / 2 + shift : 0))
      })
    await put(0)
    await rows.flush({ timeoutMs: 60_000 })
    await put(0.5)
    expect(await rows.count()).toBe(count)
    expect((await rows.search([7, 0], { limit: 1 }))[0]!.distance).toBeCloseTo(0.25)
  })

  it("refuses a request of which one shard's part fits nowhere, and stores none of it", async () => {
    const rows = await db.createCollection("rows", { dimension: 32_768, metric: "L2", shards: 2 })
    const vector = Array.from({ length: 32_768 }, () => 1)
    const data = Array.from({ length: 12 }, (_, id) => ({ id, vector }))
    await expect(db.request("rows", "insert", { data })).rejects.toMatchObject({ code: "too-large", retry: false })
    expect(await rows.count()).toBe(0)
  })

  it("reads at an earlier answer's time, over seals", async () => {
    const rows = await db.createCollection("rows", { dimension: 1, metric: "L2" })
    const times: Array<bigint> = []
    for (let i = 0; i < 5; i++) {
      await rows.upsert([
        { id: 1, vector: [i], n: i },
        { id: 100 + i, vector: [i] }
      ])
      if (i === 3) await rows.delete(100)
      times.push(db.timestamp())
      if (i % 2 === 0) await rows.flush()
    }
    for (const [i, at] of times.entries()) {
      expect((await rows.get(1, { at }))[0]!.fields).toEqual({ n: i })
      expect(await rows.count({ at })).toBe(i < 3 ? i + 2 : i + 1)
      const hits = await rows.search([0], { at, limit: 100 })
      expect(hits).toHaveLength(i < 3 ? i + 2 : i + 1)
    }
    await expect(rows.count({ at: db.timestamp() + (1n << 40n) })).rejects.toMatchObject({ code: "bad-timestamp" })
  })

  it("goes on from no record that it applied half of: it stops, says so, and has all of it when it is opened again", async () => {
    const rows = await db.createCollection("rows", { dimension: 2, metric: "L2" })
    const row = (id: number) => ({ id, vector: [id, 1] })
    await rows.insert([row(1)])
    const apply = vi.spyOn(Shard.prototype, "apply").mockImplementationOnce(() => {
      throw new TypeError("a bug of ours")
    })
    await expect(rows.insert([row(2)], { timeoutMs: 500 })).rejects.toMatchObject({ code: "ambiguous" })
    const ended = { code: "damaged", message: expect.stringMatching(/record \d+ cannot be applied: .*a bug of ours/) }
    await expect(rows.insert([row(3)])).rejects.toMatchObject(ended)
    await expect(rows.count({ consistency: "Strong" })).rejects.toMatchObject(ended)
    apply.mockRestore()
    await reopen()
    expect(await db.collection("rows").count({ consistency: "Strong" })).toBe(2)
  })

  it("refuses what the log can take no longer, and goes on: several that are too large together go one by one", async () => {
    const rows = await db.createCollection("rows", { dimension: 100, metric: "L2" })
    const rowsFrom = (first: number, count: number) => ({
      ids: Array.from({ length: count }, (_, i) => first + i),
      vectors: new Float32Array(count * 100)
    })
    // As a server does that takes less after a reconnect: what was let in before finds it so.
    const { recordBytesMax } = limits
    const shrink = () => Object.assign(limits, { recordBytesMax: 2_000 })
    const add = WriteQueue.prototype.add
    const adding = vi.spyOn(WriteQueue.prototype, "add").mockImplementation(function (this: WriteQueue, pending) {
      shrink()
      add.call(this, pending)
    })
    try {
      await expect(rows.insert(rowsFrom(100, 20))).rejects.toMatchObject({ code: "too-large", retry: false })
      await Promise.all(Array.from({ length: 20 }, (_, id) => rows.insert(rowsFrom(id, 1))))
    } finally {
      adding.mockRestore()
      Object.assign(limits, { recordBytesMax })
    }
    expect(await rows.count({ consistency: "Strong" })).toBe(20)
    await reopen()
    expect(await db.collection("rows").count({ consistency: "Strong" })).toBe(20)
  })

  it("tells keys apart that differ by U+FEFF alone, growing and sealed", async () => {
    const rows = await db.createCollection("names", { dimension: 2, idType: "VarChar", metric: "L2" })
    const ids = ["abc", "\uFEFFabc", "zzz"]
    await rows.insert(ids.map((id, i) => ({ id, vector: [i, 0], "\uFEFFn": id })))
    for (const _ of ["growing", "sealed"]) {
      const found = await rows.get(ids)
      expect(found.map(({ id }) => id)).toEqual(ids)
      expect(found.map(({ fields }) => fields["\uFEFFn"])).toEqual(ids)
      expect((await rows.search([0, 0], { limit: 5 })).map(({ id }) => id)).toEqual(ids)
      await rows.flush()
    }
    for (const id of ["zzz", "\uFEFFabc"]) {
      await rows.delete(id)
      expect(await rows.get(id)).toEqual([])
    }
    expect(await rows.count()).toBe(1)
  })

  it("takes the largest vectors, and large inserts in parts", async () => {
    const wide = await db.createCollection("wide", { dimension: 32_768, metric: "IP" })
    const vector = Float32Array.from({ length: 32_768 }, (_, i) => i % 7)
    await wide.insert(Array.from({ length: 20 }, (_, id) => ({ id, vector: Array.from(vector), id2: id })))
    expect(await wide.count()).toBe(20)
    await wide.flush({ timeoutMs: 30_000 })
    expect((await wide.get(19))[0]!.vector).toEqual(vector)
    const many = await db.createCollection("many", { dimension: 4, metric: "L2" })
    const count = 60_000
    const written = await many.insert({
      ids: BigInt64Array.from({ length: count }, (_, i) => BigInt(i)),
      vectors: Float32Array.from({ length: count * 4 }, (_, i) => i)
    })
    expect(written.count).toBe(count)
    expect(await many.count()).toBe(count)
  })

  it("drops a collection with all that it stored, and a name can be used again", async () => {
    const rows = await db.createCollection("rows", { dimension: 2 })
    await rows.insert([{ id: 1, vector: [1, 2] }])
    await rows.flush()
    await rows.drop()
    await expect(db.collection("rows").count()).rejects.toMatchObject({ code: "collection-not-found" })
    const next = await db.createCollection("rows", { dimension: 3 })
    expect(await next.count()).toBe(0)
    await next.insert([{ id: 1, vector: [1, 2, 3] }])
    expect(await next.count()).toBe(1)
  })
})

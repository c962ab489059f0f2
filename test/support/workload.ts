/**
 * A client that never pauses and believes nothing: it owns a collection alone, so after every write it knows exactly
 * what must be there, and asks. Each of its checks throws with what it saw.
 */
import type { Collection, Elanus } from "../../runtime/elanus.ts"
import { randomFrom } from "./random.ts"

export interface WorkloadOptions {
  readonly name: string
  readonly seed: number
  readonly shards: number
  readonly dimension: number
  readonly idType: "Int64" | "VarChar"
  readonly timeoutMs: number
}

interface Version {
  readonly vector: Float32Array
  readonly fields: { readonly version: number; readonly nested: { readonly list: ReadonlyArray<unknown> } }
}

export interface Workload {
  readonly counts: { writes: number; rows: number; deletes: number; reads: number }
  /** Runs operations until `stop` says so; throws at the first answer that is wrong. */
  readonly run: (stop: () => boolean) => Promise<void>
  /** Compares everything, row by row. */
  readonly audit: () => Promise<void>
}

export const makeWorkload = async (db: Elanus, options: WorkloadOptions): Promise<Workload> => {
  const { dimension, idType, name, seed, shards, timeoutMs } = options
  const random = randomFrom(seed)
  /** From `low` to `high`, both of them too. */
  const between = (low: number, high: number) => low + random.below(high - low + 1)
  const model = new Map<number | string, Version>()
  const counts = { writes: 0, rows: 0, deletes: 0, reads: 0 }
  const patience = { timeoutMs }
  const collection: Collection = await db.createCollection(name, {
    dimension,
    metric: "L2",
    idType,
    shards,
    ...patience
  })
  let version = 0
  let nextKey = 0
  const keyOf = (n: number) => (idType === "Int64" ? n : `key-${n}`)
  const pickKeys = (most: number): Array<number | string> => {
    const all = [...model.keys()]
    const picked = new Set<number | string>()
    for (let i = 0; i < most && all.length > 0; i++) picked.add(all[between(0, all.length - 1)]!)
    return [...picked]
  }
  const fail = (what: string, ...saw: ReadonlyArray<unknown>): never => {
    throw new Error(`${name}: ${what}: ${JSON.stringify(saw)} after ${JSON.stringify(counts)}`)
  }

  const makeVersion = (): Version => ({
    vector: Float32Array.from({ length: dimension }, () => between(-1_000_000, 1_000_000) / 1_000),
    fields: { version: ++version, nested: { list: [1, 2.5, null, true, "x"] } }
  })

  const put = async (keys: ReadonlyArray<number | string>) => {
    if (keys.length === 0) return
    const made = keys.map((id) => [id, makeVersion()] as const)
    await collection.upsert(
      made.map(([id, { fields, vector }]) => ({ id, vector, ...fields })),
      patience
    )
    for (const [id, each] of made) model.set(id, each)
    counts.writes++
    counts.rows += keys.length
  }
  const remove = async (keys: ReadonlyArray<number | string>) => {
    await collection.delete(keys, patience)
    for (const key of keys) model.delete(key)
    counts.deletes += keys.length
  }

  const checkCount = async () => {
    const rows = await collection.count(patience)
    if (rows !== model.size) fail("count", { rows, expected: model.size })
  }
  const checkGet = async (keys: ReadonlyArray<number | string>) => {
    if (keys.length === 0) return
    const rows = await collection.get(keys, patience)
    const wanted = keys.filter((key) => model.has(key))
    if (rows.length !== wanted.length) fail("get", { got: rows.map(({ id }) => id), wanted })
    for (const { fields, id, vector } of rows) {
      const expected = model.get(id as number | string)
      if (expected === undefined) return fail("get found a deleted key", id)
      if (JSON.stringify(fields) !== JSON.stringify(expected.fields)) fail("get", id, fields, expected.fields)
      if (Buffer.compare(Buffer.from(vector!.buffer), Buffer.from(expected.vector.buffer)) !== 0) fail("vector", id)
    }
  }
  const checkSearch = async () => {
    const keys = pickKeys(2)
    if (keys.length === 0) return
    const queries = keys.map((key) => model.get(key)!.vector)
    const lists = await collection.search(queries, { limit: 10, ...patience })
    lists.forEach((hits, i) => {
      const ids = new Set(hits.map(({ id }) => id))
      if (ids.size !== hits.length) fail("a key twice", hits)
      if (hits.length !== Math.min(10, model.size)) fail("hits", { got: hits.length, live: model.size })
      if (hits[0]!.id !== keys[i] || hits[0]!.distance !== 0) fail("the row itself is not first", keys[i], hits)
      let before = -1
      for (const { distance, id } of hits) {
        const expected = model.get(id as number | string)
        if (expected === undefined) return fail("search found a deleted key", id)
        let exact = 0
        for (let d = 0; d < dimension; d++) exact += (expected.vector[d]! - queries[i]![d]!) ** 2
        if (Math.abs(exact - distance) > exact * 1e-5 + 1e-6) fail("distance", { id, distance, exact })
        if (distance < before) fail("order", hits)
        before = distance
      }
    })
  }

  const step = async () => {
    const dice = between(0, 99)
    if (dice < 45) await put(Array.from({ length: between(1, 40) }, () => keyOf(nextKey++)))
    else if (dice < 60) await put(pickKeys(between(1, 20)))
    else if (dice < 72) {
      const keys = pickKeys(between(1, 15))
      if (keys.length > 0) {
        await remove(keys)
        await checkGet(keys)
        // A key that comes back is another row.
        if (between(0, 3) === 0) await put(keys.slice(0, 2))
      }
    }
    counts.reads++
    if (dice % 3 === 0) await checkCount()
    else if (dice % 3 === 1) await checkSearch()
    else await checkGet(pickKeys(10))
  }

  return {
    counts,
    run: async (stop) => {
      while (!stop()) await step()
    },
    audit: async () => {
      await checkCount()
      const all = Array.from({ length: nextKey }, (_, n) => keyOf(n))
      for (let from = 0; from < all.length; from += 1_000) await checkGet(all.slice(from, from + 1_000))
      for (let i = 0; i < 20; i++) await checkSearch()
    }
  }
}

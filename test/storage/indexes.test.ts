/** The graph against the scan: same ranks, nearly the same rows, nothing hidden, nothing damaged. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import { limits } from "../../protocols/limits.ts"
import { type Metric, metrics, rank } from "../../storage/distance.ts"
import { joined } from "../../storage/framed-file.ts"
import { encodeIndex, hnswlib } from "../../storage/index-file.ts"
import { flatIndex } from "../../storage/index-flat.ts"
import { buildHnsw, layerHnsw } from "../../storage/index-hnsw.ts"
import { VectorIndexes } from "../../storage/index.ts"
import { randomOf } from "./random.ts"

const DIMENSION = 16
const ROWS = 2_000
let folder = ""

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "elanus-indexes-"))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const random = randomOf("indexes")
const vectors = Float32Array.from({ length: ROWS * DIMENSION }, random.gaussian)
vectors.fill(0, 5 * DIMENSION, 6 * DIMENSION) // one zero vector: COSINE must live with it
const queries = Array.from({ length: 50 }, () => Float32Array.from({ length: DIMENSION }, random.gaussian))
const factsOf = (metric: Metric) => ({ metric, dimension: DIMENSION, count: ROWS, M: 16, efConstruction: 100 })

const files = new Map<Metric, Uint8Array>()
const fileOf = (metric: Metric): Uint8Array => {
  const known = files.get(metric)
  if (known !== undefined) return known
  const facts = factsOf(metric)
  const file = joined(encodeIndex(hnswlib, facts, buildHnsw(vectors, facts)))
  files.set(metric, file)
  return file
}

const load = (bytes: Uint8Array, own?: Float32Array) =>
  Effect.flatMap(VectorIndexes, (indexes) => indexes.load(bytes, own)).pipe(
    Effect.provide(layerHnsw({ directory: join(folder, "cache") }))
  )

describe("indexes", () => {
  for (const metric of metrics) {
    it.live(`the graph finds what the scan finds, with its ranks: ${metric}`, () =>
      Effect.gen(function* () {
        const graph = yield* load(fileOf(metric))
        const exact = yield* load(fileOf(metric), vectors)
        const flat = flatIndex(metric, DIMENSION, vectors)
        let found = 0
        for (const query of queries) {
          const expected = flat.search(query, 10, 0)
          const hits = graph.search(query, 10, 100)
          const same = exact.search(query, 10, 100)
          const wanted = new Set(Array.from(expected.rows))
          assert.strictEqual(hits.rows.length, 10)
          for (let i = 0; i < 10; i++) {
            const row = hits.rows[i]!
            if (wanted.has(row)) found++
            const truth = rank(metric, query, 0, vectors, row * DIMENSION, DIMENSION)
            assert.closeTo(hits.ranks[i]!, truth, 1e-5 * (1 + Math.abs(truth)), random.seed)
            assert.strictEqual(
              same.ranks[i],
              rank(metric, query, 0, vectors, same.rows[i]! * DIMENSION, DIMENSION),
              random.seed
            )
            if (i > 0) assert.isAtMost(hits.ranks[i - 1]!, hits.ranks[i]!)
          }
        }
        assert.isAbove(found / (queries.length * 10), 0.95, random.seed)
        graph.dispose()
        exact.dispose()
      })
    )
  }

  it.live("a hidden row is no answer, however near, in either index", () =>
    Effect.gen(function* () {
      for (const index of [yield* load(fileOf("L2")), flatIndex("L2", DIMENSION, vectors)]) {
        for (let row = 0; row < 100; row += 2) {
          index.hide(row)
          index.hide(row)
        }
        for (let row = 0; row < 100; row++) {
          const query = vectors.slice(row * DIMENSION, (row + 1) * DIMENSION)
          const { rows } = index.search(query, 5, 100)
          for (const found of Array.from(rows)) assert.isFalse(found < 100 && found % 2 === 0)
          if (row % 2 === 1) assert.strictEqual(rows[0], row)
        }
        assert.strictEqual(index.count, ROWS)
        index.dispose()
      }
    })
  )

  it.live("only allowed rows are answers", () =>
    Effect.gen(function* () {
      for (const index of [yield* load(fileOf("IP")), flatIndex("IP", DIMENSION, vectors)]) {
        const { rows } = index.search(queries[0]!, 20, 200, (row) => row % 3 === 0)
        assert.strictEqual(rows.length, 20)
        for (const row of Array.from(rows)) assert.strictEqual(row % 3, 0)
        assert.strictEqual(index.search(queries[0]!, 20, 200, () => false).rows.length, 0)
        index.dispose()
      }
    })
  )

  it.live("asked for more than there is, gives what there is", () =>
    Effect.gen(function* () {
      for (const count of [0, 1, 3]) {
        const few = vectors.slice(0, count * DIMENSION)
        const facts = { ...factsOf("L2"), count }
        const graph = yield* load(joined(encodeIndex(hnswlib, facts, buildHnsw(few, facts))), few)
        for (const index of [graph, flatIndex("L2", DIMENSION, few)]) {
          assert.strictEqual(index.search(queries[0]!, 10, 10).rows.length, count)
          for (let row = 0; row < count; row++) index.hide(row)
          assert.strictEqual(index.search(queries[0]!, 10, 10).rows.length, 0)
        }
      }
    })
  )

  it.live("equal ranks are ordered by row", () =>
    Effect.gen(function* () {
      const same = new Float32Array(40 * DIMENSION).fill(1)
      const facts = { ...factsOf("L2"), count: 40 }
      const graph = yield* load(joined(encodeIndex(hnswlib, facts, buildHnsw(same, facts))), same)
      for (const index of [graph, flatIndex("L2", DIMENSION, same)]) {
        const rows = Array.from(index.search(queries[0]!, 40, 100).rows)
        assert.deepStrictEqual(
          rows,
          [...rows].sort((a, b) => a - b)
        )
      }
    })
  )

  it("a scan in slices is the same scan", () => {
    const dimension = 4_096
    const rows = Math.ceil((limits.sliceBytes / (dimension * 4)) * 2.5)
    const many = Float32Array.from({ length: rows * dimension }, (_, i) => (i * 2_654_435_761) % 1_000)
    const flat = flatIndex("L2", dimension, many)
    const query = many.slice(dimension, 2 * dimension)
    const slices = flat.searchSliced(query, 7, (row) => row !== 1)
    let pauses = 0
    let step = slices.next()
    for (; step.done !== true; step = slices.next()) pauses++
    assert.strictEqual(pauses, 2)
    assert.deepStrictEqual(
      step.value,
      flat.search(query, 7, 0, (row) => row !== 1)
    )
  })

  it("the same rows always give the same bytes", () => {
    const facts = { ...factsOf("COSINE"), count: 300 }
    const some = vectors.slice(0, 300 * DIMENSION)
    assert.isTrue(Buffer.from(buildHnsw(some, facts)).equals(buildHnsw(some, facts)))
  })

  it.live("a damaged file is never given to the engine, and nothing is left in the cache", () =>
    Effect.gen(function* () {
      const file = fileOf("L2")
      const reasonOf = (bytes: Uint8Array, own?: Float32Array) =>
        Effect.match(load(bytes, own), { onFailure: ({ reason }) => reason as string, onSuccess: () => "success" })
      for (let run = 0; run < 200; run++) {
        const wrong = file.slice()
        const bit = run < 64 ? run * 8 : random.below(file.length * 8)
        wrong[bit >> 3]! ^= 1 << (bit & 7)
        assert.strictEqual(yield* reasonOf(wrong), "damaged", `bit ${bit}`)
        assert.strictEqual(yield* reasonOf(file.subarray(0, random.below(file.length))), "damaged")
      }
      assert.strictEqual(yield* reasonOf(file, vectors.subarray(DIMENSION)), "damaged")
      const facts = { ...factsOf("L2"), count: ROWS + 1 }
      assert.strictEqual(yield* reasonOf(joined(encodeIndex(hnswlib, facts, file.slice(100)))), "damaged")
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(join(folder, "cache"))), [])
    })
  )
})

/**
 * The graph index of hnswlib: building one, and loading it to search. The only file that knows hnswlib-node, whose
 * distances (1 - dot for IP and COSINE) never leave it. It speaks only through files, so both ways make one and delete it.
 */
import { randomUUID } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as fs from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import hnswlib, { type HierarchicalNSW } from "hnswlib-node"
import { type Metric, rank } from "./distance.ts"
import { decodeIndexSliced, hnswlib as engine, type IndexBuilder, type IndexFacts } from "./index-file.ts"
import { type VectorIndex, VectorIndexes } from "./index.ts"
import { StorageError } from "./outcome.ts"

const spaces = { L2: "l2", IP: "ip", COSINE: "cosine" } as const

/** Levels are drawn from it: the same rows in the same order always give the same bytes. */
const SEED = 100

/**
 * hnswlib's bytes for these vectors, numbered as they lie. Blocks its thread: 10 s for 50,000 rows of 128 d. Throws
 * as soon as it is `stopped`, between two rows.
 */
export const buildHnsw = (
  vectors: Float32Array,
  facts: IndexFacts,
  directory = tmpdir(),
  stopped: () => boolean = () => false
): Uint8Array => {
  const { metric, dimension, count, M, efConstruction } = facts
  const index = new hnswlib.HierarchicalNSW(spaces[metric], dimension)
  index.initIndex(Math.max(1, count), M, efConstruction, SEED)
  const point = new Array<number>(dimension).fill(0.5)
  for (let row = 0, at = 0; row < count; row++) {
    if (stopped()) throw new Error("the build was stopped")
    for (let i = 0; i < dimension; i++) point[i] = vectors[at++]!
    index.addPoint(point, row)
  }
  const folder = mkdtempSync(join(directory, "elanus-index-"))
  try {
    const path = join(folder, "index")
    index.writeIndexSync(path)
    const file = readFileSync(path)
    const bytes = new Uint8Array(file.buffer, file.byteOffset, file.byteLength)
    engine.check(bytes, facts)
    return bytes
  } finally {
    rmSync(folder, { recursive: true, force: true })
    release(index)
  }
}

export const hnswBuilder = (stopped: () => boolean): IndexBuilder => ({
  engine,
  build: (vectors, facts, scratch) => buildHnsw(vectors, facts, scratch, stopped)
})

/** The engine frees a graph when it makes another; else it would wait for a garbage collector that does not see its size. */
const release = (index: HierarchicalNSW): void => index.initIndex(1, 2, 2)

/** Indexes that are loaded by way of files in `directory`, which is made if it is not there. */
export const layerHnsw = (options: { readonly directory: string }): Layer.Layer<VectorIndexes, StorageError> =>
  Layer.effect(
    VectorIndexes,
    Effect.gen(function* () {
      yield* attempt(() => fs.mkdir(options.directory, { recursive: true }))
      return VectorIndexes.of({
        load: Effect.fnUntraced(function* (bytes: Uint8Array, vectors?: Float32Array) {
          const { facts, body } = yield* inSlices(decodeIndexSliced(engine, bytes))
          if (vectors !== undefined && vectors.length !== facts.count * facts.dimension) {
            return yield* new StorageError({ reason: "damaged", detail: "the index is not one of these vectors" })
          }
          const index = new hnswlib.HierarchicalNSW(spaces[facts.metric], facts.dimension)
          yield* attempt(() => readThroughFile(index, options.directory, body))
          return hnswIndex(index, facts, vectors)
        })
      })
    })
  )

const readThroughFile = async (index: HierarchicalNSW, directory: string, body: Uint8Array): Promise<void> => {
  const path = join(directory, `index-${randomUUID()}`)
  try {
    await fs.writeFile(path, body, { flag: "wx" })
    await index.readIndex(path)
  } finally {
    await fs.rm(path, { force: true })
  }
}

/** Runs a generator that throws, with a turn of the event loop at every yield. */
const inSlices = Effect.fnUntraced(function* <A>(slices: Generator<void, A, void>) {
  const step = Effect.try({ try: () => slices.next(), catch: asStorageError })
  let next = yield* step
  while (next.done !== true) {
    yield* Effect.yieldNow
    next = yield* step
  }
  return next.value
})

const attempt = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: asStorageError })

const asStorageError = (cause: unknown): StorageError =>
  cause instanceof StorageError ? cause : new StorageError({ reason: "unavailable", detail: `index: ${String(cause)}` })

const hnswIndex = (index: HierarchicalNSW, facts: IndexFacts, vectors: Float32Array | undefined): VectorIndex => {
  const { metric, dimension, count } = facts
  const hidden = new Set<number>()
  // The engine takes number[] only. One array for all queries: filling it costs less than making one.
  const point = new Array<number>(dimension).fill(0.5)
  let lastEf = -1

  return {
    count,
    dimension,
    search: (query, k, ef, allowed) => {
      const wanted = Math.min(k, count - hidden.size)
      if (wanted <= 0) return { rows: [], ranks: [] }
      if (query.length !== dimension) throw new RangeError(`a query of ${query.length} dimensions, not ${dimension}`)
      if (ef !== lastEf) index.setEf((lastEf = ef))
      for (let i = 0; i < dimension; i++) point[i] = query[i]!
      const { distances, neighbors } = index.searchKnn(point, wanted, allowed)
      toRanks(metric, query, neighbors, distances, vectors)
      order(neighbors, distances)
      return { rows: neighbors, ranks: distances }
    },
    hide: (row) => {
      if (hidden.has(row)) return
      index.markDelete(row)
      hidden.add(row)
    },
    dispose: () => release(index)
  }
}

/** The engine's distances made ranks, where they are. */
const toRanks = (
  metric: Metric,
  query: Float32Array,
  rows: ReadonlyArray<number>,
  values: Array<number>,
  vectors: Float32Array | undefined
): void => {
  if (vectors !== undefined) {
    const dimension = query.length
    for (let i = 0; i < rows.length; i++) values[i] = rank(metric, query, 0, vectors, rows[i]! * dimension, dimension)
  } else if (metric !== "L2") {
    for (let i = 0; i < values.length; i++) values[i] = values[i]! - 1
  }
}

/** By insertion: they are in order already but for equal ones and last bits. */
const order = (rows: Array<number>, ranks: Array<number>): void => {
  for (let i = 1; i < rows.length; i++) {
    const row = rows[i]!
    const value = ranks[i]!
    let at = i
    for (; at > 0 && (ranks[at - 1]! > value || (ranks[at - 1] === value && rows[at - 1]! > row)); at--) {
      rows[at] = rows[at - 1]!
      ranks[at] = ranks[at - 1]!
    }
    rows[at] = row
    ranks[at] = value
  }
}

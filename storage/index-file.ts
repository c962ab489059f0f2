/**
 * A vector index as an object: a frame, what was built and how, and the engine's own bytes. It must not be handed
 * to the engine unless every bit is right: the engine believes what it reads.
 */
import { Reader, WireError, Writer } from "../protocols/wire.ts"
import { type Metric, metrics } from "./distance.ts"
import { decoding, type FrameKind, frame, toTheEnd, unframeSliced } from "./framed-file.ts"

export interface IndexFacts {
  readonly metric: Metric
  readonly dimension: number
  readonly count: number
  /** Neighbours of a node of the graph, and candidates while building: hnswlib's M and ef_construction. */
  readonly M: number
  readonly efConstruction: number
}

/** Whose bytes the body is. */
export interface Engine {
  readonly name: string
  /** Throws unless the body is what the facts say. */
  readonly check: (body: Uint8Array, facts: IndexFacts) => void
}

/** How an engine makes the body of these vectors, numbered as they lie. `scratch`: a folder for a file of its size. */
export interface IndexBuilder {
  readonly engine: Engine
  readonly build: (vectors: Float32Array, facts: IndexFacts, scratch: string | undefined) => Uint8Array
}

const kind: FrameKind = { magic: "ELANUSIX", version: 1, name: "index file" }

/** The object in parts laid end to end; `body` is the last one as it is. */
export const encodeIndex = (engine: Engine, facts: IndexFacts, body: Uint8Array): Array<Uint8Array> => {
  const writer = new Writer().text(engine.name).text(facts.metric).u32(facts.dimension).count(facts.count)
  writer.u32(facts.M).u32(facts.efConstruction).align()
  return frame(kind, [writer.finish(), body])
}

export interface DecodedIndex {
  readonly facts: IndexFacts
  /** The engine's own bytes, as a view. */
  readonly body: Uint8Array
}

/** Throws StorageError: "damaged", or "unfit" for a newer version. */
export const decodeIndex = (engine: Engine, bytes: Uint8Array): DecodedIndex =>
  toTheEnd(decodeIndexSliced(engine, bytes))

/** The same in slices: an index may be large, and its checksum long. The event loop may turn at every yield. */
export function* decodeIndexSliced(engine: Engine, bytes: Uint8Array): Generator<void, DecodedIndex, void> {
  const { body } = yield* unframeSliced(kind, bytes)
  return decoding(kind, () => {
    const reader = new Reader(body)
    const name = reader.text()
    const wanted = reader.text()
    const metric = metrics.find((one) => one === wanted)
    if (name !== engine.name || metric === undefined) throw new WireError(`an index of ${name} for ${wanted}`)
    const facts = {
      metric,
      dimension: reader.u32(),
      count: reader.count(),
      M: reader.u32(),
      efConstruction: reader.u32()
    }
    reader.align()
    const own = reader.raw(reader.left)
    engine.check(own, facts)
    return { facts, body: own }
  })
}

/**
 * hnswlib writes its file without looking whether it could (a full disk leaves half of one), so the builder too
 * checks here that the sizes in it add up: its header, `count` elements of equal size, then a list of links for each
 * (hnswalg.h, saveIndex; the numbers are size_t of 8 bytes unless said).
 */
const checkGraph = (bytes: Uint8Array, facts: IndexFacts): void => {
  const reader = new Reader(bytes)
  const u64 = () => Number(reader.u64())
  const [offsetLevel0, capacity, count, elementBytes, labelOffset, dataOffset] = [
    u64(),
    u64(),
    u64(),
    u64(),
    u64(),
    u64()
  ]
  reader.u32() // the highest level
  reader.u32() // the node where a search enters
  const [maxM, maxM0, M] = [u64(), u64(), u64()]
  reader.f64() // the level's multiplier
  const efConstruction = u64()
  const vectorBytes = facts.dimension * 4
  if (
    offsetLevel0 !== 0 ||
    count !== facts.count ||
    capacity < count ||
    labelOffset !== dataOffset! + vectorBytes ||
    elementBytes !== labelOffset + 8 ||
    maxM !== M ||
    maxM0 !== 2 * M! ||
    M !== facts.M ||
    efConstruction < facts.efConstruction
  ) {
    throw new WireError("the graph is not the one that its header tells of")
  }
  reader.raw(count * elementBytes)
  for (let i = 0; i < count; i++) reader.raw(reader.u32())
  if (reader.left !== 0) throw new WireError(`${reader.left} bytes behind the graph`)
}

export const hnswlib: Engine = { name: "hnswlib", check: checkGraph }

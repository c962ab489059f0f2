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

const kind: FrameKind = { magic: "ELANUSIX", version: 1, name: "index file" }

/** The object in parts laid end to end; `body` is the last one as it is. */
export const encodeIndex = (facts: IndexFacts, body: Uint8Array): Array<Uint8Array> => {
  const writer = new Writer().text("hnswlib").text(facts.metric).u32(facts.dimension).count(facts.count)
  writer.u32(facts.M).u32(facts.efConstruction).align()
  return frame(kind, [writer.finish(), body])
}

export interface DecodedIndex {
  readonly facts: IndexFacts
  /** The engine's own bytes, as a view. */
  readonly body: Uint8Array
}

/** Throws StorageError: "damaged", or "unfit" for a newer version. */
export const decodeIndex = (bytes: Uint8Array): DecodedIndex => toTheEnd(decodeIndexSliced(bytes))

/** The same in slices: an index may be large, and its checksum long. The event loop may turn at every yield. */
export function* decodeIndexSliced(bytes: Uint8Array): Generator<void, DecodedIndex, void> {
  const { body } = yield* unframeSliced(kind, bytes)
  return decoding(kind, () => {
    const reader = new Reader(body)
    const engine = reader.text()
    const wanted = reader.text()
    const metric = metrics.find((name) => name === wanted)
    if (engine !== "hnswlib" || metric === undefined) throw new WireError(`an index of ${engine} for ${wanted}`)
    const facts = {
      metric,
      dimension: reader.u32(),
      count: reader.count(),
      M: reader.u32(),
      efConstruction: reader.u32()
    }
    reader.align()
    const graph = reader.raw(reader.left)
    checkGraph(graph, facts)
    return { facts, body: graph }
  })
}

/**
 * hnswlib writes its file without looking whether it could (a full disk leaves half of one), so the builder too
 * checks here that the sizes in it add up: its header, `count` elements of equal size, then a list of links for each
 * (hnswalg.h, saveIndex; the numbers are size_t of 8 bytes unless said).
 */
export const checkGraph = (bytes: Uint8Array, facts: IndexFacts): void => {
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

/**
 * The exact index: a scan of the vectors as they lie in the segment. It serves segments too small for a graph, and
 * is what every other index is measured against. It must never skip a row that it was not told to.
 */
import { limits } from "../protocols/limits.ts"
import { type Allowed, inverseNorms, type Metric, scanBlock, type VectorBlock } from "./distance.ts"
import type { VectorIndex } from "./index.ts"
import { type Hits, TopK } from "./top-k.ts"

export interface FlatIndex extends VectorIndex {
  /** The same search in slices of at most `limits.sliceBytes`: the caller lets the event loop turn at every yield. */
  readonly searchSliced: (query: Float32Array, k: number, allowed?: Allowed) => Generator<void, Hits, void>
}

export const flatIndex = (metric: Metric, dimension: number, vectors: Float32Array): FlatIndex => {
  const count = vectors.length / dimension
  const norms = metric === "COSINE" ? inverseNorms(vectors, count, dimension) : undefined
  const block: VectorBlock = { vectors, dimension, inverseNorms: norms }
  const sliceRows = Math.max(1, Math.floor(limits.sliceBytes / (dimension * 4)))
  // One bit a row, made when the first is hidden.
  let hidden: Uint8Array | undefined

  const visible = (allowed: Allowed | undefined): Allowed | undefined => {
    const bits = hidden
    if (bits === undefined) return allowed
    return (row) => (bits[row >> 3]! & (1 << (row & 7))) === 0 && (allowed === undefined || allowed(row))
  }

  return {
    count,
    dimension,
    search: (query, k, _ef, allowed) => {
      const top = new TopK(Math.min(k, count))
      scanBlock(metric, query, block, 0, count, top, 0, visible(allowed))
      return top.finish()
    },
    *searchSliced(query, k, allowed) {
      const top = new TopK(Math.min(k, count))
      for (let from = 0; from < count; from += sliceRows) {
        if (from > 0) yield
        scanBlock(metric, query, block, from, Math.min(count, from + sliceRows), top, 0, visible(allowed))
      }
      return top.finish()
    },
    hide: (row) => {
      hidden ??= new Uint8Array((count + 7) >> 3)
      hidden[row >> 3]! |= 1 << (row & 7)
    },
    dispose: () => {}
  }
}

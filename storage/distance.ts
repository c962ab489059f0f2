/**
 * How far two vectors are apart. Inside, every metric is a *rank*: smaller is better, whatever the metric, so that
 * heaps and merges know only one order. Only `distanceOf` makes of it the number that users see, named as in Milvus.
 * No scan may allocate per row. Sums are in float64, so finite vectors always have a finite rank.
 */
import type { TopK } from "./top-k.ts"

/** L2: squared Euclidean distance. IP: dot product. COSINE: cosine similarity, 0 with a zero vector. */
export type Metric = "L2" | "IP" | "COSINE"

export const metrics: ReadonlyArray<Metric> = ["L2", "IP", "COSINE"]

/** The number that users see: L2 as it is, the others the larger the better. Never -0. */
export const distanceOf = (metric: Metric, rank: number): number => (metric === "L2" ? rank : 0 - rank)

/** The rank that has this distance. */
export const rankOf = (metric: Metric, distance: number): number => (metric === "L2" ? distance : 0 - distance)

// The loops are unrolled by four with a sum each: one chain of additions would wait for itself. `a` begins at 0, and
// what is left of a dimension that four does not divide is a function of its own: either costs a third of the speed in here.

const squared = (a: Float32Array, b: Float32Array, offset: number, dimension: number): number => {
  let s0 = 0
  let s1 = 0
  let s2 = 0
  let s3 = 0
  const end = dimension & -4
  for (let i = 0; i < end; i += 4) {
    const d0 = a[i]! - b[offset + i]!
    const d1 = a[i + 1]! - b[offset + i + 1]!
    const d2 = a[i + 2]! - b[offset + i + 2]!
    const d3 = a[i + 3]! - b[offset + i + 3]!
    s0 += d0 * d0
    s1 += d1 * d1
    s2 += d2 * d2
    s3 += d3 * d3
  }
  if (end !== dimension) s0 += squaredRest(a, b, offset, end, dimension)
  return s0 + s1 + (s2 + s3)
}

const squaredRest = (a: Float32Array, b: Float32Array, offset: number, from: number, dimension: number): number => {
  let sum = 0
  for (let i = from; i < dimension; i++) {
    const difference = a[i]! - b[offset + i]!
    sum += difference * difference
  }
  return sum
}

const dot = (a: Float32Array, b: Float32Array, offset: number, dimension: number): number => {
  let s0 = 0
  let s1 = 0
  let s2 = 0
  let s3 = 0
  const end = dimension & -4
  for (let i = 0; i < end; i += 4) {
    s0 += a[i]! * b[offset + i]!
    s1 += a[i + 1]! * b[offset + i + 1]!
    s2 += a[i + 2]! * b[offset + i + 2]!
    s3 += a[i + 3]! * b[offset + i + 3]!
  }
  if (end !== dimension) s0 += dotRest(a, b, offset, end, dimension)
  return s0 + s1 + (s2 + s3)
}

const dotRest = (a: Float32Array, b: Float32Array, offset: number, from: number, dimension: number): number => {
  let sum = 0
  for (let i = from; i < dimension; i++) sum += a[i]! * b[offset + i]!
  return sum
}

/** 1 / length of a vector; 0 for the zero vector, which makes its cosine 0. */
export const inverseNorm = (a: Float32Array, offset: number, dimension: number): number => {
  let square = 0
  for (let i = offset, end = offset + dimension; i < end; i++) square += a[i]! * a[i]!
  return square === 0 ? 0 : 1 / Math.sqrt(square)
}

/** Of `rows` vectors that lie end to end. */
export const inverseNorms = (vectors: Float32Array, rows: number, dimension: number): Float64Array => {
  const norms = new Float64Array(rows)
  for (let row = 0; row < rows; row++) norms[row] = inverseNorm(vectors, row * dimension, dimension)
  return norms
}

/** Rounding may carry a cosine past one. */
const cosineRank = (product: number, aInverse: number, bInverse: number): number => {
  const rank = 0 - product * aInverse * bInverse
  return rank < -1 ? -1 : rank > 1 ? 1 : rank
}

export const rank = (
  metric: Metric,
  a: Float32Array,
  aOffset: number,
  b: Float32Array,
  bOffset: number,
  dimension: number
): number => {
  const first = aOffset === 0 ? a : a.subarray(aOffset, aOffset + dimension)
  if (metric === "L2") return squared(first, b, bOffset, dimension)
  const product = dot(first, b, bOffset, dimension)
  if (metric === "IP") return 0 - product
  return cosineRank(product, inverseNorm(first, 0, dimension), inverseNorm(b, bOffset, dimension))
}

/** Vectors that lie end to end in one array. */
export interface VectorBlock {
  readonly vectors: Float32Array
  readonly dimension: number
  /** Of each row, for COSINE; worked out on the way if absent. */
  readonly inverseNorms?: Float64Array | undefined
}

/** Asked only of rows whose rank would get in. */
export type Allowed = (row: number) => boolean

/**
 * Offers rows `from` to `to` (without it) of a block to `top`, as rows `base + from` and so on; `allowed` is asked
 * about those numbers. The same rows in other cuts, or in several calls, give the same answer.
 */
export const scanBlock = (
  metric: Metric,
  query: Float32Array,
  block: VectorBlock,
  from: number,
  to: number,
  top: TopK,
  base = 0,
  allowed?: Allowed
): void => {
  if (metric === "L2") scanSquared(query, block, from, to, top, base, allowed)
  else if (metric === "IP") scanDot(query, block, from, to, top, base, allowed)
  else scanCosine(query, block, from, to, top, base, allowed)
}

/** Offers only the rows that `rows` names, for a filter that leaves few. */
export const scanRows = (
  metric: Metric,
  query: Float32Array,
  block: VectorBlock,
  rows: ArrayLike<number>,
  top: TopK,
  base = 0
): void => {
  const { vectors, dimension } = block
  const queryInverse = metric === "COSINE" ? inverseNorm(query, 0, dimension) : 0
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!
    const offset = row * dimension
    let value: number
    if (metric === "L2") value = squared(query, vectors, offset, dimension)
    else {
      value = 0 - dot(query, vectors, offset, dimension)
      if (metric === "COSINE") value = cosineRank(0 - value, queryInverse, inverseOf(block, row))
    }
    top.offer(value, base + row)
  }
}

const inverseOf = (block: VectorBlock, row: number): number =>
  block.inverseNorms === undefined
    ? inverseNorm(block.vectors, row * block.dimension, block.dimension)
    : block.inverseNorms[row]!

const scanSquared = (
  query: Float32Array,
  block: VectorBlock,
  from: number,
  to: number,
  top: TopK,
  base: number,
  allowed: Allowed | undefined
): void => {
  const { vectors, dimension } = block
  let bound = top.bound
  for (let row = from, offset = from * dimension; row < to; row++, offset += dimension) {
    const value = squared(query, vectors, offset, dimension)
    if (value > bound || !top.admits(value, base + row)) continue
    if (allowed !== undefined && !allowed(base + row)) continue
    top.offer(value, base + row)
    bound = top.bound
  }
}

const scanDot = (
  query: Float32Array,
  block: VectorBlock,
  from: number,
  to: number,
  top: TopK,
  base: number,
  allowed: Allowed | undefined
): void => {
  const { vectors, dimension } = block
  let bound = top.bound
  for (let row = from, offset = from * dimension; row < to; row++, offset += dimension) {
    const value = 0 - dot(query, vectors, offset, dimension)
    if (value > bound || !top.admits(value, base + row)) continue
    if (allowed !== undefined && !allowed(base + row)) continue
    top.offer(value, base + row)
    bound = top.bound
  }
}

const scanCosine = (
  query: Float32Array,
  block: VectorBlock,
  from: number,
  to: number,
  top: TopK,
  base: number,
  allowed: Allowed | undefined
): void => {
  const { vectors, dimension } = block
  const queryInverse = inverseNorm(query, 0, dimension)
  let bound = top.bound
  for (let row = from, offset = from * dimension; row < to; row++, offset += dimension) {
    const value = cosineRank(dot(query, vectors, offset, dimension), queryInverse, inverseOf(block, row))
    if (value > bound || !top.admits(value, base + row)) continue
    if (allowed !== undefined && !allowed(base + row)) continue
    top.offer(value, base + row)
    bound = top.bound
  }
}

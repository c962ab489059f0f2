/**
 * The k best of many, deterministically: equal ranks are ordered by row, and between lists by key.
 * Nothing here may depend on the order in which candidates come.
 */
import { compareKeys, type KeyColumn, keyAt } from "../protocols/keys.ts"

/** Rows with their ranks, ascending by (rank, row). */
export interface Hits {
  readonly rows: ArrayLike<number>
  readonly ranks: ArrayLike<number>
}

/** Keeps the `k` smallest of (rank, row): a binary heap on typed arrays, the worst one on top. */
export class TopK {
  readonly k: number
  private readonly ranks: Float64Array
  private readonly rows: Uint32Array
  private size = 0

  constructor(k: number) {
    this.k = k
    this.ranks = new Float64Array(k)
    this.rows = new Uint32Array(k)
  }

  get count(): number {
    return this.size
  }

  /** A rank above it certainly does not get in; one equal to it may, by its row. */
  get bound(): number {
    return this.size < this.k ? Infinity : this.k === 0 ? -Infinity : this.ranks[0]!
  }

  /** Whether this one would get in. NaN never does. */
  admits(rank: number, row: number): boolean {
    if (this.size < this.k) return rank <= Infinity
    if (this.k === 0 || !(rank <= this.ranks[0]!)) return false
    return rank < this.ranks[0]! || row < this.rows[0]!
  }

  offer(rank: number, row: number): void {
    if (!this.admits(rank, row)) return
    if (this.size < this.k) this.rise(this.size++, rank, row)
    else this.sink(0, this.size, rank, row)
  }

  /** The kept ones in order. The heap is spent afterwards. */
  finish(): { readonly rows: Uint32Array; readonly ranks: Float64Array } {
    const { ranks, rows, size } = this
    for (let end = size - 1; end > 0; end--) {
      const rank = ranks[end]!
      const row = rows[end]!
      ranks[end] = ranks[0]!
      rows[end] = rows[0]!
      this.sink(0, end, rank, row)
    }
    this.size = 0
    return { rows: rows.subarray(0, size), ranks: ranks.subarray(0, size) }
  }

  private rise(at: number, rank: number, row: number): void {
    const { ranks, rows } = this
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (ranks[parent]! > rank || (ranks[parent]! === rank && rows[parent]! > row)) break
      ranks[at] = ranks[parent]!
      rows[at] = rows[parent]!
      at = parent
    }
    ranks[at] = rank
    rows[at] = row
  }

  private sink(at: number, size: number, rank: number, row: number): void {
    const { ranks, rows } = this
    for (;;) {
      let child = 2 * at + 1
      if (child >= size) break
      const right = child + 1
      if (
        right < size &&
        (ranks[right]! > ranks[child]! || (ranks[right]! === ranks[child]! && rows[right]! > rows[child]!))
      ) {
        child = right
      }
      if (rank > ranks[child]! || (rank === ranks[child]! && row > rows[child]!)) break
      ranks[at] = ranks[child]!
      rows[at] = rows[child]!
      at = child
    }
    ranks[at] = rank
    rows[at] = row
  }
}

/** A partial answer: ascending by (rank, key). */
export interface SortedList {
  readonly ranks: ArrayLike<number>
  readonly keys: KeyColumn
}

/** Where each winner came from: entry `positions[i]` of list `lists[i]`. */
export interface Merged {
  readonly lists: Uint32Array
  readonly positions: Uint32Array
  readonly ranks: Float64Array
}

/**
 * The first `k` of several sorted lists, ascending by (rank, key), then by list. A key that is in two lists comes
 * twice: a view holds each key's version once, and a reduce that hid a second one would hide a bug.
 */
export const mergeTopK = (sources: ReadonlyArray<SortedList>, k: number): Merged => {
  let total = 0
  for (const source of sources) total += source.ranks.length
  const count = Math.min(k, total)
  const lists = new Uint32Array(count)
  const positions = new Uint32Array(count)
  const ranks = new Float64Array(count)
  const heads = new Uint32Array(sources.length)

  const before = (a: number, b: number): boolean => {
    const x = sources[a]!
    const y = sources[b]!
    const difference = x.ranks[heads[a]!]! - y.ranks[heads[b]!]!
    if (difference !== 0) return difference < 0
    const order = compareKeys(keyAt(x.keys, heads[a]!), keyAt(y.keys, heads[b]!))
    return order === 0 ? a < b : order < 0
  }
  const heap: Array<number> = []
  const sink = (at: number) => {
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) return
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, heap[at]!)) return
      const held = heap[at]!
      heap[at] = heap[child]!
      heap[child] = held
      at = child
    }
  }
  for (let i = 0; i < sources.length; i++) if (sources[i]!.ranks.length > 0) heap.push(i)
  for (let i = (heap.length >> 1) - 1; i >= 0; i--) sink(i)

  for (let i = 0; i < count; i++) {
    const list = heap[0]!
    const position = heads[list]!++
    lists[i] = list
    positions[i] = position
    ranks[i] = sources[list]!.ranks[position]!
    if (heads[list]! === sources[list]!.ranks.length) {
      const last = heap.pop()!
      if (heap.length > 0) heap[0] = last
    }
    sink(0)
  }
  return { lists, positions, ranks }
}

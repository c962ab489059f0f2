/** Partial answers put together: by an owner from its segments, by a proxy from its shards. Pure. */
import { concatKeys, type Key, type KeyColumn, keyColumn, type KeyType, pickKeys } from "../protocols/keys.ts"
import { concatFields } from "../protocols/rows.ts"
import type { FoundRows, Hits } from "../protocols/streaming-node.ts"
import { mergeTopK } from "../storage/top-k.ts"

/** For each query the `limit` nearest of all parts, ordered by rank, then key. */
export const mergeHits = (type: KeyType, parts: ReadonlyArray<Hits>, queries: number, limit: number): Hits => {
  if (parts.length === 1) return parts[0]!
  const counts = new Uint32Array(queries)
  const bases: Array<number> = []
  let total = 0
  for (const part of parts) {
    bases.push(total)
    total += part.keys.count
  }
  const picked: Array<number> = []
  const ranks: Array<number> = []
  const starts = parts.map(() => 0)
  for (let query = 0; query < queries; query++) {
    const sources = parts.map((part, which) => {
      const from = starts[which]!
      const to = from + part.counts[query]!
      return { ranks: part.ranks.subarray(from, to), keys: sliceKeys(part.keys, from, to) }
    })
    const merged = mergeTopK(sources, limit)
    for (let i = 0; i < merged.ranks.length; i++) {
      const which = merged.lists[i]!
      picked.push(bases[which]! + starts[which]! + merged.positions[i]!)
      ranks.push(merged.ranks[i]!)
    }
    counts[query] = merged.ranks.length
    parts.forEach((part, which) => (starts[which]! += part.counts[query]!))
  }
  const all = concatKeys(
    type,
    parts.map(({ keys }) => keys)
  )
  return { counts, keys: pickKeys(all, picked), ranks: new Float64Array(ranks) }
}

/** Rows `from` to `to`, without it, as a view. */
export const sliceKeys = (keys: KeyColumn, from: number, to: number): KeyColumn =>
  keys.type === "Int64"
    ? { type: "Int64", count: to - from, values: keys.values.subarray(from, to) }
    : { type: "VarChar", count: to - from, offsets: keys.offsets.subarray(from, to + 1), bytes: keys.bytes }

export const mergeFound = (type: KeyType, parts: ReadonlyArray<FoundRows>): FoundRows => {
  if (parts.length === 1) return parts[0]!
  const vectors = new Float32Array(parts.reduce((total, part) => total + part.vectors.length, 0))
  let at = 0
  for (const part of parts) {
    vectors.set(part.vectors, at)
    at += part.vectors.length
  }
  return {
    keys: concatKeys(
      type,
      parts.map(({ keys }) => keys)
    ),
    fields: concatFields(
      parts.map(({ fields }) => fields),
      parts.map(({ keys }) => keys.count)
    ),
    vectors
  }
}

/** Rows as they travel. */
export const packRows = (
  type: KeyType,
  keys: ReadonlyArray<Key>,
  fields: ReadonlyArray<Uint8Array>,
  vectors: ReadonlyArray<Float32Array>
): FoundRows => {
  const offsets = new Uint32Array(fields.length + 1)
  for (let i = 0; i < fields.length; i++) offsets[i + 1] = offsets[i]! + fields[i]!.length
  const bytes = new Uint8Array(offsets[fields.length]!)
  fields.forEach((each, i) => bytes.set(each, offsets[i]!))
  const dimension = vectors[0]?.length ?? 0
  const all = new Float32Array(vectors.length * dimension)
  vectors.forEach((vector, i) => all.set(vector, i * dimension))
  return { keys: keyColumn(type, keys), fields: bytes.length === 0 ? undefined : { offsets, bytes }, vectors: all }
}

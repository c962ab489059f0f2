/** Rows that are too many for one message, as parts that fit. */
import { type Key, keyAt } from "../../protocols/keys.ts"
import { pickRows, type RowBatch, rowBatchBytes } from "../../protocols/rows.ts"

/** Parts of at most `bytesMax` bytes each. A key that comes twice stays in its last place only: parts travel side by side. */
export const split = (batch: RowBatch, bytesMax: number): ReadonlyArray<RowBatch> => {
  const bytes = rowBatchBytes(batch)
  if (bytes <= bytesMax) return [batch]
  const whole = lastOfEachKey(batch)
  const { count } = whole.keys
  const parts: Array<RowBatch> = []
  for (let from = 0; from < count;) {
    let size = 0
    let to = from
    while (to < count) {
      const row =
        whole.dimension * 4 +
        16 +
        (whole.keys.type === "VarChar" ? whole.keys.offsets[to + 1]! - whole.keys.offsets[to]! : 0) +
        (whole.fields === undefined ? 0 : whole.fields.offsets[to + 1]! - whole.fields.offsets[to]! + 4)
      if (to > from && size + row > bytesMax - 256) break
      size += row
      to++
    }
    parts.push(slice(whole, from, to))
    from = to
  }
  return parts
}

const lastOfEachKey = (batch: RowBatch): RowBatch => {
  const last = new Map<Key, number>()
  for (let i = 0; i < batch.keys.count; i++) last.set(keyAt(batch.keys, i), i)
  if (last.size === batch.keys.count) return batch
  return pickRows(
    batch,
    [...last.values()].toSorted((a, b) => a - b)
  )
}

const slice = (batch: RowBatch, from: number, to: number): RowBatch => {
  const { dimension, fields, keys, vectors } = batch
  if (keys.type === "Int64" && fields === undefined) {
    return {
      keys: { type: "Int64", count: to - from, values: keys.values.subarray(from, to) },
      dimension,
      vectors: vectors.subarray(from * dimension, to * dimension),
      fields
    }
  }
  return pickRows(
    batch,
    Array.from({ length: to - from }, (_, i) => from + i)
  )
}

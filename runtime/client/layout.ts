/** From what a program gives to columns, and from the columns of an answer to what a program gets. */
import { failure } from "../../protocols/errors.ts"
import { type Key, keyAt, type KeyColumn, keyColumn } from "../../protocols/keys.ts"
import { checkFields, readKey, readKeys, readRowObjects, type RowSpec } from "../../protocols/row-objects.ts"
import { fieldBytesAt, fieldColumn, type Fields, parseFields, type RowBatch } from "../../protocols/rows.ts"
import type { Columns, Row } from "./interface.ts"

/** One vector, as numbers. */
export type Vector = Float32Array | ReadonlyArray<number>

export const toBatch = (spec: RowSpec, rows: ReadonlyArray<object> | Columns): RowBatch => {
  if (!("ids" in rows)) return readRowObjects(spec, rows)
  const { fields, ids, vectors } = rows
  const keys: KeyColumn =
    ids instanceof BigInt64Array
      ? { type: "Int64", count: ids.length, values: ids }
      : keyColumn(
          spec.keyType,
          ids.map((id, i) => readKey(id, spec.keyType, `row ${i}`))
        )
  if (keys.count === 0) throw failure("bad-request", "there is nothing to insert")
  const dimension = vectors.length / keys.count
  if (!Number.isInteger(dimension)) {
    throw failure("wrong-dimension", `${vectors.length} numbers for ${keys.count} vectors`)
  }
  if (fields !== undefined && fields.length !== keys.count) {
    throw failure("bad-request", `${fields.length} rows of fields for ${keys.count} ids`)
  }
  fields?.forEach((each, i) => checkFields(each, `row ${i}`))
  return { keys, dimension, vectors, fields: fields === undefined ? undefined : fieldColumn(fields) }
}

export const toKeys = (spec: RowSpec, ids: Key | ReadonlyArray<Key>): KeyColumn =>
  readKeys(Array.isArray(ids) ? ids : [ids], spec.keyType)

/** Vectors to search for, one behind the other; `single` if it was one and not a list of them. */
export const toQueries = (
  given: Vector | ReadonlyArray<Vector>
): { readonly dimension: number; readonly queries: Float32Array; readonly single: boolean } => {
  if (given instanceof Float32Array) return { dimension: given.length, queries: given, single: true }
  if (given.length === 0) throw failure("bad-request", "there is no vector to search for")
  const single = typeof given[0] === "number"
  const vectors = (single ? [given] : given) as ReadonlyArray<Vector>
  const dimension = vectors[0]!.length
  const queries = new Float32Array(vectors.length * dimension)
  vectors.forEach((vector, i) => {
    if (vector.length !== dimension) throw failure("wrong-dimension", "vectors of different dimensions")
    for (let d = 0; d < dimension; d++) {
      const number: unknown = vector[d]
      if (typeof number !== "number") throw failure("bad-vector", `${String(number)} is not a number`)
      queries[i * dimension + d] = number
    }
  })
  return { dimension, queries, single }
}

/** One row of an answer, with the fields that were asked for. */
export const rowAt = (
  found: { readonly keys: KeyColumn; readonly fields: RowBatch["fields"]; readonly vectors: Float32Array },
  row: number,
  outputFields: ReadonlyArray<string>
): Row => {
  const id = keyAt(found.keys, row)
  if (found.fields === undefined && found.vectors.length === 0) return { id, fields: NO_FIELDS }
  const fields =
    found.fields === undefined ? NO_FIELDS : pick(parseFields(fieldBytesAt(found.fields, row)), outputFields)
  if (found.vectors.length === 0) return { id, fields }
  // Not the dimension that we know: by now there may be another collection of that name.
  const dimension = found.vectors.length / found.keys.count
  return { id, fields, vector: found.vectors.slice(row * dimension, (row + 1) * dimension) }
}

const NO_FIELDS: Fields = Object.freeze({})

const pick = (fields: Fields, names: ReadonlyArray<string>): Fields =>
  names.includes("*") ? fields : Object.fromEntries(Object.entries(fields).filter(([name]) => names.includes(name)))

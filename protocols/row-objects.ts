/**
 * Rows, keys and vectors as a program or a JSON body gives them, checked one by one and laid out in columns. Everything
 * here throws ElanusError, with the place of what is wrong.
 */
import { failure } from "./errors.ts"
import { canonical, type Key, type KeyColumn, keyColumn, type KeyType } from "./keys.ts"
import { limits } from "./limits.ts"
import type { CollectionSpec } from "./metadata.ts"
import { fieldColumn, type Fields, type RowBatch } from "./rows.ts"

/** What one must know of a collection to lay its rows out. */
export type RowSpec = Pick<CollectionSpec, "dimension" | "keyField" | "keyType" | "vectorField">

const INT64_MIN = -(1n << 63n)
const INT64_MAX = (1n << 63n) - 1n

/** A primary key as a client gives it. */
export const readKey = (value: unknown, type: KeyType, where: string): Key => {
  if (value === undefined || value === null) throw failure("bad-key", `${where}: there is no primary key`)
  if (type === "VarChar") {
    if (typeof value !== "string") throw failure("bad-key", `${where}: the primary key must be a string`)
    if (value.isWellFormed()) return value
    throw failure("bad-key", `${where}: the primary key is not valid Unicode`)
  }
  if (typeof value === "number") {
    if (Number.isSafeInteger(value)) return value === 0 ? 0 : value
    throw failure("bad-key", `${where}: ${value} is no integer, or beyond 2^53: give it as a string`)
  }
  if (typeof value === "bigint" || (typeof value === "string" && /^-?\d{1,20}$/.test(value))) {
    const big = BigInt(value)
    if (big >= INT64_MIN && big <= INT64_MAX) return canonical(big)
  }
  throw failure("bad-key", `${where}: ${String(value)} is not an integer of 64 bits`)
}

/** The keys of one request. */
export const readKeys = (given: ReadonlyArray<unknown>, type: KeyType): KeyColumn => {
  if (given.length > limits.keysPerRequestMax) {
    throw failure("too-large", `${given.length} ids; ${limits.keysPerRequestMax} are the most`)
  }
  return keyColumn(
    type,
    given.map((key, i) => readKey(key, type, `id ${i}`))
  )
}

/** Writes one vector into `into`. */
export const readVector = (value: unknown, dimension: number, into: Float32Array, at: number, where: string): void => {
  if (!Array.isArray(value) && !(value instanceof Float32Array) && !(value instanceof Float64Array)) {
    throw failure("bad-vector", `${where}: a vector must be an array of numbers`)
  }
  if (value.length !== dimension) {
    throw failure(
      "wrong-dimension",
      `${where}: a vector of ${value.length} dimensions; the collection has ${dimension}`
    )
  }
  for (let i = 0; i < dimension; i++) {
    const number: unknown = value[i]
    if (typeof number !== "number") throw failure("bad-vector", `${where}: ${JSON.stringify(number)} is not a number`)
    into[at + i] = number
    if (!Number.isFinite(into[at + i]!)) {
      throw failure("bad-vector", `${where}: ${number} is not a number of 32 bits`)
    }
  }
}

/** Rows as objects, by the collection's schema: its key, its vector, and whatever else as dynamic fields. */
export const readRowObjects = (spec: RowSpec, data: ReadonlyArray<unknown>): RowBatch => {
  const { dimension, keyField, keyType, vectorField } = spec
  if (data.length === 0) throw failure("bad-request", "there is nothing to insert")
  const keys: Array<Key> = []
  const vectors = new Float32Array(data.length * dimension)
  const fields = data.map((row, i) => {
    if (typeof row !== "object" || row === null || Array.isArray(row))
      throw failure("bad-request", `row ${i} must be an object`)
    const { [keyField]: key, [vectorField]: vector, ...rest } = row as Fields
    keys.push(readKey(key, keyType, `row ${i}, ${keyField}`))
    if (vector === undefined) throw failure("field-not-found", `row ${i} has no vector field ${vectorField}`)
    readVector(vector, dimension, vectors, i * dimension, `row ${i}, ${vectorField}`)
    checkFields(rest, `row ${i}`)
    return rest
  })
  return { keys: keyColumn(keyType, keys), dimension, vectors, fields: fieldColumn(fields) }
}

/** What JSON cannot give back as it went in. Bodies that were JSON pass by their nature; a library's rows may not. */
export const checkFields = (value: unknown, where: string): void => {
  switch (typeof value) {
    case "number":
      if (!Number.isFinite(value)) throw failure("bad-request", `${where}: ${value} cannot be a field`)
      return
    case "bigint":
      throw failure("bad-request", `${where}: ${value} is beyond a number: give it as a string`)
    case "string":
      if (!value.isWellFormed()) throw failure("bad-request", `${where}: a text is not valid Unicode`)
      return
    case "boolean":
    case "undefined":
      return
    case "object":
      if (value === null) return
      if (Array.isArray(value)) value.forEach((each) => checkFields(each, where))
      else for (const name of Object.keys(value)) checkFields((value as Fields)[name], `${where}, ${name}`)
      return
    default:
      throw failure("bad-request", `${where}: a ${typeof value} cannot be a field`)
  }
}

/**
 * JSON bodies: what Milvus' REST v2 takes for the same operation, less the names that the subject already says, read
 * into requests with every field checked, and answers written back. Keys and timestamps are answered as strings.
 */
import type { Consistency, GetAnswer, ReadLevel, SearchAnswer, SearchRequest } from "../../protocols/client.ts"
import { consistencies } from "../../protocols/client.ts"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { type Key, keyAt, type KeyColumn } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import type { Collection, CollectionSpec } from "../../protocols/metadata.ts"
import { readKeys, readRowObjects, readVector } from "../../protocols/row-objects.ts"
import { fieldBytesAt, parseFields, type RowBatch } from "../../protocols/rows.ts"
import { nameProblem } from "../../protocols/subjects.ts"
import { parseTimestamp, type Timestamp } from "../../protocols/timestamp.ts"
import { utf8 } from "../../protocols/wire.ts"

type Body = { readonly [name: string]: unknown }

const bad = (reason: string): ElanusError => failure("bad-request", reason)

/** A JSON object, or none (an empty body). Integers that a number cannot hold are refused, not rounded. Throws ElanusError. */
export const parseBody = (bytes: Uint8Array): Body => {
  if (bytes.length === 0) return {}
  let text: string
  try {
    text = utf8.decodeDocument(bytes)
  } catch (cause) {
    throw bad(`the body is not UTF-8: ${String(cause)}`)
  }
  let value: unknown
  try {
    value = LONG_NUMBER.test(text) ? JSON.parse(text, exactly) : JSON.parse(text)
  } catch (cause) {
    if (cause instanceof RangeError) throw bad(cause.message)
    throw bad(`the body is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad("the body must be a JSON object")
  return value as Body
}

/**
 * Only such texts can hold an integer beyond 2^53: the others need not be looked at number by number. Digits behind a
 * point, as every second vector has them, are none.
 */
const LONG_NUMBER = /(?<![.\d])\d{16}/
const exactly = (_key: string, value: unknown, context?: { readonly source?: string }): unknown => {
  if (typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")) {
    throw new RangeError(`${context!.source} is beyond 2^53: give it as a string`)
  }
  return value
}

// ---- reading single fields

const text = (body: Body, name: string, fallback: string): string => {
  const value = body[name]
  if (value === undefined || value === null) return fallback
  if (typeof value !== "string") throw bad(`${name} must be a string`)
  return value
}

const integer = (body: Body, name: string, fallback: number, min: number, max: number): number => {
  const value = body[name]
  if (value === undefined || value === null) return fallback
  const number = typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : value
  if (typeof number !== "number" || !Number.isInteger(number) || number < min || number > max) {
    throw bad(`${name} must be an integer from ${min} to ${max}`)
  }
  return number
}

const object = (body: Body, name: string): Body => {
  const value = body[name]
  if (value === undefined || value === null) return {}
  if (typeof value !== "object" || Array.isArray(value)) throw bad(`${name} must be an object`)
  return value as Body
}

const list = (body: Body, name: string): ReadonlyArray<unknown> => {
  const value = body[name]
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw bad(`${name} must be an array`)
  return value
}

const names = (body: Body, name: string): ReadonlyArray<string> =>
  list(body, name).map((each) => {
    if (typeof each !== "string") throw bad(`${name} must be an array of strings`)
    return each
  })

const timestamp = (body: Body, name: string): Timestamp | undefined => {
  const value = body[name]
  if (value === undefined || value === null) return undefined
  const parsed = typeof value === "string" || typeof value === "number" ? parseTimestamp(value) : undefined
  if (parsed === undefined) throw failure("bad-timestamp", `${name} is not a timestamp: ${JSON.stringify(value)}`)
  return parsed
}

const refuseLater = (body: Body, later: ReadonlyArray<string>): void => {
  for (const name of later) {
    const value = body[name]
    if (value === undefined || value === null || value === "" || (Array.isArray(value) && value.length === 0)) continue
    throw failure("not-supported", `${name} is not in this version yet`)
  }
}

// ---- requests

const fieldName = (field: Body, body: Body, quick: string, fallback: string): string => {
  const name = text(field, "fieldName", text(body, quick, fallback))
  const problem = nameProblem(name)
  // An answer's score has that name.
  if (problem === undefined && name !== "distance") return name
  throw failure("bad-name", problem ?? `a key or vector cannot be called "${name}"`)
}

/** Milvus' quick form, or its schema with one key and one vector field. */
export const readCreate = (database: string, name: string, body: Body): CollectionSpec => {
  const params = object(body, "params")
  const schema = object(body, "schema")
  const described = list(schema, "fields").map((field) => {
    if (typeof field !== "object" || field === null) throw bad("schema.fields must hold objects")
    return field as Body
  })
  const keyFields = described.filter((field) => field["isPrimary"] === true)
  const vectorFields = described.filter((field) => field["dataType"] === "FloatVector")
  if (described.length > 0) {
    if (keyFields.length !== 1) throw bad("a schema has exactly one primary field")
    if (vectorFields.length !== 1) throw bad("a schema has exactly one FloatVector field, in this version")
    if (described.length > 2) {
      throw failure("not-supported", "scalar fields are dynamic in this version: leave them out of the schema")
    }
  }
  if (body["autoID"] === true || body["autoId"] === true || schema["autoId"] === true) {
    throw failure("not-supported", "autoID is not in this version yet")
  }
  const key = keyFields[0] ?? {}
  const vector = vectorFields[0] ?? {}
  const keyParams = object(key, "elementTypeParams")
  const vectorParams = object(vector, "elementTypeParams")
  const index = list(body, "indexParams")[0] as Body | undefined
  const indexParams = { ...object(index ?? {}, "params"), ...params }

  const keyType = text(key, "dataType", text(body, "idType", "Int64"))
  if (keyType !== "Int64" && keyType !== "VarChar") throw bad(`a primary key is Int64 or VarChar, not ${keyType}`)
  const metric = text(index ?? {}, "metricType", text(body, "metricType", "COSINE"))
  if (metric !== "L2" && metric !== "IP" && metric !== "COSINE")
    throw bad(`metricType is L2, IP or COSINE, not ${metric}`)
  const dimension = integer(
    { dimension: vectorParams["dim"] ?? body["dimension"] },
    "dimension",
    0,
    1,
    limits.dimensionMax
  )
  const keyField = fieldName(key, body, "primaryFieldName", "id")
  const vectorField = fieldName(vector, body, "vectorFieldName", "vector")
  if (keyField === vectorField) throw bad(`the key and the vector cannot both be called ${keyField}`)
  if (dimension === 0) throw bad(`dimension is needed: an integer from 1 to ${limits.dimensionMax}`)
  return {
    database,
    name,
    description: text(body, "description", ""),
    keyField,
    keyType,
    keyLengthMax: integer(
      { max_length: keyParams["max_length"] ?? params["max_length"] },
      "max_length",
      limits.keyLengthMax,
      1,
      limits.keyLengthMax
    ),
    vectorField,
    dimension,
    metric,
    shards: integer({ shardsNum: params["shardsNum"] ?? body["shardsNum"] }, "shardsNum", 1, 1, limits.shardsMax),
    index: {
      m: integer(indexParams, "M", 16, 2, limits.neighboursMax),
      efConstruction: integer(indexParams, "efConstruction", 200, 1, limits.efConstructionMax)
    }
  }
}

export const readInsert = (spec: CollectionSpec, body: Body): RowBatch => {
  refuseLater(body, ["partitionName", "partialUpdate"])
  const data = body["data"]
  if (data === undefined) throw bad("data is needed: an array of rows")
  return readRowObjects(spec, Array.isArray(data) ? data : [data])
}

const readLevel = (body: Body): ReadLevel => {
  const given = text(body, "consistencyLevel", "Session")
  const consistency = consistencies.find((each) => each.toLowerCase() === given.toLowerCase())
  if (consistency === undefined) throw bad(`consistencyLevel is one of ${consistencies.join(", ")}`)
  const token = timestamp(body, "guaranteeTimestamp") ?? 0n
  return { consistency: consistency as Consistency, token, at: timestamp(body, "travelTimestamp") }
}

export const readSearch = (spec: CollectionSpec, body: Body): SearchRequest => {
  refuseLater(body, ["filter", "groupingField", "partitionNames", "ids"])
  const field = text(body, "annsField", spec.vectorField)
  if (field !== spec.vectorField) throw failure("field-not-found", `there is no vector field ${field}`)
  const data = list(body, "data")
  if (data.length === 0) throw bad("data is needed: an array of vectors")
  if (data.length > limits.queriesMax)
    throw failure("too-large", `${data.length} vectors; ${limits.queriesMax} are the most`)
  const queries = new Float32Array(data.length * spec.dimension)
  data.forEach((vector, i) => readVector(vector, spec.dimension, queries, i * spec.dimension, `vector ${i}`))
  const searchParams = object(body, "searchParams")
  const params = { ...searchParams, ...object(searchParams, "params") }
  refuseLater(params, ["radius", "range_filter"])
  const metric = text(params, "metricType", text(params, "metric_type", spec.metric))
  if (metric !== spec.metric) throw bad(`the metric of this collection is ${spec.metric}`)
  return {
    dimension: spec.dimension,
    queries,
    limit: integer(body, "limit", 10, 1, limits.topKMax),
    offset: integer(body, "offset", 0, 0, limits.topKMax),
    ef: integer(params, "ef", 0, 1, limits.efMax),
    outputFields: names(body, "outputFields"),
    level: readLevel(body)
  }
}

const readIds = (spec: CollectionSpec, value: unknown): KeyColumn => {
  if (value === undefined || value === null) throw bad("id is needed: a primary key, or an array of them")
  const all = Array.isArray(value) ? value : [value]
  if (all.length === 0) throw bad("there are no ids")
  return readKeys(all, spec.keyType)
}

export const readDelete = (spec: CollectionSpec, body: Body): KeyColumn => {
  refuseLater(body, ["filter", "partitionName"])
  return readIds(spec, body["id"])
}

export const readGet = (spec: CollectionSpec, body: Body) => {
  refuseLater(body, ["partitionNames"])
  const outputFields = body["outputFields"] === undefined ? ["*"] : names(body, "outputFields")
  return { keys: readIds(spec, body["id"]), outputFields, level: readLevel(body) }
}

/** A query is count(*) in this version. */
export const readCount = (body: Body): ReadLevel => {
  refuseLater(body, ["filter", "partitionNames", "id"])
  const wanted = names(body, "outputFields")
  if (wanted.length === 1 && wanted[0] === "count(*)") return readLevel(body)
  throw failure("not-supported", 'a query answers {"outputFields":["count(*)"]} in this version; use get for rows')
}

// ---- answers

const answer = (data: unknown, at: Timestamp, more?: object): Uint8Array =>
  utf8.encode(JSON.stringify({ data, timestamp: String(at), ...more }))

export const keyText = (key: Key): string => String(key)

/** A row as a client sees it. */
const rowObject = (
  spec: CollectionSpec,
  key: Key,
  fields: Uint8Array,
  vector: Float32Array | undefined,
  outputFields: ReadonlyArray<string>
): Record<string, unknown> => {
  const row: Record<string, unknown> = { [spec.keyField]: keyText(key) }
  const all = outputFields.includes("*")
  const parsed = parseFields(fields)
  for (const name of all ? Object.keys(parsed) : outputFields) {
    if (name in parsed) row[name] = parsed[name]
  }
  if (vector !== undefined) row[spec.vectorField] = Array.from(vector)
  return row
}

const NOTHING = new Uint8Array(0)

const vectorAt = (vectors: Float32Array, dimension: number, row: number): Float32Array | undefined =>
  vectors.length === 0 ? undefined : vectors.subarray(row * dimension, (row + 1) * dimension)

export const searchRows = (spec: CollectionSpec, found: SearchAnswer, outputFields: ReadonlyArray<string>) => {
  const { distances, fields, keys, vectors } = found
  return Array.from({ length: keys.count }, (_, i) => {
    const bytes = fields === undefined ? NOTHING : fieldBytesAt(fields, i)
    const { [spec.keyField]: key, ...rest } = rowObject(
      spec,
      keyAt(keys, i),
      bytes,
      vectorAt(vectors, spec.dimension, i),
      outputFields
    )
    // A field of that name is not shown: the score must be.
    return Object.assign({ [spec.keyField]: key, distance: 0 }, rest, { distance: distances[i]! })
  })
}

export const getRows = (spec: CollectionSpec, found: GetAnswer, outputFields: ReadonlyArray<string>) => {
  const { fields, keys, vectors } = found
  return Array.from({ length: keys.count }, (_, i) =>
    rowObject(
      spec,
      keyAt(keys, i),
      fields === undefined ? NOTHING : fieldBytesAt(fields, i),
      vectorAt(vectors, spec.dimension, i),
      outputFields
    )
  )
}

export const writeSearch = (spec: CollectionSpec, found: SearchAnswer, outputFields: ReadonlyArray<string>) =>
  answer(searchRows(spec, found, outputFields), found.timestamp, { topks: Array.from(found.counts) })
export const writeGet = (spec: CollectionSpec, found: GetAnswer, outputFields: ReadonlyArray<string>) =>
  answer(getRows(spec, found, outputFields), found.timestamp)
export const writeAnswer = answer

/** A collection as `describe` shows it. */
export const describe = ({ channels, created, id, spec }: Collection) => ({
  collectionID: id,
  databaseName: spec.database,
  collectionName: spec.name,
  description: spec.description,
  fields: [
    { name: spec.keyField, type: spec.keyType, primaryKey: true },
    { name: spec.vectorField, type: "FloatVector", params: { dim: spec.dimension } }
  ],
  enableDynamicField: true,
  indexes: [
    {
      fieldName: spec.vectorField,
      indexType: "HNSW",
      metricType: spec.metric,
      params: { M: spec.index.m, efConstruction: spec.index.efConstruction }
    }
  ],
  shardsNum: spec.shards,
  channels,
  createdTimestamp: String(created)
})

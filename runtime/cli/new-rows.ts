/** Rows that are to be inserted: each piece of an input as a row of its collection, or as what is wrong with it. */
import { parseBody } from "../../actors/proxy/json.ts"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { checkFields, readKey, readVector, type RowSpec } from "../../protocols/row-objects.ts"
import type { Key } from "../elanus.ts"
import { readArrow } from "./arrow.ts"
import { toElanusError } from "./exit.ts"
import { type Input, type Piece, readFvecs, readLines, unitOf } from "./input.ts"

export interface NewRow {
  readonly id: Key
  readonly vector: Float32Array
  readonly fields: { readonly [name: string]: unknown } | undefined
  /** What it takes in a request, about. */
  readonly bytes: number
}

export interface RowOptions {
  /** The id of the first vector of .fvecs, whose vectors have none. */
  readonly firstId: number
  /** Columns of Arrow; as the collection calls them if undefined. */
  readonly idColumn: string | undefined
  readonly vectorColumn: string | undefined
}

/** In the order of the input. What it throws while it reads is an input that cannot be read on. */
export const readRows = (
  input: Input,
  spec: RowSpec,
  { firstId, idColumn, vectorColumn }: RowOptions
): AsyncIterator<ReadonlyArray<Piece<NewRow | ElanusError>>> => {
  const { dimension, keyField, keyType, vectorField } = spec
  const unit = unitOf[input.format]

  const rowOf = (where: string, key: unknown, vector: unknown, fields: NewRow["fields"]): NewRow => {
    const id = readKey(key, keyType, `${where}, ${keyField}`)
    if (vector === undefined || vector === null)
      throw failure("field-not-found", `${where}: there is no ${vectorField}`)
    const into = new Float32Array(dimension)
    readVector(vector, dimension, into, 0, `${where}, ${vectorField}`)
    checkFields(fields, where)
    const fieldBytes = fields === undefined ? 0 : Buffer.byteLength(JSON.stringify(fields))
    if (fieldBytes > limits.fieldsBytesMax) {
      throw failure("too-large", `${where}: fields of ${fieldBytes} bytes; ${limits.fieldsBytesMax} are the most`)
    }
    const keyBytes = typeof id === "string" ? Buffer.byteLength(id) + 4 : 8
    return { id, vector: into, fields, bytes: dimension * 4 + keyBytes + fieldBytes + 4 }
  }
  const rowOfLine = (where: string, line: Uint8Array): NewRow => {
    const { [keyField]: key, [vectorField]: vector, ...fields } = parseBody(line)
    return rowOf(where, key, vector, Object.keys(fields).length === 0 ? undefined : fields)
  }

  async function* through<A>(
    pieces: AsyncIterable<ReadonlyArray<Piece<A>>>,
    convert: (where: string, value: A, at: number) => NewRow
  ): AsyncGenerator<ReadonlyArray<Piece<NewRow | ElanusError>>> {
    for await (const group of pieces) {
      yield group.map(({ at, value }) => {
        const where = `${unit} ${at}`
        try {
          return { at, value: convert(where, value, at) }
        } catch (cause) {
          const error = toElanusError(cause)
          const isPlaced = error.reason.startsWith(where)
          return {
            at,
            value: isPlaced ? error : failure(error.code, `${where}: ${error.reason.replace("the body", "it")}`)
          }
        }
      })
    }
  }
  switch (input.format) {
    case "jsonl":
      return through(readLines(input.chunks), rowOfLine)
    case "fvecs":
      return through(readFvecs(input.chunks), (where, vector, at) => {
        const id = firstId + at - 1
        return rowOf(where, keyType === "VarChar" ? String(id) : id, vector, undefined)
      })
    case "arrow":
      return through(
        readArrow(input, idColumn ?? keyField, vectorColumn ?? vectorField),
        (where, { fields, key, vector }) =>
          rowOf(where, key ?? undefined, vector, Object.keys(fields).length === 0 ? undefined : fields)
      )
  }
}

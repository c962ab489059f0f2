/**
 * Rows of Arrow IPC: a key, a vector, and whatever else as fields, as JSON would say it. Arrow's library is loaded when
 * there is something to read.
 */
import { failure } from "../../protocols/errors.ts"
import type { Input, Piece } from "./input.ts"

interface ArrowVector extends Iterable<unknown> {
  readonly type: { readonly precision?: number; toString(): string }
  readonly nullCount: number
  readonly get: (row: number) => unknown
  readonly toArray: () => ArrayLike<unknown>
}

interface ArrowBatch {
  readonly numRows: number
  readonly schema: { readonly fields: ReadonlyArray<{ readonly name: string }> }
  readonly getChild: (name: string) => ArrowVector | null
}

export interface ArrowRow {
  readonly key: unknown
  readonly vector: unknown
  readonly fields: { readonly [name: string]: unknown }
}

const isVector = (value: unknown): value is ArrowVector =>
  typeof value === "object" && value !== null && "nullCount" in value && "toArray" in value

/** What JSON can say of a value of Arrow; throws what it cannot. */
const plainOf = (value: unknown, where: string): unknown => {
  if (value === null || value === undefined) return null
  if (typeof value === "bigint") {
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : String(value)
  }
  if (typeof value !== "object") return value
  if (value instanceof Date) return value.toISOString()
  if (value instanceof Uint8Array) throw failure("bad-request", `${where}: bytes cannot be a field`)
  if (isVector(value) || Array.isArray(value) || ArrayBuffer.isView(value)) {
    return Array.from(value as Iterable<unknown>, (each) => plainOf(each, where))
  }
  const object = "toJSON" in value && typeof value.toJSON === "function" ? (value.toJSON() as object) : value
  return Object.fromEntries(Object.entries(object).map(([name, each]) => [name, plainOf(each, where)]))
}

/** A list's numbers; halves and nulls are read one by one, since their arrays hold bits. */
const numbersOf = (value: unknown): unknown => {
  if (!isVector(value)) return value
  if (value.nullCount > 0 || value.type.precision === 0) return Array.from(value)
  const array = value.toArray()
  return array instanceof Float32Array || array instanceof Float64Array ? array : Array.from(array)
}

async function* readBatches(input: Input): AsyncGenerator<ArrowBatch> {
  const { RecordBatchReader } = await import("apache-arrow")
  try {
    const source = await input.arrow()
    yield* (await RecordBatchReader.from(source as AsyncIterable<Uint8Array>)) as unknown as AsyncIterable<ArrowBatch>
  } catch (cause) {
    throw failure("bad-request", `${input.name} is no Arrow: ${cause instanceof Error ? cause.message : cause}`)
  }
}

/** The rows of a stream or a file: its key and its vector by their names, and whatever else as fields. */
export async function* readArrow(
  input: Input,
  keyName: string,
  vectorName: string
): AsyncGenerator<ReadonlyArray<Piece<ArrowRow>>> {
  let at = 0
  for await (const batch of readBatches(input)) {
    const keys = batch.getChild(keyName)
    const vectors = batch.getChild(vectorName)
    const names = batch.schema.fields.map(({ name }) => name)
    if (keys === null || vectors === null) {
      const missing = keys === null ? keyName : vectorName
      throw failure("field-not-found", `there is no column ${missing}, but ${names.join(", ")}`)
    }
    const others = names
      .filter((name) => name !== keyName && name !== vectorName)
      .map((name) => [name, batch.getChild(name)!] as const)
    yield Array.from({ length: batch.numRows }, (_, row) => ({
      at: at + row + 1,
      value: {
        key: keys.get(row),
        vector: numbersOf(vectors.get(row)),
        fields: Object.fromEntries(
          others.map(([name, column]) => [name, plainOf(column.get(row), `row ${at + row + 1}, ${name}`)])
        )
      }
    }))
    at += batch.numRows
  }
}

/**
 * Files and pipes of rows for the command line: JSON lines, `.fvecs` and Arrow IPC, read piece by piece, so that a
 * file of any size takes little memory. Each piece says where it was (line, vector, row), for whoever must correct it.
 */
import { createReadStream } from "node:fs"
import { type FileHandle, open, stat } from "node:fs/promises"
import { extname } from "node:path"
import { failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { UsageError } from "./exit.ts"

export const formats = ["jsonl", "arrow", "fvecs"] as const
export type Format = (typeof formats)[number]

/** What one piece is called, for messages. */
export const unitOf: { readonly [F in Format]: string } = { jsonl: "line", arrow: "row", fvecs: "vector" }

/** One row as it lies in its file; `at` counts from 1. */
export interface Piece<A> {
  readonly at: number
  readonly value: A
}

export interface Input {
  readonly name: string
  readonly format: Format
  /** Of the whole file; undefined for a pipe. */
  readonly bytes: number | undefined
  readonly bytesRead: () => number
  readonly chunks: AsyncIterable<Uint8Array>
  /** What Arrow's reader takes: a stream as it comes; a file, whose schema may only be at its end, opened or whole. */
  readonly arrow: () => Promise<AsyncIterable<Uint8Array> | FileHandle | Uint8Array>
  readonly close: () => Promise<void>
}

const CHUNK_BYTES = 256 * 1024

const extensions: { readonly [extension: string]: Format } = {
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".json": "jsonl",
  ".arrow": "arrow",
  ".arrows": "arrow",
  ".feather": "arrow",
  ".ipc": "arrow",
  ".fvecs": "fvecs"
}

const ARROW_MAGIC = new TextEncoder().encode("ARROW1")
/** Enough to tell one format from another. */
const HEAD_BYTES = 8
const CONTINUATION = 0xffff_ffff

const isArrowFile = (head: Uint8Array): boolean => ARROW_MAGIC.every((byte, i) => head[i] === byte)

/** By the first bytes, for a pipe or a name that says nothing. */
const formatOf = (head: Uint8Array): Format | undefined => {
  if (isArrowFile(head)) return "arrow"
  if (head.length >= 4 && new DataView(head.buffer, head.byteOffset).getUint32(0, true) === CONTINUATION) return "arrow"
  const first = head.find((byte) => byte > 0x20)
  return first === undefined || first === 0x7b ? "jsonl" : undefined
}

/** How large a file is, if it has a size (a named pipe has none). A name with nothing to read behind it is a wrong use. */
const sizeOf = async (path: string): Promise<number | undefined> => {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") throw new UsageError(`there is no file ${path}`)
    throw cause
  })
  if (found.isDirectory()) throw new UsageError(`${path} is a directory`)
  return found.isFile() ? found.size : undefined
}

/** Opens a file, or stdin for "-". Its format is what was given, or what its name or its first bytes say. */
export const openInput = async (path: string, given: Format | undefined): Promise<Input> => {
  const isPipe = path === "-"
  const bytes = isPipe ? undefined : await sizeOf(path)
  const stream: AsyncIterable<Buffer> = isPipe ? process.stdin : createReadStream(path, { highWaterMark: CHUNK_BYTES })
  const iterator = stream[Symbol.asyncIterator]()
  const heads: Array<Uint8Array> = []
  let headBytes = 0
  while (headBytes < HEAD_BYTES) {
    const next = await iterator.next()
    if (next.done === true) break
    heads.push(next.value)
    headBytes += next.value.length
  }
  const head = heads.length === 1 ? heads[0]! : Buffer.concat(heads)
  const name = isPipe ? "stdin" : path
  const format = given ?? extensions[extname(path).toLowerCase()] ?? formatOf(head)
  if (format === undefined) {
    throw failure("bad-request", `cannot tell the format of ${name}: give --format ${formats.join("|")}`)
  }
  let bytesRead = 0
  async function* chunks(): AsyncGenerator<Uint8Array> {
    bytesRead += head.length
    if (head.length > 0) yield head
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
      bytesRead += next.value.length
      yield next.value
    }
  }
  let file: FileHandle | undefined
  const all = chunks()
  return {
    name,
    format,
    bytes: format === "arrow" && isArrowFile(head) ? undefined : bytes,
    bytesRead: () => bytesRead,
    chunks: all,
    arrow: async () => {
      if (!isArrowFile(head)) return all
      if (!isPipe) return (file = await open(path))
      const parts: Array<Uint8Array> = []
      for await (const part of all) parts.push(part)
      return Buffer.concat(parts)
    },
    close: async () => {
      await iterator.return?.()
      await file?.close()
    }
  }
}

/** The lines that are not blank, without their ends. */
export async function* readLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ReadonlyArray<Piece<Uint8Array>>> {
  let rest: Array<Uint8Array> = []
  let restBytes = 0
  let at = 0
  const take = (line: Uint8Array): Piece<Uint8Array> | undefined => {
    at++
    const whole = restBytes === 0 ? line : Buffer.concat([...rest, line])
    rest = []
    restBytes = 0
    return whole.some((byte) => byte > 0x20) ? { at, value: whole } : undefined
  }
  for await (const chunk of chunks) {
    const lines: Array<Piece<Uint8Array>> = []
    let from = 0
    for (let to = chunk.indexOf(0x0a); to >= 0; to = chunk.indexOf(0x0a, from)) {
      const line = take(chunk.subarray(from, to))
      if (line !== undefined) lines.push(line)
      from = to + 1
    }
    if (from < chunk.length) {
      rest.push(chunk.subarray(from))
      restBytes += chunk.length - from
      if (restBytes > limits.inputPieceBytesMax) {
        throw failure("too-large", `line ${at + 1} has more than ${limits.inputPieceBytesMax} bytes`)
      }
    }
    if (lines.length > 0) yield lines
  }
  const last = restBytes === 0 ? undefined : take(new Uint8Array(0))
  if (last !== undefined) yield [last]
}

/** A copy, since the bytes need not lie on a border of four. */
const floatsOf = (bytes: Uint8Array): Float32Array => {
  const copy = new Float32Array(bytes.length / 4)
  new Uint8Array(copy.buffer).set(bytes)
  return copy
}

/** Each vector is its dimension as 32 bits, and as many floats of 32 bits. */
export async function* readFvecs(
  chunks: AsyncIterable<Uint8Array>
): AsyncGenerator<ReadonlyArray<Piece<Float32Array>>> {
  let rest: Uint8Array = new Uint8Array(0)
  let at = 0
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const vectors: Array<Piece<Float32Array>> = []
    let from = 0
    while (bytes.length - from >= 4) {
      const dimension = view.getInt32(from, true)
      if (dimension < 1 || dimension * 4 > limits.inputPieceBytesMax) {
        throw failure("bad-request", `vector ${at + 1} says that it has ${dimension} dimensions: this is no .fvecs`)
      }
      const end = from + 4 + dimension * 4
      if (end > bytes.length) break
      vectors.push({ at: ++at, value: floatsOf(bytes.subarray(from + 4, end)) })
      from = end
    }
    rest = bytes.subarray(from)
    if (vectors.length > 0) yield vectors
  }
  if (rest.length > 0) throw failure("bad-request", `the file ends in the middle of vector ${at + 1}`)
}

/**
 * The long work itself: functions from bytes to bytes that know nothing of where they run. The same input gives the
 * same output on every machine. They throw; who runs them says what that means.
 */
import { crc32, crc32OfParts } from "../protocols/checksum.ts"
import type { Metric } from "./distance.ts"
import { joined } from "./framed-file.ts"
import { encodeIndex, type IndexBuilder } from "./index-file.ts"
import { encodeKeyFilter, makeKeyFilter } from "./key-filter.ts"
import { type DeleteColumns, decodeDeletes, encodeDeletes } from "./delete-file.ts"
import {
  type BlockColumns,
  decodeSegment,
  encodeSegment,
  type SegmentColumns,
  sortBlocks,
  timestampRange
} from "./segment-file.ts"
import { StorageError } from "./outcome.ts"

/** An object ready to be put: its parts laid end to end, how long they are and their checksum. */
export interface ObjectParts {
  readonly parts: ReadonlyArray<Uint8Array>
  readonly bytes: number
  readonly crc32: number
}

/** An object as it was fetched, and what the manifest says of it. */
export interface ObjectBytes {
  readonly bytes: Uint8Array
  readonly length: number
  readonly crc32: number
}

export interface ComputeTasks {
  /** Sorts the rows of a growing segment and writes the file. The blocks may lie in shared memory. */
  readonly "seal-segment": {
    readonly input: BlockColumns
    readonly output: ObjectParts & {
      readonly rows: number
      readonly minTimestamp: bigint
      readonly maxTimestamp: bigint
      /** A key filter (key-filter.ts), ready to be stored. */
      readonly filter: Uint8Array
    }
  }
  readonly "seal-deletes": { readonly input: DeleteColumns; readonly output: ObjectParts }
  readonly "build-index": {
    readonly input: {
      readonly segment: ObjectBytes
      readonly metric: Metric
      readonly M: number
      readonly efConstruction: number
      /** Where the engine may write a file of the index's size; the system's temporary folder if absent. */
      readonly scratch?: string | undefined
    }
    readonly output: ObjectParts & { readonly count: number }
  }
  /** Compares the whole object's checksum and decodes it: the columns are views of one buffer. */
  readonly "open-segment": { readonly input: ObjectBytes; readonly output: SegmentColumns }
  readonly "open-deletes": { readonly input: ObjectBytes; readonly output: DeleteColumns }
}

export type TaskName = keyof ComputeTasks

/** Tasks of many seconds: an adapter keeps them from the way of the others. */
export const slowTasks: ReadonlySet<TaskName> = new Set<TaskName>(["build-index"])

export type Tasks = { readonly [K in TaskName]: (input: ComputeTasks[K]["input"]) => ComputeTasks[K]["output"] }

/** All tasks, with the engine that builds indexes. */
export const tasksWith = ({ build, engine }: IndexBuilder): Tasks => ({
  "seal-segment": (input) => {
    const columns = sortBlocks(input)
    const { min, max } = timestampRange(columns.timestamps)
    return {
      ...objectOf(encodeSegment(columns)),
      rows: columns.keys.count,
      minTimestamp: min,
      maxTimestamp: max,
      filter: encodeKeyFilter(makeKeyFilter(columns.keys))
    }
  },
  "seal-deletes": (input) => objectOf(encodeDeletes(input)),
  "build-index": ({ segment, metric, M, efConstruction, scratch }) => {
    const columns = openSegment(segment)
    const facts = { metric, dimension: columns.dimension, count: columns.keys.count, M, efConstruction }
    const body = build(columns.vectors, facts, scratch)
    return { ...objectOf(encodeIndex(engine, facts, body)), count: facts.count }
  },
  "open-segment": (input) => openSegment(input),
  "open-deletes": (input) => {
    verify(input)
    return decodeDeletes(input.bytes)
  }
})

const openSegment = (object: ObjectBytes): SegmentColumns => {
  verify(object)
  return decodeSegment(object.bytes, { trusted: true })
}

const verify = ({ bytes, length, crc32: expected }: ObjectBytes): void => {
  if (bytes.length !== length) {
    throw new StorageError({ reason: "damaged", detail: `object of ${bytes.length} bytes instead of ${length}` })
  }
  const found = crc32(bytes)
  if (found !== expected) {
    throw new StorageError({ reason: "damaged", detail: `object with checksum ${found} instead of ${expected}` })
  }
}

/** Small parts are joined: hundreds of tiny buffers would cost more on their way than the copy. */
const objectOf = (parts: ReadonlyArray<Uint8Array>): ObjectParts => {
  const bytes = parts.reduce((sum, part) => sum + part.length, 0)
  const grouped: Array<Uint8Array> = []
  let small: Array<Uint8Array> = []
  for (const part of parts) {
    if (part.length < SMALL_BYTES) small.push(part)
    else {
      if (small.length > 0) grouped.push(joined(small))
      small = []
      grouped.push(part)
    }
  }
  if (small.length > 0) grouped.push(joined(small))
  return { parts: grouped, bytes, crc32: crc32OfParts(grouped) }
}

const SMALL_BYTES = 64 * 1024

/** What a task threw, in plain data. */
export interface TaskFault {
  readonly detail: string
  readonly reason: "damaged" | "unfit" | undefined
}

export const taskFault = (cause: unknown): TaskFault => {
  if (cause instanceof StorageError) {
    return {
      detail: cause.message,
      reason: cause.reason === "damaged" || cause.reason === "unfit" ? cause.reason : undefined
    }
  }
  return { detail: cause instanceof Error ? (cause.stack ?? cause.message) : String(cause), reason: undefined }
}

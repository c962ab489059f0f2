/**
 * New rows on their way to a collection: in batches that fit a record, several at once, and those of one key in the
 * order in which they came. After the first batch that is lost nothing is sent any more.
 */
import { type ElanusError, failure } from "../../protocols/errors.ts"
import type { Collection, Key, RequestOptions } from "../elanus.ts"
import { toElanusError } from "./exit.ts"
import type { NewRow } from "./new-rows.ts"

/** Below what one record of the log and one message of NATS take. */
const BATCH_BYTES = 400 * 1024

/** Rows of one request; `first` and `last` say where in the input they were. */
interface Batch {
  readonly ids: Array<Key>
  readonly vectors: Array<Float32Array>
  readonly fields: Array<NewRow["fields"]>
  bytes: number
  readonly first: number
  last: number
}

export interface BatchOptions extends RequestOptions {
  readonly dimension: number
  /** What a piece of the input is called. */
  readonly unit: string
  /** Requests on their way at once. */
  readonly atOnce: number
  /** Is told after each batch how many rows are stored by then. */
  readonly onStored: (rows: number) => void
}

export interface Batches {
  /** The batch that is being filled goes before this row if both do not fit. */
  readonly add: (at: number, row: NewRow) => Promise<void>
  /** Whether there are rows that wait for company. */
  readonly isWaiting: () => boolean
  /** Sends them without any. */
  readonly send: () => Promise<void>
  /** Sends them, and waits until all that was sent is answered. */
  readonly end: () => Promise<void>
  readonly stored: () => number
  readonly lost: () => ElanusError | undefined
}

export const makeBatches = (collection: Collection, options: BatchOptions): Batches => {
  const { atOnce, dimension, onStored, unit, ...request } = options
  let stored = 0
  let lost: ElanusError | undefined
  let batch: Batch | undefined
  const inFlight = new Set<Promise<void>>()
  /** Two rows of one key must come in the input's order: the later waits until the earlier is there. */
  const keysInFlight = new Map<Key, Promise<void>>()

  const insert = ({ fields, first, ids, last, vectors }: Batch): Promise<void> => {
    const all = new Float32Array(ids.length * dimension)
    vectors.forEach((vector, i) => all.set(vector, i * dimension))
    const hasFields = fields.some((each) => each !== undefined)
    return collection.insert({ ids, vectors: all, ...(hasFields ? { fields } : {}) }, request).then(
      () => {
        stored += ids.length
        onStored(stored)
      },
      (cause: unknown) => {
        const error = toElanusError(cause)
        lost ??= failure(error.code, `${unit}s ${first} to ${last}: ${error.reason}`)
      }
    )
  }

  const send = async (): Promise<void> => {
    const mine = batch
    batch = undefined
    if (mine === undefined || lost !== undefined) return
    while (inFlight.size >= atOnce) await Promise.race(inFlight)
    for (const id of mine.ids) await keysInFlight.get(id)
    if (lost !== undefined) return
    const sent = insert(mine).then(() => {
      inFlight.delete(sent)
      for (const id of mine.ids) if (keysInFlight.get(id) === sent) keysInFlight.delete(id)
    })
    inFlight.add(sent)
    for (const id of mine.ids) keysInFlight.set(id, sent)
  }

  return {
    add: async (at, row) => {
      if (batch !== undefined && batch.bytes + row.bytes > BATCH_BYTES) await send()
      batch ??= { ids: [], vectors: [], fields: [], bytes: 0, first: at, last: at }
      batch.ids.push(row.id)
      batch.vectors.push(row.vector)
      batch.fields.push(row.fields)
      batch.bytes += row.bytes
      batch.last = at
    },
    isWaiting: () => batch !== undefined,
    send,
    end: async () => {
      await send()
      await Promise.all(inFlight)
    },
    stored: () => stored,
    lost: () => lost
  }
}

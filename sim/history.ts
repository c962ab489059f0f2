/**
 * What clients saw of a run: every operation, what it asked, when it began and ended, and in what. It knows nothing of
 * what is true; the checks do.
 */
import type { ReadLevel } from "../protocols/client.ts"
import type { ElanusError } from "../protocols/errors.ts"
import type { Key, KeyType } from "../protocols/keys.ts"
import type { Metric } from "../protocols/metadata.ts"
import type { RequestId } from "../protocols/record.ts"
import type { Fields } from "../protocols/rows.ts"
import type { Timestamp } from "../protocols/timestamp.ts"
import type { Moment } from "./ledger.ts"

export interface AskedRow {
  readonly key: Key
  readonly vector: Float32Array
  readonly fields: Fields
}

/** What of a row an answer brings beside its key. */
export interface Wanted {
  readonly fields: boolean
  readonly vector: boolean
}

export interface Shape {
  readonly dimension: number
  readonly metric: Metric
  readonly keyType: KeyType
  readonly shards: number
}

/** `request`: what the cluster knows it by; a client that sends none leaves that to its proxy. */
export type Asked =
  | { readonly _tag: "Create"; readonly request: RequestId | undefined; readonly shape: Shape }
  | { readonly _tag: "Drop" }
  | { readonly _tag: "Flush" }
  | { readonly _tag: "List" }
  | { readonly _tag: "Stats" }
  | {
      readonly _tag: "Upsert"
      readonly verb: "insert" | "upsert"
      readonly request: RequestId | undefined
      readonly rows: ReadonlyArray<AskedRow>
    }
  | { readonly _tag: "Delete"; readonly request: RequestId | undefined; readonly keys: ReadonlyArray<Key> }
  | {
      readonly _tag: "Get"
      readonly level: ReadLevel
      readonly keys: ReadonlyArray<Key>
      readonly wanted: Wanted
    }
  | { readonly _tag: "Count"; readonly level: ReadLevel }
  | {
      readonly _tag: "Search"
      readonly level: ReadLevel
      readonly queries: ReadonlyArray<Float32Array>
      readonly limit: number
      readonly offset: number
      readonly wanted: Wanted
    }

export interface AnswerRow {
  readonly key: Key
  readonly fields: Fields | undefined
  readonly vector: Float32Array | undefined
}

export interface AnswerHit extends AnswerRow {
  readonly distance: number
}

export type Answer =
  | { readonly _tag: "Done" }
  /** Of a create. */
  | { readonly _tag: "Made"; readonly id: string }
  | { readonly _tag: "Written"; readonly count: number }
  | { readonly _tag: "Rows"; readonly rows: ReadonlyArray<AnswerRow> }
  | { readonly _tag: "Hits"; readonly lists: ReadonlyArray<ReadonlyArray<AnswerHit>> }
  | { readonly _tag: "Counted"; readonly rows: number }
  | { readonly _tag: "Named"; readonly names: ReadonlyArray<string> }

export type Outcome =
  | { readonly _tag: "Ok"; readonly answer: Answer; readonly timestamp: Timestamp }
  /** Certainly not done, now or ever. */
  | { readonly _tag: "Refused"; readonly code: string; readonly reason: string }
  /** Nobody knows: done, or not, or later. */
  | { readonly _tag: "Unknown"; readonly code: string; readonly reason: string }

export interface Operation {
  readonly id: number
  readonly client: string
  /** Whether the client is a session: it gives back the timestamps that it was told. */
  readonly session: boolean
  /** Within so many milliseconds the client wants an answer. */
  readonly timeoutMs: number
  readonly collection: string
  readonly asked: Asked
  readonly invoked: Moment
  /** Undefined: it never ended. */
  completed: Moment | undefined
  outcome: Outcome | undefined
}

/** Whether it changes something, so that it matters if one without an answer was carried out. */
export const isWrite = ({ asked }: Operation): boolean =>
  asked._tag === "Upsert" || asked._tag === "Delete" || asked._tag === "Create" || asked._tag === "Drop"

/** What an error of a write leaves open. */
const OPEN: ReadonlySet<string> = new Set(["ambiguous", "outcome-unknown", "internal"])

/** What an error means to who asked: of reads nothing is left open. */
export const outcomeOf = (error: ElanusError, write: boolean): Outcome => ({
  _tag: write && OPEN.has(error.code) ? "Unknown" : "Refused",
  code: error.code,
  reason: error.reason
})

/** An operation that came to nothing before it was asked. */
export interface Skipped {
  readonly id: number
  readonly collection: string
  readonly code: string
  readonly reason: string
  readonly moment: Moment
}

export class History {
  readonly operations: Array<Operation> = []
  /** What was not even asked: the client could not find out what the collection is like. */
  readonly skipped: Array<Skipped> = []
  /** Operations that began and have not ended. */
  awaited = 0
  private readonly now: () => Moment

  constructor(now: () => Moment) {
    this.now = now
  }

  begin(operation: Omit<Operation, "invoked" | "completed" | "outcome">): Operation {
    const begun: Operation = { ...operation, invoked: this.now(), completed: undefined, outcome: undefined }
    this.operations.push(begun)
    this.awaited++
    return begun
  }

  skip(id: number, collection: string, { code, reason }: ElanusError): void {
    this.skipped.push({ id, collection, code, reason, moment: this.now() })
  }

  end(operation: Operation, outcome: Outcome): void {
    this.awaited--
    operation.completed = this.now()
    operation.outcome = outcome
  }
}

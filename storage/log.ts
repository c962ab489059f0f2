/**
 * The write-ahead log: numbered channels, each one sequence of records with a single writer at a time.
 *
 * An adapter is thin: it never retries, never groups, never decides what an ambiguous append became
 * (protocols/README.md, section 1: the channel's writer does). Sequences start at 1, are dense as they are
 * written, and never go back, also after a purge.
 */
import { Context, type Effect, type Stream } from "effect"
import type { Outcome, StorageError } from "./outcome.ts"

export interface LogEntry {
  readonly sequence: number
  readonly data: Uint8Array
}

export interface LogState {
  /** Of the oldest record kept; `last + 1` if there is none. */
  readonly first: number
  /** Of the newest record ever written; 0 if there never was one. */
  readonly last: number
  readonly bytes: number
  /** Past this the log refuses everything, fences included. */
  readonly bytesMax: number
  /** Which making of the log this is: a log that was lost and made again has another. */
  readonly incarnation: string
}

export class Log extends Context.Service<
  Log,
  {
    /** The largest record that this log takes now, in bytes: it can change, and a record that was on its way be refused ("invalid"). */
    readonly recordBytesMax: number

    /** Makes the channel's log. Only bootstrap does this; it fails if there is one already ("unfit"). */
    readonly create: (channel: number) => Effect.Effect<void, StorageError>

    /** The state as the log's leader tells it, after its configuration was checked: "missing", or "unfit" if it could lose data. */
    readonly open: (channel: number) => Effect.Effect<LogState, StorageError>

    /**
     * Sends one record that is to become sequence `expectedLast + 1`, and refused ("conflict") otherwise.
     * Two stages: the outer effect hands it to the transport, in order of the calls; the inner one waits for
     * the outcome, which holds the sequence, within `limits.appendTimeoutMs`. So a writer pipelines by calling again before it waits.
     */
    readonly append: (
      channel: number,
      data: Uint8Array,
      expectedLast: number
    ) => Effect.Effect<Effect.Effect<Outcome<number>>>

    /**
     * Writes all of `batch` next to each other or none of it; the outcome holds the last one's sequence.
     * Without an expectation it lands behind whatever is there (the stopper of a takeover).
     */
    readonly appendBatch: (
      channel: number,
      batch: ReadonlyArray<Uint8Array>,
      expectedLast: number | undefined
    ) => Effect.Effect<Outcome<number>>

    /** Every entry kept from sequence `from` up to and with `to`, in order, then the end. */
    readonly read: (channel: number, from: number, to: number) => Stream.Stream<LogEntry, StorageError>

    /** Every entry from `from` on, and those still to come. Fails when it can no longer promise that none is left out. */
    readonly follow: (channel: number, from: number) => Stream.Stream<LogEntry, StorageError>

    /**
     * Forgets every record below `before`; the newest record always stays. Says where the log begins now: earlier than
     * asked, if the store that was asked did not know the newest record yet.
     */
    readonly purge: (channel: number, before: number) => Effect.Effect<Outcome<number>>
  }
>()("elanus/storage/Log") {}

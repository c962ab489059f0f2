/**
 * Who is alive and who owns what: keys changed one at a time by their revision, some of which expire.
 *
 * Apart from the metadata, because an expiry moves the sequence of its bucket (see meta.ts). A lease that
 * expired means "probably dead", never "has stopped": what must not be done twice is fenced elsewhere.
 */
import { Context, type Effect, type Option, type Stream } from "effect"
import type { Entry, WatchEvent } from "./meta.ts"
import type { Outcome, StorageError } from "./outcome.ts"

export class Leases extends Context.Service<
  Leases,
  {
    /** The newest value of a key, asked of the leader. */
    readonly get: (key: string) => Effect.Effect<Option.Option<Entry>, StorageError>

    /**
     * Writes the key if its revision still is `expected` (0: there is no such key, or it was removed or has expired).
     * The outcome holds the new revision: larger than every one before it, of any key. With `ttlMs` the key goes by
     * itself unless it is put again in time (whole seconds, at least 1,000); without, it stays.
     */
    readonly put: (key: string, value: Uint8Array, expected: number, ttlMs?: number) => Effect.Effect<Outcome<number>>

    /** Takes the key away if its revision still is `expected`. */
    readonly remove: (key: string, expected: number) => Effect.Effect<Outcome<void>>

    /** As `Meta.watch`; an expiry is a "Deleted". */
    readonly watch: (prefix: string) => Stream.Stream<WatchEvent, StorageError>
  }
>()("elanus/storage/Leases") {}

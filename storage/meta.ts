/**
 * The metadata: a small ordered store of keys, in which only the active coordinator writes.
 *
 * A commit changes several keys at once or none, and names the head (the sequence of the newest change of
 * *any* key) that it builds on. So a coordinator that was deposed cannot write a single key, whichever it is.
 * Nothing in here expires: an expiry would move the head and depose whoever holds it.
 */
import { Context, type Effect, type Option, type Stream } from "effect"
import type { Outcome, StorageError } from "./outcome.ts"

export interface Entry {
  readonly key: string
  readonly value: Uint8Array
  /** The sequence of the change that wrote it. */
  readonly revision: number
}

/** A change of a key; no value deletes it. */
export interface Change {
  readonly key: string
  readonly value: Uint8Array | undefined
}

/**
 * What a watch tells: first every key that there is, then "CaughtUp" once, then each change as it comes, in the order of
 * revisions. "CaughtUp" says up to which revision: the picture may be older than what its reader knows already, if it
 * was taken by a server that is behind.
 */
export type WatchEvent =
  | { readonly _tag: "Put"; readonly entry: Entry }
  | { readonly _tag: "Deleted"; readonly key: string; readonly revision: number }
  | { readonly _tag: "CaughtUp"; readonly revision: number }

export class Meta extends Context.Service<
  Meta,
  {
    /** The newest value of a key, asked of the leader. Never decide by it alone: decide by a commit that succeeds. */
    readonly get: (key: string) => Effect.Effect<Option.Option<Entry>, StorageError>

    /** Every key there is, and the head that this picture belongs to: a commit that expects it proves that nothing changed since. */
    readonly snapshot: Effect.Effect<{ readonly head: number; readonly entries: ReadonlyArray<Entry> }, StorageError>

    /**
     * Applies all changes if the head is still `expectedHead`; the outcome holds the new head.
     * At most `limits.commitKeysMax` keys and `limits.commitBytesMax` bytes ("invalid" past them). A key is in `changes` once.
     */
    readonly commit: (changes: ReadonlyArray<Change>, expectedHead: number) => Effect.Effect<Outcome<number>>

    /** Keys below `prefix` (whole dot-separated tokens, "" for all). Fails when it may have missed something; then watch anew. */
    readonly watch: (prefix: string) => Stream.Stream<WatchEvent, StorageError>
  }
>()("elanus/storage/Meta") {}

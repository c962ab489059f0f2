/**
 * Sealed data as immutable objects. A name is written once and never again, so whoever holds a name holds
 * its bytes. Keys are slash-separated paths of printable text; an adapter escapes what its store cannot take.
 */
import { Context, type Effect, type Option, type Stream } from "effect"
import type { Outcome, StorageError } from "./outcome.ts"

export interface ObjectInfo {
  readonly key: string
  readonly bytes: number
}

export class Objects extends Context.Service<
  Objects,
  {
    /** Writes the object, given in parts that are laid end to end, if there is none of that name ("conflict" otherwise). Durable when done. */
    readonly put: (key: string, parts: ReadonlyArray<Uint8Array>) => Effect.Effect<Outcome<void>>

    /**
     * The bytes from `range.offset`, at most `range.length` of them: fewer at the object's end, none past it.
     * The answer is the caller's own, at offset 0 of its buffer. "missing" if there is no such object.
     */
    readonly get: (
      key: string,
      range?: { readonly offset: number; readonly length: number }
    ) => Effect.Effect<Uint8Array, StorageError>

    readonly head: (key: string) => Effect.Effect<Option.Option<ObjectInfo>, StorageError>

    /** Every object whose key begins with `prefix`, ordered by key. */
    readonly list: (prefix: string) => Stream.Stream<ObjectInfo, StorageError>

    /** Done also if there is no such object. */
    readonly remove: (key: string) => Effect.Effect<Outcome<void>>
  }
>()("elanus/storage/Objects") {}

/**
 * What became of a write through a port. There are four answers, and a caller must face each:
 * a timeout is not a failure, and nothing here may ever turn one into a success either.
 */
import { Data } from "effect"

export type Outcome<A> = Data.TaggedEnum<{
  /** It is written, durably, and this is what the store said. */
  Done: { readonly value: A }
  /** The store looked at it and said no (a lost compare-and-set, a full log). Nothing was written. */
  Refused: { readonly reason: RefusedReason; readonly detail: string }
  /** It certainly never reached the store. It may be tried again as it is. */
  Unavailable: { readonly detail: string }
  /** Nobody knows. It may be written now, later, or never. */
  Ambiguous: { readonly detail: string }
}>

/** `conflict`: an expectation did not hold. `full`: the store is at its limit. `invalid`: it can never be stored as it is. */
export type RefusedReason = "conflict" | "full" | "invalid"

export const done = <A>(value: A): Outcome<A> => ({ _tag: "Done", value })
export const refused = (reason: RefusedReason, detail: string): Outcome<never> => ({ _tag: "Refused", reason, detail })
export const unavailable = (detail: string): Outcome<never> => ({ _tag: "Unavailable", detail })
export const ambiguous = (detail: string): Outcome<never> => ({ _tag: "Ambiguous", detail })

/**
 * A read that could not be answered. `unavailable` may be tried again; `missing` says that the thing is not
 * there (a stream, an object); `damaged` says that it is there and wrong, and nobody may go on as if it were not;
 * `unfit` says that the store is not one we can work with (too old a server, a configuration that would lose data).
 */
export class StorageError extends Data.TaggedError("StorageError")<{
  readonly reason: "unavailable" | "missing" | "damaged" | "unfit"
  readonly detail: string
}> {
  override get message() {
    return `${this.reason}: ${this.detail}`
  }
}

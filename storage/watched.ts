/**
 * A watch as a map that follows its keys for ever. It is a cache: it may be behind, and after a break keys that
 * the new picture lacks are gone. Decide by a write that succeeds, never by what stands here.
 */
import { Effect, type Scope, Stream } from "effect"
import type { Entry, WatchEvent } from "./meta.ts"
import type { StorageError } from "./outcome.ts"

export interface Watched {
  readonly get: (key: string) => Entry | undefined
  readonly keys: () => IterableIterator<string>
}

/** What became of one key; `entry` is undefined where it is gone. */
export type KeyChanged = (key: string, entry: Entry | undefined) => void

const RENEW_FIRST_MS = 20
const RENEW_MAX_MS = 2_000

/**
 * Follows `watch` in the present scope, telling `changed` of every change as it is learnt. Returns when the first
 * picture is complete. A watch that breaks is made anew, with back-off.
 */
export const follow = Effect.fnUntraced(function* (
  watch: () => Stream.Stream<WatchEvent, StorageError>,
  changed: KeyChanged,
  caughtUp: () => void = () => {}
): Effect.fn.Return<Watched, never, Scope.Scope> {
  const entries = new Map<string, Entry>()
  let complete = false
  let waitMs = RENEW_FIRST_MS
  let wake: (() => void) | undefined

  const set = (entry: Entry) => {
    const known = entries.get(entry.key)
    if (known !== undefined && known.revision >= entry.revision) return
    entries.set(entry.key, entry)
    changed(entry.key, entry)
  }
  const forget = (key: string) => {
    if (entries.delete(key)) changed(key, undefined)
  }

  const once = Effect.suspend(() => {
    let snapshot: Set<string> | undefined = new Set()
    return Stream.runForEach(watch(), (event) =>
      Effect.sync(() => {
        if (event._tag === "Put") {
          snapshot?.add(event.entry.key)
          set(event.entry)
        } else if (event._tag === "Deleted") {
          snapshot?.delete(event.key)
          forget(event.key)
        } else {
          for (const key of [...entries.keys()]) if (!snapshot?.has(key)) forget(key)
          snapshot = undefined
          complete = true
          waitMs = RENEW_FIRST_MS
          wake?.()
          caughtUp()
        }
      })
    )
  })

  yield* once.pipe(
    Effect.catch((error) => Effect.logDebug(`watch broke: ${error.detail}`)),
    Effect.andThen(() => {
      const wait = waitMs
      waitMs = Math.min(waitMs * 2, RENEW_MAX_MS)
      return Effect.sleep(wait)
    }),
    Effect.forever,
    Effect.forkScoped
  )

  yield* Effect.callback<void>((resume) => {
    if (complete) return resume(Effect.void)
    wake = () => {
      wake = undefined
      resume(Effect.void)
    }
  })
  return { get: (key) => entries.get(key), keys: () => entries.keys() }
})

/**
 * A watch as a map that follows its keys for ever. It is a cache: it may be behind, but never goes back. After a break
 * keys that the new picture lacks are gone, once the watch has come past them: a picture of a server that is behind lacks
 * what is newer. And what it has that is gone here stays gone. Decide by a write that succeeds, never by what stands here.
 */
import { Effect, Pull, type Scope, Stream } from "effect"
import type { Entry, WatchEvent } from "./meta.ts"
import type { StorageError } from "./outcome.ts"

export interface Watched {
  readonly get: (key: string) => Entry | undefined
  readonly keys: () => IterableIterator<string>
}

/** What became of one key; `entry` is undefined where it is gone. */
export type KeyChanged = (key: string, entry: Entry | undefined) => void

/** What may come between a watch and who follows it: before it is made, and before what it tells is learnt. */
export interface Between {
  readonly made: Effect.Effect<void>
  readonly told: (events: ReadonlyArray<WatchEvent>) => Effect.Effect<void, StorageError> | undefined
}
const nothingBetween: Between = { made: Effect.void, told: () => undefined }

const RENEW_FIRST_MS = 20
const RENEW_MAX_MS = 2_000

/**
 * Follows `watch` in the present scope, telling `changed` of every change as it is learnt. Returns when the first
 * picture is complete. A watch that breaks is made anew, with back-off. `caughtUp` hears when the picture of each is complete.
 */
export const follow = Effect.fnUntraced(function* (
  watch: () => Stream.Stream<WatchEvent, StorageError>,
  changed: KeyChanged,
  { between = nothingBetween, caughtUp = () => {} }: { readonly between?: Between; readonly caughtUp?: () => void } = {}
): Effect.fn.Return<Watched, never, Scope.Scope> {
  const entries = new Map<string, Entry>()
  /** Of all changes up to here nothing is missing. */
  let told = 0
  let complete = false
  let waitMs = RENEW_FIRST_MS
  let wake: (() => void) | undefined

  const set = (entry: Entry) => {
    const known = entries.get(entry.key)
    if (entry.revision <= (known?.revision ?? told)) return
    entries.set(entry.key, entry)
    changed(entry.key, entry)
  }
  const forget = (key: string) => {
    if (entries.delete(key)) changed(key, undefined)
  }

  const once = Effect.suspend(() => {
    let isCaughtUp = false
    /** What stood here when this watch began, and was not told again. */
    const before = new Map(entries)
    /** All that this watch would tell up to `revision` it has told. */
    const passed = (revision: number) => {
      // A picture that was taken where everything is decided has no revision of its own.
      if (isCaughtUp && Number.isFinite(revision)) told = Math.max(told, revision)
      for (const [key, entry] of before) {
        if (entry.revision > revision) continue
        before.delete(key)
        if (entries.get(key) === entry) forget(key)
      }
    }
    const learn = (event: WatchEvent) => {
      if (event._tag === "Put") {
        before.delete(event.entry.key)
        set(event.entry)
        if (isCaughtUp) passed(event.entry.revision)
      } else if (event._tag === "Deleted") {
        // Of a picture that is behind: what stands here has come since.
        if ((entries.get(event.key)?.revision ?? 0) < event.revision) forget(event.key)
        passed(event.revision)
      } else {
        isCaughtUp = true
        passed(event.revision)
        complete = true
        waitMs = RENEW_FIRST_MS
        wake?.()
        caughtUp()
      }
    }
    const learns = Effect.gen(function* () {
      yield* between.made
      const pull = yield* Stream.toPull(watch())
      while (true) {
        const events = yield* pull
        const pause = between.told(events)
        if (pause !== undefined) yield* pause
        for (const event of events) learn(event)
      }
    })
    return Effect.scoped(Pull.catchDone(learns, () => Effect.void))
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

/**
 * Watches of the local metadata and leases: each gets what there is and then every change, in order. One that
 * does not keep up is ended with an error; it never holds up the others, and never skips a change.
 */
import { Cause, Effect, Queue, Stream } from "effect"
import { limits } from "../protocols/limits.ts"
import type { WatchEvent } from "./meta.ts"
import { isBelow } from "./meta-rules.ts"
import { StorageError } from "./outcome.ts"

const keyOf = (event: WatchEvent) =>
  event._tag === "Put" ? event.entry.key : event._tag === "Deleted" ? event.key : undefined

interface Watcher {
  readonly prefix: string
  readonly queue: Queue.Queue<WatchEvent, StorageError | Cause.Done>
}

export const makeWatchers = () => {
  const watchers = new Set<Watcher>()

  const fail = (watcher: Watcher, detail: string) => {
    watchers.delete(watcher)
    Queue.failCauseUnsafe(watcher.queue, Cause.fail(new StorageError({ reason: "unavailable", detail })))
  }

  /** Must be called in the order of the changes. */
  const publish = (event: WatchEvent) => {
    const key = keyOf(event)
    for (const watcher of [...watchers]) {
      if (key === undefined || !isBelow(watcher.prefix, key)) continue
      if (!Queue.offerUnsafe(watcher.queue, event))
        fail(watcher, `a watch fell behind by ${limits.watchWaitingMax} changes`)
    }
  }

  /** `snapshot` must be what there is at the moment of the call: what is published later is a change of it. */
  const watch = (prefix: string, snapshot: () => ReadonlyArray<WatchEvent>): Stream.Stream<WatchEvent, StorageError> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const queue = yield* Queue.dropping<WatchEvent, StorageError | Cause.Done>(limits.watchWaitingMax)
        const watcher = { prefix, queue }
        const now = yield* Effect.acquireRelease(
          Effect.sync(() => {
            watchers.add(watcher)
            return snapshot().filter((event) => isBelow(prefix, keyOf(event) ?? ""))
          }),
          () => Effect.sync(() => watchers.delete(watcher))
        )
        // Taken where everything is decided: nothing can be newer.
        const caughtUp: WatchEvent = { _tag: "CaughtUp", revision: Infinity }
        return Stream.fromIterable([...now, caughtUp]).pipe(Stream.concat(Stream.fromQueue(queue)))
      })
    )

  return {
    publish,
    watch,
    failAll: (detail: string) => {
      for (const watcher of [...watchers]) fail(watcher, detail)
    }
  }
}

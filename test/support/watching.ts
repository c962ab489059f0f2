/** The events of a watch, one by one and in words, for the suites of both buckets. */
import { Effect, Queue, Stream } from "effect"
import type { WatchEvent } from "../../storage/meta.ts"
import type { StorageError } from "../../storage/outcome.ts"
import { textOf } from "./storage.ts"

/** Longer than a reader waits for a server that is silent. */
const EVENT_MAX_MS = 10_000

export const told = (event: WatchEvent): string =>
  event._tag === "Put"
    ? `${event.entry.key}=${textOf(event.entry.value)}`
    : event._tag === "Deleted"
      ? `-${event.key}`
      : event._tag

/** Takes so many more events. Fails with what the watch failed of, or where nothing more comes. */
export const watching = Effect.fnUntraced(function* (stream: Stream.Stream<WatchEvent, StorageError>) {
  const queue = yield* Queue.unbounded<string, StorageError>()
  yield* stream.pipe(
    Stream.runForEach((event) => Queue.offer(queue, told(event))),
    Effect.catch((error) => Queue.fail(queue, error)),
    Effect.forkScoped
  )
  return Effect.fnUntraced(function* (count: number) {
    const events: Array<string> = []
    while (events.length < count) {
      const next = Queue.take(queue).pipe(
        Effect.timeoutOrElse({
          duration: EVENT_MAX_MS,
          orElse: () => Effect.die(new Error(`of ${count} events the watch told only: ${events.join(", ")}`))
        })
      )
      events.push(yield* next)
    }
    return events
  })
})

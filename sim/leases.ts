/** The leases in a simulated world, as storage/leases-jetstream.ts keeps them in a stream of the broker. */
import { Effect } from "effect"
import { limits } from "../protocols/limits.ts"
import { Leases } from "../storage/leases.ts"
import { refusalOfLease } from "../storage/meta-rules.ts"
import { done, type Outcome, type StorageError, unavailable } from "../storage/outcome.ts"
import { getKey, lastOf, watchBucket } from "./bucket.ts"
import type { Ledger } from "./ledger.ts"
import { type JetStream, MARKER_TTL_MS } from "./jetstream.ts"
import type { Session } from "./session.ts"
import type { NewMessage, StreamOptions } from "./stream.ts"
import { writeStream } from "./write.ts"

const nothing = new Uint8Array(0)

export const leasesStream = (ledger: Ledger): StreamOptions => ({
  name: "live",
  bytesMax: () => Infinity,
  isBucket: true,
  note: (stored) => {
    for (const { data, isMarker, sequence, subject } of stored) {
      ledger.add({ _tag: "Leased", key: subject, value: isMarker ? undefined : data, revision: sequence })
    }
  }
})

export const makeLeases = (streams: JetStream, session: Session): Leases["Service"] => {
  const write = (message: NewMessage, expected: number) =>
    writeStream(streams, session, "live", [message], { lastOfSubject: expected }, limits.commitTimeoutMs).wait

  return Leases.of({
    get: (key) => getKey(streams, session, "live", key),
    put: Effect.fnUntraced(
      function* (key, value, expected, ttlMs) {
        const refusal = refusalOfLease(key, ttlMs)
        if (refusal !== undefined) return refusal
        const message = { subject: key, data: value, ttlMs }
        const outcome = yield* write(message, expected)
        if (outcome._tag !== "Refused" || outcome.reason !== "conflict" || expected !== 0) return outcome
        // A key that went leaves a marker for a while, which has a revision of its own: to us that is no key.
        const found = yield* lastOf(streams, session, "live", key)
        return found?.isMarker ? yield* write(message, found.entry.revision) : outcome
      },
      // Only the look at the marker fails, and by then the write was refused.
      Effect.catch((error: StorageError) => Effect.succeed<Outcome<number>>(unavailable(error.detail)))
    ),
    remove: Effect.fnUntraced(function* (key, expected): Effect.fn.Return<Outcome<void>> {
      const refusal = refusalOfLease(key, undefined)
      if (refusal !== undefined) return refusal
      const marker = { subject: key, data: nothing, isMarker: true, ttlMs: MARKER_TTL_MS }
      const outcome = yield* write(marker, expected)
      return outcome._tag === "Done" ? done(undefined) : outcome
    }),
    watch: (prefix) => watchBucket(streams, session, "live", prefix)
  })
}

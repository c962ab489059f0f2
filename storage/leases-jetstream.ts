/**
 * Leases on JetStream: a key-value bucket written one key at a time, each by its revision, whose keys the server
 * removes when their time is up. It never renews anything by itself.
 */
import { Effect, Layer, Option } from "effect"
import { limits } from "../protocols/limits.ts"
import { type BucketOptions, checkBucket, keySubject, lastOf, watchBucket } from "./jetstream-bucket.ts"
import { expectLastOfSubject, publishEffect } from "./jetstream-publish.ts"
import { Leases } from "./leases.ts"
import type { Entry } from "./meta.ts"
import { refusalOfLease } from "./meta-rules.ts"
import { NatsConnection } from "./nats-connection.ts"
import { done, type Outcome, type StorageError, unavailable } from "./outcome.ts"

const nothing = new Uint8Array(0)

const make = Effect.fnUntraced(function* (options: BucketOptions) {
  const nats = yield* NatsConnection
  const { cluster } = options
  yield* checkBucket(nats, options, "live")

  const get = Effect.fnUntraced(function* (key: string) {
    const found = yield* lastOf(nats, cluster, "live", key)
    return found === undefined || found.isMarker ? Option.none<Entry>() : Option.some(found.entry)
  })

  const write = (
    key: string,
    data: Uint8Array,
    expected: number,
    headers: ReadonlyArray<readonly [string, string]>
  ): Effect.Effect<Outcome<number>> =>
    publishEffect(
      nats,
      [{ subject: keySubject(cluster, "live", key), data, headers: [expectLastOfSubject(expected), ...headers] }],
      limits.commitTimeoutMs
    )

  const put = Effect.fnUntraced(
    function* (key: string, value: Uint8Array, expected: number, ttlMs?: number) {
      const refusal = refusalOfLease(key, ttlMs)
      if (refusal !== undefined) return refusal
      const headers = ttlMs === undefined ? [] : [["Nats-TTL", `${ttlMs / 1_000}s`] as const]
      const outcome = yield* write(key, value, expected, headers)
      if (outcome._tag !== "Refused" || outcome.reason !== "conflict" || expected !== 0) return outcome
      // A key that went leaves a marker for a while, which has a revision of its own: to us that is no key.
      const found = yield* lastOf(nats, cluster, "live", key)
      return found?.isMarker ? yield* write(key, value, found.entry.revision, headers) : outcome
    },
    // Only the look at the marker fails, and by then the write was refused.
    Effect.catch((error: StorageError) => Effect.succeed<Outcome<number>>(unavailable(error.detail)))
  )

  const remove = Effect.fnUntraced(function* (key: string, expected: number): Effect.fn.Return<Outcome<void>> {
    const refusal = refusalOfLease(key, undefined)
    if (refusal !== undefined) return refusal
    // PURGE and not DEL: it is the marker which the server lets go without leaving another.
    const outcome = yield* write(key, nothing, expected, [
      ["KV-Operation", "PURGE"],
      ["Nats-TTL", `${limits.markerTtlMs / 1_000}s`]
    ])
    return outcome._tag === "Done" ? done(undefined) : outcome
  })

  return Leases.of({ get, put, remove, watch: (prefix) => watchBucket(nats, cluster, "live", prefix) })
})

export const layer = (options: BucketOptions): Layer.Layer<Leases, StorageError, NatsConnection> =>
  Layer.effect(Leases, make(options))

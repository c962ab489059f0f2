/**
 * The metadata on JetStream: a key-value bucket that is written by atomic batches which name the head of the
 * whole stream. It never uses the key-value client's put and create, which know only the revision of one key.
 */
import { Effect, Layer, Option } from "effect"
import { limits } from "../protocols/limits.ts"
import {
  bootstrap,
  bucketInfo,
  type BucketOptions,
  bucketStream,
  checkBucket,
  keySubject,
  lastOf,
  subjectRoot,
  unescapeKey,
  watchBucket
} from "./jetstream-bucket.ts"
import { expectLast, publishEffect } from "./jetstream-publish.ts"
import { openReader } from "./jetstream-reader.ts"
import { type Change, type Entry, Meta } from "./meta.ts"
import { refusalOfChanges } from "./meta-rules.ts"
import { NatsConnection } from "./nats-connection.ts"
import { StorageError } from "./outcome.ts"

export { bootstrap, type BucketOptions }

const nothing = new Uint8Array(0)
/** Pictures that were out of date when they were finished, before a snapshot gives up. */
const picturesMax = 20

const make = Effect.fnUntraced(function* (options: BucketOptions) {
  const nats = yield* NatsConnection
  const { cluster } = options
  const stream = bucketStream(cluster, "meta")
  yield* checkBucket(nats, options, "meta")

  const get = Effect.fnUntraced(function* (key: string) {
    const found = yield* lastOf(nats, cluster, "meta", key)
    return found === undefined || found.isMarker ? Option.none<Entry>() : Option.some(found.entry)
  })

  /** Every key as of a head; nothing if the bucket changed meanwhile, since then the keys may be of several. */
  const picture = Effect.fnUntraced(function* () {
    const head = (yield* bucketInfo(nats, stream)).state.last_seq
    const root = subjectRoot(cluster, "meta")
    const entries = new Map<string, Entry>()
    let seen = 0
    if (head > 0) {
      const reader = yield* openReader(nats, { stream, subject: `${root}>` })
      // The newest message of the stream is never removed, so a replica that does not show it is behind.
      while (seen < head) {
        for (const { subject, data, header, sequence } of yield* reader.next) {
          const key = unescapeKey(subject.slice(root.length))
          seen = sequence
          if (header("KV-Operation") === "") entries.set(key, { key, value: data, revision: sequence })
          else entries.delete(key)
        }
      }
    }
    const isCurrent = seen === head && (yield* bucketInfo(nats, stream)).state.last_seq === head
    return isCurrent ? { head, entries: [...entries.values()] } : undefined
  }, Effect.scoped)

  const snapshot = Effect.gen(function* () {
    for (let attempt = 0; attempt < picturesMax; attempt++) {
      const found = yield* picture()
      if (found !== undefined) return found
    }
    return yield* new StorageError({ reason: "unavailable", detail: `${stream} changes faster than it can be read` })
  })

  const commit = Effect.fnUntraced(function* (changes: ReadonlyArray<Change>, expectedHead: number) {
    const refusal = refusalOfChanges(changes)
    if (refusal !== undefined) return refusal
    const messages = changes.map(({ key, value }, index) => ({
      subject: keySubject(cluster, "meta", key),
      data: value ?? nothing,
      headers: [
        ...(index === 0 ? [expectLast(expectedHead)] : []),
        ...(value === undefined ? [["KV-Operation", "DEL"] as const] : [])
      ]
    }))
    return yield* publishEffect(nats, messages, limits.commitTimeoutMs)
  })

  return Meta.of({ get, snapshot, commit, watch: (prefix) => watchBucket(nats, cluster, "meta", prefix) })
})

export const layer = (options: BucketOptions): Layer.Layer<Meta, StorageError, NatsConnection> =>
  Layer.effect(Meta, make(options))

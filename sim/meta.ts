/** The metadata in a simulated world, as storage/meta-jetstream.ts keeps it in a stream of the broker. */
import { Effect } from "effect"
import { limits } from "../protocols/limits.ts"
import { type Change, type Entry, Meta } from "../storage/meta.ts"
import { refusalOfChanges } from "../storage/meta-rules.ts"
import { StorageError } from "../storage/outcome.ts"
import { askStream, getKey, watchBucket } from "./bucket.ts"
import type { Ledger } from "./ledger.ts"
import { openReader } from "./reader.ts"
import type { JetStream } from "./jetstream.ts"
import type { Session } from "./session.ts"
import type { StreamOptions } from "./stream.ts"
import { writeStream } from "./write.ts"

const nothing = new Uint8Array(0)
/** Pictures that were out of date when they were finished, before a snapshot gives up. */
const picturesMax = 20

export const metaStream = (ledger: Ledger): StreamOptions => ({
  name: "meta",
  bytesMax: () => Infinity,
  isBucket: true,
  note: (stored) => {
    const changes = stored.map(({ data, isMarker, subject }): Change => ({
      key: subject,
      value: isMarker ? undefined : data
    }))
    ledger.add({ _tag: "Committed", head: stored[stored.length - 1]!.sequence, changes })
  }
})

const everything = () => true

export const makeMeta = (streams: JetStream, session: Session): Meta["Service"] => {
  const headOf = askStream(streams, session, "meta", (stream, time) => stream.lastAt(time))

  /** Every key as of a head; nothing if the bucket changed meanwhile, since then the keys may be of several. */
  const picture = Effect.fnUntraced(function* () {
    const head = yield* headOf
    const entries = new Map<string, Entry>()
    let seen = 0
    if (head > 0) {
      const reader = yield* openReader(streams, session, { stream: "meta", matches: everything, from: 1 })
      while (seen < head) {
        for (const { data, isMarker, sequence, subject } of yield* reader.next(false)) {
          seen = sequence
          if (isMarker) entries.delete(subject)
          else entries.set(subject, { key: subject, value: data, revision: sequence })
        }
      }
    }
    const isCurrent = seen === head && (yield* headOf) === head
    return isCurrent ? { head, entries: [...entries.values()] } : undefined
  }, Effect.scoped)

  return Meta.of({
    get: (key) => getKey(streams, session, "meta", key),
    snapshot: Effect.gen(function* () {
      for (let attempt = 0; attempt < picturesMax; attempt++) {
        const found = yield* picture()
        if (found !== undefined) return found
      }
      return yield* new StorageError({ reason: "unavailable", detail: "meta changes faster than it can be read" })
    }),
    commit: Effect.fnUntraced(function* (changes, expectedHead) {
      const refusal = refusalOfChanges(changes)
      if (refusal !== undefined) return refusal
      const messages = changes.map(({ key, value }) => ({
        subject: key,
        data: value ?? nothing,
        isMarker: value === undefined
      }))
      return yield* writeStream(streams, session, "meta", messages, { last: expectedHead }, limits.commitTimeoutMs).wait
    }),
    watch: (prefix) => watchBucket(streams, session, "meta", prefix)
  })
}

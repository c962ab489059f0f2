/** Keys in a stream of the broker, as storage/jetstream-bucket.ts keeps them: what is at a key, and a watch of many. */
import { Effect, Option, Stream } from "effect"
import type { Entry, WatchEvent } from "../storage/meta.ts"
import { isBelow } from "../storage/meta-rules.ts"
import { StorageError } from "../storage/outcome.ts"
import { Picture } from "../storage/picture.ts"
import { openReader } from "./reader.ts"
import type { JetStream } from "./jetstream.ts"
import type { Session } from "./session.ts"
import type { SimStream, Stored } from "./stream.ts"

export type BucketName = "meta" | "live"

const ASK_TIMEOUT_MS = 5_000

const entryOf = ({ data, sequence, subject }: Stored): Entry => ({
  key: subject,
  value: data.slice(),
  revision: sequence
})

/** Asks whoever leads the stream, or once did. */
export const askStream = <A>(
  streams: JetStream,
  session: Session,
  stream: string,
  tell: (stream: SimStream, time: number) => A
): Effect.Effect<A, StorageError> =>
  Effect.suspend(() => {
    const question = session.ask<A | StorageError>({
      label: session.world.label("ask ", stream),
      bytes: 0,
      timeoutMs: ASK_TIMEOUT_MS,
      at: (answer, connection) => streams.question(connection, stream, answer, tell),
      unheard: (why) => new StorageError({ reason: "unavailable", detail: `${stream}: ${why}` })
    })
    return Effect.flatMap(question.wait, (told) =>
      told instanceof StorageError ? Effect.fail(told) : Effect.succeed(told)
    )
  })

/** What lies at a key: an entry, or the marker of one that went. */
export const lastOf = (streams: JetStream, session: Session, bucket: BucketName, key: string) =>
  askStream(streams, session, bucket, (stream, time) => {
    const found = stream.newestAt(key, time)
    return found === undefined ? undefined : { entry: entryOf(found), isMarker: found.isMarker }
  })

export const getKey = (streams: JetStream, session: Session, bucket: BucketName, key: string) =>
  Effect.map(lastOf(streams, session, bucket, key), (found) =>
    found === undefined || found.isMarker ? Option.none<Entry>() : Option.some(found.entry)
  )

/** Every key below `prefix`, "CaughtUp", then each change; fails as soon as one may have been missed. */
export const watchBucket = (
  streams: JetStream,
  session: Session,
  bucket: BucketName,
  prefix: string
): Stream.Stream<WatchEvent, StorageError> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const matches = ({ subject }: Stored) => isBelow(prefix, subject)
      const newest = yield* askStream(
        streams,
        session,
        bucket,
        (stream, time) => stream.newestMatching(matches, time)?.sequence ?? 0
      )
      const reader = yield* openReader(streams, session, { stream: bucket, matches, from: 1 })
      const picture = new Picture(newest)
      const messageOf = ({ data, isMarker, sequence, subject }: Stored) => {
        return { key: subject, value: data, revision: sequence, isMarker }
      }
      const page = Effect.fnUntraced(function* () {
        const delivered = newest === 0 && !picture.isComplete ? [] : yield* reader.next(!picture.isComplete)
        return [picture.learn(delivered.map(messageOf)), Option.some(undefined)] as const
      })
      return Stream.paginate(undefined as void, page)
    })
  )

/**
 * The two buckets of a cluster, as streams that any client of JetStream's key-value stores can read: how they
 * are made, once, what their configuration must be, and how keys are written in them. A lost bucket is never made again.
 */
import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig, type StreamInfo } from "@nats-io/jetstream"
import { Effect, Option, Stream } from "effect"
import { nanos } from "nats"
import { limits } from "../protocols/limits.ts"
import { ask } from "./jetstream-ask.ts"
import { type Delivered, openReader } from "./jetstream-reader.ts"
import type { Entry } from "./meta.ts"
import { NatsConnection } from "./nats-connection.ts"
import { StorageError } from "./outcome.ts"
import { Picture } from "./picture.ts"

export interface BucketOptions {
  /** One token of a subject. */
  readonly cluster: string
  readonly replicas: number
}

export type BucketName = "meta" | "live"

const bucketOf = (cluster: string, name: BucketName) => `elanus-${cluster}-${name}`
export const bucketStream = (cluster: string, name: BucketName) => `KV_${bucketOf(cluster, name)}`

// Keys: what a subject or a key-value client does not take becomes "=" and the two hex digits of each of its
// bytes; "=" alone is an empty token. Dots keep parting the tokens.

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

const escapeToken = (token: string): string =>
  token === ""
    ? "="
    : token.replace(/[^A-Za-z0-9_/-]/gu, (character) =>
        Array.from(encoder.encode(character), (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("")
      )

const unescapeToken = (token: string): string =>
  token === "="
    ? ""
    : token.replace(/(?:=[0-9A-F]{2})+/g, (run) =>
        decoder.decode(Uint8Array.from(run.slice(1).split("="), (hex) => parseInt(hex, 16)))
      )

export const escapeKey = (key: string) => key.split(".").map(escapeToken).join(".")
export const unescapeKey = (key: string) => key.split(".").map(unescapeToken).join(".")

/** What stands in front of every key's subject. */
export const subjectRoot = (cluster: string, name: BucketName) => `$KV.${bucketOf(cluster, name)}.`
export const keySubject = (cluster: string, name: BucketName, key: string) =>
  `${subjectRoot(cluster, name)}${escapeKey(key)}`

const configurationOf = (options: BucketOptions, name: BucketName) => ({
  name: bucketStream(options.cluster, name),
  subjects: [`${subjectRoot(options.cluster, name)}>`],
  storage: StorageType.File,
  retention: RetentionPolicy.Limits,
  discard: DiscardPolicy.New,
  max_msgs_per_subject: 1,
  num_replicas: options.replicas,
  allow_rollup_hdrs: true,
  allow_direct: false,
  deny_delete: true,
  // An expiry in the metadata would move its head and so depose the coordinator; of the live keys it is the point.
  ...(name === "meta"
    ? { allow_atomic: true }
    : { allow_msg_ttl: true, subject_delete_marker_ttl: nanos(limits.markerTtlMs) })
})

const faultsOf = (config: StreamConfig, name: BucketName, replicas: number): ReadonlyArray<string> => {
  const rules: ReadonlyArray<readonly [boolean, string]> = [
    [config.storage === StorageType.File, "storage must be file"],
    [config.retention === RetentionPolicy.Limits, "retention must be limits"],
    [config.discard === DiscardPolicy.New, "discard must be new"],
    [config.max_age === 0, "max_age must not be set"],
    [config.max_msgs === -1, "max_msgs must not be set"],
    [config.max_msgs_per_subject === 1, "max_msgs_per_subject must be 1"],
    [config.allow_direct !== true, "allow_direct must be off"],
    [config.no_ack !== true, "no_ack must be off"],
    [config.mirror === undefined && (config.sources?.length ?? 0) === 0, "it must not be a mirror or have sources"],
    [config.num_replicas >= replicas, `num_replicas must be ${replicas} or more`],
    name === "meta"
      ? [config.allow_atomic === true && config.allow_msg_ttl !== true, "allow_atomic must be on and allow_msg_ttl off"]
      : [
          config.allow_msg_ttl === true && (config.subject_delete_marker_ttl ?? 0) > 0,
          "allow_msg_ttl must be on and subject_delete_marker_ttl set"
        ]
  ]
  return rules.filter(([holds]) => !holds).map(([, rule]) => rule)
}

export const bucketInfo = (nats: NatsConnection["Service"], stream: string): Effect.Effect<StreamInfo, StorageError> =>
  ask(nats, stream, () => nats.manager.streams.info(stream))

/** Fails if the bucket is "missing" or its configuration could lose something. */
export const checkBucket = Effect.fnUntraced(function* (
  nats: NatsConnection["Service"],
  options: BucketOptions,
  name: BucketName
) {
  const stream = bucketStream(options.cluster, name)
  const { config } = yield* bucketInfo(nats, stream)
  const faults = faultsOf(config, name, options.replicas)
  if (faults.length === 0) return
  return yield* new StorageError({ reason: "unfit", detail: `stream ${stream} could lose data: ${faults.join("; ")}` })
})

/**
 * Makes both buckets of a cluster that never had any; done already is fine. A bucket that is gone while others of the
 * cluster are there was lost, and an empty one in its place would hide that: "damaged".
 */
export const bootstrap = Effect.fnUntraced(function* (options: BucketOptions) {
  const nats = yield* NatsConnection
  const { cluster } = options
  const streams = nats.manager.streams
  const find = (name: BucketName) =>
    ask(nats, bucketStream(cluster, name), () => streams.info(bucketStream(cluster, name)), { beginning: true }).pipe(
      Effect.map((info) => Option.some(info)),
      Effect.catchIf(
        (error) => error.reason === "missing",
        () => Effect.succeed(Option.none<StreamInfo>())
      )
    )
  const create = (name: BucketName) =>
    ask(nats, bucketStream(cluster, name), () => streams.add(configurationOf(options, name)), { beginning: true })
  const damaged = (detail: string) => Effect.fail(new StorageError({ reason: "damaged", detail }))

  // The live bucket is made first and the metadata last, so the metadata's being there says that all of it was done.
  if (Option.isSome(yield* find("meta"))) {
    if (Option.isNone(yield* find("live"))) {
      return yield* damaged(`${bucketStream(cluster, "live")} is lost: the metadata of cluster ${cluster} is there`)
    }
    return
  }
  const live = yield* find("live")
  const channel = new RegExp(`^ELANUS_${cluster}_CHANNEL_\\d+$`)
  const listed = async () => {
    const all: Array<string> = []
    for await (const name of streams.names()) all.push(name)
    return all
  }
  const names = yield* ask(nats, `the streams of ${cluster}`, listed, { beginning: true })
  const left = names.filter((name) => channel.test(name))
  if (Option.isSome(live) && live.value.state.last_seq > 0) left.push(live.value.config.name)
  // Looked for again: somebody else may have made all of them in between, and have used them.
  if (left.length > 0 && Option.isNone(yield* find("meta"))) {
    return yield* damaged(
      `${bucketStream(cluster, "meta")} is lost: ${left.join(", ")} of cluster ${cluster} are there`
    )
  }
  if (left.length > 0) return
  yield* create("live")
  yield* create("meta")
})

const isMarker = (operation: string, reason: string) => operation === "DEL" || operation === "PURGE" || reason !== ""

/** What lies at a key, as its leader tells: an entry, or the marker of one that went. */
export const lastOf = Effect.fnUntraced(function* (
  nats: NatsConnection["Service"],
  cluster: string,
  name: BucketName,
  key: string
) {
  const stream = bucketStream(cluster, name)
  const found = yield* ask(nats, stream, () =>
    nats.manager.streams.getMessage(stream, { last_by_subj: keySubject(cluster, name, key) })
  )
  if (found === null) return undefined
  const entry: Entry = { key, value: new Uint8Array(found.data), revision: found.seq }
  const header = (header: string) => found.header?.get(header) ?? ""
  return { entry, isMarker: isMarker(header("KV-Operation"), header("Nats-Marker-Reason")) }
})

/** The newest sequence below a subject, as the leader tells: a picture that reaches it is not an old one. */
const newestOf = (nats: NatsConnection["Service"], stream: string, subject: string) =>
  ask(nats, stream, async () => (await nats.manager.streams.getMessage(stream, { last_by_subj: subject }))?.seq ?? 0)

/** Every key below `prefix`, "CaughtUp", then each change; fails as soon as one may have been missed. */
export const watchBucket = (nats: NatsConnection["Service"], cluster: string, name: BucketName, prefix: string) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const stream = bucketStream(cluster, name)
      const root = subjectRoot(cluster, name)
      const subject = prefix === "" ? `${root}>` : `${root}${escapeKey(prefix)}.>`
      const newest = yield* newestOf(nats, stream, subject)
      const reader = yield* openReader(nats, { stream, subject })
      const picture = new Picture(newest)
      const messageOf = ({ subject, sequence, data, header }: Delivered) => ({
        key: unescapeKey(subject.slice(root.length)),
        value: data,
        revision: sequence,
        isMarker: isMarker(header("KV-Operation"), header("Nats-Marker-Reason"))
      })
      const page = Effect.fnUntraced(function* () {
        // Of nothing there is nothing to wait for.
        const delivered = newest === 0 && !picture.isComplete ? [] : yield* reader.next
        return [picture.learn(delivered.map(messageOf)), Option.some(undefined)] as const
      })
      return Stream.paginate(undefined as void, page)
    })
  )

/**
 * The log on JetStream: each channel is a stream of its own. It never makes a stream except in `create`, never
 * retries, and never calls an append refused or unsent unless that is certain.
 */
import {
  DiscardPolicy,
  PersistMode,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
  type StreamInfo
} from "@nats-io/jetstream"
import { Effect, Layer, Option, Stream } from "effect"
import { randomUUID } from "node:crypto"
import { limits } from "../protocols/limits.ts"
import { expectLast, type Message, publish, publishEffect } from "./jetstream-publish.ts"
import { ask } from "./jetstream-ask.ts"
import { openReader } from "./jetstream-reader.ts"
import { Log, type LogEntry, type LogState } from "./log.ts"
import { NatsConnection } from "./nats-connection.ts"
import { ambiguous, done, type Outcome, refused, StorageError, unavailable } from "./outcome.ts"

export interface JetStreamLogOptions {
  /** One token of a subject. */
  readonly cluster: string
  readonly replicas: number
  /** Of a channel that `create` makes. */
  readonly channelBytesMax?: number
}

export const channelStream = (cluster: string, channel: number) => `ELANUS_${cluster}_CHANNEL_${channel}`
export const channelSubject = (cluster: string, channel: number) => `elanus.${cluster}.i1.log.${channel}`

const incarnationKey = "elanus-incarnation"
/** Seconds in which a server says that it has nothing more, before a read of what must be there gives up. */
const idleMax = 5

/** Whatever of a stream's configuration could lose a record, or let one in twice. */
const faultsOf = (config: StreamConfig, subject: string, replicas: number): ReadonlyArray<string> => {
  const rules: ReadonlyArray<readonly [boolean, string]> = [
    [config.subjects?.length === 1 && config.subjects[0] === subject, `subjects must be ${subject} alone`],
    [config.storage === StorageType.File, "storage must be file"],
    [config.retention === RetentionPolicy.Limits, "retention must be limits"],
    [config.discard === DiscardPolicy.New, "discard must be new"],
    [config.max_bytes > 0, "max_bytes must be set"],
    [config.max_age === 0, "max_age must not be set"],
    [config.max_msgs === -1, "max_msgs must not be set"],
    [config.max_msgs_per_subject === -1, "max_msgs_per_subject must not be set"],
    [config.allow_msg_ttl !== true, "allow_msg_ttl must be off"],
    [config.allow_atomic === true, "allow_atomic must be on"],
    [config.allow_direct !== true, "allow_direct must be off"],
    [config.deny_delete, "deny_delete must be on"],
    [config.no_ack !== true, "no_ack must be off"],
    [config.persist_mode !== PersistMode.Async, "persist_mode must not be async"],
    [config.mirror === undefined && (config.sources?.length ?? 0) === 0, "it must not be a mirror or have sources"],
    [config.num_replicas >= replicas, `num_replicas must be ${replicas} or more`],
    [config.metadata?.[incarnationKey] !== undefined, `metadata must hold ${incarnationKey}`]
  ]
  return rules.filter(([holds]) => !holds).map(([, rule]) => rule)
}

const stateOf = ({ config, state }: StreamInfo): LogState => ({
  first: state.messages === 0 ? state.last_seq + 1 : state.first_seq,
  last: state.last_seq,
  bytes: state.bytes,
  bytesMax: config.max_bytes,
  incarnation: config.metadata?.[incarnationKey] ?? ""
})

const make = Effect.fnUntraced(function* (options: JetStreamLogOptions) {
  const nats = yield* NatsConnection
  const { connection, manager } = nats
  const { cluster, replicas } = options
  let payloadMax = 0
  /** As the server says now, which may say less after a reconnect; while there is none, as the last one said. */
  const recordBytesMax = () => {
    payloadMax = connection.info?.max_payload ?? payloadMax
    return Math.min(limits.recordBytesMax, payloadMax - limits.payloadMargin)
  }
  recordBytesMax()

  // The highest sequence that this process knows to be stored, of each channel: who tells a lower one is an old leader.
  const known = new Map<number, number>()
  const incarnations = new Map<number, string>()
  const learn = (channel: number, sequence: number) => {
    if (sequence > (known.get(channel) ?? 0)) known.set(channel, sequence)
  }
  const learnFrom = (channel: number, outcome: Outcome<number>) => {
    if (outcome._tag === "Done") learn(channel, outcome.value)
    return outcome
  }

  const message = (channel: number, data: Uint8Array, expectedLast: number | undefined): Message => ({
    subject: channelSubject(cluster, channel),
    data,
    headers: expectedLast === undefined ? [] : [expectLast(expectedLast)]
  })

  const tooLarge = (data: Uint8Array) =>
    data.length > recordBytesMax()
      ? refused("invalid", `a record of ${data.length} bytes, and the log takes ${recordBytesMax()}`)
      : undefined

  const info = (channel: number) => {
    const stream = channelStream(cluster, channel)
    return ask(nats, stream, () => manager.streams.info(stream))
  }

  const create = Effect.fnUntraced(function* (channel: number) {
    const name = channelStream(cluster, channel)
    yield* ask(nats, name, () =>
      manager.streams.add({
        name,
        subjects: [channelSubject(cluster, channel)],
        storage: StorageType.File,
        retention: RetentionPolicy.Limits,
        discard: DiscardPolicy.New,
        max_bytes: options.channelBytesMax ?? limits.channelBytesMax,
        num_replicas: replicas,
        allow_atomic: true,
        allow_direct: false,
        deny_delete: true,
        // Of its own making, so that a second create differs and is refused instead of agreed to.
        metadata: { [incarnationKey]: randomUUID() }
      })
    ).pipe(
      Effect.mapError((error) =>
        /already in use|subjects overlap/.test(error.detail)
          ? new StorageError({ reason: "unfit", detail: `there is a stream ${name} already` })
          : error
      )
    )
  })

  const open = Effect.fnUntraced(function* (channel: number) {
    const told = yield* info(channel)
    const faults = faultsOf(told.config, channelSubject(cluster, channel), replicas)
    if (faults.length > 0) {
      return yield* new StorageError({
        reason: "unfit",
        detail: `stream ${channelStream(cluster, channel)} could lose data: ${faults.join("; ")}`
      })
    }
    const state = stateOf(told)
    // Another log (an operator's restore) has sequences of its own.
    if (incarnations.get(channel) !== state.incarnation) known.delete(channel)
    incarnations.set(channel, state.incarnation)
    learn(channel, state.last)
    return state
  })

  const append = (channel: number, data: Uint8Array, expectedLast: number) =>
    Effect.sync((): Effect.Effect<Outcome<number>> => {
      const refusal = tooLarge(data)
      if (refusal !== undefined) return Effect.succeed(refusal)
      const outcome = publish(nats, [message(channel, data, expectedLast)], limits.appendTimeoutMs)
      return Effect.promise(() => outcome.then((outcome) => learnFrom(channel, outcome)))
    })

  const appendBatch = Effect.fnUntraced(function* (
    channel: number,
    batch: ReadonlyArray<Uint8Array>,
    expectedLast: number | undefined
  ): Effect.fn.Return<Outcome<number>> {
    for (const data of batch) {
      const refusal = tooLarge(data)
      if (refusal !== undefined) return refusal
    }
    // Only the first may carry the expectation: the server refuses one behind it.
    const messages = batch.map((data, index) => message(channel, data, index === 0 ? expectedLast : undefined))
    return learnFrom(channel, yield* publishEffect(nats, messages, limits.appendTimeoutMs))
  })

  /** Entries from `from`, up to and with `to` if there is an end, each behind the one before it. */
  const entries = (channel: number, from: number, to: number | undefined) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const stream = channelStream(cluster, channel)
        const reader = yield* openReader(nats, { stream, subject: channelSubject(cluster, channel), from })
        let expected = from
        let isFirst = true
        let idle = 0
        const purged = new StorageError({ reason: "unavailable", detail: `${stream} was purged while it was read` })
        const page = Effect.fnUntraced(function* () {
          const entries: Array<LogEntry> = []
          const delivered = yield* reader.next
          for (const { sequence, data } of delivered) {
            // The replica that we read from may be behind, and then begins before what was asked for.
            if (sequence < expected) continue
            if (to !== undefined && sequence > to) break
            if (sequence > expected) {
              const { first } = stateOf(yield* info(channel))
              if (sequence > first) {
                return yield* new StorageError({
                  reason: "damaged",
                  detail: `${stream} lacks ${expected} to ${sequence - 1}, and begins at ${first}`
                })
              }
              if (!isFirst) return yield* purged
            }
            isFirst = false
            expected = sequence + 1
            entries.push({ sequence, data })
          }
          if (entries.length > 0) learn(channel, expected - 1)
          if (to === undefined) return [entries, Option.some(undefined)] as const
          if (delivered.length > 0) {
            const isEnd = expected > to || delivered[delivered.length - 1]!.sequence >= to
            return [entries, isEnd ? Option.none<void>() : Option.some(undefined)] as const
          }
          // What is to be read was there when this began, so silence means that it went, or that a replica is behind.
          if (stateOf(yield* info(channel)).first > to)
            return isFirst ? ([[], Option.none<void>()] as const) : yield* purged
          if (++idle < idleMax) return [entries, Option.some(undefined)] as const
          return yield* new StorageError({
            reason: "unavailable",
            detail: `${stream} does not get on behind ${expected - 1}`
          })
        })
        return Stream.paginate(undefined as void, page)
      })
    )

  const read = (channel: number, from: number, to: number) =>
    Stream.unwrap(
      Effect.gen(function* () {
        if (from > to) return Stream.empty
        const state = stateOf(yield* info(channel))
        const stored = Math.min(to, known.get(channel) ?? 0)
        if (state.last < stored) {
          return yield* new StorageError({
            reason: "unavailable",
            detail: `${channelStream(cluster, channel)} ends at ${state.last} says an old leader, and ${stored} is stored`
          })
        }
        const start = Math.max(from, state.first)
        const end = Math.min(to, state.last)
        return start > end ? Stream.empty : entries(channel, start, end)
      })
    )

  const follow = (channel: number, from: number) =>
    Stream.unwrap(Effect.map(info(channel), (told) => entries(channel, Math.max(from, stateOf(told).first), undefined)))

  const purge = Effect.fnUntraced(
    function* (channel: number, before: number) {
      const state = stateOf(yield* info(channel))
      const upTo = Math.min(before, state.last)
      if (upTo <= state.first) return done(state.first)
      return yield* Effect.tryPromise({
        try: () => manager.streams.purge(channelStream(cluster, channel), { seq: upTo }),
        catch: (cause) => cause
      }).pipe(
        Effect.match({
          onSuccess: (): Outcome<number> => done(upTo),
          onFailure: (cause): Outcome<number> => ambiguous(cause instanceof Error ? cause.message : String(cause))
        })
      )
    },
    Effect.catch((error) => Effect.succeed<Outcome<number>>(unavailable(error.detail)))
  )

  return Log.of({
    get recordBytesMax() {
      return recordBytesMax()
    },
    create,
    open,
    append,
    appendBatch,
    read,
    follow,
    purge
  })
})

export const layer = (options: JetStreamLogOptions): Layer.Layer<Log, never, NatsConnection> =>
  Layer.effect(Log, make(options))

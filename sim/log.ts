/**
 * The log in a simulated world, as storage/log-jetstream.ts keeps it: a stream of the broker for each channel. Like
 * that adapter it never retries, and never calls an append refused or unsent unless that is certain.
 */
import { Effect, Option, Stream } from "effect"
import { limits } from "../protocols/limits.ts"
import { Log, type LogEntry, type LogState } from "../storage/log.ts"
import { ambiguous, done, type Outcome, refused, StorageError, unavailable } from "../storage/outcome.ts"
import { askStream } from "./bucket.ts"
import type { Ledger } from "./ledger.ts"
import { openReader } from "./reader.ts"
import type { JetStream } from "./jetstream.ts"
import { Once, type Session } from "./session.ts"
import type { SimStream, StreamOptions } from "./stream.ts"
import { writeStream } from "./write.ts"

const CHANNELS = Array.from({ length: limits.channels }, (_, channel) => `channel ${channel}`)
export const channelStream = (channel: number) => CHANNELS[channel] ?? `channel ${channel}`

const optionsOf = (ledger: Ledger, channel: number, bytesMax: () => number): StreamOptions => ({
  name: channelStream(channel),
  bytesMax,
  isBucket: false,
  lost: (from) => ledger.add({ _tag: "Lost", channel, from }),
  rotten: (sequence) => ledger.add({ _tag: "Rotten", channel, sequence }),
  note: (stored) => {
    for (const { data, sequence } of stored) ledger.add({ _tag: "Stored", channel, sequence, data })
  }
})

/** Seconds in which a server says that it has nothing more, before a read of what must be there gives up. */
const IDLE_MAX = 5
const PURGE_TIMEOUT_MS = 5_000

const everything = () => true

const stateOf = (stream: SimStream, time: number): LogState => {
  const { incarnation } = stream
  return { ...stream.stateAt(time), bytesMax: stream.bytesMax(), incarnation }
}

export const makeLog = (streams: JetStream, session: Session, ledger: Ledger, bytesMax: number): Log["Service"] => {
  const recordBytesMax = Math.min(limits.recordBytesMax, session.payloadMax)
  // The highest sequence that this process knows to be stored, of each channel: who tells a lower one is an old leader.
  const known = new Map<number, number>()
  const incarnations = new Map<number, string>()
  const learn = (channel: number, sequence: number) => {
    if (sequence > (known.get(channel) ?? 0)) known.set(channel, sequence)
  }

  const info = (channel: number) => askStream(streams, session, channelStream(channel), stateOf)

  const send = (channel: number, batch: ReadonlyArray<Uint8Array>, expectedLast: number | undefined) => {
    const tooLarge = batch.find((data) => data.length > recordBytesMax)
    if (tooLarge !== undefined) {
      const once = new Once<Outcome<number>>()
      once.give(refused("invalid", `a record of ${tooLarge.length} bytes, and the log takes ${recordBytesMax}`))
      return once.wait
    }
    const name = channelStream(channel)
    const messages = batch.map((data) => ({ subject: name, data }))
    const expected = expectedLast === undefined ? undefined : { last: expectedLast }
    const { wait } = writeStream(streams, session, name, messages, expected, limits.appendTimeoutMs)
    return Effect.map(wait, (outcome) => {
      if (outcome._tag === "Done") learn(channel, outcome.value)
      return outcome
    })
  }

  /** Entries from `from`, up to and with `to` if there is an end, each behind the one before it. */
  const entries = (channel: number, from: number, to: number | undefined) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const name = channelStream(channel)
        const reader = yield* openReader(streams, session, { stream: name, matches: everything, from, to })
        let expected = from
        let idle = 0
        const purged = new StorageError({ reason: "unavailable", detail: `${name} was purged while it was read` })
        const page = Effect.fnUntraced(function* () {
          const entries: Array<LogEntry> = []
          const delivered = yield* reader.next(to !== undefined)
          for (const { data, sequence } of delivered) {
            if (to !== undefined && sequence > to) break
            if (sequence > expected) {
              const { first } = yield* info(channel)
              if (sequence > first) {
                return yield* new StorageError({
                  reason: "damaged",
                  detail: `${name} lacks ${expected} to ${sequence - 1}, and begins at ${first}`
                })
              }
              if (expected > from) return yield* purged
            }
            expected = sequence + 1
            entries.push({ sequence, data })
          }
          if (entries.length > 0) learn(channel, expected - 1)
          if (to === undefined) return [entries, Option.some(undefined)] as const
          if (delivered.length > 0) {
            return [entries, expected > to ? Option.none<void>() : Option.some(undefined)] as const
          }
          // What is to be read was there when this began, so silence means that it went, or that a replica is behind.
          if ((yield* info(channel)).first > to) {
            return expected === from ? ([[], Option.none<void>()] as const) : yield* purged
          }
          if (++idle < IDLE_MAX) return [entries, Option.some(undefined)] as const
          return yield* new StorageError({
            reason: "unavailable",
            detail: `${name} does not get on behind ${expected - 1}`
          })
        })
        return Stream.paginate(undefined as void, page)
      })
    )

  return Log.of({
    recordBytesMax,
    create: Effect.fnUntraced(function* (channel: number) {
      const made = yield* session.ask<StorageError | undefined>({
        label: "create",
        bytes: 0,
        timeoutMs: limits.appendTimeoutMs,
        at: (answer) => {
          const made = optionsOf(ledger, channel, () => Math.min(bytesMax, streams.faults.channelBytesMax))
          if (streams.make(made)) return answer(undefined)
          answer(new StorageError({ reason: "unfit", detail: `there is a log of channel ${channel} already` }))
        },
        unheard: (why) => new StorageError({ reason: "unavailable", detail: why })
      }).wait
      if (made !== undefined) return yield* made
    }),

    open: Effect.fnUntraced(function* (channel: number) {
      const state = yield* info(channel)
      // Another log (an operator's restore) has sequences of its own.
      if (incarnations.get(channel) !== state.incarnation) known.delete(channel)
      incarnations.set(channel, state.incarnation)
      learn(channel, state.last)
      return state
    }),

    append: (channel, data, expectedLast) => Effect.sync(() => send(channel, [data], expectedLast)),
    appendBatch: (channel, batch, expectedLast) => Effect.suspend(() => send(channel, batch, expectedLast)),

    read: (channel, from, to) =>
      Stream.unwrap(
        Effect.gen(function* () {
          if (from > to) return Stream.empty
          const { first, last } = yield* info(channel)
          const stored = Math.min(to, known.get(channel) ?? 0)
          if (last < stored) {
            return yield* new StorageError({
              reason: "unavailable",
              detail: `channel ${channel} ends at ${last} says an old leader, and ${stored} is stored`
            })
          }
          const start = Math.max(from, first)
          const end = Math.min(to, last)
          return start > end ? Stream.empty : entries(channel, start, end)
        })
      ),

    follow: (channel, from) =>
      Stream.unwrap(Effect.map(info(channel), ({ first }) => entries(channel, Math.max(from, first), undefined))),

    purge: Effect.fnUntraced(
      function* (channel: number, before: number) {
        const state = yield* info(channel)
        const upTo = Math.min(before, state.last)
        if (upTo <= state.first) return done(state.first)
        const name = channelStream(channel)
        return yield* session.ask<Outcome<number>>({
          label: `purge ${name}`,
          bytes: 0,
          timeoutMs: PURGE_TIMEOUT_MS,
          at: (answer, connection) => {
            const carryOut = (stream: SimStream) => {
              stream.purge(Math.min(upTo, stream.last), streams.world.now)
              ledger.add({ _tag: "Purged", channel, before: upTo })
              if (!streams.happens("lostAnswer", connection.node)) answer(done(upTo))
            }
            streams.order(connection, name, carryOut, () => answer(ambiguous("nobody answers")))
          },
          unheard: ambiguous
        }).wait
      },
      Effect.catch((error: StorageError) => Effect.succeed<Outcome<number>>(unavailable(error.detail)))
    )
  })
}

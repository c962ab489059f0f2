/**
 * The log in a local store. A record, its channel's last sequence and its byte count are one synced write. It
 * decides expectations in the order of the calls, and never tells a sequence before it is on the disk.
 */
import { Effect, Layer, Option, Stream } from "effect"
import { randomUUID } from "node:crypto"
import { limits } from "../protocols/limits.ts"
import { type Database, LocalStore, readDatabase, type Write } from "./local-store.ts"
import { Log, type LogEntry } from "./log.ts"
import { ambiguous, done, type Outcome, refused, StorageError, unavailable } from "./outcome.ts"

export interface LocalLogOptions {
  /** Of a channel that `create` makes. */
  readonly channelBytesMax?: number
}

/** Of one channel, as it is once everything handed over is written. */
interface Channel {
  readonly incarnation: string
  readonly bytesMax: number
  first: number
  last: number
  /** Of all records ever written, and of those purged: so a purge need not read what it forgets. */
  bytesWritten: number
  bytesPurged: number
}

interface Held {
  readonly channel: Channel
  /** The last sequence that is on the disk. Nobody reads past it. */
  stored: number
  readonly waiting: Set<() => void>
}

const channelPrefix = "log-channel/"
const channelKey = (channel: number) => `${channelPrefix}${String(channel).padStart(6, "0")}`
const recordKey = (channel: number, sequence: number) =>
  `log/${String(channel).padStart(6, "0")}/${String(sequence).padStart(16, "0")}`

/** Entries read at once. */
const pageEntries = 256
const pageBytes = 4 * 1024 * 1024

// A record's value: the bytes written to the channel up to and with it (8 bytes), then its data.
const headBytes = 8
const recordValue = (data: Uint8Array, bytesWritten: number) => {
  const value = new Uint8Array(headBytes + data.length)
  new DataView(value.buffer).setFloat64(0, bytesWritten, true)
  value.set(data, headBytes)
  return value
}
const bytesWrittenOf = (value: Uint8Array) =>
  new DataView(value.buffer, value.byteOffset, value.byteLength).getFloat64(0, true)

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const putChannel = (number: number, channel: Channel): Write => ({
  type: "put",
  key: channelKey(number),
  value: encoder.encode(JSON.stringify(channel))
})

const make = Effect.fnUntraced(function* (options: LocalLogOptions) {
  const store = yield* LocalStore
  const channels = new Map<number, Held>()

  const load = async (database: Database) => {
    const found = new Map<number, Held>()
    for await (const [key, value] of database.iterator({ gte: channelPrefix, lt: `${channelPrefix}~` })) {
      const channel = JSON.parse(decoder.decode(value)) as Channel
      const number = Number(key.slice(channelPrefix.length))
      found.set(number, { channel, stored: channel.last, waiting: channels.get(number)?.waiting ?? new Set() })
      // A purge first moves `first` and then forgets: a process that ended in between left some.
      await database.clear({ gte: recordKey(number, 0), lt: recordKey(number, channel.first) })
    }
    channels.clear()
    for (const [number, held] of found) channels.set(number, held)
    for (const { waiting } of found.values()) for (const wake of [...waiting]) wake()
  }
  yield* store.attach(load)

  const missing = (number: number) =>
    new StorageError({ reason: "missing", detail: `there is no log of channel ${number}` })
  const held = (number: number) =>
    Effect.flatMap(store.database, () => {
      const found = channels.get(number)
      return found === undefined ? Effect.fail(missing(number)) : Effect.succeed(found)
    })

  const create = Effect.fnUntraced(function* (number: number) {
    yield* store.database
    if (channels.has(number)) {
      return yield* new StorageError({ reason: "unfit", detail: `there is a log of channel ${number} already` })
    }
    const channel: Channel = {
      incarnation: randomUUID(),
      bytesMax: options.channelBytesMax ?? limits.channelBytesMax,
      first: 1,
      last: 0,
      bytesWritten: 0,
      bytesPurged: 0
    }
    channels.set(number, { channel, stored: 0, waiting: new Set() })
    const outcome = yield* Effect.callback<Outcome<void>>((resume) =>
      store.write([putChannel(number, channel)], (outcome) => resume(Effect.succeed(outcome)))
    )
    if (outcome._tag === "Done") return
    channels.delete(number)
    return yield* new StorageError({ reason: "unavailable", detail: outcome.detail })
  })

  const open = Effect.fnUntraced(function* (number: number) {
    const { channel, stored } = yield* held(number)
    if (stored >= channel.first) {
      const last = yield* readDatabase(store, (database) => database.get(recordKey(number, stored)))
      if (last === undefined) {
        return yield* new StorageError({
          reason: "damaged",
          detail: `channel ${number} lacks its last record ${stored}`
        })
      }
    }
    return {
      first: channel.first,
      last: stored,
      bytes: channel.bytesWritten - channel.bytesPurged,
      bytesMax: channel.bytesMax,
      incarnation: channel.incarnation
    }
  })

  /** Hands over at once. Every expectation is held against what will be there when all before it is written. */
  const hand = (
    number: number,
    batch: ReadonlyArray<Uint8Array>,
    expectedLast: number | undefined
  ): Promise<Outcome<number>> | Outcome<number> => {
    if (!store.isOpen()) return unavailable("the local store is closed")
    const found = channels.get(number)
    if (found === undefined) return unavailable(missing(number).detail)
    const { channel } = found
    if (batch.length === 0) return refused("invalid", "there is nothing to write")
    let bytes = 0
    for (const data of batch) {
      if (data.length > limits.recordBytesMax) {
        return refused("invalid", `a record of ${data.length} bytes, and the log takes ${limits.recordBytesMax}`)
      }
      bytes += data.length
    }
    if (expectedLast !== undefined && expectedLast !== channel.last) {
      return refused("conflict", `wrong last sequence: ${channel.last}`)
    }
    if (channel.bytesWritten - channel.bytesPurged + bytes > channel.bytesMax) {
      return refused("full", `channel ${number} is at its limit of ${channel.bytesMax} bytes`)
    }
    const writes: Array<Write> = []
    for (const data of batch) {
      channel.last++
      channel.bytesWritten += data.length
      const value = recordValue(data, channel.bytesWritten)
      writes.push({ type: "put", key: recordKey(number, channel.last), value })
    }
    const { last } = channel
    writes.push(putChannel(number, channel))
    return new Promise((resolve) =>
      store.write(writes, (outcome) => {
        if (outcome._tag !== "Done") return resolve(outcome)
        found.stored = last
        for (const wake of [...found.waiting]) wake()
        resolve(done(last))
      })
    )
  }

  const settled = (outcome: Promise<Outcome<number>> | Outcome<number>): Effect.Effect<Outcome<number>> =>
    outcome instanceof Promise
      ? Effect.promise(() => outcome).pipe(
          Effect.timeoutOrElse({
            duration: limits.appendTimeoutMs,
            orElse: () => Effect.succeed(ambiguous("the disk did not answer in time"))
          })
        )
      : Effect.succeed(outcome)

  /** A page of what is on the disk from `from` on, at most up to `to`. Never empty, unless the range is. */
  const pageOf = Effect.fnUntraced(function* (number: number, from: number, to: number) {
    const entries = yield* readDatabase(store, async (database) => {
      const entries: Array<LogEntry> = []
      let bytes = 0
      const range = { gte: recordKey(number, from), lte: recordKey(number, to), limit: pageEntries }
      for await (const [key, value] of database.iterator(range)) {
        // Copied, so that the data begins its buffer.
        entries.push({ sequence: Number(key.slice(-16)), data: new Uint8Array(value.subarray(headBytes)) })
        bytes += value.length
        if (bytes >= pageBytes) break
      }
      return entries
    })
    const { channel } = yield* held(number)
    const gap = entries.findIndex(({ sequence }, index) => sequence !== from + index)
    if (entries.length > 0 && gap < 0) return entries
    return yield* new StorageError(
      channel.first > from
        ? { reason: "unavailable", detail: `channel ${number} was purged while it was read` }
        : { reason: "damaged", detail: `channel ${number} lacks a record behind ${from + Math.max(gap, 0) - 1}` }
    )
  })

  const read = (number: number, from: number, to: number) =>
    Stream.unwrap(
      Effect.map(held(number), ({ channel, stored }) => {
        const end = Math.min(to, stored)
        const start = Math.max(from, channel.first)
        if (start > end) return Stream.empty
        return Stream.paginate(
          start,
          Effect.fnUntraced(function* (from: number) {
            const entries = yield* pageOf(number, from, end)
            const next = from + entries.length
            return [entries, next > end ? Option.none<number>() : Option.some(next)] as const
          })
        )
      })
    )

  const whenStored = Effect.fnUntraced(function* (number: number, sequence: number) {
    for (;;) {
      const found = yield* held(number)
      if (found.stored >= sequence) return found.stored
      yield* Effect.callback<void>((resume) => {
        const wake = () => {
          found.waiting.delete(wake)
          resume(Effect.void)
        }
        found.waiting.add(wake)
        return Effect.sync(() => found.waiting.delete(wake))
      })
    }
  })

  const follow = (number: number, from: number) =>
    Stream.unwrap(
      Effect.map(held(number), ({ channel }) =>
        Stream.paginate(
          Math.max(from, channel.first),
          Effect.fnUntraced(function* (from: number) {
            const stored = yield* whenStored(number, from)
            const entries = yield* pageOf(number, from, stored)
            return [entries, Option.some(from + entries.length)] as const
          })
        )
      )
    )

  const purge = Effect.fnUntraced(
    function* (number: number, before: number) {
      const found = yield* held(number)
      const { channel } = found
      const first = Math.min(before, found.stored)
      if (first <= channel.first) return done(channel.first)
      const lastPurged = yield* readDatabase(store, (database) => database.get(recordKey(number, first - 1)))
      if (lastPurged === undefined) {
        return yield* new StorageError({ reason: "damaged", detail: `channel ${number} lacks record ${first - 1}` })
      }
      channel.first = first
      channel.bytesPurged = bytesWrittenOf(lastPurged)
      const outcome = yield* Effect.callback<Outcome<void>>((resume) =>
        store.write([putChannel(number, channel)], (outcome) => resume(Effect.succeed(outcome)))
      )
      if (outcome._tag !== "Done") return outcome
      const range = { gte: recordKey(number, 0), lt: recordKey(number, first) }
      // What this leaves is forgotten at the next start.
      yield* Effect.ignore(readDatabase(store, (database) => database.clear(range)))
      return done(first)
    },
    Effect.catch((error) => Effect.succeed<Outcome<number>>(unavailable(error.detail)))
  )

  return Log.of({
    recordBytesMax: limits.recordBytesMax,
    create,
    open,
    append: (number, data, expectedLast) => Effect.sync(() => settled(hand(number, [data], expectedLast))),
    appendBatch: (number, batch, expectedLast) => Effect.suspend(() => settled(hand(number, batch, expectedLast))),
    read,
    follow,
    purge
  })
})

export const layer = (options: LocalLogOptions = {}): Layer.Layer<Log, StorageError, LocalStore> =>
  Layer.effect(Log, make(options))

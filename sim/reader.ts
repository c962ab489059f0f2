/**
 * Reads a stream of the broker in order, as storage/jetstream-reader.ts does: pages as they come, from a replica that
 * may be behind, and a failure at the first sign that something may have been left out.
 *
 * Heartbeats are not sent one by one: now and then a reader finds out whether one would have come.
 */
import { Effect, type Scope } from "effect"
import { StorageError } from "../storage/outcome.ts"
import type { Connection } from "./network.ts"
import type { JetStream } from "./jetstream.ts"
import type { Session } from "./session.ts"
import type { Machine } from "./servers.ts"
import type { SimStream, Stored } from "./stream.ts"

export interface Reader {
  /**
   * What came since, in order. Nothing: there is nothing more at present, as far as the replica knows (`wantsIdle`; else
   * it goes on waiting).
   */
  readonly next: (wantsIdle: boolean) => Effect.Effect<ReadonlyArray<Stored>, StorageError>
}

export interface ReaderOptions {
  readonly stream: string
  readonly matches: (message: Stored) => boolean
  /** The first sequence to read, of what is there. */
  readonly from: number
  /** The last one that anybody wants: a page ends there. */
  readonly to?: number | undefined
}

const PAGE = 256
const PAGE_BYTES = 4 * 1024 * 1024
/** Probability of a page that is short, and how many messages it has at most. */
const CUT = 0.2
const CUT_MAX = 4
const HEARTBEAT_MS = 1_000
const SILENCE_MAX_MS = 4_000
const ASK_TIMEOUT_MS = 5_000

/** What a server of the broker keeps for a reader, beside a replica of the stream. */
class Consumer {
  private readonly streams: JetStream
  private readonly stream: SimStream
  private readonly connection: Connection
  private readonly machine: Machine
  private readonly options: ReaderOptions
  private readonly deliver: (page: ReadonlyArray<Stored>) => void
  private readonly behindMs: number
  private readonly forget: () => void
  private position: number
  private isAlive = true
  private isPumping = false

  constructor(
    streams: JetStream,
    stream: SimStream,
    connection: Connection,
    options: ReaderOptions,
    deliver: (page: ReadonlyArray<Stored>) => void
  ) {
    this.streams = streams
    this.stream = stream
    this.connection = connection
    this.options = options
    this.deliver = deliver
    this.position = options.from - 1
    const { chance, faults, servers } = streams
    this.machine = chance.pick(servers.all.filter((one) => one.isUp && servers.reaches(connection.machine, one)))
    this.behindMs = streams.happens("behind", connection.node) ? chance.between(0, faults.behindMs) : 0
    stream.followers.add(this.wake)
    connection.atEnd(this.end)
    this.forget = servers.onTurn((machine, turn) => {
      if (machine !== this.machine) return
      // It was in memory.
      if (turn === "crash") this.end()
      else this.wake()
    })
    this.wake()
  }

  /** Nothing that its replica has is left to be sent. */
  get isIdle(): boolean {
    return !this.isPumping && this.position >= this.stream.lastAt(this.knows)
  }

  /** Whether a heartbeat comes through. */
  get isHeard(): boolean {
    return this.isAlive && this.connection.isHeard && this.isServed
  }

  readonly end = (): void => {
    this.isAlive = false
    this.forget()
    this.stream.followers.delete(this.wake)
  }

  /** As of when its replica has everything. */
  private get knows(): number {
    return (this.machine.cutOffSince ?? this.streams.world.now) - this.behindMs
  }

  private get isServed(): boolean {
    const { streams } = this
    if (streams.isCut(this.connection.node)) return false
    return !this.machine.isPaused && streams.servers.reaches(this.machine, this.connection.machine)
  }

  private readonly wake = () => {
    if (this.isPumping || !this.isAlive) return
    this.isPumping = true
    this.streams.world.after(this.behindMs, this.pump, undefined, 0, "consumer")
  }

  private readonly pump = () => {
    this.isPumping = false
    // Whoever mends what is between wakes it.
    if (!this.isAlive || !this.isServed) return
    const { streams, stream } = this
    if (stream.isOver) return this.end()
    if (streams.happens("broken", this.connection.node)) return this.end()
    const time = this.knows
    const { chance } = streams
    // Messages come one by one, and who reads takes as many as are there: of an atomic batch also a part.
    const most = chance.happens(CUT) ? 1 + chance.below(CUT_MAX) : PAGE
    const found = stream.after(this.position, time, this.options.matches, most)
    const page: Array<Stored> = []
    let bytes = 0
    const { to = Infinity } = this.options
    for (const message of found) {
      page.push(message)
      bytes += message.data.length
      if (bytes >= PAGE_BYTES || message.sequence >= to) break
    }
    const isLast = page.length === found.length && found.length < most
    this.position = isLast ? Math.max(this.position, stream.lastAt(time)) : page[page.length - 1]!.sequence
    if (page.length > 0) this.connection.toNode("page", bytes, () => this.deliver(page))
    if (this.machine.cutOffSince === undefined && stream.last > this.position && this.position < to) this.wake()
  }
}

const unavailable = (detail: string) => new StorageError({ reason: "unavailable", detail })

export const openReader = Effect.fnUntraced(function* (
  streams: JetStream,
  session: Session,
  options: ReaderOptions
): Effect.fn.Return<Reader, StorageError, Scope.Scope> {
  let waiting: Array<Stored> = []
  let failure: StorageError | undefined
  let isIdle = false
  let wake: (() => void) | undefined
  let heardAt = session.world.now

  const fail = (detail: string) => {
    failure ??= unavailable(`reading ${options.stream}: ${detail}`)
    wake?.()
  }
  const receive = (page: ReadonlyArray<Stored>) => {
    heardAt = session.world.now
    // The caller's own.
    for (const { at, data, goneAt, isMarker, sequence, subject } of page) {
      waiting.push({ subject, data: data.slice(), isMarker, sequence, at, goneAt })
    }
    wake?.()
  }

  const made = session.ask<Consumer | StorageError>({
    label: "consumer",
    bytes: 0,
    timeoutMs: ASK_TIMEOUT_MS,
    at: (answer, connection) =>
      streams.question(
        connection,
        options.stream,
        answer,
        (stream) => new Consumer(streams, stream, connection, options, receive)
      ),
    unheard: unavailable
  })
  const consumer = yield* made.wait
  if (consumer instanceof StorageError) return yield* consumer

  let lookedAt = session.world.now
  const look = () => {
    const { now } = session.world
    // A process that stood still finds its timer first, and what came meanwhile afterwards.
    if (now - lookedAt > HEARTBEAT_MS + SILENCE_MAX_MS) return fail(`stood still for ${now - lookedAt} ms`)
    lookedAt = now
    if (consumer.isHeard) {
      heardAt = now
      isIdle = consumer.isIdle
      if (isIdle) wake?.()
    } else if (now - heardAt > SILENCE_MAX_MS) return fail(`nothing heard for ${SILENCE_MAX_MS} ms`)
    timer = session.after(HEARTBEAT_MS, "heartbeat", look)
  }
  let timer = session.after(HEARTBEAT_MS, "heartbeat", look)
  const forget = session.onLost(() => fail("the connection to NATS broke"))

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      failure ??= unavailable("the reader is closed")
      forget()
      timer.cancel()
      session.send("close reader", 0, consumer.end)
    })
  )

  return {
    next: (wantsIdle) =>
      Effect.callback<ReadonlyArray<Stored>, StorageError>((resume) => {
        const take = () => {
          if (waiting.length > 0) {
            const taken = waiting
            waiting = []
            isIdle = false
            return resume(Effect.succeed(taken))
          }
          if (failure !== undefined) return resume(Effect.fail(failure))
          if (isIdle && wantsIdle) {
            isIdle = false
            return resume(Effect.succeed([]))
          }
          wake = () => {
            wake = undefined
            take()
          }
        }
        take()
        return Effect.sync(() => {
          wake = undefined
        })
      })
  }
})

/**
 * The one writer of a channel, between two fences: groups waiting requests into records, keeps up to
 * `limits.pipelineDepth` appends in flight, and acknowledges strictly in order. It never finds out by itself what
 * became of an append that was not plainly stored: it ends, and the owner fences.
 *
 * 1. An append is acknowledged only when every one before it is.
 * 2. Nothing of a record is visible, or remembered, before that.
 * 3. The first outcome that is not "done, as expected" ends the writer; what was in flight is in doubt.
 * 4. An idle channel writes nothing; a first request waits for nobody.
 */
import { Clock, Deferred, Effect } from "effect"
import type { ElanusError } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { encodeRecord, type Entry, entryBytes, type LogRecord, type RecordHeader } from "../../protocols/record.ts"
import type { Written } from "../../protocols/streaming-node.ts"
import { later, type Timestamp } from "../../protocols/timestamp.ts"
import { buggify, Sites, stall } from "../../runtime/buggify.ts"
import type { Signal } from "../../runtime/signal.ts"
import { Log } from "../../storage/log.ts"
import { ambiguous, type Outcome } from "../../storage/outcome.ts"
import type { Chain } from "./chain.ts"
import type { Identity } from "./fence.ts"
import type { Stamps } from "./stamps.ts"

export interface Pending {
  readonly entry: Entry
  readonly bytes: number
  readonly answer: Deferred.Deferred<Written, ElanusError>
  /** Called when it is refused: it is in no record, and asked again it is a new one. */
  readonly refused: () => void
}

export interface InFlight {
  readonly sequence: number
  readonly record: LogRecord
  readonly pending: ReadonlyArray<Pending>
  readonly outcome: Effect.Effect<Outcome<number>>
}

/** Requests that wait for a record, and reads that wait for one to close their time. */
export class WriteQueue {
  readonly waiting: Array<Pending> = []
  bytes = 0
  /** The largest T that a reader waits for. */
  closeAt: Timestamp = 0n
  /** A reader wants proof that the records up to here are all: any record above this lsn gives it. */
  proveAbove = -1
  /** Of the newest record that was sent. */
  issued = 0
  /** So many at its head go one by one: together they were a record that the log never takes. */
  alone = 0

  add(pending: Pending): void {
    this.waiting.push(pending)
    this.bytes += pending.bytes
  }

  /** Takes what fits into one record, at least one. */
  take(bytesMax: number): ReadonlyArray<Pending> {
    let bytes = 0
    let count = 0
    while (count < this.waiting.length && (count === 0 || bytes + this.waiting[count]!.bytes <= bytesMax)) {
      bytes += this.waiting[count++]!.bytes
    }
    this.alone = Math.max(0, this.alone - count)
    this.bytes -= bytes
    return this.waiting.splice(0, count)
  }

  /** What was in flight and turned out not to be stored goes first again. */
  putBack(pending: ReadonlyArray<Pending>): void {
    this.waiting.unshift(...pending)
    for (const { bytes } of pending) this.bytes += bytes
  }
}

export interface WriterDeps {
  readonly who: Identity
  readonly incarnation: number
  readonly chain: Chain
  readonly queue: WriteQueue
  readonly stamps: Stamps
  readonly changed: Signal
  /** Another grant for `stamps`; gives up only by itself failing. */
  readonly grant: Effect.Effect<void, ElanusError>
  /** The record is stored, and so is all before it. */
  readonly acknowledged: (record: LogRecord, sequence: number) => void
  readonly recordBytesMax: () => number
}

export interface Doubt {
  readonly inFlight: ReadonlyArray<InFlight>
  readonly detail: string
  /** The log said of the first in flight that it can never take it; the others tell nothing, for it is missing before them. */
  readonly isInvalid: boolean
}

/** With so few appends in flight the next goes out at once; with more, only when it is worth a record of its own. */
const EAGER_DEPTH = 2
const WORTH_BYTES = 64 * 1024

/** Runs until an append is in doubt; then tells which were in flight, in order. */
export const write = Effect.fnUntraced(function* (deps: WriterDeps): Effect.fn.Return<Doubt, never, Log> {
  const log = yield* Log
  const { chain, changed, queue, stamps, who } = deps
  const inFlight: Array<InFlight> = []
  // The head of the pipeline: where the next record goes.
  let sequence = chain.sequence
  let lsn = chain.lsn
  let previous = chain.hash
  let lastTickMs = -Infinity
  queue.issued = lsn
  const sites = yield* Sites
  /** Each request is a record, until the pipeline is empty again. */
  let isAtOnce = false
  const atOnce = () => (isAtOnce ||= sites.fires("each request goes out at once"))

  const headerOf = (kind: "rows" | "tick", timestamp: Timestamp): RecordHeader => ({
    ...who,
    kind,
    incarnation: deps.incarnation,
    lsn: lsn + 1,
    previous,
    timestamp,
    floor: stamps.floor
  })

  // Never interrupted half-way: a record that was sent is known to be in flight.
  const send = Effect.fnUntraced(function* (header: RecordHeader, bytesMax: number) {
    if (inFlight.length === 0) isAtOnce = false
    const pending = header.kind === "rows" ? queue.take(atOnce() || queue.alone > 0 ? 0 : bytesMax) : []
    const entries = pending.map(({ entry }) => entry)
    const { bytes, hash } = encodeRecord(header, entries)
    const isLost = pending.length > 0 && (yield* buggify("an append is lost"))
    const outcome = isLost ? Effect.succeed(ambiguous("lost")) : yield* log.append(who.channel, bytes, sequence)
    sequence++
    lsn++
    previous = hash
    queue.issued = lsn
    inFlight.push({ sequence, record: { header, entries, hash }, pending, outcome })
    changed.notify()
  }, Effect.uninterruptible)

  const wantsRecord = () =>
    queue.waiting.length > 0 &&
    (inFlight.length < EAGER_DEPTH ||
      (inFlight.length < limits.pipelineDepth && (queue.bytes >= WORTH_BYTES || atOnce())))

  /** A tick is needed if no record in flight does its work; one is in flight at most, for all who wait. */
  const wantsTick = () =>
    (queue.closeAt > stamps.last || queue.proveAbove >= lsn) &&
    inFlight.length < limits.pipelineDepth &&
    !inFlight.some(({ record }) => record.header.kind === "tick")

  const sendRows = Effect.gen(function* () {
    // A reader that waits for T is served by this record too, if it comes after T.
    const now = yield* Clock.currentTimeMillis
    if (queue.closeAt > stamps.last) stamps.close(queue.closeAt)
    const timestamp = stamps.take(now)
    // At once: the floor may be another one when it is sent, and no record is below its own.
    const header = timestamp === undefined ? undefined : headerOf("rows", timestamp)
    if (header === undefined || (yield* buggify("a grant where the last would do"))) {
      const got = yield* Effect.result(deps.grant)
      if (got._tag === "Failure") {
        refuse(queue.take(Infinity), got.failure)
      }
      return
    }
    yield* stall("before a record is sent", 500)
    yield* send(header, deps.recordBytesMax())
  })

  const sendTick = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (now - lastTickMs < 1_000 / limits.ticksPerSecondMax) {
      yield* Effect.sleep(limits.tickDelayMs) // so that more readers share it
      if (!wantsTick() || wantsRecord()) return
    }
    yield* stall("before a tick", 500)
    lastTickMs = now
    // What an older term gave out is closed with it: no record is below its own floor.
    stamps.close(later(queue.closeAt, stamps.floor))
    yield* send(headerOf("tick", stamps.last), 0)
  })

  const issue = Effect.gen(function* () {
    while (true) {
      yield* changed.until(() => wantsRecord() || wantsTick())
      yield* wantsRecord() ? sendRows : sendTick
    }
  })

  const acknowledge = Effect.gen(function* () {
    while (true) {
      yield* changed.until(() => inFlight.length > 0)
      const first = inFlight[0]!
      const outcome = yield* first.outcome
      const doubt = (detail: string, isInvalid = false): Doubt => ({
        inFlight,
        detail: `append ${first.sequence}${detail}`,
        isInvalid
      })
      if (outcome._tag !== "Done") {
        const isInvalid = outcome._tag === "Refused" && outcome.reason === "invalid"
        return doubt(`: ${outcome._tag}: ${outcome.detail}`, isInvalid)
      }
      if (outcome.value !== first.sequence) return doubt(` was stored as ${outcome.value}`)
      if (yield* buggify("an append that is stored is doubted")) return doubt(": not believed")
      yield* stall("before an acknowledgement", 500)
      inFlight.shift()
      deps.acknowledged(first.record, first.sequence)
      answer(first.pending, first.record.header)
      changed.notify()
    }
  })

  return yield* Effect.raceFirst(acknowledge, issue)
})

/** Tells the requests of a stored record. */
export const answer = (pending: ReadonlyArray<Pending>, { lsn, timestamp }: RecordHeader): void => {
  const done = Effect.succeed({ timestamp, lsn })
  for (const each of pending) Deferred.doneUnsafe(each.answer, done)
}

export const makePending = (entry: Entry, refused: () => void = () => {}): Pending => ({
  entry,
  refused,
  bytes: entryBytes(entry),
  answer: Deferred.makeUnsafe<Written, ElanusError>()
})

/** What nobody will write: it is in no record. */
export const refuse = (pending: ReadonlyArray<Pending>, error: ElanusError): void => {
  const failed = Effect.fail(error)
  for (const each of pending) {
    each.refused()
    Deferred.doneUnsafe(each.answer, failed)
  }
}

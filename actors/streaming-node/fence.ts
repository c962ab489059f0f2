/**
 * How an owner makes the channel its own, and how it finds out what became of its writes: it reads the log to its
 * end and jumps, with one atomic batch, past every append that can still be in flight (protocols/README.md, 1.4-1.7).
 * Only a fence that was accepted proves that what was read is all there is.
 */
import { Effect, Stream } from "effect"
import { limits } from "../../protocols/limits.ts"
import { decodeRecord, encodeRecord, type LogRecord, RecordDamaged, type RecordHeader } from "../../protocols/record.ts"
import { buggify, late, stall } from "../../runtime/buggify.ts"
import { Log, type LogEntry, type LogState } from "../../storage/log.ts"
import type { StorageError } from "../../storage/outcome.ts"
import type { Chain, Link } from "./chain.ts"

/** Who writes: one activation of an owner. */
export interface Identity {
  readonly channel: number
  readonly epoch: bigint
  readonly nonce: bigint
}

/** `stale`: a later owner has been here. `damaged`: the log is not what was written. */
export type Fenced =
  | { readonly _tag: "Fenced" }
  | { readonly _tag: "Stale"; readonly detail: string }
  | { readonly _tag: "Damaged"; readonly detail: string }

/** Takes the next record, in order; answers with what must be waited for before it is taken, if anything. */
export type OnRecord = (record: LogRecord, sequence: number) => Effect.Effect<void> | undefined

/** What was met on the way to the fence. A read that breaks off does not forget it: what was read is not read again. */
interface Met {
  fenced: boolean
  later: string | undefined
  /** How often in a row the log was said to end before what is known of it. */
  short: number
}

const RETRY_FIRST_MS = 10
const RETRY_MAX_MS = 1_000
/** So many tries take more than 20 s, and a leader that was cut off and still answers gives up after 10. */
const SHORT_MAX = 30

const stale = (detail: string): Fenced => ({ _tag: "Stale", detail })
const damaged = (detail: string): Fenced => ({ _tag: "Damaged", detail })

/** An owner purges up to its own checkpoint alone: what is gone and was not read yet, a later owner had no more use for. */
const purged = ({ first }: LogState, { recordAt }: Chain): Fenced | undefined =>
  first > recordAt && first > 1
    ? stale(`the log was purged up to ${first}, and we have read up to ${recordAt}`)
    : undefined

/** A stopper can have taken the place of what the log lost, and then it ends where it did. */
const replaced = Effect.fnUntraced(function* (
  log: Log["Service"],
  { channel }: Identity,
  { hash, lsn, recordAt }: Chain
) {
  if (recordAt === 0) return undefined
  const found = yield* Stream.runCollect(log.read(channel, recordAt, recordAt))
  if (found.length === 0) return yield* Effect.fail(new RecordDamaged(`record ${lsn} is not at ${recordAt} any more`))
  const record = yield* Effect.try({ try: () => decodeRecord(found[0]!.data), catch: asDamaged })
  return record.hash === hash ? undefined : damaged(`record ${lsn} was at ${recordAt}, and something else is`)
})

/** A batch of `1 + pipelineDepth` messages: the record and padding, or padding alone. */
const batchOf = (header: RecordHeader, record: Uint8Array): ReadonlyArray<Uint8Array> => {
  const padding = encodeRecord({ ...header, kind: "padding" }, []).bytes
  return [record, ...Array.from({ length: limits.pipelineDepth }, () => padding)]
}

/** Breaks whatever pipeline an earlier owner has; sent only after the channel's key was taken. Ambiguity does no harm: the fence decides. */
export const stop = Effect.fnUntraced(function* (who: Identity) {
  const log = yield* Log
  const header: RecordHeader = {
    ...who,
    kind: "padding",
    incarnation: 0,
    lsn: 0,
    previous: 0n,
    timestamp: 0n,
    floor: 0n
  }
  return yield* log.appendBatch(who.channel, batchOf(header, encodeRecord(header, []).bytes), undefined)
})

/**
 * Reads on from `chain`, giving each record to `onRecord`, and fences with `incarnation`. Goes on trying while the
 * log cannot be reached; whoever owes it interrupts it when it is no longer owed. `lostFlush`: what a manifest has, and so the
 * log had, and what was read does not have, in words.
 */
export const fence = Effect.fnUntraced(function* (
  who: Identity,
  incarnation: number,
  chain: Chain,
  onRecord: OnRecord,
  lostFlush: () => string | undefined
): Effect.fn.Return<Fenced, never, Log> {
  const log = yield* Log
  const met: Met = {
    fenced: false,
    later: chain.epoch > who.epoch ? `the log is in epoch ${chain.epoch}, above ours (${who.epoch})` : undefined,
    short: 0
  }
  let waitMs = RETRY_FIRST_MS
  while (true) {
    const ended = yield* attempt(log, who, incarnation, chain, met, onRecord, lostFlush).pipe(
      Effect.catchIf(
        (error) => error instanceof RecordDamaged,
        ({ message }) => Effect.map(log.open(who.channel), (state) => purged(state, chain) ?? damaged(message))
      ),
      Effect.catch(({ detail, reason }) => Effect.succeed(reason === "unavailable" ? undefined : damaged(detail)))
    )
    if (ended !== undefined) return ended
    yield* Effect.sleep(waitMs)
    waitMs = Math.min(waitMs * 2, RETRY_MAX_MS)
  }
})

/** One try; undefined if another is needed. */
const attempt = Effect.fnUntraced(function* (
  log: Log["Service"],
  who: Identity,
  incarnation: number,
  chain: Chain,
  met: Met,
  onRecord: OnRecord,
  lostFlush: () => string | undefined
): Effect.fn.Return<Fenced | undefined, StorageError | RecordDamaged> {
  const state = yield* log.open(who.channel)
  if (state.last < chain.sequence) {
    // Told by an old leader, for as long as it takes itself for one, or lost: a fence that is accepted there would
    // prove the loss, so it is not even tried.
    if (++met.short < SHORT_MAX) return undefined
    return damaged(`the log ends at ${state.last}, and ${chain.sequence} was acknowledged`)
  }
  const gone = purged(state, chain)
  if (gone !== undefined) return gone
  const other = yield* replaced(log, who, chain)
  if (other !== undefined) return other
  const begun = chain.sequence
  const isSlow = state.last > chain.sequence && (yield* buggify("a log is read one message at a time"))
  const last = isSlow ? chain.sequence + 1 : state.last
  if (last > chain.sequence) yield* readOn(log, who, incarnation, chain, met, last, onRecord)
  if (last < state.last) return undefined
  if (met.later !== undefined) return stale(met.later)
  if (met.fenced) return { _tag: "Fenced" }
  const lost = lostFlush()
  if (lost !== undefined) {
    // The same, or a later owner flushed it and we shall read that. What took the place of a lost record would count as
    // flushed, and be nowhere.
    if (++met.short < SHORT_MAX) return undefined
    return damaged(lost)
  }
  met.short = 0

  const header: RecordHeader = {
    ...who,
    kind: "fence",
    incarnation,
    lsn: chain.lsn + 1,
    previous: chain.hash,
    timestamp: chain.timestamp,
    floor: chain.floor
  }
  const { bytes, hash } = encodeRecord(header, [])
  yield* stall("before a fence", 15_000)
  // Who asks again for what was read back in a doubt is answered meanwhile, and others ask what comes of that.
  const isReadBack = incarnation > 1 && chain.sequence > begun
  if (isReadBack) yield* late("the fence of a doubt comes late", limits.requestTimeoutMs)
  const before = chain.sequence
  const outcome = yield* log.appendBatch(who.channel, batchOf(header, bytes), before)
  // Refused: somebody was faster, or the last try landed after all. Ambiguous: the next try finds it by its nonce, or sends it again.
  if (outcome._tag !== "Done" || (yield* buggify("a fence's answer is not believed"))) return undefined
  if (outcome.value !== before + 1 + limits.pipelineDepth) {
    return yield* Effect.fail(new RecordDamaged(`a fence after ${before} ended at ${outcome.value}`))
  }
  chain.wrote(before + 1, { header, entries: [], hash })
  chain.sequence = outcome.value
  const wait = onRecord({ header, entries: [], hash }, before + 1)
  if (wait !== undefined) yield* wait
  return { _tag: "Fenced" }
})

/** Reads what is above `chain`, up to `last`; notes if the fence is there already, or a later owner. */
const readOn = Effect.fnUntraced(function* (
  log: Log["Service"],
  who: Identity,
  incarnation: number,
  chain: Chain,
  met: Met,
  last: number,
  onRecord: OnRecord
): Effect.fn.Return<void, StorageError | RecordDamaged> {
  const one = ({ data, sequence }: LogEntry): Effect.Effect<void, RecordDamaged> | undefined => {
    let link: Link
    try {
      link = chain.read(sequence, data)
    } catch (cause) {
      return Effect.fail(asDamaged(cause))
    }
    const { header } = link.record
    if (header.epoch > who.epoch)
      met.later ??= `a record of epoch ${header.epoch} at ${sequence}, above ours (${who.epoch})`
    if (header.epoch === who.epoch && header.nonce !== who.nonce) {
      met.later ??= `another activation writes in epoch ${who.epoch}`
    }
    if (link._tag === "Void") {
      return Effect.logWarning(`channel ${who.channel}: record ${header.lsn} of epoch ${header.epoch} was fenced off`)
    }
    if (link._tag === "Padding") return undefined
    if (header.kind === "fence" && header.nonce === who.nonce && header.incarnation === incarnation) met.fenced = true
    return onRecord(link.record, sequence)
  }
  // Of a page nearly all is padding, or can be taken at once.
  const page = Effect.fnUntraced(function* (entries: ReadonlyArray<LogEntry>) {
    for (const entry of entries) {
      const wait = one(entry)
      if (wait !== undefined) yield* wait
    }
  })
  yield* Stream.runForEachArray(log.read(who.channel, chain.sequence + 1, last), page)
  if (chain.sequence !== last) {
    return yield* Effect.fail(new RecordDamaged(`the log ended at ${chain.sequence} of ${last}`))
  }
})

const asDamaged = (cause: unknown): RecordDamaged =>
  cause instanceof RecordDamaged ? cause : new RecordDamaged(cause instanceof Error ? cause.message : String(cause))

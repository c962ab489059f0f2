/**
 * A stream of the broker, as JetStream keeps it: a sequence of messages on subjects, decided one write after the
 * other. It remembers everything that ever was in it, and since and until when: for replicas that are behind, for
 * leaders that are none any more, and for those who check a run. It knows nothing of who asks.
 */
import { done, type Outcome, refused } from "../storage/outcome.ts"
import type { Chance } from "./world.ts"

export interface NewMessage {
  readonly subject: string
  readonly data: Uint8Array
  /** Says that the subject's key is gone. */
  readonly isMarker?: boolean
  /** It goes by itself, and leaves a marker unless it is one. */
  readonly ttlMs?: number | undefined
}

export interface Stored {
  readonly subject: string
  readonly data: Uint8Array
  readonly isMarker: boolean
  readonly sequence: number
  /** Virtual milliseconds. */
  readonly at: number
  /** Until when it was there; Infinity: it is. */
  goneAt: number
}

export interface StreamState {
  /** Of the oldest message kept; `last + 1` if there is none. */
  readonly first: number
  readonly last: number
  readonly bytes: number
}

/** What a write expects: the sequence of the stream's newest message, or of its subject's. */
export type Expectation = { readonly last: number } | { readonly lastOfSubject: number } | undefined

export interface StreamOptions {
  readonly name: string
  readonly bytesMax: () => number
  /** Only the newest message of each subject is kept. */
  readonly isBucket: boolean
  /** Hears of everything that is stored, for those who check the run. */
  readonly note: (stored: ReadonlyArray<Stored>) => void
  /** Hears that everything from a sequence on was lost. */
  readonly lost?: (from: number) => void
  /** Hears that what is stored at a sequence is not any more what was. */
  readonly rotten?: (sequence: number) => void
}

/** What a message takes beside its data, about. */
const OVERHEAD_BYTES = 60

const bytesOf = ({ data, subject }: NewMessage) => data.length + subject.length + OVERHEAD_BYTES

export class SimStream {
  readonly name: string
  readonly bytesMax: () => number
  /** Which making of the stream it is. */
  readonly incarnation: string
  /** By sequence - 1: everything that ever was in it. */
  readonly history: Array<Stored> = []
  /** Everybody who waits for more. */
  readonly followers = new Set<() => void>()
  /** It was removed. */
  isOver = false
  readonly isBucket: boolean
  private readonly options: StreamOptions
  private readonly newest = new Map<string, number>()
  private first = 1
  bytes = 0

  constructor(options: StreamOptions, incarnation: string) {
    this.options = options
    this.name = options.name
    this.bytesMax = options.bytesMax
    this.isBucket = options.isBucket
    this.incarnation = incarnation
  }

  get last(): number {
    return this.history.length
  }

  /** Stores all of the batch or nothing; the sequence of its last message. */
  write(batch: ReadonlyArray<NewMessage>, expected: Expectation, now: number): Outcome<number> {
    const [head] = batch
    if (expected !== undefined) {
      const last = "last" in expected ? this.last : this.newestOf(head!.subject)
      const wanted = "last" in expected ? expected.last : expected.lastOfSubject
      if (last !== wanted) return refused("conflict", `wrong last sequence: ${last}`)
    }
    const bytes = batch.reduce((total, message) => total + bytesOf(message), 0)
    if (this.bytes + bytes > this.bytesMax()) return refused("full", "maximum bytes exceeded")
    this.bytes += bytes
    for (const { data, isMarker = false, subject } of batch) {
      const sequence = this.last + 1
      this.history.push({ subject, data, isMarker, sequence, at: now, goneAt: Infinity })
      if (!this.isBucket) continue
      this.forget(this.newestOf(subject), now)
      this.newest.set(subject, sequence)
    }
    this.options.note(this.history.slice(-batch.length))
    for (const wake of [...this.followers]) wake()
    return done(this.last)
  }

  /** The sequence of a subject's newest message that is there; 0: there is none. */
  newestOf(subject: string): number {
    return this.newest.get(subject) ?? 0
  }

  /** Takes a message away, if it is there. */
  forget(sequence: number, now: number): void {
    const message = this.history[sequence - 1]
    if (message === undefined || message.goneAt !== Infinity) return
    message.goneAt = now
    this.bytes -= bytesOf(message)
    if (this.newest.get(message.subject) === sequence) this.newest.delete(message.subject)
    while (this.first <= this.last && this.history[this.first - 1]!.goneAt !== Infinity) this.first++
  }

  /** Forgets what is below `before`. */
  purge(before: number, now: number): void {
    for (let sequence = this.first; sequence < before && sequence <= this.last; sequence++) this.forget(sequence, now)
  }

  end(): void {
    this.isOver = true
    this.options.lost?.(1)
    for (const wake of [...this.followers]) wake()
  }

  /** The newest so many are gone, as if they had never been: their sequences are given again. */
  lose(count: number): number {
    const from = Math.max(0, this.last - count)
    const lost = this.history.splice(from)
    if (lost.length === 0) return 0
    const since = lost[0]!.at
    this.newest.clear()
    this.bytes = 0
    this.first = this.last + 1
    for (const message of this.history) {
      // What was taken away since is there again.
      if (message.goneAt >= since) message.goneAt = Infinity
      if (message.goneAt !== Infinity) continue
      this.first = Math.min(this.first, message.sequence)
      this.bytes += bytesOf(message)
      if (this.isBucket) this.newest.set(message.subject, message.sequence)
    }
    this.options.lost?.(from + 1)
    return lost.length
  }

  /** One bit of one message that is there is another one now, for good. Most are padding, and as short as can be: rather of another. */
  rot(chance: Chance): void {
    const kept = this.history.filter(({ goneAt }) => goneAt === Infinity)
    const shortest = Math.min(...kept.map(({ data }) => data.length))
    const longer = kept.filter(({ data }) => data.length > shortest)
    const message = chance.pick(longer.length > 0 ? longer : kept)
    // Who was told of it before has it as it was.
    const data = new Uint8Array(message.data)
    const at = chance.below(data.length)
    data[at] = data[at]! ^ (1 << chance.below(8))
    this.history[message.sequence - 1] = { ...message, data }
    this.options.rotten?.(message.sequence)
  }

  /** The newest sequence that there was at a time. */
  lastAt(time: number): number {
    let low = 0
    let high = this.last
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.history[middle - 1]!.at <= time) low = middle
      else high = middle - 1
    }
    return low
  }

  /** As whoever knows the stream up to a time tells it. */
  stateAt(time: number): StreamState {
    const last = this.lastAt(time)
    let { first } = this
    while (first > 1 && this.history[first - 2]!.goneAt > time) first--
    return { first: Math.min(first, last + 1), last, bytes: this.bytes }
  }

  /** The newest message of a key that was there at a time. */
  newestAt(subject: string, time: number): Stored | undefined {
    const newest = this.history[this.newestOf(subject) - 1]
    if (newest !== undefined && newest.at <= time) return newest
    return this.newestMatching((message) => message.subject === subject, time)
  }

  newestMatching(matches: (message: Stored) => boolean, time: number): Stored | undefined {
    for (let sequence = this.lastAt(time); sequence > 0; sequence--) {
      const message = this.history[sequence - 1]!
      if (message.goneAt > time && matches(message)) return message
    }
    return undefined
  }

  /** What was there at a time and matches, behind a sequence. */
  after(sequence: number, time: number, matches: (message: Stored) => boolean, most: number): ReadonlyArray<Stored> {
    const found: Array<Stored> = []
    const last = this.lastAt(time)
    for (let at = Math.max(sequence + 1, this.isBucket ? 1 : this.first); at <= last && found.length < most; at++) {
      const message = this.history[at - 1]!
      if (message.goneAt > time && matches(message)) found.push(message)
    }
    return found
  }
}

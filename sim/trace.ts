/**
 * What happened in a world, event by event, as one number: two runs of a seed are the same run exactly if their hashes
 * are equal. A checkpoint every thousand events says where two runs part; the events themselves are kept on demand.
 *
 * Nothing may go in that differs from process to process: no stacks, no paths, no times of the machine.
 */

/** One event as it ran. */
export interface TraceEvent {
  /** Counted from 1. */
  readonly number: number
  /** Virtual milliseconds. */
  readonly at: number
  /** Nothing for what happened to no node: in the network, in a store. */
  readonly node: string
  readonly life: number
  readonly label: string
}

/** The events to keep: those with numbers from `from` up to and with `to`. */
export interface Keep {
  readonly from: number
  readonly to: number
}

export const EVENTS_PER_CHECKPOINT = 1_000

export class Trace {
  /** The hash after every thousand events. */
  readonly checkpoints: Array<string> = []
  readonly kept: Array<TraceEvent> = []
  private readonly keep: Keep | undefined
  private count = 0
  // Two lanes of 32 bits. Each step is a bijection of its lane, so a difference never gets lost by itself.
  private high = 0x9e3779b9 | 0
  private low = 0x85ebca6b | 0
  private readonly time = new Float64Array(1)
  private readonly timeBits = new Int32Array(this.time.buffer)
  private readonly labels = new Map<string, number>()

  constructor(keep?: Keep) {
    this.keep = keep
  }

  /** `who` stands for the node's name: hashed once, as it is the same so often. */
  add(at: number, node: string, who: number, life: number, label: string): void {
    const { timeBits } = this
    this.time[0] = at
    let high = this.high
    let low = this.low
    high = Math.imul(high ^ timeBits[0]!, 0x9e3779b1)
    low = Math.imul(low ^ timeBits[1]!, 0x5f356495)
    high = Math.imul(high ^ who, 0x9e3779b1)
    low = Math.imul(low ^ life, 0x5f356495)
    low = Math.imul(low ^ this.labelHash(label), 0x01000193)
    high = Math.imul(high ^ low, 0x9e3779b1)
    this.high = high ^ (high >>> 15)
    this.low = low ^ (low >>> 13)
    const number = ++this.count
    if (number % EVENTS_PER_CHECKPOINT === 0) this.checkpoints.push(this.hash)
    const { keep } = this
    if (keep !== undefined && number >= keep.from && number <= keep.to) {
      this.kept.push({ number, at, node, life, label })
    }
  }

  private labelHash(label: string): number {
    let hash = this.labels.get(label)
    if (hash === undefined) this.labels.set(label, (hash = nameHash(label)))
    return hash
  }

  /** Of everything so far: 16 hexadecimal digits. */
  get hash(): string {
    return hex(this.high) + hex(this.low)
  }
}

const hex = (lane: number) => (lane >>> 0).toString(16).padStart(8, "0")

export const nameHash = (name: string): number => {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return hash
}

/** What is known of a trace that is over. */
export interface Passed {
  readonly hash: string
  readonly checkpoints: ReadonlyArray<string>
}

/** The events among which two runs of one seed part: to be kept in a second run of both. Undefined if they never do. */
export const parting = (one: Passed, other: Passed): Keep | undefined => {
  const a = [...one.checkpoints, one.hash]
  const b = [...other.checkpoints, other.hash]
  const at = a.findIndex((hash, index) => hash !== b[index])
  if (at < 0) return undefined
  return { from: at * EVENTS_PER_CHECKPOINT + 1, to: (at + 1) * EVENTS_PER_CHECKPOINT }
}

/** One line, the same in every process. */
export const lineOf = ({ at, label, life, node, number }: TraceEvent): string =>
  `${number} ${at} ${node === "" ? "-" : `${node}/${life}`} ${label}`

/** Where two runs that kept the same events part, in words; undefined where they agree. */
export const firstDifference = (
  one: ReadonlyArray<TraceEvent>,
  other: ReadonlyArray<TraceEvent>
): string | undefined => {
  for (let i = 0; i < Math.max(one.length, other.length); i++) {
    const [a, b] = [one, other].map((events) => (i < events.length ? lineOf(events[i]!) : "(the end)"))
    if (a !== b) return `${a}\nbut then\n${b}`
  }
  return undefined
}

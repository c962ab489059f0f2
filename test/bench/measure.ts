/** How the benchmark measures: loops of a fixed length, times of single calls, medians of rounds. */
import { monitorEventLoopDelay } from "node:perf_hooks"

/** What a client says to its parent as soon as it is so. */
export const INSERTED = "inserted"
export const ANSWERED = "answered"

export interface Timed {
  readonly perSecond: number
  /** Of this thread, for one call: what others do on the machine hardly changes it. */
  readonly cpuMs: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export const percentile = (values: ReadonlyArray<number>, part: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN
}

export const median = (values: ReadonlyArray<number>): number => percentile(values, 0.5)

/** Milliseconds that this thread has worked. Of the whole process where Node cannot tell (before 23.9). */
const workedMs = (): number => {
  const { system, user } = (process.threadCpuUsage ?? process.cpuUsage)()
  return (user + system) / 1_000
}

const summary = (took: ReadonlyArray<number>, began: number, worked: number): Timed => ({
  perSecond: (took.length / (performance.now() - began)) * 1_000,
  cpuMs: (workedMs() - worked) / took.length,
  p50Ms: median(took),
  p99Ms: percentile(took, 0.99)
})

/** Calls `one` for 0, 1, 2 ... below `count` and again from 0, `concurrency` at a time, for so long. */
export const loop = async (
  one: (i: number) => unknown,
  count: number,
  concurrency: number,
  seconds: number
): Promise<Timed> => {
  const took: Array<number> = []
  const worked = workedMs()
  const began = performance.now()
  const end = began + seconds * 1_000
  let next = 0
  const worker = async () => {
    for (;;) {
      const start = performance.now()
      if (start >= end) return
      await one(next++ % count)
      took.push(performance.now() - start)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
  return summary(took, began, worked)
}

/** The same without a promise anywhere, for what blocks. */
export const loopSync = (one: (i: number) => unknown, count: number, seconds: number): Timed => {
  const took: Array<number> = []
  const worked = workedMs()
  const began = performance.now()
  const end = began + seconds * 1_000
  for (let i = 0; ; i++) {
    const start = performance.now()
    if (start >= end) break
    one(i % count)
    took.push(performance.now() - start)
  }
  return summary(took, began, worked)
}

/** Each figure the median of its own over the rounds. */
export const medianOf = (rounds: ReadonlyArray<Timed>): Timed => ({
  perSecond: median(rounds.map(({ perSecond }) => perSecond)),
  cpuMs: median(rounds.map(({ cpuMs }) => cpuMs)),
  p50Ms: median(rounds.map(({ p50Ms }) => p50Ms)),
  p99Ms: median(rounds.map(({ p99Ms }) => p99Ms))
})

/** The longest that this process' event loop did not turn, from `start` to `stop`. */
export const loopWatch = () => {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  return {
    start: () => {
      histogram.reset()
      histogram.enable()
    },
    stop: (): number => {
      histogram.disable()
      return histogram.max / 1e6
    }
  }
}

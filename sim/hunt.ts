/**
 * The proof that the simulator sees: runs each planted bug, seed after seed, until the property that it breaks says so.
 * A seed that shows the same without the bug proves nothing, and is left out.
 */
import { fork } from "node:child_process"
import type { Shown } from "./mutant-process.ts"
import type { Mutant } from "./mutants.ts"

export interface HuntOptions {
  readonly mutants: ReadonlyArray<Mutant>
  /** So many each, at most. */
  readonly seeds: number
  /** Processes at a time. */
  readonly jobs: number
  /** Called with each verdict as it falls. */
  readonly said: (verdict: Verdict) => void
}

export interface Verdict {
  readonly mutant: Mutant
  /** Seeds that were run. */
  readonly tried: number
  /** The first one that showed anything at all, by whatever property. */
  readonly first: Shown | undefined
  /** The one that showed it by the property that it breaks; without one it survived. */
  readonly caught: Shown | undefined
  readonly ms: number
}

/** A run takes seconds; one that takes longer than this goes round in a circle. */
const PATIENCE_MS = 120_000

/** A process that runs seeds one after the other. */
class Runner {
  private readonly args: ReadonlyArray<string>
  private child: ReturnType<typeof fork> | undefined

  constructor(mutant?: Mutant) {
    this.args = mutant === undefined ? [] : [mutant.name]
  }

  run(seed: string): Promise<Shown> {
    const child = (this.child ??= fork(new URL("./mutant-process.ts", import.meta.url), this.args))
    return new Promise((resolve) => {
      const end = (shown: Omit<Shown, "seed">) => {
        clearTimeout(timer)
        child.removeAllListeners()
        resolve({ seed, ...shown })
      }
      const failed = (detail: string) => {
        this.stop()
        end({ properties: [], detail, died: true })
      }
      const timer = setTimeout(() => failed("it does not come to an end"), PATIENCE_MS)
      child.once("message", (shown) => end(shown as Shown))
      child.once("error", ({ message }) => failed(message))
      child.once("exit", (code) => failed(`its process ended with ${code}`))
      child.send(seed)
    })
  }

  stop(): void {
    this.child?.kill("SIGKILL")
    this.child = undefined
  }
}

const hunt = async (mutant: Mutant, seeds: number, clean: (seed: string) => Promise<Shown>): Promise<Verdict> => {
  const begun = Date.now()
  const runner = new Runner(mutant)
  let first: Shown | undefined
  try {
    for (let seed = 1; seed <= seeds; seed++) {
      const shown = await runner.run(String(seed))
      if (shown.properties.length === 0 && !shown.died) continue
      const without = await clean(String(seed))
      const properties = shown.properties.filter((each) => !without.properties.includes(each))
      if (properties.length === 0 && (!shown.died || without.died)) continue
      const by = { ...shown, properties }
      first ??= by
      if (properties.includes(mutant.breaks)) {
        return { mutant, tried: seed, first, caught: by, ms: Date.now() - begun }
      }
    }
    return { mutant, tried: seeds, first, caught: undefined, ms: Date.now() - begun }
  } finally {
    runner.stop()
  }
}

/** Hunts them all; in the order in which they were given. */
export const runMutants = async ({ jobs, mutants, said, seeds }: HuntOptions): Promise<ReadonlyArray<Verdict>> => {
  const known = new Map<string, Promise<Shown>>()
  const cleaner = new Runner()
  let last: Promise<unknown> = Promise.resolve()
  /** One at a time: the process has one answer on its way. */
  const clean = (seed: string): Promise<Shown> => {
    let shown = known.get(seed)
    if (shown === undefined) {
      shown = last.then(() => cleaner.run(seed))
      last = shown
      known.set(seed, shown)
    }
    return shown
  }
  const verdicts: Array<Verdict> = []
  let next = 0
  const work = async () => {
    while (next < mutants.length) {
      const at = next++
      verdicts[at] = await hunt(mutants[at]!, seeds, clean)
      said(verdicts[at]!)
    }
  }
  try {
    await Promise.all(Array.from({ length: jobs }, work))
  } finally {
    cleaner.stop()
  }
  return verdicts
}

export const verdictText = ({ caught, first, ms, mutant, tried }: Verdict): string => {
  const time = `${Math.round(ms / 1000)} s`
  if (caught !== undefined) {
    const before = first === caught ? "" : ` (seed ${first!.seed} by ${named(first!)})`
    return `${mutant.name}: caught by ${mutant.breaks} after ${tried} seeds${before}, ${time}`
  }
  const seen = first === undefined ? "" : `; only seed ${first.seed} by ${named(first)}: ${first.detail}`
  return `${mutant.name}: SURVIVED ${tried} seeds, ${mutant.breaks} says nothing${seen}, ${time}`
}

const named = ({ died, properties }: Shown): string => (died ? "its death" : properties.join(", "))

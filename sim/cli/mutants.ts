/**
 * The proof that the simulator sees. Each planted bug is hunted, seed after seed, until the property that it breaks says
 * so; a seed that shows the same without the bug proves nothing, and is left out. Each hollow simulator is shown to the
 * guard that must notice it.
 */
import { hollows, type Hollow } from "../hollow.ts"
import { mutants, type Mutant } from "../mutants.ts"
import { failuresOf, type Summary } from "../summary.ts"
import { chanceOf } from "../world.ts"
import { problemsOf } from "./hollows.ts"
import type { Say } from "./one.ts"
import { Pool, type PoolOptions } from "./pool.ts"
import { UsageError } from "./usage.ts"

export interface HuntOptions {
  /** For each bug, at most. */
  readonly seeds: number
  readonly processes: number | undefined
  /** A text by which a few are drawn, for who has no time for all. */
  readonly drawn: string | undefined
}

/** A seed that showed something, by what. */
interface Seen {
  readonly seed: number
  readonly faults: ReadonlyArray<string>
  readonly detail: string
}

export interface Verdict {
  readonly bug: string
  readonly breaks: string
  /** Seeds that it took, or that were not enough. */
  readonly tried: number
  /** The first seed that showed anything at all. */
  readonly first: Seen | undefined
  /** The one that showed it by the property that it breaks; without one the bug survived. */
  readonly caught: Seen | undefined
  /** Of the real world. */
  readonly seconds: number
}

/** Of a hollow simulator. */
export interface Notice {
  readonly hollow: string
  readonly guard: string
  /** What the guard has against it; nothing: it was not noticed. */
  readonly problems: ReadonlyArray<string>
}

const DRAWN_BUGS = 5
const DRAWN_HOLLOWS = 2

const hunt = async (
  { breaks, name }: Mutant,
  seeds: number,
  options: PoolOptions,
  clean: (seed: number) => Promise<Summary>
): Promise<Verdict> => {
  const begun = performance.now()
  const pool = new Pool({ ...options, bug: name })
  let first: Seen | undefined
  const verdict = (tried: number, caught?: Seen): Verdict => {
    return { bug: name, breaks, tried, first, caught, seconds: (performance.now() - begun) / 1_000 }
  }
  try {
    for (let seed = 1; seed <= seeds; seed += pool.size) {
      const some = Array.from({ length: Math.min(pool.size, seeds + 1 - seed) }, (_, i) => seed + i)
      const ran = await Promise.all(some.map((one) => pool.run(String(one))))
      for (const [i, { summary }] of ran.entries()) {
        const failures = failuresOf(summary)
        if (failures.length === 0) continue
        const without = new Set(failuresOf(await clean(some[i]!)).map(({ fault }) => fault))
        const own = failures.filter(({ fault }) => !without.has(fault))
        if (own.length === 0) continue
        const faults = [...new Set(own.map(({ fault }) => fault))]
        const shown = own.find(({ fault }) => fault === breaks) ?? own[0]!
        const seen = { seed: some[i]!, faults, detail: shown.detail }
        first ??= seen
        if (shown.fault === breaks) return verdict(seen.seed, seen)
      }
    }
    return verdict(seeds)
  } finally {
    pool.close()
  }
}

const verdictText = ({ breaks, bug, caught, first, seconds, tried }: Verdict): string => {
  const time = `${seconds.toFixed(0)} s`
  if (caught === undefined) {
    const seen = first === undefined ? "" : `; seed ${first.seed} says ${first.faults.join(", ")}: ${first.detail}`
    return `${bug}: SURVIVED ${tried} seeds, ${breaks} says nothing${seen} (${time})`
  }
  const before = first === caught ? "" : `; seed ${first!.seed} said ${first!.faults.join(", ")}`
  return `${bug}: caught by ${breaks} with seed ${tried}${before} (${time})`
}

const noticeText = ({ guard, hollow, problems }: Notice): string =>
  problems.length === 0
    ? `${hollow}: NOT NOTICED by the guard of ${guard}`
    : `${hollow}: noticed by the guard of ${guard}: ${problems[0]}`

/** So many of them, others for another text. */
const drawnFrom = <A>(text: string, all: ReadonlyArray<A>, count: number): ReadonlyArray<A> => {
  const chance = chanceOf(text)
  const left = [...all]
  return Array.from({ length: Math.min(count, all.length) }, () => left.splice(chance.below(left.length), 1)[0]!)
}

/** Those that have these names, or those that are drawn, or all. */
const chosen = (
  names: ReadonlyArray<string>,
  drawn: string | undefined
): { readonly bugs: ReadonlyArray<Mutant>; readonly hollow: ReadonlyArray<Hollow> } => {
  const all = [...mutants, ...hollows]
  const unknown = names.find((name) => !all.some((one) => one.name === name))
  if (unknown !== undefined) throw new UsageError(`there is no planted bug ${unknown}, and no hollow simulator`)
  const isNamed = ({ name }: { readonly name: string }) => names.length === 0 || names.includes(name)
  const bugs = mutants.filter(isNamed)
  const hollow = hollows.filter(isNamed)
  if (drawn === undefined) return { bugs, hollow }
  return { bugs: drawnFrom(drawn, bugs, DRAWN_BUGS), hollow: drawnFrom(drawn, hollow, DRAWN_HOLLOWS) }
}

/** Says what became of each, and answers with which code to end. */
export const huntBugs = async (
  names: ReadonlyArray<string>,
  { drawn, processes, seeds }: HuntOptions,
  say: Say
): Promise<number> => {
  const { bugs, hollow } = chosen(names, drawn)
  const tell = (text: string) => process.stderr.write(`${text.replaceAll(/\s+/g, " ")}\n`)
  const pool = new Pool({ processes })
  const known = new Map<number, Promise<Summary>>()
  const clean = (seed: number): Promise<Summary> => {
    const run = known.get(seed) ?? pool.run(String(seed)).then(({ summary }) => summary)
    known.set(seed, run)
    return run
  }
  const verdicts: Array<Verdict> = []
  const notices: Array<Notice> = []
  try {
    for (const bug of bugs) {
      const verdict = await hunt(bug, seeds, { processes }, clean)
      verdicts.push(verdict)
      tell(verdictText(verdict))
    }
  } finally {
    pool.close()
  }
  for (const one of hollow) {
    const notice = { hollow: one.name, guard: one.guard, problems: await problemsOf(one, one.guard) }
    notices.push(notice)
    tell(noticeText(notice))
  }
  const caught = verdicts.filter((each) => each.caught !== undefined)
  const noticed = notices.filter(({ problems }) => problems.length > 0)
  const tried = caught.map((each) => each.tried).toSorted((a, b) => a - b)
  const half = tried.length === 0 ? "" : `, half of them within ${tried[Math.floor(tried.length / 2)]} seeds`
  say(
    { verdicts, notices },
    `${caught.length} of ${verdicts.length} planted bugs were caught${half}; ${noticed.length} of ${notices.length} hollow simulators were noticed`
  )
  return caught.length < verdicts.length || noticed.length < notices.length ? 1 : 0
}

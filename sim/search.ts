/**
 * The smallest plan so far that fails, and whatever tries for a smaller one. Each plan that is tried is a run. Several are
 * tried at once, and of those that fail the first in order is taken, so the way does not depend on which run ends first.
 */
import { type Plan, planProblem } from "./plan.ts"

/** The operations that show what is wrong with a run: perhaps none of the plan's own. */
export type Shown = ReadonlyArray<number>

export interface SearchOptions {
  /** What shows that a plan still fails as the first one did; undefined if it does not. */
  readonly fails: (plan: Plan) => Promise<Shown | undefined>
  /** So many at once. */
  readonly width: number
  /** Whether the time is over. */
  readonly isOver: () => boolean
  /** Told of every smaller plan. */
  readonly smaller?: (plan: Plan, tried: number) => void
}

/** How hard passes try. */
export interface Effort {
  /** Seeds for each plan, one after the other: a race that is lost by chance may need another one in a smaller plan. */
  readonly chances: number
  /** What is made fewer is cut into so many parts at most. */
  readonly parts: number
}

export type Pass = (search: Search) => Promise<unknown>

/** With more parts than this none of them will do alone. */
const ALONE_PARTS = 8

export class Search {
  best: Plan
  shown: Shown
  effort: Effort = { chances: 1, parts: Infinity }
  private tried = 0
  private readonly whole: Plan
  private readonly options: SearchOptions
  /** Plans that do not fail, or are just tried, as text. */
  private readonly known = new Set<string>()

  constructor(plan: Plan, shown: Shown, options: SearchOptions) {
    this.whole = plan
    this.best = plan
    this.shown = shown
    this.options = options
  }

  get isOver(): boolean {
    return this.options.isOver()
  }

  /** Takes the first of these that fails, with the first seed with which one does; which one it was, or -1. */
  async take(candidates: ReadonlyArray<Plan>, chances = this.effort.chances): Promise<number> {
    const tries = this.seeds(chances)
      .flatMap((seed) => candidates.map((plan, at) => ({ at, plan: { ...plan, seed } })))
      .filter(({ plan }) => planProblem(plan) === undefined)
    let next = 0
    let found = tries.length
    let shown: Shown | undefined
    // Whoever is free takes the next one, as long as none before it has failed.
    const worker = async () => {
      while (next < found && !this.isOver) {
        const mine = next++
        const { plan } = tries[mine]!
        const text = JSON.stringify(plan)
        if (this.known.has(text)) continue
        this.known.add(text)
        this.tried++
        const failed = await this.options.fails(plan)
        if (failed === undefined) continue
        // It may be wanted later, if it is not the first.
        this.known.delete(text)
        if (mine > found) continue
        found = mine
        shown = failed
      }
    }
    await Promise.all(Array.from({ length: this.options.width }, worker))
    if (shown === undefined) return -1
    const { at, plan } = tries[found]!
    this.best = plan
    this.shown = shown
    this.options.smaller?.(plan, this.tried)
    return at
  }

  /** So many: first that with which the best one fails. */
  private seeds(count: number): ReadonlyArray<string> {
    const { seed } = this.whole
    const all = [this.best.seed, seed, ...Array.from({ length: count }, (_, i) => `${seed}~${i + 1}`)]
    return [...new Set(all)].slice(0, count)
  }

  /** Does with as few of `items` as it can: with none, with one part of them, without one part; and then with smaller parts. */
  async fewest<A>(
    items: (plan: Plan) => ReadonlyArray<A>,
    only: (plan: Plan, kept: ReadonlyArray<A>) => Plan
  ): Promise<void> {
    const count = () => items(this.best).length
    let length = count()
    while (length >= 1 && length * this.effort.parts >= count()) {
      // Past what was left out the next part begins where it began, so it is only looked for from there on.
      let from = 0
      while (from < count() && !this.isOver) {
        const { best } = this
        const all = items(best)
        const starts = Array.from({ length: Math.ceil(all.length / length) }, (_, i) => i * length)
        const alone = from === 0 && starts.length > 2 && starts.length <= ALONE_PARTS ? starts : []
        const without = starts.filter((start) => start >= from)
        const at = await this.take([
          ...alone.map((start) => only(best, all.slice(start, start + length))),
          ...without.map((start) => only(best, all.toSpliced(start, length)))
        ])
        if (at < 0) break
        if (at >= alone.length) from = without[at - alone.length]!
        else length = Math.ceil(length / 2)
      }
      if (length === 1) return
      length = Math.ceil(length / 2)
    }
  }
}

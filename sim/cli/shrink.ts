/** A plan that fails, made smaller in a given time, with runs on all cores; the smaller one is written to a file. */
import { writeFile } from "node:fs/promises"
import { encodePlan, type Plan } from "../plan.ts"
import type { Shown } from "../search.ts"
import { sameAs, shrink, type Size, sizeOf } from "../shrink.ts"
import { type Failure, failuresOf } from "../summary.ts"
import { INTERRUPTED, isInterrupted } from "./interrupt.ts"
import type { Say } from "./one.ts"
import { Pool, type PoolOptions } from "./pool.ts"
import { runTwice } from "./twice.ts"
import { planLines } from "./usage.ts"

export interface ShrinkOptions extends PoolOptions {
  /** The file for the smaller plan. */
  readonly out: string
}

const AT_MOST_MS = 110_000
/** A smaller plan that takes so many times as long as the whole goes round in a circle, and is of no use. */
const PATIENCE = 3

const sizeText = ({ clients, faults, ms, nodes, operations }: Size): string =>
  `${faults} faults, ${operations} operations, ${clients} clients, ${nodes} nodes, ${Math.round(ms / 1_000)} s`

/** A failure that names no operation of its own may have others beside it that do. */
const shownBy = (failures: ReadonlyArray<Failure>, isSame: (failure: Failure) => boolean): Shown | undefined => {
  const own = failures.filter(isSame)
  return own.length === 0
    ? undefined
    : ([...own, ...failures].find(({ operations }) => operations.length > 0)?.operations ?? [])
}

const doesNotFail = (bug: string | undefined): string =>
  bug === undefined
    ? "This plan does not fail. If it is of a run with a planted bug, say which: --bug NAME."
    : `This plan does not fail with --bug ${bug}.`

/** Says it, and answers with which code to end. */
export const shrinkPlan = async (plan: Plan, { out, ...options }: ShrinkOptions, say: Say): Promise<number> => {
  const pool = new Pool(options)
  const started = performance.now()
  try {
    const summary = await runTwice(pool, plan)
    const failures = failuresOf(summary)
    const [failure] = failures
    if (failure === undefined) {
      say({ plan: sizeOf(plan), shrunk: null }, doesNotFail(options.bug))
      return 1
    }
    const { fault } = failure
    if (fault === "late") {
      say({ plan: sizeOf(plan), shrunk: null }, `This plan takes too long to be made smaller: ${failure.detail}.`)
      return 1
    }
    const isSame = sameAs(plan, failures)
    const patienceMs = PATIENCE * (performance.now() - started)
    const { stderr } = process
    let tried = 0
    let isStopped = false
    let small = plan
    const shrunk = shrink(plan, shownBy(failures, isSame)!, {
      fails: async (candidate) => {
        tried++
        // Only who is run twice can be another one.
        const ran =
          fault === "determinism"
            ? await runTwice(pool, candidate)
            : (await pool.run(candidate, { patienceMs })).summary
        return shownBy(failuresOf(ran), isSame)
      },
      width: pool.size,
      isOver: () => isStopped || performance.now() - started > AT_MOST_MS,
      smaller: (smaller) => {
        if (!isStopped) small = smaller
        if (stderr.isTTY) stderr.write(`\r\x1b[K${fault}: ${sizeText(sizeOf(smaller))}, ${tried} plans tried`)
      }
    })
    isStopped = await isInterrupted(shrunk)
    if (stderr.isTTY) stderr.write("\r\x1b[K")
    await writeFile(out, encodePlan(small))
    const seconds = Math.round((performance.now() - started) / 1_000)
    say(
      { fault, before: sizeOf(plan), after: sizeOf(small), tried, seconds, file: out },
      [
        ...(isStopped ? ["interrupted: it could be smaller still"] : []),
        `${fault}: ${failure.detail}`,
        `from ${sizeText(sizeOf(plan))}`,
        `to   ${sizeText(sizeOf(small))}, after ${tried} runs in ${seconds} s`,
        ...planLines(out, options.bug)
      ].join("\n")
    )
    return isStopped ? INTERRUPTED : 0
  } finally {
    pool.close()
  }
}

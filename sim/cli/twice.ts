/** Whether a run is the same run in another process, and if not, with which event it becomes another one. */
import type { Plan } from "../plan.ts"
import type { Summary } from "../summary.ts"
import { firstDifference, parting } from "../trace.ts"
import type { Pool, Ran } from "./pool.ts"

/** At once in two processes, if they are idle: it takes no longer than one run. */
export const runTwice = async (pool: Pool, plan: Plan): Promise<Summary> => {
  const [one, other] = await Promise.all([pool.run(plan), pool.run(plan)])
  const { summary } = one
  // Who has no trace died, or was late: that is what is to say.
  for (const each of [summary, other.summary]) if (each.hash === "") return each
  return { ...summary, parted: await partedAt(pool, plan, one, one.by === other.by ? undefined : other) }
}

/** Undefined if both are the same; without another one it is run once more. */
export const partedAt = async (
  pool: Pool,
  what: string | Plan,
  one: Ran,
  another?: Ran
): Promise<string | undefined> => {
  const other = another ?? (await pool.run(what, { notBy: one.by }))
  const keep = parting(one.summary, other.summary)
  if (keep === undefined) return undefined
  const where = `the traces part between the events ${keep.from} and ${keep.to}`
  const [a, b] = await Promise.all([pool.run(what, { keep, notBy: other.by }), pool.run(what, { keep, notBy: one.by })])
  const difference = firstDifference(a.kept, b.kept)
  return difference === undefined ? `${where}; run twice more, they did not` : `${where}: ${difference}`
}

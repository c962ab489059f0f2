/** Whether a run is the same run in another process, and if not, with which event it becomes another one. */
import type { Plan } from "../plan.ts"
import { firstDifference, parting } from "../trace.ts"
import type { Pool, Ran } from "./pool.ts"

/** Undefined if both are the same. */
export const partedAt = async (pool: Pool, what: string | Plan, one: Ran): Promise<string | undefined> => {
  const other = await pool.run(what, { notBy: one.by })
  const keep = parting(one.summary, other.summary)
  if (keep === undefined) return undefined
  const where = `the traces part between the events ${keep.from} and ${keep.to}`
  const [a, b] = await Promise.all([pool.run(what, { keep, notBy: other.by }), pool.run(what, { keep, notBy: one.by })])
  const difference = firstDifference(a.kept, b.kept)
  return difference === undefined ? `${where}; run twice more, they did not` : `${where}: ${difference}`
}

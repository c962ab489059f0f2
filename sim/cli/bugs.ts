/** A planted bug, by its name. It must be planted before anything else is imported: what was imported is without it. */
import type { Edit } from "../mutate.ts"

/** So coarse that every seed shows it: a simulator that lets it pass sees nothing. */
const canary: Edit = {
  name: "canary",
  file: "actors/proxy/proxy.ts",
  find: '{ "count(*)": rows }',
  replace: '{ "count(*)": rows + 1 }'
}
export const CANARY = canary.name

export const plantBug = async (name: string | undefined): Promise<void> => {
  if (name === undefined) return
  const { plant } = await import("../mutate.ts")
  const { mutants } = await import("../mutants.ts")
  const bug = [canary, ...mutants].find((each) => each.name === name)
  if (bug === undefined) throw new Error(`there is no planted bug ${name}`)
  plant(bug)
}

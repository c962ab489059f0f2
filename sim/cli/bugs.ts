/** A planted bug, by its name. It must be planted before anything else is imported: what was imported is without it. */
import type { Edit } from "../mutate.ts"
import { UsageError } from "./usage.ts"

/** Writes are acknowledged of which nobody ever hears. Every seed shows it: a simulator that lets it pass sees nothing. */
const canary: Edit = {
  name: "canary",
  file: "actors/proxy/proxy.ts",
  find: "yield* requests.upsert(collection, rows, asked.request, asked.deadline)",
  replace: "{ count: rows.keys.count, timestamp: requests.newest() }"
}
export const CANARY = canary.name

export const namedBug = async (name: string): Promise<Edit> => {
  const { mutants } = await import("../mutants.ts")
  const bug = [canary, ...mutants].find((each) => each.name === name)
  if (bug === undefined) throw new UsageError(`there is no planted bug ${name}`)
  return bug
}

export const plantBug = async (name: string | undefined): Promise<void> => {
  if (name === undefined) return
  const { plant } = await import("../mutate.ts")
  plant(await namedBug(name))
}

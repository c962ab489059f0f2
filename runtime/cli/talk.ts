/** What commands that ask something have in common: whom they talk to, for how long, and how they end. */
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { mkdir } from "node:fs/promises"
import { join, resolve } from "node:path"
import { failure } from "../../protocols/errors.ts"
import type { Elanus } from "../elanus.ts"
import { exitCodes, reportError, UsageError } from "./exit.ts"
import { type ClientFlags, natsOf } from "./flags.ts"
import { natsOptions } from "./nats-options.ts"

const opened = async (flags: ClientFlags, isMaking: boolean): Promise<Elanus> => {
  // Only here: help, and a command line that is wrong, need no database.
  const { connect, open } = await import("../elanus.ts")
  const { database, directory } = flags
  if (directory === undefined) return connect({ ...(await natsOptions(natsOf(flags), flags)), database })
  if (flags.nats !== undefined) throw new UsageError("--directory is a database without a server: leave out --nats")
  if (isMaking) await mkdir(directory, { recursive: true })
  else if (!existsSync(join(directory, "store"))) throw failure("unfit", `there is no database in ${directory}`)
  return open({ directory: resolve(directory), database })
}

/**
 * Runs a command's work; what it throws becomes a message and an exit code. A directory is made only by who creates a
 * collection in it (`isMaking`): for the others it is a name with a mistake.
 */
export const talk = (
  flags: ClientFlags,
  work: (elanus: Elanus) => Promise<number | void>,
  isMaking = false
): Effect.Effect<void> =>
  Effect.promise(async () => {
    try {
      const elanus = await opened(flags, isMaking)
      let code: number | void
      try {
        code = await work(elanus)
      } finally {
        await elanus.close()
      }
      process.exitCode = code ?? exitCodes.ok[0]
    } catch (cause) {
      process.exitCode = reportError(cause, flags.json)
    }
  })

/** The time that an answer may take, if one was given, as the library takes it. */
export const within = ({ timeout }: ClientFlags, fallback?: number): { readonly timeoutMs?: number } => {
  const timeoutMs = timeout ?? fallback
  if (timeoutMs === undefined) return {}
  if (timeoutMs < 1) throw new UsageError("--timeout is a number of milliseconds, 1 or more")
  return { timeoutMs }
}

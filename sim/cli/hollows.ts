/** Hollow simulators, each shown to the guard that must notice it. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Hollow } from "../hollow.ts"

const run = promisify(execFile)
const PROGRAM = fileURLToPath(new URL("./guard-process.ts", import.meta.url))
/** Of the real world: whoever is silent for longer has been hollowed out too far to say anything. */
const PATIENCE_MS = 300_000

/** What a guard has against the simulator, hollowed out in one way; undefined: against the real one. */
export const problemsOf = async (hollow: Hollow | undefined, guard: string): Promise<ReadonlyArray<string>> => {
  const { stdout } = await run(process.execPath, [PROGRAM, hollow?.name ?? "", guard], { timeout: PATIENCE_MS })
  return JSON.parse(stdout) as ReadonlyArray<string>
}

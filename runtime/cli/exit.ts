/**
 * How a command ends: its exit code, which scripts may rely on, and what it says of an error. Whatever was thrown,
 * anywhere below, becomes an error of the one table here.
 */
import { ElanusError, errorBody, failure } from "../../protocols/errors.ts"

/** How a command ends. Scripts may rely on these; `elanus --help` shows them. */
export const exitCodes = {
  ok: [0, "done"],
  caller: [1, "the request is wrong: a name, a vector, a row (the same again fails again)"],
  usage: [2, "the command line is wrong: see --help"],
  cluster: [3, "not possible now: no server, nobody answers, overloaded (trying again may help)"],
  operator: [4, "somebody must look: damaged data, an unfit server, a directory in use"],
  internal: [5, "a bug in Elanus"],
  ambiguous: [6, "it may have been done, or not (an insert or a delete may simply be repeated)"]
} as const satisfies { readonly [name: string]: readonly [code: number, meaning: string] }

export const exitCodeHelp = [
  "Exit codes:",
  ...Object.values(exitCodes).map(([code, meaning]) => `  ${code}  ${meaning}`)
].join("\n")

/** The command line says something that cannot be meant. */
export class UsageError extends Error {
  override readonly name = "UsageError"
}

export const exitCodeOf = (error: ElanusError): number => {
  if (error.code === "ambiguous" || error.code === "outcome-unknown") return exitCodes.ambiguous[0]
  if (error.code === "internal") return exitCodes.internal[0]
  return exitCodes[error.fault][0]
}

/** Whatever was thrown, as an error of the table: storage, the bus and the system have errors of their own. */
export const toElanusError = (cause: unknown): ElanusError => {
  if (cause instanceof ElanusError) return cause
  const { _tag, code, detail, reason } = cause as {
    readonly _tag?: string
    readonly reason?: string
    readonly detail?: string
    readonly code?: string
  }
  if (_tag === "StorageError" || _tag === "BusError") {
    const text = detail ?? reason ?? ""
    if (reason === "damaged") return failure("damaged", text)
    if (reason === "missing" || reason === "unfit" || reason === "denied") return failure("unfit", text)
    return failure("unavailable", text)
  }
  const text = cause instanceof Error ? cause.message : String(cause)
  // The machine, not a bug: a disk, a permission, a port.
  if (typeof code === "string" && /^E[A-Z]+$/.test(code)) return failure("unfit", text)
  return failure("internal", cause instanceof Error && cause.stack !== undefined ? cause.stack : text)
}

/** Tells of an error on stderr, and says with which code to end. */
export const reportError = (cause: unknown, json: boolean): number => {
  if (cause instanceof UsageError) {
    const error = { code: "usage", reason: cause.message, fault: "caller", retry: false }
    process.stderr.write(json ? `${JSON.stringify({ error })}\n` : `elanus: ${cause.message}\n`)
    return exitCodes.usage[0]
  }
  const error = toElanusError(cause)
  if (json) process.stderr.write(`${JSON.stringify(errorBody(error))}\n`)
  else {
    const hint = error.retry ? "; trying again may help" : ""
    process.stderr.write(`elanus: ${error.reason} (${error.code}${hint})\n`)
  }
  return exitCodeOf(error)
}

/**
 * What the command line says and how it ends: exit codes for scripts, tables for people, a progress bar for whoever
 * looks at a terminal. It decides nothing; answers go to stdout, everything else to stderr.
 */
import { ElanusError, errorBody, failure } from "../protocols/errors.ts"

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

/** Integers beyond 2^53 are what they are, as text. */
const plain = (_key: string, value: unknown): unknown =>
  typeof value === "bigint" ? String(value) : value instanceof Float32Array ? Array.from(value) : value

export const printJson = (value: unknown): void => {
  process.stdout.write(`${JSON.stringify(value, plain)}\n`)
}

export const printText = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

export const count = (value: number): string => Math.round(value).toLocaleString("en-US")

const units = ["B", "KiB", "MiB", "GiB", "TiB"] as const
export const bytesText = (bytes: number): string => {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`
}

const CELL_MAX = 60
const SHOWN_NUMBERS = 4

/** A value in one short line. */
export const cell = (value: unknown): string => {
  if (value === undefined) return ""
  if (value instanceof Float32Array) {
    const shown = Array.from(value.subarray(0, SHOWN_NUMBERS), (number) => number.toPrecision(4)).join(", ")
    return value.length > SHOWN_NUMBERS ? `[${shown}, ... ${value.length}]` : `[${shown}]`
  }
  const text = typeof value === "string" ? value : JSON.stringify(value, plain)
  const line = text.replace(/\s+/g, " ")
  return line.length > CELL_MAX ? `${line.slice(0, CELL_MAX - 3)}...` : line
}

/** Rows under their titles; a column whose every cell is a number is aligned to the right. */
export const table = (titles: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<unknown>>): string => {
  const cells = rows.map((row) => titles.map((_, column) => cell(row[column])))
  const widths = titles.map((title, column) => Math.max(title.length, ...cells.map((row) => row[column]!.length)))
  const numeric = titles.map(
    (_, column) => cells.length > 0 && cells.every((row) => /^-?[\d.,]+(?:e[+-]?\d+)?$/.test(row[column]!))
  )
  const line = (row: ReadonlyArray<string>) =>
    row
      .map((text, column) => (numeric[column] ? text.padStart(widths[column]!) : text.padEnd(widths[column]!)))
      .join("  ")
      .trimEnd()
  return [line(titles), ...cells.map(line)].join("\n")
}

/** Names and what they are, one a line. */
export const facts = (all: ReadonlyArray<readonly [name: string, value: unknown]>): string => {
  const width = Math.max(...all.map(([name]) => name.length))
  return all.map(([name, value]) => `${name.padEnd(width)}  ${cell(value)}`.trimEnd()).join("\n")
}

export interface Progress {
  readonly show: (rows: number, bytesRead: number) => void
  readonly end: () => void
}

const BAR_WIDTH = 30
const SHOW_EVERY_MS = 100

/** A bar on stderr while somebody looks at it; nothing for a file or a pipe. */
export const makeProgress = (what: string, bytesTotal: number | undefined): Progress => {
  const { stderr } = process
  if (!stderr.isTTY) return { show: () => {}, end: () => {} }
  const started = performance.now()
  let shown = 0
  return {
    show: (rows, bytesRead) => {
      const now = performance.now()
      if (now - shown < SHOW_EVERY_MS) return
      shown = now
      const rate = `${count(rows)} rows, ${count(rows / ((now - started) / 1_000))} rows/s`
      if (bytesTotal === undefined || bytesTotal === 0) {
        stderr.write(`\r\x1b[K${what} ${rate}, ${bytesText(bytesRead)}`)
        return
      }
      const part = Math.min(1, bytesRead / bytesTotal)
      const filled = Math.round(part * BAR_WIDTH)
      const bar = "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled)
      stderr.write(`\r\x1b[K${what} ${bar} ${Math.floor(part * 100)} %  ${rate}`)
    },
    end: () => {
      if (shown > 0) stderr.write("\r\x1b[K")
    }
  }
}

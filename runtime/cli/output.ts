/** What the command line answers, to stdout: one line of JSON for programs, tables for people. It decides nothing. */

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

/** How long something took that began then. */
export const secondsSince = (started: number): string => `${((performance.now() - started) / 1_000).toFixed(2)} s`

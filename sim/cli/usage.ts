/** The command line: how to say what is meant, and what it says that cannot be meant. */
import { relative } from "node:path"

export class UsageError extends Error {
  override readonly name = "UsageError"
}

/** To be typed: with the planted bug that there was, or nothing is wrong then. */
export const commandLine = (bug: string | undefined, ...words: ReadonlyArray<string>): string =>
  ["npm run sim --", ...words, ...(bug === undefined ? [] : ["--bug", bug])].join(" ")

/** For a plan that failed: what can be done with it. */
export const planLines = (file: string, bug: string | undefined): ReadonlyArray<string> =>
  ["replay", "shrink", "report"].map((command) => `  ${commandLine(bug, command, relative(process.cwd(), file))}`)

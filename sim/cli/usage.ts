/** The command line: how to say what is meant, and what it says that cannot be meant. */
import { constants } from "node:fs"
import { access, stat } from "node:fs/promises"
import { dirname, relative, resolve } from "node:path"

export class UsageError extends Error {
  override readonly name = "UsageError"
}

/** A file is not what it should be, or cannot be: all that is to know of the command line is there. */
export class FileError extends UsageError {}

/** Whether there can be something in a folder, which may be yet to be made: before the work, and not after it. */
export const tryFolder = async (folder: string): Promise<void> => {
  let at = resolve(folder)
  let found = await stat(at).catch(() => undefined)
  while (found === undefined && dirname(at) !== at) {
    at = dirname(at)
    found = await stat(at).catch(() => undefined)
  }
  if (!found?.isDirectory()) throw new FileError(`--out ${folder}: ${at} is no folder`)
  await access(at, constants.W_OK).catch(() => {
    throw new FileError(`--out ${folder}: nothing can be written to ${at}`)
  })
}

/** Whether a file can be written, in a folder that is there. */
export const tryFile = async (file: string): Promise<void> => {
  const at = resolve(file)
  const found = await stat(at).catch(() => undefined)
  if (found?.isDirectory()) throw new FileError(`--out ${file}: it is a folder`)
  const folder = await stat(dirname(at)).catch(() => undefined)
  if (!folder?.isDirectory()) throw new FileError(`--out ${file}: ${dirname(at)} is no folder`)
  await access(found === undefined ? dirname(at) : at, constants.W_OK).catch(() => {
    throw new FileError(`--out ${file}: it cannot be written`)
  })
}

/** To be typed: with the planted bug that there was, or nothing is wrong then. */
export const commandLine = (bug: string | undefined, ...words: ReadonlyArray<string>): string =>
  ["npm run sim --", ...words, ...(bug === undefined ? [] : ["--bug", bug])].join(" ")

/** For a plan that failed: what can be done with it. */
export const planLines = (file: string, bug: string | undefined): ReadonlyArray<string> =>
  ["replay", "shrink", "report"].map((command) => `  ${commandLine(bug, command, relative(process.cwd(), file))}`)

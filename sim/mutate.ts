/**
 * A bug put into one file while it is loaded, and into nothing that is written: production code has no switch for it.
 * An edit whose text is not there exactly once is an error that says which, so that a table of them cannot rot.
 */
import { registerHooks } from "node:module"

export interface Edit {
  readonly name: string
  /** From the top of the repository. */
  readonly file: string
  /** Occurs exactly once in the file. */
  readonly find: string
  readonly replace: string
}

/** The source with the bug in it. Throws an Error that names the edit if it does not fit. */
export const edited = ({ file, find, name, replace }: Edit, source: string): string => {
  const parts = source.split(find)
  if (parts.length !== 2) throw new Error(`${name}: ${file} has ${parts.length - 1} times: ${find}`)
  return parts.join(replace)
}

const root = new URL("..", import.meta.url)
export const urlOf = ({ file }: Edit): URL => new URL(file, root)

/** From now on whoever imports the file in this process gets it with the bug. Nobody may have imported it before. */
export const plant = (edit: Edit): void => {
  const { href } = urlOf(edit)
  registerHooks({
    load: (url, context, next) => {
      const loaded = next(url, context)
      return url === href ? { ...loaded, source: edited(edit, String(loaded.source)) } : loaded
    }
  })
}

/** The sites of runtime/buggify.ts, as the sources have them. */
import { glob, readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"

const cwd = fileURLToPath(new URL("../..", import.meta.url))
const SOURCES = ["actors/**/*.ts", "runtime/**/*.ts"]
/** A name is written where it is used, as it is. */
const SITE = /\b(?:buggify|stall|late|fires)\(\s*"([^"]+)"/g

/** Their names, in alphabetical order; one that stands in two places twice. */
export const sitesInSources = async (): Promise<ReadonlyArray<string>> => {
  const found: Array<string> = []
  for await (const file of glob(SOURCES, { cwd })) {
    for (const [, site] of (await readFile(`${cwd}/${file}`, "utf8")).matchAll(SITE)) found.push(site!)
  }
  return found.toSorted()
}

/** What reads have in common: at which time, which fields, and how rows are shown. */
import { type Command, Flag } from "effect/cli"
import type { Consistency } from "../../protocols/client.ts"
import type { Hit, Row } from "../elanus.ts"
import { maybe } from "./flags.ts"
import { table } from "./output.ts"

const consistencies = { strong: "Strong", session: "Session", bounded: "Bounded", eventually: "Eventually" } as const
export const readFlags = {
  outputFields: maybe(
    Flag.String("output-fields").pipe(
      Flag.withMetavar("NAMES"),
      Flag.withDescription("Fields to show, with commas between; * for all"),
      Flag.map((names) => names.split(",").map((name) => name.trim()))
    )
  ),
  consistency: maybe(
    Flag.String("consistency").pipe(
      Flag.withMetavar("LEVEL"),
      Flag.withDescription("strong, session, bounded or eventually"),
      Flag.mapTryCatch(
        (given): Consistency => {
          const level = consistencies[given.toLowerCase() as keyof typeof consistencies]
          if (level === undefined) throw new Error(`consistency is ${Object.keys(consistencies).join(", ")}`)
          return level
        },
        (cause) => (cause as Error).message
      )
    )
  ),
  at: maybe(
    Flag.String("at").pipe(
      Flag.withMetavar("TIMESTAMP"),
      Flag.withDescription("As it was at the timestamp of an earlier answer"),
      Flag.mapTryCatch(
        (given) => BigInt(given),
        () => "a timestamp is what an answer said of itself, a decimal number"
      )
    )
  )
}
type ReadFlags = Command.Command.Config.Infer<typeof readFlags>

export const readOptions = ({ at, consistency, outputFields }: ReadFlags) => ({
  ...(outputFields === undefined ? {} : { outputFields }),
  ...(consistency === undefined ? {} : { consistency }),
  ...(at === undefined ? {} : { at })
})

/** A row as one object, its key first and as text. */
export const flat = (spec: { readonly keyField: string; readonly vectorField: string }, row: Row | Hit) => ({
  [spec.keyField]: String(row.id),
  ...("distance" in row ? { distance: row.distance } : {}),
  ...row.fields,
  ...(row.vector === undefined ? {} : { [spec.vectorField]: row.vector })
})

/** Objects as a table, with a column for each name that any of them has. */
export const tableOf = (rows: ReadonlyArray<{ readonly [name: string]: unknown }>): string => {
  const titles = [...new Set(rows.flatMap((row) => Object.keys(row)))]
  return table(
    titles,
    rows.map((row) =>
      titles.map((title) =>
        title === "distance" && typeof row[title] === "number" ? row[title].toFixed(6) : row[title]
      )
    )
  )
}

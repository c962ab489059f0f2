/** Rows by their keys: showing and deleting them. */
import { Argument, Command } from "effect/cli"
import { describeOf } from "./collections.ts"
import { clientFlags, collectionArgument } from "./flags.ts"
import { count, printJson, printText } from "./output.ts"
import { flat, readFlags, readOptions, tableOf } from "./reading.ts"
import { talk, within } from "./talk.ts"

const idsArgument = Argument.String("id").pipe(
  Argument.withDescription("Keys; negative ones after --, and - alone for one a line on stdin"),
  Argument.atLeast(1)
)

const readIds = async (given: ReadonlyArray<string>): Promise<Array<string>> => {
  if (given.length !== 1 || given[0] !== "-") return [...given]
  const { openInput, readLines } = await import("./input.ts")
  const { chunks } = await openInput("-", "jsonl")
  const ids: Array<string> = []
  for await (const group of readLines(chunks)) {
    for (const { value } of group) ids.push(new TextDecoder().decode(value).trim())
  }
  return ids
}

export const get = Command.make(
  "get",
  { collection: collectionArgument, ids: idsArgument, ...readFlags, ...clientFlags },
  (flags) =>
    talk(flags, async (elanus) => {
      const collection = elanus.collection(flags.collection)
      const spec = await describeOf(collection, flags)
      const ids = await readIds(flags.ids)
      const found = await collection.get(ids, { ...readOptions(flags), ...within(flags) })
      const rows = found.map((row) => flat(spec, row))
      if (flags.json) return printJson({ rows, timestamp: String(elanus.timestamp()) })
      if (rows.length > 0) printText(tableOf(rows))
      process.stderr.write(`${count(rows.length)} of ${count(new Set(ids).size)} found\n`)
    })
).pipe(Command.withDescription("Show rows by their keys"))

export const remove = Command.make(
  "delete",
  { collection: collectionArgument, ids: idsArgument, ...clientFlags },
  (flags) =>
    talk(flags, async (elanus) => {
      const ids = await readIds(flags.ids)
      const { count: asked, timestamp } = await elanus.collection(flags.collection).delete(ids, within(flags))
      if (flags.json) return printJson({ deleted: asked, timestamp: String(timestamp) })
      printText(`deleted, where there was one, the rows of ${count(asked)} ${asked === 1 ? "key" : "keys"}`)
    })
).pipe(Command.withDescription("Delete rows by their keys"))

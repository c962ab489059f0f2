/** Searching: vectors from flags, a file or a pipe, and tables of hits. */
import { Command, Flag } from "effect/cli"
import { failure } from "../../protocols/errors.ts"
import { describeOf } from "./collections.ts"
import { UsageError } from "./exit.ts"
import { clientFlags, collectionArgument, integer, integerFrom, maybe, text } from "./flags.ts"
import { printJson, printText, secondsSince } from "./output.ts"
import { flat, readFlags, readOptions, tableOf } from "./reading.ts"
import { talk, within } from "./talk.ts"

/** Vectors from the flags: JSON, in a file also one a line, or .fvecs. */
const readVectors = async (
  given: ReadonlyArray<string>,
  file: string | undefined
): Promise<Array<Array<number> | Float32Array>> => {
  const parse = (source: string, where: string): Array<Array<number>> => {
    let value: unknown
    try {
      value = JSON.parse(source)
    } catch (cause) {
      throw failure("bad-vector", `${where} is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`)
    }
    if (!Array.isArray(value)) throw failure("bad-vector", `${where} must be an array of numbers`)
    return (value.length > 0 && value.every((each) => Array.isArray(each)) ? value : [value]) as Array<Array<number>>
  }
  if (given.length > 0) return given.flatMap((each) => parse(each, "--vector"))
  const { openInput, readFvecs, readLines } = await import("./input.ts")
  const path = file ?? "-"
  if (path === "-" && process.stdin.isTTY) throw new UsageError("give --vector, --file, or vectors on stdin")
  const input = await openInput(path, path.endsWith(".fvecs") ? "fvecs" : "jsonl")
  const vectors: Array<Array<number> | Float32Array> = []
  if (input.format === "fvecs") {
    for await (const group of readFvecs(input.chunks)) vectors.push(...group.map(({ value }) => value))
  } else {
    for await (const group of readLines(input.chunks)) {
      for (const { at, value } of group) vectors.push(...parse(new TextDecoder().decode(value), `line ${at}`))
    }
  }
  return vectors
}

export const search = Command.make(
  "search",
  {
    collection: collectionArgument,
    vector: Flag.String("vector").pipe(
      Flag.withMetavar("JSON"),
      Flag.withDescription("What to look for, [0.1, 0.2]; may be given again"),
      Flag.atLeast(0)
    ),
    file: text("file", "FILE", "Vectors to look for: JSON, one a line, or .fvecs; - for stdin"),
    limit: Flag.Int("limit").pipe(Flag.withDescription("Hits for each vector; 10 if not given"), Flag.withDefault(10)),
    offset: integer("offset", "Hits to leave out before them"),
    ef: maybe(integerFrom(1, "ef", "Candidates that the index keeps: the more, the better the recall")),
    ...readFlags,
    ...clientFlags
  },
  (flags) =>
    talk(flags, async (elanus) => {
      const vectors = await readVectors(flags.vector, flags.file)
      const collection = elanus.collection(flags.collection)
      const spec = await describeOf(collection, flags)
      const started = performance.now()
      const lists = await collection.search(vectors, {
        limit: flags.limit,
        ...(flags.offset === undefined ? {} : { offset: flags.offset }),
        ...(flags.ef === undefined ? {} : { ef: flags.ef }),
        ...readOptions(flags),
        ...within(flags)
      })
      const took = secondsSince(started)
      const results = lists.map((hits) => hits.map((hit) => flat(spec, hit)))
      if (flags.json) return printJson({ results, timestamp: String(elanus.timestamp()) })
      results.forEach((hits, i) => {
        if (results.length > 1) printText(`${i === 0 ? "" : "\n"}vector ${i + 1}`)
        printText(hits.length === 0 ? "nothing found" : tableOf(hits))
      })
      process.stderr.write(`${took}\n`)
    })
).pipe(
  Command.withDescription("Find the rows whose vectors are nearest"),
  Command.withExamples([
    {
      command: "elanus search books --vector '[0.1, 0.2]' --limit 3 --output-fields title",
      description: "Three of them"
    }
  ])
)

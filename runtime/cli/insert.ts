/**
 * Inserting from a file or a pipe: rows are sent as they are read, and what is wrong with one of them is told with the
 * place where it stands.
 */
import { Argument, Command, Flag } from "effect/cli"
import { setTimeout as sleep } from "node:timers/promises"
import type { ElanusError } from "../../protocols/errors.ts"
import type { Elanus } from "../elanus.ts"
import { describeOf } from "./collections.ts"
import { exitCodes, reportError, toElanusError } from "./exit.ts"
import { clientFlags, collectionArgument, integerFrom, maybe, text } from "./flags.ts"
import type { Format, Piece } from "./input.ts"
import type { NewRow } from "./new-rows.ts"
import { count, printJson, printText } from "./output.ts"
import { makeProgress } from "./progress.ts"
import { talk, within } from "./talk.ts"

/** Of one request, with all retries. */
const INSERT_TIMEOUT_MS = 60_000
/** Rows that wait for company go after this, so that a slow pipe's rows are there soon. */
const IDLE_MS = 200
/** Rows that are wrong, with --keep-going; of more it is only said that there are. */
const BAD_SHOWN = 20

const insertFlags = {
  collection: collectionArgument,
  file: Argument.String("file").pipe(
    Argument.withDescription("JSON lines, Arrow IPC or .fvecs; stdin if not given, or -"),
    Argument.withDefault("-")
  ),
  format: maybe(
    Flag.Literals("format", ["jsonl", "arrow", "fvecs"]).pipe(
      Flag.withDescription("Else the file's name or its first bytes say it")
    )
  ),
  firstId: Flag.Int("first-id").pipe(
    Flag.withDescription("Of .fvecs, whose vectors have no ids: they are numbered from here, 0 if not given"),
    Flag.withDefault(0)
  ),
  idColumn: text("id-column", "NAME", "Column of an Arrow file that is the key; else as the collection calls it"),
  vectorColumn: text("vector-column", "NAME", "Column of an Arrow file that is the vector; else as the collection's"),
  inFlight: integerFrom(1, "in-flight", "Requests at once; 8 if not given").pipe(Flag.withDefault(8)),
  keepGoing: Flag.Boolean("keep-going").pipe(
    Flag.withDescription("Report rows that are wrong and insert the others (and end with 1)"),
    Flag.withDefault(false)
  ),
  ...clientFlags
}
type InsertFlags = Command.Command.Config.Infer<typeof insertFlags>

const insertAll = async (elanus: Elanus, flags: InsertFlags): Promise<number> => {
  const collection = elanus.collection(flags.collection)
  const spec = await describeOf(collection, flags)
  // Only here: other commands read no rows.
  const [{ makeBatches }, { openInput, unitOf }, { readRows }] = await Promise.all([
    import("./batches.ts"),
    import("./input.ts"),
    import("./new-rows.ts")
  ])
  if (flags.file === "-" && process.stdin.isTTY) process.stderr.write("reading rows from the terminal\n")
  const input = await openInput(flags.file, flags.format as Format | undefined)
  const started = performance.now()
  const progress = makeProgress("inserting", input.bytes)
  const batches = makeBatches(collection, {
    dimension: spec.dimension,
    unit: unitOf[input.format],
    atOnce: flags.inFlight,
    onStored: (rows) => progress.show(rows, input.bytesRead()),
    ...within(flags, INSERT_TIMEOUT_MS)
  })

  let skipped = 0
  /** Something in the input: it ends with that, as it does with a batch that is lost. */
  let wrong: ElanusError | undefined
  const isEnding = () => wrong !== undefined || batches.lost() !== undefined

  const take = async ({ at, value }: Piece<NewRow | ElanusError>): Promise<void> => {
    if (!(value instanceof Error)) return batches.add(at, value)
    skipped++
    if (!flags.keepGoing) wrong ??= value
    else if (skipped <= BAD_SHOWN) reportError(value, flags.json)
    else if (skipped === BAD_SHOWN + 1) process.stderr.write("and more of that kind\n")
  }

  try {
    const rows = readRows(input, spec, flags)
    let next = rows.next()
    while (!isEnding()) {
      const timer = new AbortController()
      const idle = sleep(IDLE_MS, undefined, { signal: timer.signal }).catch(() => undefined)
      const group = await (batches.isWaiting() ? Promise.race([next, idle]) : next)
      timer.abort()
      if (group === undefined) {
        await batches.send()
        continue
      }
      if (group.done === true) break
      next = rows.next()
      // Whoever stops early never looks at it.
      next.catch(() => undefined)
      for (const piece of group.value) if (!isEnding()) await take(piece)
    }
  } catch (cause) {
    wrong ??= toElanusError(cause)
  }
  await input.close().catch(() => undefined)
  // What came before a row that is wrong is stored: so the file can be put right from there on.
  await batches.end()
  progress.end()

  const stored = batches.stored()
  const took = (performance.now() - started) / 1_000
  if (flags.json) {
    printJson({
      rows: stored,
      ...(skipped > 0 ? { wrong: skipped } : {}),
      seconds: Number(took.toFixed(3)),
      rowsPerSecond: Math.round(stored / took),
      timestamp: String(elanus.timestamp())
    })
  } else {
    const andWrong = skipped > 0 ? `, ${count(skipped)} wrong` : ""
    printText(`${count(stored)} rows in ${took.toFixed(2)} s, ${count(stored / took)} rows/s${andWrong}`)
  }
  const failed = batches.lost() ?? wrong
  if (failed !== undefined) return reportError(failed, flags.json)
  return skipped > 0 ? exitCodes.caller[0] : exitCodes.ok[0]
}

export const insert = Command.make("insert", insertFlags, (flags) =>
  talk(flags, (elanus) => insertAll(elanus, flags))
).pipe(
  Command.withDescription("Insert rows from a file or a pipe; a row whose key is there already replaces it"),
  Command.withExamples([
    {
      command: `echo '{"id":1,"vector":[0.1,0.2],"title":"A"}' | elanus insert books`,
      description: "JSON, a row a line"
    },
    { command: "elanus insert sift base.fvecs", description: "Vectors, numbered from 0" }
  ])
)

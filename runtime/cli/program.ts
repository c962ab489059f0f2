/** The command `elanus`: all subcommands, its help, and what becomes of a command line that is wrong. */
import * as nodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Layer, Logger } from "effect"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import { format } from "node:util"
import { VERSION } from "../version.ts"
import { collections, flush } from "./collections.ts"
import { exitCodeHelp, exitCodes, reportError } from "./exit.ts"
import { insert } from "./insert.ts"
import { get, remove } from "./keys.ts"
import { search } from "./search.ts"
import { start } from "./start.ts"
import { status } from "./status.ts"

const elanus = Command.make("elanus").pipe(
  Command.withDescription(`A vector database made of actors on NATS.\n\n${exitCodeHelp}`),
  Command.withSubcommands([start, status, collections, insert, search, get, remove, flush])
)

const presenter = CliOutput.layerPresenter({
  // The whole help would hide what is wrong.
  present: (event) =>
    event._tag !== "InvalidInvocation"
      ? CliOutput.defaultPresenter.present(event)
      : Effect.sync(() => {
          const reasons = event.errors.map(({ message }) => message).join("\n")
          process.stderr.write(`elanus: ${reasons}\nSee ${event.commandPath.join(" ")} --help\n`)
        })
})

/** A line for people: which fibre it was says nothing to them. */
const logger = Logger.make<unknown, void>(({ cause, date, logLevel, message }) => {
  const parts = [message].flat()
  if (cause.reasons.length > 0) parts.push(Cause.pretty(cause))
  const time = date.toTimeString().slice(0, 8)
  process.stderr.write(`[${time}] ${logLevel.toUpperCase()}: ${format(...parts)}\n`)
})

const services = Layer.mergeAll(
  nodeServices.layer,
  presenter,
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel] }),
  Logger.layer([logger])
)

/** Runs one command line, and leaves its exit code with the process. */
export const run = async (args: ReadonlyArray<string>): Promise<void> => {
  // Whoever reads no further (`| head`) has what they wanted.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 5))
  const program = Command.runWith(elanus, { version: VERSION })(args).pipe(
    Effect.catch((error) =>
      Effect.sync(() => {
        // Help that was asked for by its flag succeeds; this is a command line that says too little or something wrong.
        process.exitCode = CliError.isCliError(error) ? exitCodes.usage[0] : reportError(error, false)
      })
    ),
    Effect.provide(services)
  )
  try {
    await Effect.runPromise(program)
  } catch (cause) {
    process.exitCode = reportError(cause, args.includes("--json"))
  }
  // Everything is closed: nothing that a driver still holds may keep the process.
  setTimeout(() => process.exit(), 1_000).unref()
}

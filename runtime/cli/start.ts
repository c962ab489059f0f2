/** Starting a process of a cluster, and stopping it when it is told to. */
import { Cause, Deferred, Effect } from "effect"
import { Command } from "effect/cli"
import { exitCodes, reportError } from "./exit.ts"
import { checkStart, startFlags } from "./start-flags.ts"

/** Whoever is not done with stopping after this is stopped. */
const STOP_MS = 10_000
const signals = { SIGINT: 130, SIGTERM: 143 } as const

export const start = Command.make("start", startFlags, (flags) =>
  Effect.gen(function* () {
    const told = yield* Deferred.make<void>()
    const context = yield* Effect.context<never>()
    let stopping = false
    const stop = (code: number) => {
      if (stopping) process.exit(code)
      stopping = true
      setTimeout(() => process.exit(code), STOP_MS).unref()
      Effect.runForkWith(context)(Deferred.succeed(told, undefined))
    }
    for (const [signal, code] of Object.entries(signals)) process.on(signal, () => stop(code))
    const work = Effect.suspend(() => {
      checkStart(flags)
      // Only here: no other command needs the roles and their engines.
      const play = Effect.flatMap(
        Effect.promise(() => import("./server.ts")),
        (server) => server.play(flags)
      )
      return Effect.scoped(Effect.raceFirst(play, Deferred.await(told)))
    })
    const exit = yield* Effect.exit(work)
    process.exitCode = exit._tag === "Success" ? exitCodes.ok[0] : reportError(Cause.squash(exit.cause), flags.json)
  })
).pipe(
  Command.withDescription("Start a process of a cluster: all of it, or some roles"),
  Command.withExamples([
    { command: "elanus start", description: "A cluster of one, with a nats-server of its own" },
    {
      command: "elanus start --role query-node --nats nats://127.0.0.1:4222 --objects s3://vectors",
      description: "A query node of a larger one"
    }
  ])
)

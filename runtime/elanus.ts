/**
 * The library: `open` for a database in a directory of this process, `connect` for a cluster on NATS. Both give the
 * same interface; what it sends is what any NATS client could send, in the binary form where that is faster.
 */
import { Cause, Effect, type Exit, Fiber, Layer, ManagedRuntime } from "effect"
import { ElanusError, type ErrorCode, failure } from "../protocols/errors.ts"
import { limits } from "../protocols/limits.ts"
import { DEFAULT_DATABASE, nameProblem } from "../protocols/subjects.ts"
import { type NatsOptions, openConnection } from "../storage/nats-connection.ts"
import { makeNatsBus } from "./bus-nats.ts"
import { Bus } from "./bus.ts"
import { SAY_SO_MS, type Send } from "./client/ask.ts"
import { makeClient } from "./client/client.ts"
import type { Elanus } from "./client/interface.ts"
import type { EmbeddedOptions } from "./places.ts"
import { ofBus } from "./remote.ts"

export { ElanusError } from "../protocols/errors.ts"
export type { ErrorCode } from "../protocols/errors.ts"
export type { Key } from "../protocols/keys.ts"
export type { ClusterStatus } from "../protocols/coordinator.ts"
export type * from "./client/interface.ts"

/** A database in a directory. One process at a time; everything in it is there again when it is opened next. */
export const open = async (options: EmbeddedOptions & { readonly database?: string }): Promise<Elanus> => {
  // Only here: a client of a cluster would load every role and every engine for nothing.
  const [{ embeddedLayer }, { allRoles, play }] = await Promise.all([import("./places.ts"), import("./roles.ts")])
  const runtime = ManagedRuntime.make(
    Layer.effectDiscard(play(allRoles)).pipe(Layer.provideMerge(embeddedLayer(options)))
  )
  const elanus = await overBus(runtime, options.database)
  try {
    // The roles find each other first: a request before that would only wait.
    await elanus.status({ timeoutMs: limits.requestTimeoutMs * 3 })
    return elanus
  } catch (cause) {
    await runtime.dispose()
    throw cause
  }
}

/** A cluster on NATS. */
export const connect = (options: NatsOptions & { readonly database?: string }): Promise<Elanus> => {
  const { database, ...nats } = options
  return overBus(ManagedRuntime.make(Layer.effect(Bus, Effect.flatMap(openConnection(nats), makeNatsBus))), database)
}

const overBus = async <R, E>(
  runtime: ManagedRuntime.ManagedRuntime<R | Bus, E>,
  database = DEFAULT_DATABASE
): Promise<Elanus> => {
  const wrong = nameProblem(database)
  if (wrong !== undefined) throw failure("bad-name", `database: ${wrong}`)
  const exit = (await runtime.runPromiseExit(Effect.context<R | Bus>())) as Exit.Exit<unknown, E>
  if (exit._tag === "Failure") {
    await runtime.dispose()
    throw startFailure(Cause.squash(exit.cause))
  }
  const bus = await runtime.runPromise(Bus as never as Effect.Effect<Bus["Service"]>)
  const send: Send = (subject, data, headers, timeoutMs) => {
    const fiber = Effect.runFork(bus.request(subject, data, { timeoutMs: timeoutMs + SAY_SO_MS, headers }))
    const exit = fiber.pollUnsafe()
    if (exit?._tag === "Success") return exit.value
    return Effect.runPromise(Effect.mapError(Fiber.join(fiber), (error) => ofBus(error, subject)))
  }
  return makeClient({ send, payloadMax: bus.payloadMax, database, close: () => runtime.dispose() })
}

/** Why it could not start, as an error of the table. */
const startFailure = (error: unknown): ElanusError => {
  if (error instanceof ElanusError) return error
  const { detail, reason } = error as { readonly reason?: string; readonly detail?: string }
  const code: ErrorCode =
    reason === "unavailable" || reason === "disconnected" ? "unavailable" : reason === "damaged" ? "damaged" : "unfit"
  return failure(code, detail ?? String(error))
}

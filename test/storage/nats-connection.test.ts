/** Which servers are taken and which refused, and what a client is told while its server is away. */
import { Context, Effect, Exit, Fiber, Layer, type Scope } from "effect"
import { spawn } from "node:child_process"
import { createConnection, createServer, type Server } from "node:net"
import { afterAll, beforeAll, expect, it } from "vitest"
import { freePort } from "../../runtime/nats-server.ts"
import { findServer } from "../../runtime/server-finder.ts"
import { Log } from "../../storage/log.ts"
import * as LogJetStream from "../../storage/log-jetstream.ts"
import { NatsConnection } from "../../storage/nats-connection.ts"
import { type Nats, startNats } from "../support/nats.ts"
import { bytesOf, eventually, run, tagOf, valueOf } from "../support/storage.ts"

let nats: Nats
beforeAll(async () => {
  nats = await startNats()
})
afterAll(() => nats?.stop())

const test = (title: string, program: () => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it(title, () => run(program()))
const opened = (server: string) =>
  Effect.map(Effect.scoped(Effect.exit(Layer.build(NatsConnection.layer({ servers: [server] })))), (exit) =>
    Exit.isSuccess(exit) ? "success" : JSON.stringify(exit.cause.reasons)
  )

/** A real server that has JetStream switched off. */
const startPlain = async () => {
  const binary = await findServer("nats-server")
  const port = await freePort()
  const child = spawn(binary, ["--addr", "127.0.0.1", "--port", String(port)], { stdio: "ignore" })
  const ended = new Promise((resolve) => child.once("exit", resolve))
  while (!(await isListening(port))) await new Promise((resolve) => setTimeout(resolve, 10))
  return {
    url: `127.0.0.1:${port}`,
    stop: async () => {
      child.kill("SIGKILL")
      await ended
    }
  }
}

const isListening = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = createConnection(port, "127.0.0.1", () => {
      socket.destroy()
      resolve(true)
    })
    socket.once("error", () => resolve(false))
  })

/** Greets as a server of that version would, and answers every ping. */
const greeter = (info: object) =>
  Effect.acquireRelease(
    Effect.promise(
      () =>
        new Promise<Server>((resolve) => {
          const server = createServer((socket) => {
            socket.on("error", () => socket.destroy())
            socket.on("data", (data) => {
              if (data.includes("PING")) socket.write("PONG\r\n")
            })
            socket.write(
              `INFO ${JSON.stringify({ server_id: "x", headers: true, max_payload: 1_048_576, ...info })}\r\n`
            )
          })
          server.listen(0, "127.0.0.1", () => resolve(server))
        })
    ),
    (server) => Effect.sync(() => server.close())
  ).pipe(
    Effect.map((server) => {
      const address = server.address()
      return `127.0.0.1:${typeof address === "object" ? address?.port : 0}`
    })
  )

test("a server that is there is taken", () =>
  Effect.gen(function* () {
    expect(yield* opened(nats.urls[0]!)).toBe("success")
  }))

test("no server is unavailable", () =>
  Effect.gen(function* () {
    const port = yield* Effect.promise(freePort)
    expect(yield* opened(`127.0.0.1:${port}`)).toMatch(new RegExp(`unavailable.*${port}`))
  }))

test("an old server is unfit, and so is one without JetStream", () =>
  Effect.gen(function* () {
    const old = yield* greeter({ version: "2.9.10", jetstream: true })
    expect(yield* opened(old)).toMatch(/unfit.*2\.9\.10.*2\.12 or later/)
    const plain = yield* Effect.acquireRelease(
      Effect.promise(() => startPlain()),
      (server) => Effect.promise(() => server.stop())
    )
    expect(yield* opened(plain.url)).toMatch(/unfit.*no JetStream/)
  }))

test("while the server is away nothing is sent, and nothing hangs", () =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      LogJetStream.layer({ cluster: "away", replicas: 1, channelBytesMax: 1_048_576 }).pipe(
        Layer.provideMerge(NatsConnection.layer({ servers: [...nats.urls] }))
      )
    )
    const log = Context.get(context, Log)
    const connection = Context.get(context, NatsConnection)
    yield* log.create(0)
    valueOf(yield* Effect.flatten(log.append(0, bytesOf("a"), 0)))
    const question = yield* Effect.forkChild(Effect.exit(Effect.andThen(Effect.yieldNow, log.open(0))))
    yield* Effect.promise(() => nats.kill(0))
    yield* Fiber.join(question)
    expect(connection.isConnected()).toBe(false)
    expect(tagOf(yield* Effect.flatten(log.append(0, bytesOf("b"), 1)))).toBe("Unavailable")
    expect(tagOf(yield* log.appendBatch(0, [bytesOf("b"), bytesOf("c")], 1))).toBe("Unavailable")
    expect(tagOf(yield* log.purge(0, 1))).toBe("Unavailable")
    expect(Exit.isFailure(yield* Effect.exit(log.open(0)))).toBe(true)
    yield* Effect.promise(() => nats.restart(0))
    // Not one of those came along with the new connection.
    const outcome = yield* eventually(
      Effect.filterOrFail(Effect.flatten(log.append(0, bytesOf("b"), 1)), ({ _tag }) => _tag !== "Unavailable")
    )
    expect(valueOf(outcome)).toBe(2)
  }))

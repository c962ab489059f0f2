/**
 * What a Bus promises, asked of every adapter: in process, one NATS connection (which delivers locally), two NATS
 * connections (which do not) to a real server, and all three inside of simulated worlds.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import { connect, type ConnectionOptions, type NatsConnection as Connection, headers as newHeaders } from "nats"
import { afterAll, beforeAll } from "vitest"
import { limits } from "../../protocols/limits.ts"
import { utf8 } from "../../protocols/wire.ts"
import { Bus, type BusError, type Message, type Reply } from "../../runtime/bus.ts"
import { makeLocalBus } from "../../runtime/bus-local.ts"
import { makeNatsBus } from "../../runtime/bus-nats.ts"
import { announce } from "../../runtime/services.ts"
import { type Broker, simBroker } from "../../sim/broker.ts"
import { here } from "../../sim/world.ts"
import { type Nats, startNats } from "../support/nats.ts"
import { inWorlds } from "../support/simulated.ts"

type BusService = Bus["Service"]

const config = `
  authorization { users: [
    { user: all, password: p }
    { user: few, password: p, permissions: { publish: ["ok.>"], subscribe: ["_INBOX.>", "_ELANUS.>", "ok.>"] } }
  ] }
  no_auth_user: all
`

let nats: Nats
beforeAll(async () => {
  nats = await startNats(config)
}, 120_000)
afterAll(() => nats?.stop())

const connection = (options: ConnectionOptions = {}) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      connect({
        servers: [...nats.urls],
        maxReconnectAttempts: -1,
        reconnectTimeWait: 50,
        noAsyncTraces: true,
        ...options
      })
    ),
    (nc) => Effect.promise(() => nc.close())
  )

const natsBus = (options: ConnectionOptions = {}) =>
  Effect.gen(function* () {
    const nc = yield* connection(options)
    let connected = true
    void (async () => {
      for await (const event of nc.status()) {
        if (event.type === "disconnect" || event.type === "close") connected = false
        if (event.type === "reconnect") connected = true
      }
    })()
    return yield* makeNatsBus({ connection: nc, isConnected: () => connected })
  })

/** Who serves and who asks. */
interface Pair {
  readonly server: BusService
  readonly client: BusService
}

interface World {
  readonly name: string
  readonly pair: Effect.Effect<Pair, unknown, Scope.Scope>
  readonly isSimulated?: boolean
}

const inProcess = Effect.sync(() => {
  const bus = makeLocalBus()
  return { server: bus, client: bus }
})

const busesOf = ({ layer }: Broker, count: number) =>
  Effect.all(
    Array.from({ length: count }, () => Effect.map(Layer.build(Layer.fresh(layer)), (ports) => Context.get(ports, Bus)))
  )

/** Buses on one simulated broker. */
const simulatedBuses = (count: number) => here(({ world }) => busesOf(simBroker(world), count))

const worlds: ReadonlyArray<World> = [
  { name: "in process", pair: inProcess },
  { name: "one NATS connection", pair: Effect.map(natsBus(), (bus) => ({ server: bus, client: bus })) },
  { name: "two NATS connections", pair: Effect.all({ server: natsBus(), client: natsBus() }) },
  { name: "in a simulated process", pair: inProcess, isSimulated: true },
  {
    name: "one simulated connection",
    pair: Effect.map(simulatedBuses(1), ([bus]) => ({ server: bus!, client: bus! })),
    isSimulated: true
  },
  {
    name: "two simulated connections",
    pair: Effect.map(simulatedBuses(2), ([server, client]) => ({ server: server!, client: client! })),
    isSimulated: true
  }
]

const text = (message: { readonly data: Uint8Array }) => utf8.decode(message.data)
const say = (words: string): Reply => ({ data: utf8.encode(words) })
const echo = (message: Message) => Effect.succeed<Reply>({ data: message.data, headers: message.headers })
const bytes = utf8.encode
const soon = { timeoutMs: 5_000 }

const until = (test: () => boolean) =>
  Effect.sleep("5 millis").pipe(Effect.repeat({ while: () => !test() }), Effect.timeout("10 seconds"), Effect.orDie)

/** Deaths on purpose are logged, as they should be, and need nobody's attention here. */
const silently = Effect.provide(Logger.layer([]))

const reasonOf = <A>(effect: Effect.Effect<A, BusError>) =>
  Effect.matchEffect(effect, {
    onSuccess: () => Effect.succeed("answered"),
    onFailure: (error) => Effect.succeed(error.reason)
  })

for (const { isSimulated = false, name, pair } of worlds) {
  const promise = (title: string, test: (pair: Pair) => Effect.Effect<void, BusError, Scope.Scope>) => {
    const program = () => Effect.scoped(Effect.flatMap(pair, test))
    if (isSimulated) it(title, () => inWorlds(program))
    else it.live(title, program)
  }

  describe(`a bus, ${name}`, () => {
    promise("carries a request there and its reply back", ({ client, server }) =>
      Effect.gen(function* () {
        yield* server.serve("a.b", {}, (message) => Effect.succeed(say(`${message.subject}: ${text(message)}`)))
        assert.strictEqual(text(yield* client.request("a.b", bytes("hello"), soon)), "a.b: hello")
        const empty = yield* client.request("a.b", new Uint8Array(0), soon)
        assert.strictEqual(text(empty), "a.b: ")
        assert.isUndefined(empty.headers)
      })
    )

    promise("carries the reply of a handler that waits", ({ client, server }) =>
      Effect.gen(function* () {
        yield* server.serve("slow", {}, (message) => Effect.delay(echo(message), "20 millis"))
        const replies = yield* Effect.all(
          ["1", "2", "3"].map((word) => client.request("slow", bytes(word), soon)),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(replies.map(text), ["1", "2", "3"])
      })
    )

    promise("says at once that nobody serves a subject", ({ client }) =>
      Effect.gen(function* () {
        const before = yield* Clock.currentTimeMillis
        assert.strictEqual(yield* reasonOf(client.request("no.one", bytes(""), soon)), "nobody")
        assert.isBelow((yield* Clock.currentTimeMillis) - before, 2_000)
      })
    )

    promise("times out, and the handler goes on all the same", ({ client, server }) =>
      Effect.gen(function* () {
        let handled = 0
        yield* server.serve("slow", {}, () =>
          Effect.delay(
            Effect.sync(() => {
              handled++
              return say("late")
            }),
            "150 millis"
          )
        )
        assert.strictEqual(yield* reasonOf(client.request("slow", bytes(""), { timeoutMs: 30 })), "timeout")
        assert.strictEqual(handled, 0)
        yield* until(() => handled === 1)
      })
    )

    promise("leaves the handler running if the requester is interrupted", ({ client, server }) =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        let handled = 0
        yield* server.serve("slow", {}, () =>
          Effect.gen(function* () {
            yield* Deferred.succeed(begun, undefined)
            yield* Effect.sleep("50 millis")
            handled++
            return say("late")
          })
        )
        const fiber = yield* Effect.forkChild(client.request("slow", bytes(""), soon))
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(fiber)
        yield* until(() => handled === 1)
      })
    )

    promise("gives a message of a queue to one server, and in the end to each", ({ client, server }) =>
      Effect.gen(function* () {
        const counts = [0, 0, 0]
        for (const index of [0, 1, 2]) {
          yield* server.serve("work", { queue: "workers" }, () => Effect.sync(() => say(String(++counts[index]!))))
        }
        for (let i = 0; i < 90; i++) yield* client.request("work", bytes(""), soon)
        assert.strictEqual(counts[0]! + counts[1]! + counts[2]!, 90)
        for (const count of counts) assert.isAbove(count, 5)
      })
    )

    promise(
      "gives a published message to everyone who serves it, once, and to one of each queue",
      ({ client, server }) =>
        Effect.gen(function* () {
          const seen: Array<string> = []
          const note = (who: string) => (message: Message) =>
            Effect.sync(() => {
              seen.push(`${who} ${text(message)}`)
              return say("for nobody")
            })
          yield* server.serve("news.*", {}, note("a"))
          yield* server.serve("news.today", {}, note("b"))
          yield* server.serve("news.today", { queue: "q" }, note("q"))
          yield* server.serve("news.>", { queue: "q" }, note("q"))
          yield* client.serve("news.today", {}, note("c"))
          // In one go: in a simulated process the publisher may lose its turn behind any operation.
          const soFar = yield* Effect.sync(() => {
            Effect.runFork(client.publish("news.today", bytes("1")))
            return [...seen]
          })
          assert.deepStrictEqual(soFar, [], "nobody handles it in the publisher's stack")
          yield* until(() => seen.length >= 4)
          yield* Effect.sleep("30 millis")
          assert.deepStrictEqual(seen.toSorted(), ["a 1", "b 1", "c 1", "q 1"])
          yield* client.publish("nobody.listens", bytes("1"))
        })
    )

    promise("matches * with one token and > with the rest", ({ client, server }) =>
      Effect.gen(function* () {
        yield* server.serve("one.*.end", {}, (message) => Effect.succeed(say(`one ${message.subject}`)))
        yield* server.serve("rest.>", {}, (message) => Effect.succeed(say(`rest ${message.subject}`)))
        const ask = (subject: string) =>
          Effect.catch(Effect.map(client.request(subject, bytes(""), soon), text), (error) =>
            Effect.succeed(error.reason)
          )
        assert.strictEqual(yield* ask("one.x.end"), "one one.x.end")
        assert.strictEqual(yield* ask("one.x.y.end"), "nobody")
        assert.strictEqual(yield* ask("one.x"), "nobody")
        assert.strictEqual(yield* ask("rest.x"), "rest rest.x")
        assert.strictEqual(yield* ask("rest.x.y.z"), "rest rest.x.y.z")
        assert.strictEqual(yield* ask("rest"), "nobody")
      })
    )

    promise("serves until the scope closes, and tells who still waits", ({ client, server }) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const begun = yield* Deferred.make<void>()
        let stopped = false
        yield* server
          .serve("short", {}, () =>
            Effect.andThen(Deferred.succeed(begun, undefined), Effect.never).pipe(
              Effect.onInterrupt(() => Effect.sync(() => void (stopped = true)))
            )
          )
          .pipe(Scope.provide(scope))
        const pending = yield* Effect.forkChild(reasonOf(client.request("short", bytes(""), { timeoutMs: 60_000 })))
        yield* Deferred.await(begun)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* Fiber.join(pending), "timeout")
        assert.isTrue(stopped)
        // A moment for the news to reach the other connection's requests.
        yield* Effect.sleep("20 millis")
        assert.strictEqual(yield* reasonOf(client.request("short", bytes(""), soon)), "nobody")
        yield* server.serve("short", {}, echo)
        assert.strictEqual(text(yield* client.request("short", bytes("again"), soon)), "again")
      })
    )

    promise("answers 'overloaded' past the limit, and recovers", ({ client, server }) =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        let waiting = 0
        const open = Effect.suspend(() => {
          waiting++
          return Effect.as(Deferred.await(gate), say("done"))
        })
        yield* server.serve("busy", { overloaded: say("too many") }, () => open)
        yield* server.serve("plain", {}, () => open)
        for (const subject of ["busy", "plain"]) {
          for (let i = 0; i < limits.handlersMax; i++) {
            yield* Effect.forkChild(client.request(subject, bytes(""), { timeoutMs: 60_000 }), {
              startImmediately: true
            })
          }
        }
        yield* until(() => waiting === 2 * limits.handlersMax)
        assert.strictEqual(text(yield* client.request("busy", bytes(""), soon)), "too many")
        const plain = yield* client.request("plain", bytes(""), soon)
        assert.strictEqual(plain.headers?.["Nats-Service-Error-Code"], "429")
        assert.strictEqual(JSON.parse(text(plain)).error.code, "overloaded")
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.sleep("50 millis")
        assert.strictEqual(text(yield* client.request("busy", bytes(""), soon)), "done")
      })
    )

    promise("carries a reply that is larger than a message", ({ client, server }) =>
      Effect.gen(function* () {
        const large = new Uint8Array(9 * client.payloadMax + 17)
        for (let i = 0; i < large.length; i += 1_013) large[i] = i % 251
        yield* server.serve("large", {}, (message) =>
          Effect.succeed({ data: large.subarray(0, Number(text(message))), headers: { kind: "large" } })
        )
        const max = client.payloadMax
        for (const size of [max, max + 1, 2 * max, 2 * max + 1, large.length]) {
          const reply = yield* client.request("large", bytes(String(size)), soon)
          assert.strictEqual(reply.data.length, size)
          assert.isTrue(Buffer.compare(reply.data, large.subarray(0, size)) === 0)
          assert.deepStrictEqual({ ...reply.headers }, { kind: "large" })
        }
      })
    )

    promise("refuses a request that is too large, and does not send it", ({ client, server }) =>
      Effect.gen(function* () {
        let handled = 0
        yield* server.serve("large", {}, (message) =>
          Effect.sync(() => {
            handled++
            return say(String(message.data.length))
          })
        )
        const max = client.payloadMax
        assert.strictEqual(text(yield* client.request("large", new Uint8Array(max), soon)), String(max))
        assert.strictEqual(yield* reasonOf(client.request("large", new Uint8Array(max + 1), soon)), "too-large")
        assert.strictEqual(yield* reasonOf(client.publish("large", new Uint8Array(max + 1))), "too-large")
        assert.strictEqual(handled, 1)
      })
    )

    promise("carries headers both ways, each value as one line", ({ client, server }) =>
      Effect.gen(function* () {
        yield* server.serve("headers", {}, echo)
        const headers = {
          Plain: "value",
          empty: "",
          "x-colon": "a: b: c",
          unicode: "Ångström 漢字 🪁",
          spaces: "  inner  space  ",
          lines: "one\r\ntwo\nthree",
          long: "x".repeat(4_000)
        }
        const reply = yield* client.request("headers", bytes("body"), { ...soon, headers })
        assert.strictEqual(text(reply), "body")
        assert.deepStrictEqual({ ...reply.headers }, { ...headers, spaces: "inner  space", lines: "one two three" })
        assert.isUndefined((yield* client.request("headers", bytes("body"), { ...soon, headers: {} })).headers)
      })
    )

    promise("survives a handler that dies, and says so at once", ({ client, server }) =>
      Effect.gen(function* () {
        yield* server.serve("bug", {}, (message) => {
          if (text(message) === "throw") throw new Error("thrown on purpose")
          if (text(message) === "die") return Effect.die(new Error("died on purpose"))
          if (text(message) === "later") return Effect.andThen(Effect.sleep("5 millis"), Effect.die("died on purpose"))
          return echo(message)
        })
        const before = yield* Clock.currentTimeMillis
        for (const how of ["throw", "die", "later"]) {
          assert.strictEqual(yield* reasonOf(client.request("bug", bytes(how), soon)), "timeout")
          yield* client.publish("bug", bytes(how))
        }
        assert.isBelow((yield* Clock.currentTimeMillis) - before, 4_000)
        assert.strictEqual(text(yield* client.request("bug", bytes("fine"), soon)), "fine")
      }).pipe(silently)
    )

    promise("lets handlers ask in their turn", ({ client, server }) =>
      Effect.gen(function* () {
        yield* server.serve("inner", {}, echo)
        yield* client.serve("outer", {}, (message) => Effect.orDie(client.request("inner", message.data, soon)))
        assert.strictEqual(text(yield* server.request("outer", bytes("deep"), soon)), "deep")
      })
    )

    promise("agrees with a model in random sequences of serve, unserve and request", ({ client, server }) =>
      Effect.gen(function* () {
        let seed = 20_261_121
        const draw = (below: number) => {
          seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0
          return (seed >>> 8) % below
        }
        const patterns = ["m.a", "m.b", "m.*", "m.>", "m.a.b", "m.*.b", "*.a"]
        const subjects = ["m.a", "m.b", "m.c", "m.a.b", "m.b.b", "m.a.c", "n.a", "n"]
        const fits = (pattern: string, subject: string) =>
          new RegExp(`^${pattern.replace(".", "\\.").replace("*", "[^.]+").replace(">", ".+")}$`).test(subject)
        const serving = new Map<string, { readonly pattern: string; readonly scope: Scope.Closeable }>()
        for (let step = 0; step < 300; step++) {
          const action = draw(6)
          if (action === 0 && serving.size < 8) {
            const [pattern, id] = [patterns[draw(patterns.length)]!, `s${step}`]
            const scope = yield* Scope.make()
            const queue = [{}, { queue: "p" }, { queue: "q" }][draw(3)]!
            yield* server.serve(pattern, queue, () => Effect.succeed(say(id))).pipe(Scope.provide(scope))
            serving.set(id, { pattern, scope })
          } else if (action === 1 && serving.size > 0) {
            const [id, { scope }] = [...serving][draw(serving.size)]!
            serving.delete(id)
            yield* Scope.close(scope, Exit.void)
            if (server !== client) yield* Effect.sleep("3 millis")
          } else {
            const subject = subjects[draw(subjects.length)]!
            const who = yield* Effect.catch(Effect.map(client.request(subject, bytes(""), soon), text), (error) =>
              Effect.succeed(error.reason)
            )
            const able = [...serving].filter(([, one]) => fits(one.pattern, subject)).map(([id]) => id)
            assert.include(able.length === 0 ? ["nobody"] : able, who, `step ${step}, ${subject}`)
          }
        }
        for (const { scope } of serving.values()) yield* Scope.close(scope, Exit.void)
      })
    )
  })
}

describe("a NATS bus", () => {
  const plainRequest = (nc: Connection, subject: string, data = "") =>
    Effect.promise(() => nc.request(subject, data, { timeout: 5_000 }))

  it.live("gives a plain client the typed error where an answer does not fit", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* natsBus()
        yield* server.serve("large", {}, () => Effect.succeed({ data: new Uint8Array(server.payloadMax + 1) }))
        yield* server.serve("bug", {}, () => Effect.die("died on purpose"))
        const nc = yield* connection()
        const large = yield* plainRequest(nc, "large")
        assert.strictEqual(large.headers?.get("Nats-Service-Error-Code"), "413")
        assert.strictEqual((large.json() as { error: { code: string } }).error.code, "too-large")
        const bug = yield* plainRequest(nc, "bug")
        assert.strictEqual(bug.headers?.get("Nats-Service-Error-Code"), "500")
        assert.strictEqual((bug.json() as { error: { code: string } }).error.code, "internal")
      }).pipe(silently)
    )
  )

  it.live("understands plain clients, their headers and their silence", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* natsBus()
        yield* server.serve("plain", {}, echo)
        const nc = yield* connection()
        const headers = newHeaders()
        headers.append("twice", "first")
        headers.append("twice", "second")
        const reply = yield* Effect.promise(() => nc.request("plain", "x", { timeout: 5_000, headers }))
        assert.strictEqual(reply.headers?.get("twice"), "first")
        assert.strictEqual(reply.string(), "x")
        nc.subscribe("mute", { callback: () => undefined })
        yield* Effect.promise(() => nc.flush())
        assert.strictEqual(yield* reasonOf(server.request("mute", bytes(""), { timeoutMs: 50 })), "timeout")
      })
    )
  )

  it.live("says what is not permitted", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const all = yield* natsBus()
        const few = yield* natsBus({ user: "few", pass: "p" })
        yield* all.serve("ok.served", {}, echo)
        yield* all.serve("secret", {}, echo)
        assert.strictEqual(text(yield* few.request("ok.served", bytes("yes"), soon)), "yes")
        assert.strictEqual(yield* reasonOf(few.request("secret", bytes(""), soon)), "denied")
        assert.strictEqual(yield* reasonOf(Effect.scoped(few.serve("secret", {}, echo))), "denied")
      })
    )
  )

  it.live("tells who waits when it is closed", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* natsBus()
        yield* server.serve("slow", {}, () => Effect.never)
        const scope = yield* Scope.make()
        const client = yield* Scope.provide(natsBus(), scope)
        const pending = yield* Effect.forkChild(reasonOf(client.request("slow", bytes(""), { timeoutMs: 60_000 })))
        yield* Effect.sleep("20 millis")
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* Fiber.join(pending), "timeout")
      })
    )
  )

  it.live("announces services as the convention has it", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const bus = yield* natsBus()
        const nc = yield* connection()
        const endpoints = [{ name: "search", subject: "elanus.v1.*.*.search", queue_group: "proxy" }]
        const counts = { search: { requests: 4, errors: 1, lastError: "a reason", handlingMs: 10 } }
        const description = { version: "1.2.3", description: "speaks to clients", endpoints, stats: () => counts }
        for (const id of ["one", "two"]) {
          yield* announce({ name: "elanus-proxy", id, ...description }).pipe(Effect.provideService(Bus, bus))
        }
        const replies = yield* Effect.promise(async () => {
          const all = await nc.requestMany("$SRV.PING", "", { strategy: "count", maxMessages: 2, maxWait: 5_000 })
          const ids: Array<string> = []
          for await (const reply of all) ids.push(reply.json<{ id: string }>().id)
          return ids
        })
        assert.deepStrictEqual(replies.toSorted(), ["one", "two"])
        const info = (yield* plainRequest(nc, "$SRV.INFO.elanus-proxy.two")).json<{
          endpoints: ReadonlyArray<object>
        }>()
        assert.deepStrictEqual(info, {
          type: "io.nats.micro.v1.info_response",
          name: "elanus-proxy",
          id: "two",
          version: "1.2.3",
          metadata: {},
          description: "speaks to clients",
          endpoints: [{ ...endpoints[0], metadata: {} }]
        } as typeof info)
        const stats = (yield* plainRequest(nc, "$SRV.STATS.elanus-proxy")).json<{ endpoints: ReadonlyArray<object> }>()
        assert.deepStrictEqual(stats.endpoints[0], {
          ...endpoints[0],
          num_requests: 4,
          num_errors: 1,
          last_error: "a reason",
          processing_time: 10_000_000,
          average_processing_time: 2_500_000
        })
      })
    )
  )
})

/** Buses on one server that can be killed, and started again. */
interface Fragile {
  readonly pair: Pair
  readonly kill: Effect.Effect<void>
  readonly restart: Effect.Effect<void>
}

const fragile: ReadonlyArray<{
  readonly name: string
  readonly run: (program: () => Effect.Effect<void, unknown>) => Promise<void> | void
  readonly made: Effect.Effect<Fragile, unknown, Scope.Scope>
}> = [
  {
    name: "a simulated server",
    run: inWorlds,
    made: here(({ world }) => {
      const broker = simBroker(world)
      const { all } = broker.servers
      return Effect.map(busesOf(broker, 2), ([server, client]) => ({
        pair: { server: server!, client: client! },
        kill: Effect.sync(() => broker.servers.crash(all[0]!, Infinity)),
        restart: Effect.sync(() => broker.servers.restart(all[0]!))
      }))
    })
  },
  // Last: it ends the server of them all, and brings it back.
  {
    name: "a NATS server",
    run: (program) => Effect.runPromise(program()),
    made: Effect.map(Effect.all({ server: natsBus(), client: natsBus() }), (pair) => ({
      pair,
      kill: Effect.promise(() => nats.kill(0)),
      restart: Effect.promise(() => nats.restart(0))
    }))
  }
]

describe.each(fragile)("a bus on $name", ({ made, run }) => {
  const program = Effect.gen(function* () {
    const {
      kill,
      pair: { client, server },
      restart
    } = yield* made
    yield* server.serve("steady", {}, echo)
    yield* server.serve("slow", {}, () => Effect.never)
    assert.strictEqual(text(yield* client.request("steady", bytes("before"), soon)), "before")
    const pending = yield* Effect.forkChild(reasonOf(client.request("slow", bytes(""), { timeoutMs: 300 })))
    yield* Effect.sleep("20 millis")
    yield* kill
    assert.strictEqual(yield* Fiber.join(pending), "timeout")
    assert.strictEqual(yield* reasonOf(client.request("steady", bytes(""), soon)), "disconnected")
    assert.strictEqual(yield* reasonOf(client.publish("steady", bytes(""))), "disconnected")
    assert.strictEqual(yield* reasonOf(Effect.scoped(server.serve("new", {}, echo))), "disconnected")
    assert.strictEqual(text(yield* server.request("steady", bytes("own"), soon)), "own", "its own need no server")
    yield* restart
    let after = ""
    while (after !== "after") {
      after = yield* Effect.catch(Effect.map(client.request("steady", bytes("after"), soon), text), (error) =>
        Effect.as(Effect.sleep("20 millis"), error.reason)
      )
    }
  })

  it("comes back by itself when that was killed and restarted", () => run(() => Effect.scoped(program)))
})

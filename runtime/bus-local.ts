/**
 * The bus inside one process: a table of who serves which subject, and the delivery that every adapter uses for
 * servers of its own process. It must never look into a message, and never let a handler harm its requester.
 *
 * 1. A handler runs in a fiber of its server, begun in the requester's stack: an answer that needs no wait costs no
 *    timer and no turn of the scheduler. Only an answer that has to be waited for gets a deadline.
 * 2. A requester that gives up, or is interrupted, leaves the handler running, as one across the network would.
 * 3. A handler that dies, or whose server goes away, answers nothing. Its requester is told so at once, as a
 *    "timeout": the work may have been done.
 * 4. A published message is handled after its publisher has gone on, never in the publisher's stack.
 */
import { Cause, Effect, Exit, Fiber, Layer, type Scope } from "effect"
import { failure } from "../protocols/errors.ts"
import { limits } from "../protocols/limits.ts"
import { Bus, BusError, errorReply, type Headers, headerText, type Message, type Reply } from "./bus.ts"

export type Handler = (message: Message) => Effect.Effect<Reply>

/** One call of `serve`. Handlers that are waiting are in `waiting`; one that never waits is never counted. */
export interface Server {
  readonly pattern: string
  readonly queue: string | undefined
  readonly handler: Handler
  readonly overloaded: Reply
  readonly run: (effect: Effect.Effect<Reply>) => Fiber.Fiber<Reply>
  readonly waiting: Set<Fiber.Fiber<Reply>>
  closed: boolean
}

const OVERLOADED = errorReply(failure("overloaded", "too many requests at once"))

/** Headers as they may be on the wire. Every adapter gives the same. */
export const wireHeaders = (headers: Headers | undefined): Headers | undefined => {
  if (headers === undefined) return undefined
  const clean: { [name: string]: string } = {}
  let some = false
  for (const name in headers) {
    some = true
    clean[name] = headerText(headers[name]!)
  }
  return some ? clean : undefined
}

export const timeoutOf = (timeoutMs: number): number => Math.min(timeoutMs, limits.requestTimeoutMaxMs)

export const timedOut = (subject: string, timeoutMs: number) =>
  new BusError({ reason: "timeout", detail: `${subject} did not answer within ${Math.round(timeoutMs)} ms` })

export const unanswered = (subject: string) =>
  new BusError({ reason: "timeout", detail: `who served ${subject} died of it, or went away` })

export const tooLarge = (subject: string, bytes: number, max: number) =>
  new BusError({ reason: "too-large", detail: `${bytes} bytes to ${subject}, and ${max} fit` })

/** Whoever can be in a subject table. */
export interface Served {
  readonly pattern: string
  readonly queue: string | undefined
}

/** Servers that a message to one subject goes to: each of `each`, and one of every queue. */
interface Route<S> {
  /** Who gets it, if it is exactly one: the usual case. */
  readonly only: S | undefined
  readonly all: ReadonlyArray<S>
  readonly each: ReadonlyArray<S>
  readonly queues: ReadonlyArray<{ readonly servers: ReadonlyArray<S>; next: number }>
}

const matches = (pattern: ReadonlyArray<string>, subject: ReadonlyArray<string>): boolean => {
  for (let i = 0; i < pattern.length; i++) {
    if (pattern[i] === ">") return subject.length > i
    if (i === subject.length || (pattern[i] !== "*" && pattern[i] !== subject[i])) return false
  }
  return pattern.length === subject.length
}

const isWild = (pattern: string) => pattern.split(".").some((token) => token === "*" || token === ">")

export interface SubjectTable<S> {
  readonly add: (server: S) => void
  readonly remove: (server: S) => void
  /** Who gets the next message to the subject; undefined if it is nobody in the table. */
  readonly next: (subject: string) => S | ReadonlyArray<S> | undefined
  /** All who serve it, whoever's turn it is. */
  readonly all: (subject: string) => ReadonlyArray<S>
}

export const makeSubjectTable = <S extends Served = Server>(): SubjectTable<S> => {
  const exact = new Map<string, Set<S>>()
  const wild = new Set<{ readonly tokens: ReadonlyArray<string>; readonly server: S }>()
  const routes = new Map<string, Route<S> | undefined>()

  const routeTo = (subject: string): Route<S> | undefined => {
    const found = [...(exact.get(subject) ?? [])]
    if (wild.size > 0) {
      const tokens = subject.split(".")
      for (const one of wild) if (matches(one.tokens, tokens)) found.push(one.server)
    }
    if (found.length === 0) return undefined
    const queues = new Map<string, Array<S>>()
    for (const server of found) {
      if (server.queue === undefined) continue
      const servers = queues.get(server.queue)
      if (servers === undefined) queues.set(server.queue, [server])
      else servers.push(server)
    }
    return {
      only: found.length === 1 ? found[0] : undefined,
      all: found,
      each: found.filter((server) => server.queue === undefined),
      queues: [...queues.values()].map((servers) => ({ servers, next: 0 }))
    }
  }

  const remembered = (subject: string): Route<S> | undefined => {
    let route = routes.get(subject)
    if (route === undefined && !routes.has(subject)) {
      route = routeTo(subject)
      if (routes.size >= limits.routesMax) routes.clear()
      routes.set(subject, route)
    }
    return route
  }

  return {
    add: (server) => {
      routes.clear()
      if (isWild(server.pattern)) {
        wild.add({ tokens: server.pattern.split("."), server })
        return
      }
      const servers = exact.get(server.pattern)
      if (servers === undefined) exact.set(server.pattern, new Set([server]))
      else servers.add(server)
    },
    remove: (server) => {
      routes.clear()
      for (const one of wild) if (one.server === server) wild.delete(one)
      const servers = exact.get(server.pattern)
      if (servers?.delete(server) === true && servers.size === 0) exact.delete(server.pattern)
    },
    next: (subject) => {
      const route = remembered(subject)
      if (route === undefined) return undefined
      if (route.only !== undefined) return route.only
      const chosen = [...route.each]
      for (const queue of route.queues) {
        chosen.push(queue.servers[queue.next]!)
        queue.next = (queue.next + 1) % queue.servers.length
      }
      return chosen.length === 1 ? chosen[0] : chosen
    },
    all: (subject) => remembered(subject)?.all ?? []
  }
}

/** Makes a server whose handlers run in the present context, and end with the present scope. */
export const makeServer = Effect.fnUntraced(function* (
  pattern: string,
  options: { readonly queue?: string; readonly overloaded?: Reply },
  handler: Handler
) {
  const server: Server = {
    pattern,
    queue: options.queue,
    handler,
    overloaded: options.overloaded ?? OVERLOADED,
    run: Effect.runForkWith(yield* Effect.context()),
    waiting: new Set(),
    closed: false
  }
  yield* Effect.addFinalizer(() =>
    Effect.withFiber((self) => {
      server.closed = true
      // A handler may be what closes the scope: it must not wait for itself.
      for (const fiber of server.waiting) if (fiber.id !== self.id) fiber.interruptUnsafe(self.id)
      return Effect.void
    })
  )
  return server
})

const isFiber = (begun: Exit.Exit<Reply> | Fiber.Fiber<Reply>): begun is Fiber.Fiber<Reply> => Fiber.isFiber(begun)

/** Lets the server handle the message, up to its first wait: the end of it, or the fiber that is still at it. */
export const begin = (
  server: Server,
  message: Message,
  handler: Handler = server.handler
): Exit.Exit<Reply> | Fiber.Fiber<Reply> => {
  const { waiting } = server
  if (waiting.size >= limits.handlersMax) return Exit.succeed(server.overloaded)
  let handling: Effect.Effect<Reply>
  try {
    handling = handler(message)
  } catch (defect) {
    handling = Effect.die(defect)
  }
  // Answered already: there is nothing left for a fiber to do.
  if (Exit.isExit(handling)) {
    const exit = handling as Exit.Exit<Reply>
    if (exit._tag === "Failure") logDeath(server, message.subject, exit)
    return exit
  }
  const fiber = server.run(handling)
  const exit = fiber.pollUnsafe()
  if (exit !== undefined) {
    if (exit._tag === "Failure") logDeath(server, message.subject, exit)
    return exit
  }
  waiting.add(fiber)
  fiber.addObserver((exit) => {
    waiting.delete(fiber)
    if (exit._tag === "Failure") logDeath(server, message.subject, exit)
  })
  // What the handler did before its first wait may have closed its own server.
  if (server.closed) fiber.interruptUnsafe()
  return fiber
}

const logDeath = (server: Server, subject: string, exit: Exit.Failure<Reply, never>) => {
  if (Cause.hasInterruptsOnly(exit.cause)) return
  server.run(Effect.as(Effect.logError(`the handler of ${subject} died`, exit.cause), { data: new Uint8Array(0) }))
}

/** Hands a request to servers of this process; the first answer counts. */
export const ask = (
  servers: Server | ReadonlyArray<Server>,
  message: Message,
  timeoutMs: number
): Effect.Effect<Reply, BusError> => {
  if (!("length" in servers)) {
    const begun = begin(servers, message)
    if (!isFiber(begun)) return begun._tag === "Success" ? begun : Effect.fail(unanswered(message.subject))
    return firstOf([begun], message.subject, timeoutMs)
  }
  const fibers: Array<Fiber.Fiber<Reply>> = []
  let first: Exit.Exit<Reply> | undefined
  for (const server of servers) {
    const begun = begin(server, message)
    if (isFiber(begun)) fibers.push(begun)
    else if (begun._tag === "Success") first ??= begun
  }
  if (first !== undefined) return first
  return fibers.length === 0 ? Effect.fail(unanswered(message.subject)) : firstOf(fibers, message.subject, timeoutMs)
}

// Not `Effect.timeout`: that would run the waiting in a fiber of its own too, for twice the price.
const firstOf = (fibers: ReadonlyArray<Fiber.Fiber<Reply>>, subject: string, timeoutMs: number) =>
  Effect.withFiber<Reply, BusError>((requester) =>
    Effect.callback((resume) => {
      const stops: Array<() => void> = []
      const timer = Effect.runForkWith(requester.context)(Effect.sleep(timeoutOf(timeoutMs)))
      const end = (answer: Effect.Effect<Reply, BusError>) => {
        for (const stop of stops) stop()
        timer.interruptUnsafe()
        resume(answer)
      }
      let left = fibers.length
      for (const fiber of fibers) {
        stops.push(
          fiber.addObserver((exit) => {
            left--
            if (exit._tag === "Success") end(exit)
            else if (left === 0) end(Effect.fail(unanswered(subject)))
          })
        )
      }
      stops.push(timer.addObserver(() => end(Effect.fail(timedOut(subject, timeoutMs)))))
      return Effect.sync(() => {
        for (const stop of stops) stop()
        timer.interruptUnsafe()
      })
    })
  )

/** Hands a published message over. It is handled when the publisher's own turn is over. */
export const announce = (servers: Server | ReadonlyArray<Server>, message: Message): void => {
  for (const server of "length" in servers ? servers : [servers]) {
    begin(server, message, (message) => Effect.andThen(Effect.yieldNow, () => server.handler(message)))
  }
}

/** A bus that reaches nobody outside of this process. */
export const makeLocalBus = (options: { readonly payloadMax?: number } = {}): Bus["Service"] => {
  const payloadMax = options.payloadMax ?? limits.payloadBytesMax - limits.payloadMargin
  const table = makeSubjectTable()
  return {
    payloadMax,
    request: (subject, data, { headers, timeoutMs }) =>
      Effect.suspend(() => {
        if (data.length > payloadMax) return Effect.fail(tooLarge(subject, data.length, payloadMax))
        const servers = table.next(subject)
        if (servers === undefined) {
          return Effect.fail(new BusError({ reason: "nobody", detail: `nobody serves ${subject}` }))
        }
        return ask(servers, { subject, data, headers: wireHeaders(headers) }, timeoutMs)
      }),
    publish: (subject, data, headers) =>
      Effect.suspend(() => {
        if (data.length > payloadMax) return Effect.fail(tooLarge(subject, data.length, payloadMax))
        const servers = table.next(subject)
        if (servers !== undefined) announce(servers, { subject, data, headers: wireHeaders(headers) })
        return Effect.void
      }),
    serve: Effect.fnUntraced(function* (pattern, options, handler): Effect.fn.Return<void, never, Scope.Scope> {
      const server = yield* makeServer(pattern, options, handler)
      table.add(server)
      // Finalizers run last first: nobody new comes in before those who wait are sent away.
      yield* Effect.addFinalizer(() => Effect.sync(() => table.remove(server)))
    })
  }
}

export const layer = Layer.sync(Bus, () => makeLocalBus())

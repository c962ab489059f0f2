/**
 * The bus over NATS. A subject that this process serves itself never leaves it; everything else is a NATS message.
 * It repeats nothing: what became of a request is its sender's to find out.
 *
 * Two subjects are its own. Replies come to an inbox, `<inbox>.<number>.elanus`: the last token tells the server
 * that the requester is a `Bus`, at the price of no header. A reply that is too large for one message then comes
 * in parts: the first says in a header where the others are, `_ELANUS.parts.<bus>.<number>.<part>`, and the requester
 * fetches them from there (a client needs the permission to publish to `_ELANUS.parts.>`). Who is not a `Bus` gets
 * the typed error "too-large" instead.
 */
import { Effect, type Exit, Fiber, Layer, type Scope } from "effect"
import {
  ClosedConnectionError,
  createInbox,
  DrainingConnectionError,
  headers as newHeaders,
  InvalidSubjectError,
  type Msg,
  type MsgHdrs,
  type NatsConnection as Connection,
  nuid,
  PermissionViolationError
} from "nats"
import { failure } from "../protocols/errors.ts"
import { limits } from "../protocols/limits.ts"
import { NatsConnection } from "../storage/nats-connection.ts"
import {
  ask,
  begin,
  makeServer,
  makeSubjectTable,
  type Server,
  timedOut,
  timeoutOf,
  tooLarge,
  unanswered,
  wireHeaders
} from "./bus-local.ts"
import { Bus, BusError, errorReply, type Headers, type Message, type Reply } from "./bus.ts"

/** The last token of a `Bus`' inboxes. */
const OURS = ".elanus"
/** On the first part of a reply: `<subject> <bytes of all> <bytes of a part>`. */
const PARTS = "Elanus-Parts"
/** On a reply that is none: the reason of the BusError that it amounts to. */
const NO_REPLY = "Elanus-No-Reply"

const NOTHING = new Uint8Array(0)

/** What a bus needs of a connection: storage's NatsConnection, or a client's own. */
export interface BusConnection {
  readonly connection: Connection
  readonly isConnected: () => boolean
}

const toNats = (headers: Headers): MsgHdrs => {
  const all = newHeaders()
  for (const name in headers) all.append(name, headers[name]!)
  return all
}

const fromNats = (headers: MsgHdrs | undefined): Headers | undefined => {
  if (headers === undefined) return undefined
  const all: { [name: string]: string } = {}
  let some = false
  for (const [name, values] of headers) {
    some = true
    all[name] = values[0] ?? ""
  }
  return some ? all : undefined
}

const disconnected = (detail: string) => new BusError({ reason: "disconnected", detail })

/** Why the client would not send. */
const unsent = (cause: unknown, subject: string): BusError => {
  const detail = cause instanceof Error ? cause.message : String(cause)
  if (cause instanceof ClosedConnectionError || cause instanceof DrainingConnectionError) return disconnected(detail)
  if (cause instanceof InvalidSubjectError) return new BusError({ reason: "nobody", detail })
  if (detail.includes("max_payload")) return new BusError({ reason: "too-large", detail: `${subject}: ${detail}` })
  throw cause // a header's name that is none: a bug
}

const noReply = (reason: BusError["reason"], error: Reply): Reply => ({
  data: error.data,
  headers: { ...error.headers, [NO_REPLY]: reason }
})

const DIED = noReply(
  "timeout",
  errorReply(failure("internal", "the handler died of this request: it may have been done"))
)
const NO_PART = noReply("timeout", errorReply(failure("timeout", "this part of a reply is not kept any more")))

/** Replies of one bus that are on their way in parts. */
const makeParts = (connection: Connection, respond: (to: string, reply: Reply) => void) => {
  const prefix = `_ELANUS.parts.${nuid.next()}`
  const kept = new Map<string, { data: Uint8Array; size: number; left: number; timer: NodeJS.Timeout }>()
  let keptBytes = 0
  let last = 0

  const forget = (id: string) => {
    const reply = kept.get(id)
    if (reply === undefined) return
    kept.delete(id)
    keptBytes -= reply.data.length
    clearTimeout(reply.timer)
  }

  const subscription = connection.subscribe(`${prefix}.*.*`, {
    callback: (error, message) => {
      if (error !== null) return
      const [id = "", index = ""] = message.subject.slice(prefix.length + 1).split(".")
      const reply = kept.get(id)
      const start = Number(index) * (reply?.size ?? 0)
      if (reply === undefined || !(start < reply.data.length)) return respond(message.reply ?? "", NO_PART)
      respond(message.reply ?? "", { data: reply.data.subarray(start, start + reply.size) })
      if (--reply.left === 0) forget(id)
    }
  })

  return {
    /** The first part, which says where the others are; or an error, if too much is waiting already. */
    first: (reply: Reply, size: number): Reply => {
      const bytes = reply.data.length
      if (bytes > limits.replyPartsBytesMax) {
        return noReply("too-large", errorReply(failure("too-large", `an answer of ${bytes} bytes`)))
      }
      if (keptBytes + bytes > limits.replyPartsBytesMax) {
        return noReply("timeout", errorReply(failure("overloaded", "too many large answers at once")))
      }
      const id = (++last).toString(36)
      const timer = setTimeout(() => forget(id), limits.replyPartsAgeMs)
      timer.unref()
      kept.set(id, { data: reply.data, size, left: Math.ceil(bytes / size) - 1, timer })
      keptBytes += bytes
      return {
        data: reply.data.subarray(0, size),
        headers: { ...reply.headers, [PARTS]: `${prefix}.${id} ${bytes} ${size}` }
      }
    },
    close: () => {
      subscription.unsubscribe()
      for (const id of kept.keys()) forget(id)
    }
  }
}

/** A request that waits for its reply. */
interface Waiting {
  readonly subject: string
  readonly timer: NodeJS.Timeout
  readonly end: (answer: Effect.Effect<Reply, BusError>) => void
  readonly until: number
}

/** Ends with the scope: it serves no more, and who still waits is told so. The connection stays its owner's. */
export const makeNatsBus = Effect.fnUntraced(function* ({ connection, isConnected }: BusConnection) {
  const table = makeSubjectTable()
  const waiting = new Map<string, Waiting>()
  const prefix = (connection as { readonly options?: { readonly inboxPrefix?: string } }).options?.inboxPrefix
  const inbox = `${createInbox(prefix ?? "_INBOX")}.`
  let last = 0

  const payloadMax = () => (connection.info?.max_payload ?? 1024 * 1024) - limits.payloadMargin

  const settle = (token: string): Waiting | undefined => {
    const request = waiting.get(token)
    if (request === undefined) return undefined
    waiting.delete(token)
    clearTimeout(request.timer)
    return request
  }

  /** A request over the wire, one message each way. */
  const send = (subject: string, data: Uint8Array, headers: Headers | undefined, timeoutMs: number) =>
    Effect.callback<Reply, BusError>((resume) => {
      if (!isConnected()) return resume(Effect.fail(disconnected(`no connection to NATS for ${subject}`)))
      const token = (++last).toString(36)
      const wait = timeoutOf(timeoutMs)
      const timer = setTimeout(() => {
        waiting.delete(token)
        resume(Effect.fail(timedOut(subject, timeoutMs)))
      }, wait)
      waiting.set(token, { subject, timer, end: resume, until: performance.now() + wait })
      try {
        const reply = inbox + token + OURS
        connection.publish(subject, data, headers === undefined ? { reply } : { reply, headers: toNats(headers) })
      } catch (cause) {
        settle(token)
        return resume(Effect.suspend(() => Effect.fail(unsent(cause, subject))))
      }
      return Effect.sync(() => settle(token))
    })

  const fetchRest = (first: Uint8Array, where: string, headers: Headers, request: Waiting) => {
    const [subject = "", bytesText, sizeText] = where.split(" ")
    const bytes = Number(bytesText)
    const size = Number(sizeText)
    if (!(size > 0 && bytes > size && bytes <= limits.replyPartsBytesMax && first.length === size)) {
      return Effect.fail(unanswered(request.subject))
    }
    const data = new Uint8Array(bytes)
    data.set(first)
    const { [PARTS]: _, ...rest } = headers
    const reply: Reply = { data, headers: Object.keys(rest).length === 0 ? undefined : rest }
    const indexes = Array.from({ length: Math.ceil(bytes / size) - 1 }, (_, index) => index + 1)
    const fetchPart = (index: number) =>
      Effect.flatMap(
        Effect.suspend(() =>
          send(`${subject}.${index}`, NOTHING, undefined, Math.max(1, request.until - performance.now()))
        ),
        (part) => {
          const at = index * size
          if (part.data.length !== Math.min(size, bytes - at)) return Effect.fail(unanswered(request.subject))
          data.set(part.data, at)
          return Effect.void
        }
      )
    return Effect.forEach(indexes, fetchPart, { concurrency: limits.replyPartsAtOnce, discard: true }).pipe(
      Effect.as(reply),
      // The work is done and its answer is lost: whatever went wrong here, that is all that the requester knows.
      Effect.mapError(
        (error) =>
          new BusError({ reason: "timeout", detail: `parts of the answer of ${request.subject}: ${error.detail}` })
      )
    )
  }

  const answer = (message: Msg, request: Waiting): Effect.Effect<Reply, BusError> => {
    const { data } = message
    const native = message.headers
    if (native === undefined) return Effect.succeed({ data, headers: undefined })
    const { subject } = request
    if (native.code === 503 && data.length === 0) {
      return Effect.fail(new BusError({ reason: "nobody", detail: `nobody serves ${subject}` }))
    }
    const headers = fromNats(native)
    const reason = headers?.[NO_REPLY]
    if (reason !== undefined) {
      const detail = `${subject}: ${headers!["Nats-Service-Error"] ?? "no reply"}`
      return Effect.fail(new BusError({ reason: reason === "too-large" ? reason : "timeout", detail }))
    }
    const where = headers?.[PARTS]
    return where === undefined ? Effect.succeed({ data, headers }) : fetchRest(data, where, headers!, request)
  }

  const respond = (to: string, reply: Reply) => {
    if (to === "" || !isConnected()) return
    try {
      let { data, headers } = reply
      const max = payloadMax()
      if (data.length > max) {
        const error = failure("too-large", `the answer has ${data.length} bytes, and ${max} fit`)
        ;({ data, headers } = to.endsWith(OURS) ? parts.first(reply, max) : errorReply(error))
      }
      const clean = wireHeaders(headers)
      connection.publish(to, data, clean === undefined ? undefined : { headers: toNats(clean) })
    } catch {
      // The connection went away, or the reply cannot be sent at all: the requester's deadline tells it so.
    }
  }

  const finish = (to: string, exit: Exit.Exit<Reply>) => respond(to, exit._tag === "Success" ? exit.value : DIED)

  const receive = (server: Server, incoming: Msg) => {
    const to = incoming.reply ?? ""
    const message: Message = { subject: incoming.subject, data: incoming.data, headers: fromNats(incoming.headers) }
    const begun = begin(server, message)
    if (!Fiber.isFiber(begun)) finish(to, begun)
    else if (to !== "") begun.addObserver((exit) => finish(to, exit))
  }

  const replies = connection.subscribe(`${inbox}*${OURS}`, {
    callback: (error, message) => {
      if (error !== null) return
      const request = settle(message.subject.slice(inbox.length, -OURS.length))
      if (request !== undefined) request.end(answer(message, request))
    }
  })
  const parts = makeParts(connection, respond)

  // The server says only afterwards, and to nobody in particular, that a publish was not permitted.
  const status = connection.status()
  void (async () => {
    for await (const event of status) {
      if (event.type === "disconnect") {
        // A reply that comes now has nowhere to go: whoever waits may ask again at once, instead of at its deadline.
        for (const [token, request] of waiting) {
          settle(token)
          const detail = `${request.subject}: the connection to NATS broke before an answer came`
          request.end(Effect.fail(new BusError({ reason: "timeout", detail })))
        }
      }
      if (event.type !== "error" || !(event.error instanceof PermissionViolationError)) continue
      const { operation, subject, message } = event.error
      if (operation !== "publish") continue
      for (const [token, request] of waiting) {
        if (request.subject !== subject) continue
        settle(token)
        request.end(Effect.fail(new BusError({ reason: "denied", detail: message })))
      }
    }
  })()

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      ;(status as { readonly stop?: () => void }).stop?.()
      replies.unsubscribe()
      parts.close()
      for (const [token, request] of waiting) {
        settle(token)
        request.end(Effect.fail(new BusError({ reason: "timeout", detail: `${request.subject}: this bus was closed` })))
      }
    })
  )

  const known = Effect.tryPromise({
    try: () => connection.flush(),
    catch: (cause) => disconnected(String(cause))
  }).pipe(
    Effect.timeoutOrElse({
      duration: limits.subscribeTimeoutMs,
      orElse: () => Effect.fail(disconnected("the NATS server does not answer"))
    })
  )
  // A reply to an inbox that the server does not know yet would be lost.
  yield* known

  const bus: Bus["Service"] = {
    get payloadMax() {
      return payloadMax()
    },
    request: (subject, data, { headers, timeoutMs }) =>
      Effect.suspend(() => {
        const max = payloadMax()
        if (data.length > max) return Effect.fail(tooLarge(subject, data.length, max))
        const clean = wireHeaders(headers)
        const servers = table.next(subject)
        return servers === undefined
          ? send(subject, data, clean, timeoutMs)
          : ask(servers, { subject, data, headers: clean }, timeoutMs)
      }),
    // Also to this process by way of the server: it alone knows whose turn it is in a queue that others serve too.
    publish: (subject, data, headers) =>
      Effect.suspend(() => {
        const max = payloadMax()
        if (data.length > max) return Effect.fail(tooLarge(subject, data.length, max))
        if (!isConnected()) return Effect.fail(disconnected(`no connection to NATS for ${subject}`))
        try {
          const clean = wireHeaders(headers)
          connection.publish(subject, data, clean === undefined ? undefined : { headers: toNats(clean) })
          return Effect.void
        } catch (cause) {
          return Effect.fail(unsent(cause, subject))
        }
      }),
    serve: Effect.fnUntraced(function* (pattern, options, handler): Effect.fn.Return<void, BusError, Scope.Scope> {
      if (!isConnected()) return yield* disconnected(`no connection to NATS to serve ${pattern}`)
      const server = yield* makeServer(pattern, options, handler)
      let refusal: Error | undefined
      const subscription = connection.subscribe(pattern, {
        ...(options.queue === undefined ? {} : { queue: options.queue }),
        callback: (error, message) => {
          if (error === null) receive(server, message)
          else refusal = error
        }
      })
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          table.remove(server)
          subscription.unsubscribe()
        })
      )
      yield* known
      if (refusal !== undefined) return yield* new BusError({ reason: "denied", detail: String(refusal) })
      table.add(server)
    })
  }
  return bus
})

/** The bus of a process whose storage is on the same connection. */
export const layer: Layer.Layer<Bus, BusError, NatsConnection> = Layer.effect(
  Bus,
  Effect.flatMap(NatsConnection, makeNatsBus)
)

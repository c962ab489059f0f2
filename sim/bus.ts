/**
 * The bus of a simulated world, as runtime/bus-nats.ts makes it of a connection: what this process serves itself
 * never leaves it, everything else goes by way of the broker. What crosses is copied, and lies at any alignment.
 */
import { Effect, type Exit, Fiber, type Scope } from "effect"
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
} from "../runtime/bus-local.ts"
import { Bus, BusError, type Headers, type Message, type Reply } from "../runtime/bus.ts"
import type { Session } from "./session.ts"
import type { Answer, Respond, Subjects, Subscription } from "./subjects.ts"

const SUBSCRIBE_TIMEOUT_MS = 10_000
/** Of all parts of one reply. */
const REPLY_BYTES_MAX = 256 * 1024 * 1024

const disconnected = (detail: string) => new BusError({ reason: "disconnected", detail })

const sizeOf = (data: Uint8Array, headers: Headers | undefined): number => {
  let bytes = data.length
  for (const name in headers) bytes += name.length + headers[name]!.length
  return bytes
}

export const makeBus = (
  subjects: Subjects,
  session: Session,
  payloadMax: number
): Effect.Effect<Bus["Service"], never, Scope.Scope> =>
  Effect.gen(function* () {
    const table = makeSubjectTable()
    const alignment = session.world.chance(`alignment of ${session.node.name} ${session.life}`)

    /** The bytes as they come out of a socket. */
    const arrived = (data: Uint8Array): Uint8Array => {
      const at = alignment.below(8)
      const copy = new Uint8Array(data.length + at).subarray(at)
      copy.set(data)
      return copy
    }

    const receive = (server: Server, message: Message, respond: Respond) => {
      const begun = begin(server, { ...message, data: arrived(message.data) })
      if (respond === undefined) return
      const finish = (exit: Exit.Exit<Reply>) =>
        respond(exit._tag === "Success" ? { reply: exit.value } : { error: unanswered(message.subject) })
      if (Fiber.isFiber(begun)) begun.addObserver(finish)
      else finish(begun)
    }

    /** The message, at the broker, on its way to one who serves its subject. */
    const deliver = (to: Subscription, message: Message, respond: Respond) => {
      to.connection.toNode(`> ${message.subject}`, sizeOf(message.data, message.headers), () =>
        to.receive(message, respond)
      )
    }

    const send = (subject: string, data: Uint8Array, headers: Headers | undefined, timeoutMs: number) =>
      Effect.suspend(() => {
        if (!session.isConnected) return Effect.fail(disconnected(`no connection to NATS for ${subject}`))
        const message: Message = { subject, data: data.slice(), headers }
        const asked = session.ask<Answer>({
          label: subject,
          bytes: sizeOf(data, headers),
          timeoutMs: timeoutOf(timeoutMs),
          at: (answer, { machine }) => {
            const servers = subjects.route(subject, machine)
            if (servers === undefined) {
              return answer({ error: new BusError({ reason: "nobody", detail: `nobody serves ${subject}` }) })
            }
            const tell = (told: Answer) =>
              answer(told, "reply" in told ? sizeOf(told.reply.data, told.reply.headers) : 0)
            for (const one of servers) deliver(one, message, tell)
          },
          unheard: (why) => ({
            error:
              why === "no answer in time"
                ? timedOut(subject, timeoutMs)
                : new BusError({ reason: "timeout", detail: `${subject}: ${why}` })
          })
        })
        return Effect.flatMap(asked.wait, (told) =>
          "error" in told
            ? Effect.fail(told.error)
            : Effect.succeed<Reply>({ data: arrived(told.reply.data), headers: told.reply.headers })
        )
      })

    /** What this process says to a request that came by way of the broker. */
    const responder = (subject: string, answer: (answer: Answer) => void) => (told: Answer) => {
      let said = told
      if ("reply" in said && said.reply.data.length > REPLY_BYTES_MAX) {
        said = {
          error: new BusError({
            reason: "too-large",
            detail: `${subject}: an answer of ${said.reply.data.length} bytes`
          })
        }
      }
      if ("reply" in said) said = { reply: { data: said.reply.data.slice(), headers: wireHeaders(said.reply.headers) } }
      session.send(`< ${subject}`, "reply" in said ? sizeOf(said.reply.data, said.reply.headers) : 0, () =>
        answer(said)
      )
    }

    return Bus.of({
      payloadMax,
      request: (subject, data, { headers, timeoutMs }) =>
        Effect.suspend(() => {
          if (data.length > payloadMax) return Effect.fail(tooLarge(subject, data.length, payloadMax))
          const clean = wireHeaders(headers)
          const servers = table.next(subject)
          return servers === undefined
            ? send(subject, data, clean, timeoutMs)
            : ask(servers, { subject, data, headers: clean }, timeoutMs)
        }),

      // Also to this process by way of the broker: it alone knows whose turn it is in a queue that others serve too.
      publish: (subject, data, headers) =>
        Effect.suspend(() => {
          if (data.length > payloadMax) return Effect.fail(tooLarge(subject, data.length, payloadMax))
          if (!session.isConnected) return Effect.fail(disconnected(`no connection to NATS for ${subject}`))
          const message: Message = { subject, data: data.slice(), headers: wireHeaders(headers) }
          session.send(subject, sizeOf(data, message.headers), ({ machine }) => {
            for (const one of subjects.route(subject, machine) ?? []) deliver(one, message, undefined)
          })
          return Effect.void
        }),

      serve: Effect.fnUntraced(function* (pattern, options, handler): Effect.fn.Return<void, BusError, Scope.Scope> {
        if (!session.isConnected) return yield* disconnected(`no connection to NATS to serve ${pattern}`)
        const server = yield* makeServer(pattern, options, handler)
        let subscription: Subscription | undefined
        const subscribe = () => {
          session.send(`serve ${pattern}`, 0, (connection) => {
            if (server.closed) return
            subscription = {
              pattern,
              queue: options.queue,
              connection,
              receive: (message, answer) =>
                receive(server, message, answer === undefined ? undefined : responder(message.subject, answer))
            }
            subjects.add(subscription)
          })
        }
        subscribe()
        const forget = session.onReturn(subscribe)
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            table.remove(server)
            forget()
            session.send(`unserve ${pattern}`, 0, () => {
              if (subscription !== undefined) subjects.remove(subscription)
            })
          })
        )
        // Answered behind the subscription, on the same connection.
        const known = yield* session.ask<boolean>({
          label: "flush",
          bytes: 0,
          timeoutMs: SUBSCRIBE_TIMEOUT_MS,
          at: (answer) => answer(true),
          unheard: () => false
        }).wait
        if (!known) return yield* disconnected("the NATS server does not answer")
        table.add(server)
      })
    })
  })

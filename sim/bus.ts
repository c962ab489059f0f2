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
import type { Connection } from "./network.ts"
import type { Session } from "./session.ts"
import type { Answer, Asked, Rest, Subjects, Subscription } from "./subjects.ts"

const SUBSCRIBE_TIMEOUT_MS = 10_000
/** Of all parts of one reply, and for how long they wait to be fetched, so many at once. */
const REPLY_BYTES_MAX = 256 * 1024 * 1024
const PARTS_AGE_MS = 30_000
const PARTS_AT_ONCE = 4

const disconnected = (detail: string) => new BusError({ reason: "disconnected", detail })

const lost = (subject: string, why: string) => new BusError({ reason: "timeout", detail: `${subject}: ${why}` })

const sizeOf = (data: Uint8Array, headers: Headers | undefined): number => {
  let bytes = data.length
  for (const name in headers) bytes += name.length + headers[name]!.length
  return bytes
}

const sizeOfAnswer = ({ reply }: Answer): number => (reply === undefined ? 0 : sizeOf(reply.data, reply.headers))

export const makeBus = (subjects: Subjects, session: Session): Effect.Effect<Bus["Service"], never, Scope.Scope> =>
  Effect.gen(function* () {
    const { payloadMax } = session
    const table = makeSubjectTable()
    const alignment = session.world.chance(`alignment of ${session.node.name} ${session.life}`)

    /** The bytes as they come out of a socket. */
    const arrived = (data: Uint8Array): Uint8Array => {
      const at = alignment.below(8)
      const copy = new Uint8Array(data.length + at).subarray(at)
      copy.set(data)
      return copy
    }

    const receive = (server: Server, message: Message, respond: ((answer: Answer) => void) | undefined) => {
      const begun = begin(server, { ...message, data: arrived(message.data) })
      if (respond === undefined) return
      const finish = (exit: Exit.Exit<Reply>) =>
        respond(exit._tag === "Success" ? { reply: exit.value } : { error: unanswered(message.subject) })
      if (Fiber.isFiber(begun)) begun.addObserver(finish)
      else finish(begun)
    }

    /** The message, at the broker, on its way to one who serves its subject. */
    const deliver = (to: Subscription, message: Message, asked?: Asked) => {
      to.connection.toNode(session.world.label("> ", message.subject), sizeOf(message.data, message.headers), () =>
        to.receive(message, asked)
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
            const tell = (told: Answer) => answer(told, sizeOfAnswer(told))
            for (const one of servers) deliver(one, message, { from: machine, answer: tell })
          },
          unheard: (why) => ({
            error: why === "no answer in time" ? timedOut(subject, timeoutMs) : lost(subject, why)
          })
        })
        const until = session.world.now + timeoutOf(timeoutMs)
        return Effect.flatMap(asked.wait, (told) => {
          if (told.reply === undefined) return Effect.fail(told.error)
          const { headers } = told.reply
          return told.rest === undefined
            ? Effect.succeed<Reply>({ data: arrived(told.reply.data), headers })
            : Effect.map(fetchRest(subject, told.reply.data, told.rest, until), (data): Reply => ({ data, headers }))
        })
      })

    const fetchRest = (subject: string, first: Uint8Array, rest: Rest, until: number) => {
      const data = new Uint8Array(rest.bytes)
      data.set(first)
      const indexes = Array.from({ length: Math.ceil(rest.bytes / payloadMax) - 1 }, (_, index) => index + 1)
      const fetchPart = (index: number) =>
        Effect.suspend(() => {
          const asked = session.ask<Uint8Array | undefined>({
            label: `part of ${subject}`,
            bytes: 0,
            timeoutMs: Math.max(1, until - session.world.now),
            at: (answer, { machine }) => rest.fetch(index, machine, (part) => answer(part, part?.length)),
            unheard: () => undefined
          })
          return Effect.flatMap(asked.wait, (part) => {
            if (part === undefined) return Effect.fail(lost(subject, "a part of the answer did not come"))
            data.set(part, index * payloadMax)
            return Effect.void
          })
        })
      return Effect.as(Effect.forEach(indexes, fetchPart, { concurrency: PARTS_AT_ONCE, discard: true }), data)
    }

    /** The first part of a reply, which can be asked for the others. */
    const inParts = ({ data, headers }: Reply, connection: Connection): Answer => {
      let kept: Uint8Array | undefined = data
      session.after(PARTS_AGE_MS, "forget parts", () => {
        kept = undefined
      })
      const fetch: Rest["fetch"] = (index, from, answer) => {
        if (!connection.isKnown) return answer(undefined)
        if (!subjects.reaches(from, connection.machine)) return
        connection.toNode("> part", 0, () => {
          const part = kept?.slice(index * payloadMax, (index + 1) * payloadMax)
          session.send("< part", part?.length ?? 0, ({ machine }) => {
            if (subjects.reaches(machine, from)) answer(part)
          })
        })
      }
      return { reply: { data: data.slice(0, payloadMax), headers }, rest: { bytes: data.length, fetch } }
    }

    /** What this process says to a request that came on one of its connections. */
    const responder =
      (subject: string, on: Connection, { answer, from }: Asked) =>
      (told: Answer) => {
        let said = told
        if (said.reply !== undefined) {
          const { data, headers } = said.reply
          const reply: Reply = { data: data.slice(), headers: wireHeaders(headers) }
          if (data.length <= payloadMax) said = { reply }
          else if (data.length <= REPLY_BYTES_MAX) said = inParts(reply, on)
          else
            said = {
              error: new BusError({ reason: "too-large", detail: `${subject}: an answer of ${data.length} bytes` })
            }
        }
        session.send(session.world.label("< ", subject), sizeOfAnswer(said), ({ machine }) => {
          if (subjects.reaches(machine, from)) answer(said)
        })
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
            for (const one of subjects.route(subject, machine) ?? []) deliver(one, message)
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
              receive: (message, asked) =>
                receive(
                  server,
                  message,
                  asked === undefined ? undefined : responder(message.subject, connection, asked)
                )
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

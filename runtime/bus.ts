/**
 * How actors and clients talk: requests, replies and announcements on subjects.
 *
 * Messages may be lost, and a request that timed out may have been carried out. An adapter hands a message
 * to a server in this process directly, as the same bytes that would have gone over the wire.
 */
import { Context, Data, type Effect, type Scope } from "effect"
import { headers as headerNames } from "../protocols/client.ts"
import { errorBody, type ElanusError } from "../protocols/errors.ts"
import { utf8 } from "../protocols/wire.ts"

export type Headers = { readonly [name: string]: string }

export interface Message {
  readonly subject: string
  readonly data: Uint8Array
  readonly headers?: Headers | undefined
}

export interface Reply {
  readonly data: Uint8Array
  readonly headers?: Headers | undefined
}

const LINE_BREAKS = /[\r\n]+/g
/** What `trim` takes away, and most values do not have. */
const SPACE = /\s/

/** What a header's value may be on the wire: one line, without space at its ends. */
export const headerText = (value: string): string =>
  SPACE.test(value) ? value.replace(LINE_BREAKS, " ").trim() : value

/** An error as any NATS client understands it: the headers of the services convention, and our body. */
export const errorReply = (error: ElanusError): Reply => ({
  data: utf8.encode(JSON.stringify(errorBody(error))),
  headers: { [headerNames.error]: headerText(error.reason), [headerNames.errorCode]: String(error.status) }
})

/**
 * A request that brought no reply. `nobody`: no one serves the subject, so nothing was done. `timeout`: it may
 * have been done (ambiguous). `disconnected`: it was not sent. `too-large`: it never can be. `denied`: no permission.
 */
export class BusError extends Data.TaggedError("BusError")<{
  readonly reason: "nobody" | "timeout" | "disconnected" | "too-large" | "denied"
  readonly detail: string
}> {}

export class Bus extends Context.Service<
  Bus,
  {
    /** The largest message body in bytes. A larger *reply* travels in parts, unseen, to a requester that is a `Bus` too. */
    readonly payloadMax: number

    readonly request: (
      subject: string,
      data: Uint8Array,
      options: { readonly timeoutMs: number; readonly headers?: Headers | undefined }
    ) => Effect.Effect<Reply, BusError>

    /** To everyone who serves the subject; no reply, no promise. */
    readonly publish: (subject: string, data: Uint8Array, headers?: Headers) => Effect.Effect<void, BusError>

    /**
     * Answers a subject (`*` one token, `>` the rest) until the scope closes; of servers with the same `queue` one gets
     * each message. Handlers run side by side, at most `limits.handlersMax` of them: past that, a message is answered
     * by `overloaded`, an error reply if absent. A published message's reply goes nowhere.
     */
    readonly serve: (
      subject: string,
      options: { readonly queue?: string; readonly overloaded?: Reply },
      handler: (message: Message) => Effect.Effect<Reply>
    ) => Effect.Effect<void, BusError, Scope.Scope>
  }
>()("elanus/runtime/Bus") {}

/**
 * Writing to a stream: one message or one atomic batch, once, and what the stream said. It never sends anything
 * twice, and never calls a write refused or unsent unless that is certain.
 */
import { Effect } from "effect"
import { headers as newHeaders, NoRespondersError, nuid, type MsgHdrs } from "nats"
import type { NatsConnection } from "./nats-connection.ts"
import { ambiguous, done, type Outcome, refused, unavailable } from "./outcome.ts"

export interface Message {
  readonly subject: string
  readonly data: Uint8Array
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
}

/** The server's own limit, which is a constant there. */
export const batchMessagesMax = 1_000

export const expectLast = (sequence: number) => ["Nats-Expected-Last-Sequence", String(sequence)] as const
export const expectLastOfSubject = (sequence: number) =>
  ["Nats-Expected-Last-Subject-Sequence", String(sequence)] as const

const headersOf = (pairs: Message["headers"]): MsgHdrs => {
  const headers = newHeaders()
  for (const [name, value] of pairs) headers.set(name, value)
  return headers
}

interface Answer {
  readonly seq?: number
  readonly error?: { readonly code: number; readonly err_code: number; readonly description: string }
}

/** What an error of a stream means for the write that got it. What is not known to be a "no" is ambiguous. */
const outcomeOfError = (error: NonNullable<Answer["error"]>): Outcome<never> => {
  const detail = `${error.description} (${error.err_code})`
  switch (error.err_code) {
    case 10071: // wrong last sequence
    case 10164: // the same, while others are in flight
      return refused("conflict", detail)
    case 10077: // storing failed, for the reason in the text
      return /maximum (bytes|messages) exceeded/.test(error.description) ? refused("full", detail) : ambiguous(detail)
    case 10047: // insufficient storage resources
    case 10023: // insufficient resources
      return refused("full", detail)
    case 10054: // message size exceeds maximum allowed
    case 10199: // batch is too large
    case 10166: // invalid TTL
      return refused("invalid", detail)
    case 10174: // atomic publish is disabled
      return refused("invalid", detail)
    case 10175: // the batch lacks a sequence
    case 10176: // the batch is incomplete: its beginning was lost, or abandoned by a change of leader
    case 10210: // too many batches in flight
      return unavailable(detail)
    default:
      return ambiguous(detail)
  }
}

/**
 * Hands over what to write at once, in order of the calls; the promise is its outcome, and never fails. Several
 * messages become one atomic batch, whose outcome holds the sequence of its last.
 */
export const publish = (
  nats: NatsConnection["Service"],
  messages: ReadonlyArray<Message>,
  timeoutMs: number
): Promise<Outcome<number>> => {
  const last = messages[messages.length - 1]
  if (last === undefined) return Promise.resolve(refused("invalid", "there is nothing to write"))
  if (messages.length > batchMessagesMax) {
    return Promise.resolve(refused("invalid", `${messages.length} messages, and a batch takes ${batchMessagesMax}`))
  }
  // A message that is published without a connection waits for the next one, or is dropped. Neither can be told.
  const { connection } = nats
  const payloadMax = connection.info?.max_payload
  if (!nats.isConnected() || payloadMax === undefined) return Promise.resolve(unavailable("not connected to NATS"))

  const batchId = messages.length === 1 ? undefined : nuid.next()
  const prepared = messages.map((message, index) => {
    const headers = headersOf(message.headers)
    if (batchId !== undefined) {
      headers.set("Nats-Batch-Id", batchId)
      headers.set("Nats-Batch-Sequence", String(index + 1))
      if (message === last) headers.set("Nats-Batch-Commit", "1")
    }
    return headers
  })
  for (const message of messages) {
    // 1 KiB for headers, which count.
    if (message.data.length + 1_024 > payloadMax) {
      return Promise.resolve(refused("invalid", `${message.data.length} bytes, and the server takes ${payloadMax}`))
    }
  }

  try {
    for (let index = 0; index < messages.length - 1; index++) {
      const { subject, data } = messages[index]!
      connection.publish(subject, data, { headers: prepared[index]! })
    }
  } catch (cause) {
    // Without its last message a batch is nothing.
    return Promise.resolve(unavailable(detailOf(cause)))
  }
  const answer = connection.request(last.subject, last.data, {
    headers: prepared[messages.length - 1]!,
    timeout: timeoutMs
  })
  return new Promise((resolve) => {
    // The answer to a question asked on a connection that broke is not coming.
    const forget = nats.onLost(() => settle(ambiguous("the connection to NATS broke")))
    const settle = (outcome: Outcome<number>) => {
      forget()
      resolve(outcome)
    }
    answer.then(
      (message) => {
        try {
          const { seq, error } = message.json<Answer>()
          if (error !== undefined) settle(outcomeOfError(error))
          else if (typeof seq === "number" && seq > 0) settle(done(seq))
          else settle(ambiguous("the answer holds no sequence"))
        } catch (cause) {
          settle(ambiguous(`the answer cannot be read: ${detailOf(cause)}`))
        }
      },
      (cause: unknown) => settle(hasNoResponders(cause) ? unavailable("no stream listens") : ambiguous(detailOf(cause)))
    )
  })
}

/** The server said that nobody at all took the message. */
const hasNoResponders = (cause: unknown): boolean =>
  cause instanceof NoRespondersError || (cause instanceof Error && cause.cause instanceof NoRespondersError)

const detailOf = (cause: unknown) => (cause instanceof Error ? cause.message : String(cause))

/** As `publish`, in one stage. */
export const publishEffect = (nats: NatsConnection["Service"], messages: ReadonlyArray<Message>, timeoutMs: number) =>
  Effect.promise(() => publish(nats, messages, timeoutMs))

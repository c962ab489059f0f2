/** Writing to a stream of the broker, as storage/jetstream-publish.ts does: once, and what the stream said. */
import { ambiguous, type Outcome, refused, unavailable } from "../storage/outcome.ts"
import type { JetStream } from "./jetstream.ts"
import { Once, type Session } from "./session.ts"
import type { Expectation, NewMessage } from "./stream.ts"

/** The server's own limit, which is a constant there. */
const BATCH_MAX = 1_000

/** Hands over one message, or an atomic batch, at once, in order of the calls; what comes is the outcome. */
export const writeStream = (
  streams: JetStream,
  session: Session,
  stream: string,
  messages: ReadonlyArray<NewMessage>,
  expected: Expectation,
  timeoutMs: number
): Once<Outcome<number>> => {
  const refusal =
    messages.length === 0
      ? refused("invalid", "there is nothing to write")
      : messages.length > BATCH_MAX
        ? refused("invalid", `${messages.length} messages, and a batch takes ${BATCH_MAX}`)
        : messages.some(({ data }) => data.length > session.payloadMax)
          ? refused("invalid", `a message of more than ${session.payloadMax} bytes`)
          : session.isConnected
            ? undefined
            : unavailable("not connected to NATS")
  if (refusal !== undefined) {
    const once = new Once<Outcome<number>>()
    once.give(refusal)
    return once
  }
  const copies = messages.map(({ data, isMarker = false, subject, ttlMs }): NewMessage => ({
    subject,
    data: data.slice(),
    isMarker,
    ttlMs
  }))
  return session.ask<Outcome<number>>({
    label: session.world.label("write ", stream),
    bytes: copies.reduce((total, { data }) => total + data.length, 0),
    timeoutMs,
    at: (answer, connection) => streams.write(connection, stream, copies, expected, answer),
    unheard: ambiguous
  })
}

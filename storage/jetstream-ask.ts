/** Questions to JetStream's own interface: asked once, and answered or failed as soon as the connection breaks. */
import { JetStreamApiError } from "@nats-io/jetstream"
import { Effect } from "effect"
import type { NatsConnection } from "./nats-connection.ts"
import { StorageError } from "./outcome.ts"

/** JSStreamNotFoundErr. */
const streamNotFound = 10059

/** Fails "missing" if there is no such stream, else "unavailable": nobody said that it is wrong. */
export const ask = <A>(
  nats: NatsConnection["Service"],
  stream: string,
  question: () => Promise<A>
): Effect.Effect<A, StorageError> =>
  Effect.callback((resume) => {
    const fail = (reason: StorageError["reason"], detail: string) => {
      forget()
      resume(Effect.fail(new StorageError({ reason, detail: `${stream}: ${detail}` })))
    }
    // A question that is asked without a connection may be dropped with the old one, and then nobody answers it.
    let forget = () => {}
    if (!nats.isConnected()) return fail("unavailable", "not connected to NATS")
    forget = nats.onLost(() => fail("unavailable", "the connection to NATS broke"))
    question().then(
      (answer) => {
        forget()
        resume(Effect.succeed(answer))
      },
      (cause: unknown) => {
        if (cause instanceof JetStreamApiError && cause.code === streamNotFound)
          fail("missing", "there is no such stream")
        else fail("unavailable", cause instanceof Error ? cause.message : String(cause))
      }
    )
    return Effect.sync(forget)
  })

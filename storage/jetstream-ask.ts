/** Questions to JetStream's own interface: asked once, and answered or failed as soon as the connection breaks. */
import { JetStreamApiError } from "@nats-io/jetstream"
import { Effect } from "effect"
import { isDenied, type NatsConnection } from "./nats-connection.ts"
import { StorageError } from "./outcome.ts"

/** JSStreamNotFoundErr. */
const streamNotFound = 10059

/** JSStreamReplicasNotSupportedErr, JSStorageResourcesExceededErr, JSAccountResourcesExceededErr, JSMaximumStreamsLimitErr. */
const refusals = [10074, 10047, 10002, 10027]

const isRefusal = (cause: unknown): boolean =>
  isDenied(cause) || (cause instanceof JetStreamApiError && refusals.includes(cause.code))

/**
 * Fails "missing" if there is no such stream, else "unavailable": nobody said that it is wrong. Of a `beginning` it is
 * "unfit" what our permissions or the server's configuration do not allow: who runs already waits until that is right.
 */
export const ask = <A>(
  nats: NatsConnection["Service"],
  stream: string,
  question: () => Promise<A>,
  { beginning = false }: { readonly beginning?: boolean } = {}
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
        else
          fail(
            beginning && isRefusal(cause) ? "unfit" : "unavailable",
            cause instanceof Error ? cause.message : String(cause)
          )
      }
    )
    return Effect.sync(forget)
  })

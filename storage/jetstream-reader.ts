/**
 * Reads a stream in order by windows of bytes, and fails at the first sign that something may have been left
 * out: a gap, a lost connection, a consumer that is gone, silence. It never recovers by itself, since only
 * its user knows from where to read again.
 *
 * Not the client's ordered consumer: that one goes on by itself over a reset, and waits for ever for a server
 * that is gone. And windows are of bytes, since windows of messages make a slow consumer of us when records are large.
 */
import { AckPolicy, DeliverPolicy } from "@nats-io/jetstream"
import { Effect, type Scope } from "effect"
import { type Msg, nanos, nuid } from "nats"
import { limits } from "../protocols/limits.ts"
import { ask } from "./jetstream-ask.ts"
import type { NatsConnection } from "./nats-connection.ts"
import { StorageError } from "./outcome.ts"

export interface Delivered {
  readonly subject: string
  /** The caller's own. */
  readonly data: Uint8Array
  /** The value of a header, or "". */
  readonly header: (name: string) => string
  readonly sequence: number
}

export interface Reader {
  /**
   * What came since, in order. Nothing: there is nothing more at present (as far as the server that we read from knows).
   * Fails "unavailable" when nothing is heard for some seconds.
   */
  readonly next: Effect.Effect<ReadonlyArray<Delivered>, StorageError>
}

export interface ReaderOptions {
  readonly stream: string
  readonly subject: string
  /** The first sequence to read; without, the newest message of each subject and then what comes. */
  readonly from?: number
}

const heartbeatMs = 1_000
const absentRetryMs = 20
const requestExpiresMs = 60_000

const unavailable = (detail: string) => new StorageError({ reason: "unavailable", detail })

/** Stream and consumer sequence out of the subject that a message would be acknowledged on. */
const sequencesOf = (reply: string): readonly [number, number] => {
  const tokens = reply.split(".")
  // Nine tokens, or with a domain and an account's hash in front of the stream's name.
  const at = tokens.length === 9 ? 5 : 7
  return [Number(tokens[at]), Number(tokens[at + 1])]
}

export const openReader = Effect.fnUntraced(function* (
  nats: NatsConnection["Service"],
  { stream, subject, from }: ReaderOptions
): Effect.fn.Return<Reader, StorageError, Scope.Scope> {
  const { connection, manager } = nats
  const { apiPrefix } = manager.getOptions()
  const consumer = nuid.next()
  const inbox = nats.newInbox()

  let waiting: Array<Delivered> = []
  let waitingBytes = 0
  let consumerSequence = 0
  let isRequested = false
  let isIdle = false
  let failure: StorageError | undefined
  let wake: (() => void) | undefined
  let isWaking = false

  const fail = (detail: string) => {
    failure ??= unavailable(`reading ${stream}: ${detail}`)
    wake?.()
  }

  const request = () => {
    if (isRequested || failure !== undefined || !nats.isConnected() || waitingBytes >= limits.readerWindowBytes) return
    isRequested = true
    const body = JSON.stringify({
      batch: limits.readerWindowMessages,
      max_bytes: Math.max(limits.readerWindowBytes, 2 * (connection.info?.max_payload ?? 0)),
      expires: nanos(requestExpiresMs),
      idle_heartbeat: nanos(heartbeatMs)
    })
    connection.publish(`${apiPrefix}.CONSUMER.MSG.NEXT.${stream}.${consumer}`, body, { reply: inbox })
  }

  const onStatus = (message: Msg) => {
    const code = message.headers?.code ?? 0
    const description = message.headers?.description ?? ""
    if (code === 100) {
      const last = Number(message.headers?.get("Nats-Last-Consumer") || consumerSequence)
      if (last !== consumerSequence) return fail(`${last - consumerSequence} messages did not arrive`)
      isIdle = true
      wake?.()
    } else if (code === 408 || code === 404 || (code === 409 && /Batch Completed|Exceeds MaxBytes/.test(description))) {
      isRequested = false
      request()
    } else if (code === 503) {
      // In a cluster the new consumer is not known everywhere at once. One that is gone ends in silence.
      isRequested = false
      setTimeout(request, absentRetryMs)
    } else fail(`${code} ${description}`)
  }

  const onMessage = (message: Msg) => {
    const [sequence, own] = sequencesOf(message.reply ?? "")
    if (own !== consumerSequence + 1) return fail(`${own - consumerSequence - 1} messages did not arrive`)
    consumerSequence = own
    const { headers } = message
    // Copied: a view would hold the whole chunk that came from the socket, at any alignment.
    waiting.push({
      subject: message.subject,
      data: new Uint8Array(message.data),
      header: (name) => headers?.get(name) ?? "",
      sequence
    })
    waitingBytes += message.data.length
    isIdle = false
    // Not at once: the rest of the chunk from the socket comes within this turn, and then it is one page.
    if (wake !== undefined && !isWaking) {
      isWaking = true
      queueMicrotask(() => {
        isWaking = false
        wake?.()
      })
    }
  }

  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const subscription = connection.subscribe(inbox, {
        callback: (error, message) => {
          if (error) return fail(error.message)
          if (message.reply?.startsWith("$JS.ACK.")) onMessage(message)
          else onStatus(message)
        }
      })
      const forget = nats.onLost(() => fail("the connection to NATS broke"))
      return { subscription, forget }
    }),
    ({ subscription, forget }) =>
      Effect.sync(() => {
        failure ??= unavailable("the reader is closed")
        forget()
        subscription.unsubscribe()
        // A courtesy, nobody waits for it: the server removes it after a while anyway.
        if (nats.isConnected()) connection.publish(`${apiPrefix}.CONSUMER.DELETE.${stream}.${consumer}`)
      })
  )

  yield* ask(nats, stream, () =>
    manager.consumers.add(stream, {
      name: consumer,
      ack_policy: AckPolicy.None,
      ...(from === undefined
        ? { deliver_policy: DeliverPolicy.LastPerSubject }
        : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: Math.max(from, 1) }),
      filter_subject: subject,
      inactive_threshold: nanos(limits.readerIdleMs),
      mem_storage: true,
      num_replicas: 1
    })
  )
  request()

  const take = Effect.callback<ReadonlyArray<Delivered>, StorageError>((resume) => {
    const look = () => {
      if (waiting.length > 0) {
        const taken = waiting
        waiting = []
        waitingBytes = 0
        request()
        resume(Effect.succeed(taken))
      } else if (failure !== undefined) resume(Effect.fail(failure))
      else if (isIdle) {
        isIdle = false
        resume(Effect.succeed([]))
      } else {
        wake = () => {
          wake = undefined
          look()
        }
      }
    }
    look()
    return Effect.sync(() => {
      wake = undefined
    })
  })

  return {
    next: take.pipe(
      Effect.timeoutOrElse({
        duration: limits.readerSilenceMs,
        orElse: () => Effect.fail(unavailable(`reading ${stream}: nothing heard for ${limits.readerSilenceMs} ms`))
      })
    )
  }
})

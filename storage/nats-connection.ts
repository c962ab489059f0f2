/**
 * One connection to NATS with its JetStream, shared by the log, the metadata, the leases and the bus of a process.
 * It reconnects for ever by itself. It never repeats a message: what was in flight when the connection broke is
 * its sender's to decide.
 */
import {
  jetstream,
  jetstreamManager,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager
} from "@nats-io/jetstream"
import { Context, Effect, Layer } from "effect"
import {
  AuthorizationError,
  connect,
  PermissionViolationError,
  createInbox,
  type NatsConnection as Connection,
  type NodeConnectionOptions
} from "nats"
import { limits } from "../protocols/limits.ts"
import { StorageError } from "./outcome.ts"

/** Servers, and whatever credentials and TLS the client takes. How it reconnects is not the caller's to choose. */
export type NatsOptions = Omit<
  NodeConnectionOptions,
  "maxReconnectAttempts" | "reconnect" | "waitOnFirstConnect" | "ignoreAuthErrorAbort" | "noAsyncTraces"
>

export class NatsConnection extends Context.Service<
  NatsConnection,
  {
    readonly connection: Connection
    readonly jetstream: JetStreamClient
    readonly manager: JetStreamManager
    /** A subject for answers to this process, below its own prefix if it has one. */
    readonly newInbox: () => string
    /** False: a message handed over now would wait for the next connection, and perhaps be dropped with the old one. */
    readonly isConnected: () => boolean
    /** Calls back whenever the connection breaks, until the answer is called. */
    readonly onLost: (callback: () => void) => () => void
  }
>()("elanus/storage/NatsConnection") {
  static readonly layer = (options: NatsOptions): Layer.Layer<NatsConnection, StorageError> =>
    Layer.effect(NatsConnection, open(options))
}

/** Below it atomic batches and the TTL of a key are ignored without a word. */
const versionMin = [2, 12] as const

const isOldVersion = (version: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major < versionMin[0] || (major === versionMin[0] && minor < versionMin[1])
}

/** JSNotEnabledErr and JSNotEnabledForAccountErr. */
const jetstreamDisabled = [10076, 10039]

const detailOf = (cause: unknown) => (cause instanceof Error ? cause.message : String(cause))

/** A connection alone, for clients: they need no right to JetStream. Closed with the scope. */
export const openConnection = Effect.fnUntraced(function* (options: NatsOptions) {
  const at = [options.servers ?? "127.0.0.1:4222"].flat().join(", ")
  const connection = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () =>
        connect({
          timeout: limits.connectTimeoutMs,
          reconnectTimeWait: 100,
          // A server that is there but does not answer is found out within seconds.
          pingInterval: 5_000,
          maxPingOut: 2,
          ...options,
          reconnect: true,
          maxReconnectAttempts: -1,
          waitOnFirstConnect: false,
          // Credentials that are refused for a while (a server that loads its accounts) must not end it for good.
          ignoreAuthErrorAbort: true,
          // A stack trace for each of 50,000 appends a second costs more than the append.
          noAsyncTraces: true
        }),
      catch: (cause) => {
        const detail = detailOf(cause)
        if (cause instanceof AuthorizationError) {
          return new StorageError({ reason: "unfit", detail: `the NATS server at ${at} refuses us: ${detail}` })
        }
        if (/does not support 'tls'/.test(detail)) {
          return new StorageError({
            reason: "unfit",
            detail: `the NATS server at ${at} has no TLS, and we were told to use it`
          })
        }
        return isDistrust(cause)
          ? new StorageError({ reason: "unfit", detail: `we do not trust the NATS server at ${at}: ${detail}` })
          : new StorageError({ reason: "unavailable", detail: `no NATS server at ${at}: ${detail}` })
      }
    }),
    (connection) => Effect.promise(() => connection.close())
  )

  const version = connection.info?.version ?? "0.0.0"
  const server = nameOf(connection)
  if (isOldVersion(version)) {
    return yield* new StorageError({
      reason: "unfit",
      detail: `${server} is version ${version}; Elanus needs ${versionMin.join(".")} or later`
    })
  }

  // Watched from before the first question on, so that no loss goes unseen.
  let connected = true
  const callbacks = new Set<() => void>()
  const status = connection.status()
  void (async () => {
    for await (const event of status) {
      if (event.type === "disconnect" || event.type === "staleConnection" || event.type === "close") {
        connected = false
        for (const callback of [...callbacks]) callback()
      } else if (event.type === "reconnect") connected = true
    }
  })()

  return {
    connection,
    isConnected: () => connected && !connection.isClosed(),
    onLost: (callback: () => void) => {
      callbacks.add(callback)
      return () => {
        callbacks.delete(callback)
      }
    }
  }
})

/** A certificate that somebody else signed, or that is over: no second try will like it better. */
const isDistrust = (cause: unknown): boolean => {
  if (!(cause instanceof Error)) return false
  const code = "code" in cause ? String(cause.code) : ""
  return /CERT|LEAF_SIGNATURE/.test(code) || isDistrust(cause.cause)
}

/** Our permissions, which the client's own errors are wrapped around. */
export const isDenied = (cause: unknown): boolean =>
  cause instanceof Error && (cause instanceof PermissionViolationError || isDenied(cause.cause))

const nameOf = (connection: Connection) => `the NATS server at ${connection.getServer()}`

const open = Effect.fnUntraced(function* (options: NatsOptions) {
  const held = yield* openConnection(options)
  const { connection } = held
  const server = nameOf(connection)
  const manager = yield* Effect.tryPromise({
    try: () => jetstreamManager(connection, { timeout: limits.connectTimeoutMs }),
    catch: (cause) => {
      // In a cluster JetStream is away while no leader is elected: only a server without it says so in its greeting.
      const without =
        (connection.info?.jetstream !== true && !(cause instanceof JetStreamApiError)) ||
        (cause instanceof JetStreamApiError && jetstreamDisabled.includes(cause.code))
      if (isDenied(cause)) {
        return new StorageError({
          reason: "unfit",
          detail: `${server} does not let us use JetStream: ${detailOf(cause)}`
        })
      }
      return without
        ? new StorageError({ reason: "unfit", detail: `${server} has no JetStream (${detailOf(cause)})` })
        : new StorageError({ reason: "unavailable", detail: `JetStream does not answer: ${detailOf(cause)}` })
    }
  })

  return NatsConnection.of({
    ...held,
    jetstream: jetstream(connection),
    manager,
    newInbox: () => createInbox(options.inboxPrefix)
  })
})

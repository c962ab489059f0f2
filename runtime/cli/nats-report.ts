/** What can be told, from outside, of a nats-server. */
import { Effect, Option } from "effect"
import { bucketStream } from "../../storage/jetstream-bucket.ts"
import { NatsConnection, type NatsOptions } from "../../storage/nats-connection.ts"
import { bytesText } from "./output.ts"
import { isOwnName } from "./own-server.ts"

export interface NatsReport {
  readonly server: string
  readonly version: string
  /** What an operator may want to know, in words. */
  readonly notes: ReadonlyArray<string>
}

/** `cluster` names the streams. */
export const reportNats = (options: NatsOptions, cluster: string): Promise<NatsReport> => {
  const look = Effect.gen(function* () {
    const { connection, manager } = yield* NatsConnection
    const { auth_required, max_payload, server_name, tls_required, version } = connection.info!
    const server = connection.getServer()
    const notes: Array<string> = []
    const isNear = /^(?:127\.|localhost|\[?::1)/.test(server)
    if (auth_required !== true) {
      notes.push("no authentication: whoever reaches the server may read, write and drop everything")
    }
    if (!isNear && tls_required !== true && options.tls === undefined) {
      notes.push("no TLS: what is sent can be read on the way")
    }
    if (max_payload < 1024 * 1024) {
      notes.push(`max_payload is ${bytesText(max_payload)}: requests and answers of plain clients must be smaller`)
    }
    const bucket = yield* Effect.option(Effect.tryPromise(() => manager.streams.info(bucketStream(cluster, "meta"))))
    if (Option.isSome(bucket)) {
      const { num_replicas } = bucket.value.config
      if (num_replicas < 3) {
        notes.push(
          `replicas are ${num_replicas}: the loss of one server's disk loses data (start with --replicas 3, on three servers)`
        )
      }
    }
    // Ours has it: `elanus start` wrote its configuration.
    if (!isOwnName(server_name))
      notes.push(
        "sync_interval cannot be seen from here: without `sync_interval: always` in the server's jetstream block, a power loss loses what was acknowledged in the last two minutes"
      )
    return { server, version, notes }
  })
  return Effect.runPromise(Effect.scoped(look.pipe(Effect.provide(NatsConnection.layer(options)))))
}

/**
 * The NATS services convention, answered by hand: every role announces itself on `$SRV.PING`, `INFO` and `STATS`, so
 * that `nats micro ls`, `info` and `stats` show the cluster. It serves no endpoint itself, and counts nothing.
 */
import { DateTime, Effect, type Scope } from "effect"
import { utf8 } from "../protocols/wire.ts"
import { Bus, type BusError } from "./bus.ts"

export interface Endpoint {
  readonly name: string
  readonly subject: string
  /** As the convention spells it; empty if every server gets each message. */
  readonly queue_group: string
}

/** What happened at one endpoint since the role began. */
export interface EndpointCounts {
  readonly requests: number
  readonly errors: number
  readonly lastError?: string
  readonly handlingMs: number
}

export interface ServiceDescription {
  /** Letters, digits, dash and underscore. */
  readonly name: string
  /** Of this instance; unique in the cluster. */
  readonly id: string
  /** A semantic version. */
  readonly version: string
  readonly description: string
  readonly endpoints: ReadonlyArray<Endpoint>
  readonly metadata?: { readonly [name: string]: string }
  /** By the endpoint's name; one that is missing has done nothing yet. */
  readonly stats: () => { readonly [endpoint: string]: EndpointCounts }
}

const NONE: EndpointCounts = { requests: 0, errors: 0, handlingMs: 0 }
const NANOSECONDS_PER_MS = 1_000_000

/** Answers for the service until the scope closes. */
export const announce = Effect.fnUntraced(function* (
  service: ServiceDescription
): Effect.fn.Return<void, BusError, Bus | Scope.Scope> {
  const bus = yield* Bus
  const { description, endpoints, id, metadata = {}, name, version } = service
  const started = DateTime.formatIso(yield* DateTime.now)
  const who = { name, id, version, metadata }

  const answers = {
    PING: () => ({ type: "io.nats.micro.v1.ping_response", ...who }),
    INFO: () => ({
      type: "io.nats.micro.v1.info_response",
      ...who,
      description,
      endpoints: endpoints.map((endpoint) => ({ ...endpoint, metadata: {} }))
    }),
    STATS: () => {
      const counts = service.stats()
      return {
        type: "io.nats.micro.v1.stats_response",
        ...who,
        started,
        endpoints: endpoints.map((endpoint) => {
          const { errors, handlingMs, lastError = "", requests } = counts[endpoint.name] ?? NONE
          return {
            ...endpoint,
            num_requests: requests,
            num_errors: errors,
            last_error: lastError,
            processing_time: Math.round(handlingMs * NANOSECONDS_PER_MS),
            average_processing_time: requests === 0 ? 0 : Math.round((handlingMs / requests) * NANOSECONDS_PER_MS)
          }
        })
      }
    }
  }

  const served = Object.entries(answers).flatMap(([verb, answer]) =>
    [`$SRV.${verb}`, `$SRV.${verb}.${name}`, `$SRV.${verb}.${name}.${id}`].map((subject) =>
      bus.serve(subject, {}, () => Effect.sync(() => ({ data: utf8.encode(JSON.stringify(answer())) })))
    )
  )
  yield* Effect.all(served, { concurrency: "unbounded", discard: true })
})

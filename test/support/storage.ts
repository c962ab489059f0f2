/**
 * The adapters of `Log`, `Meta` and `Leases` that the conformance suites run against: local, NATS R1 and NATS R3, and
 * the simulated broker, inside of a world. Each test gets a place of its own, which nobody else has written to.
 */
import { type Context, Effect, Layer, Schedule, type Scope, Stream } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe } from "vitest"
import { bootstrap } from "../../storage/jetstream-bucket.ts"
import type { Leases } from "../../storage/leases.ts"
import * as LeasesJetStream from "../../storage/leases-jetstream.ts"
import * as LeasesLocal from "../../storage/leases-local.ts"
import { LocalStore } from "../../storage/local-store.ts"
import type { Log } from "../../storage/log.ts"
import * as LogJetStream from "../../storage/log-jetstream.ts"
import * as LogLocal from "../../storage/log-local.ts"
import type { Meta } from "../../storage/meta.ts"
import * as MetaJetStream from "../../storage/meta-jetstream.ts"
import * as MetaLocal from "../../storage/meta-local.ts"
import { NatsConnection, type NatsOptions } from "../../storage/nats-connection.ts"
import type { Outcome, StorageError } from "../../storage/outcome.ts"
import { simBroker } from "../../sim/broker.ts"
import { here } from "../../sim/world.ts"
import { type Nats, startNats, startNatsCluster } from "./nats.ts"
import { inWorlds } from "./simulated.ts"

export type Ports = Log | Meta | Leases

export interface PlaceOptions {
  readonly channelBytesMax?: number
}

export interface Place {
  /** A client of its own each time: another process, as far as the store knows. Local stores take one at a time. */
  readonly open: (options?: Partial<NatsOptions>) => Effect.Effect<Context.Context<Ports>, StorageError, Scope.Scope>
}

export interface World {
  readonly name: string
  /** It takes several clients at once. */
  readonly isShared: boolean
  /** Its servers are no processes that could be killed. */
  readonly isSimulated: boolean
  readonly place: (options?: PlaceOptions) => Effect.Effect<Place>
  readonly nats: () => Nats
  /** Runs a test to its end, with everything that it opened closed behind it. */
  readonly run: <A, E>(program: () => Effect.Effect<A, E, Scope.Scope>) => Promise<A> | void
}

let places = 0

const noServer = (): never => {
  throw new Error("there is no server")
}

const localWorld = (folder: () => string): World => ({
  name: "local",
  isShared: false,
  isSimulated: false,
  nats: noServer,
  run: (program) => run(program()),
  place: (options = {}) =>
    Effect.sync(() => {
      const directory = join(folder(), `place-${places++}`)
      const layer = Layer.mergeAll(LogLocal.layer(options), MetaLocal.layer, LeasesLocal.layer).pipe(
        Layer.provide(LocalStore.layer({ directory }))
      )
      return { open: () => Layer.build(Layer.fresh(layer)) }
    })
})

const simulatedWorld: World = {
  name: "simulated",
  isShared: true,
  isSimulated: true,
  nats: noServer,
  run: (program) => inWorlds(() => Effect.scoped(program())),
  place: (options = {}) =>
    here(({ world }) =>
      Effect.sync(() => {
        const { layer } = simBroker(world, options)
        return { open: () => Layer.build(Layer.fresh(layer)) }
      })
    )
}

export const natsLayer = (
  nats: Nats,
  cluster: string,
  options: PlaceOptions = {},
  natsOptions: Partial<NatsOptions> = {}
) => {
  const place = { cluster, replicas: nats.replicas }
  return Layer.mergeAll(
    LogJetStream.layer({ ...place, ...options }),
    MetaJetStream.layer(place),
    LeasesJetStream.layer(place)
  ).pipe(Layer.provide(NatsConnection.layer({ servers: [...nats.urls], ...natsOptions })))
}

const natsWorld = (name: string, nats: () => Nats): World => ({
  name,
  isShared: true,
  isSimulated: false,
  nats,
  run: (program) => run(program()),
  place: (options = {}) =>
    Effect.gen(function* () {
      const cluster = `place-${places++}`
      yield* bootstrap({ cluster, replicas: nats().replicas }).pipe(
        Effect.provide(NatsConnection.layer({ servers: [...nats().urls] }))
      )
      return {
        open: (natsOptions?: Partial<NatsOptions>) =>
          Layer.build(Layer.fresh(natsLayer(nats(), cluster, options, natsOptions)))
      }
    }).pipe(Effect.orDie)
})

/** Runs `suite` against each adapter, whose servers start before it and are gone after it. */
export const describeWorlds = (title: string, suite: (world: World) => void): void => {
  describe(`${title}: local`, () => {
    let folder = ""
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "elanus-local-"))
    })
    afterAll(() => rm(folder, { recursive: true, force: true }))
    suite(localWorld(() => folder))
  })
  describe(`${title}: simulated`, () => {
    suite(simulatedWorld)
  })
  for (const [name, start] of [
    ["NATS R1", startNats],
    ["NATS R3", startNatsCluster]
  ] as const) {
    describe(`${title}: ${name}`, () => {
      let nats: Nats | undefined
      beforeAll(async () => {
        nats = await start()
      })
      afterAll(() => nats?.stop())
      suite(
        natsWorld(name, () => {
          if (nats === undefined) throw new Error(`${name} did not start`)
          return nats
        })
      )
    })
  }
}

/** Runs an effect whose failure fails the test, with everything it opened closed behind it. */
export const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Effect.scoped(effect))

/** The value of an outcome that must be done. */
export const valueOf = <A>(outcome: Outcome<A>): A => {
  if (outcome._tag === "Done") return outcome.value
  throw new Error(`not done: ${JSON.stringify(outcome)}`)
}

/** "Done", "Unavailable", "Ambiguous", or why it was refused. */
export const tagOf = (outcome: Outcome<unknown>): string => (outcome._tag === "Refused" ? outcome.reason : outcome._tag)

export const collect = <A, E>(stream: Stream.Stream<A, E>) => Effect.map(Stream.runCollect(stream), (all) => [...all])

const encoder = new TextEncoder()
const decoder = new TextDecoder()
export const bytesOf = (text: string) => encoder.encode(text)
export const textOf = (bytes: Uint8Array) => decoder.decode(bytes)

/** Tries again while the store is away: for tests that take servers away, which is where the ports leave off. */
export const eventually = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.retry(effect, { times: 600, schedule: Schedule.spaced(50) })

/** Names that a subject, a file or an escape could stumble over. */
export const oddKeys: ReadonlyArray<string> = [
  "with space",
  "star.*.star",
  "more.>",
  "=",
  "=2E",
  "a=b",
  ".leading",
  "trailing.",
  "two..dots",
  ".",
  "$KV.x",
  "slash/and\\back",
  "Käse.日本語.🚀",
  "new\nline\ttab\u0000",
  "UPPER.lower",
  "x".repeat(900)
]

/**
 * The adapters of `Log`, `Meta` and `Leases` that the conformance suites run against: local, NATS R1 and NATS R3, and
 * the simulated broker, inside of a world. Each test gets a place of its own, which nobody else has written to.
 */
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream"
import { type Context, Effect, Layer, Schedule, type Scope, Stream } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { connect } from "nats"
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
import { channelStream } from "../../storage/log-jetstream.ts"
import * as LogLocal from "../../storage/log-local.ts"
import type { Meta } from "../../storage/meta.ts"
import * as MetaJetStream from "../../storage/meta-jetstream.ts"
import * as MetaLocal from "../../storage/meta-local.ts"
import { NatsConnection, type NatsOptions } from "../../storage/nats-connection.ts"
import { type Outcome, StorageError } from "../../storage/outcome.ts"
import { simBroker } from "../../sim/broker.ts"
import type { Machine } from "../../sim/servers.ts"
import { here } from "../../sim/world.ts"
import { type Nats, startNats, startNatsCluster } from "./nats.ts"
import { inWorlds } from "./simulated.ts"

export type Ports = Log | Meta | Leases

export interface PlaceOptions {
  readonly channelBytesMax?: number
}

export interface OpenOptions {
  /** The servers that the client knows; without, all. It begins with the first. */
  readonly via?: ReadonlyArray<number> | undefined
}

/** What can be done to the servers of a place. */
export interface PlaceServers {
  readonly count: number
  /** What was not on the disk is gone. */
  readonly kill: (index: number) => Effect.Effect<void>
  /** With what it had. */
  readonly restart: (index: number) => Effect.Effect<void>
  /** Waits until all that are up can be used again. */
  readonly usable: Effect.Effect<void>
  /** It stands still, with its connections open. */
  readonly pause: (index: number) => Effect.Effect<void>
  readonly continue: (index: number) => Effect.Effect<void>
  readonly leaderOf: (channel: number) => Effect.Effect<number>
  /** The channel's stream is gone. */
  readonly lose: (channel: number) => Effect.Effect<void>
}

export interface Place {
  /** A client of its own each time: another process, as far as the store knows. Local stores take one at a time. */
  readonly open: (options?: OpenOptions) => Effect.Effect<Context.Context<Ports>, StorageError, Scope.Scope>
  /** A local store has none. */
  readonly servers: PlaceServers
}

export interface World {
  readonly name: string
  /** It takes several clients at once, and has servers. */
  readonly isShared: boolean
  readonly place: (options?: PlaceOptions) => Effect.Effect<Place>
  /** Undefined if its servers are no real ones. */
  readonly nats: (() => Nats) | undefined
  /** Runs a test to its end, with everything that it opened closed behind it. */
  readonly run: <A, E>(program: () => Effect.Effect<A, E, Scope.Scope>) => Promise<A> | void
}

let places = 0

const localWorld = (folder: () => string): World => ({
  name: "local",
  isShared: false,
  nats: undefined,
  run: (program) => run(program()),
  place: (options = {}) =>
    Effect.sync(() => {
      const directory = join(folder(), `place-${places++}`)
      const layer = Layer.mergeAll(LogLocal.layer(options), MetaLocal.layer, LeasesLocal.layer).pipe(
        Layer.provide(LocalStore.layer({ directory }))
      )
      return {
        open: () => Layer.build(Layer.fresh(layer)),
        get servers(): never {
          throw new Error("there is no server")
        }
      }
    })
})

const simulatedWorld = (replicas: number): World => ({
  name: `simulated R${replicas}`,
  isShared: true,
  nats: undefined,
  run: (program) => inWorlds(() => Effect.scoped(program())),
  place: (options = {}) =>
    here(({ world }) =>
      Effect.sync(() => {
        const broker = simBroker(world, { ...options, replicas })
        const { all } = broker.servers
        const to = (act: (machine: Machine) => void) => (index: number) => Effect.sync(() => act(all[index]!))
        return {
          open: ({ via }: OpenOptions = {}) =>
            Layer.build(Layer.fresh(via === undefined ? broker.layer : broker.layerVia(via))),
          servers: {
            count: replicas,
            kill: to((machine) => broker.servers.crash(machine, Infinity)),
            restart: to((machine) => broker.servers.restart(machine)),
            pause: to((machine) => broker.servers.pause(machine, Infinity)),
            continue: to((machine) => broker.servers.continue(machine)),
            // More than an election takes.
            usable: Effect.sleep(10_000),
            leaderOf: (channel) => Effect.sync(() => broker.leaderOf(channel)!),
            lose: (channel) => Effect.sync(() => broker.lose(channel))
          }
        }
      })
    )
})

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

/** Options of a client that knows these servers alone. */
const natsVia = (nats: Nats, via: ReadonlyArray<number>): Partial<NatsOptions> => ({
  servers: via.map((index) => nats.urls[index]!),
  ignoreClusterUpdates: via.length < nats.urls.length,
  noRandomize: true
})

const serversOf = (nats: Nats, cluster: string): PlaceServers => {
  const managing = <A>(use: (manager: JetStreamManager) => Promise<A>) =>
    Effect.acquireUseRelease(
      Effect.promise(() => connect({ servers: [...nats.urls] })),
      (nc) => Effect.promise(async () => use(await jetstreamManager(nc))),
      (nc) => Effect.promise(() => nc.close())
    )
  return {
    count: nats.replicas,
    kill: (index) => Effect.promise(() => nats.kill(index)),
    restart: (index) => Effect.promise(() => nats.restart(index)),
    usable: Effect.promise(() => nats.usable()),
    pause: (index) => Effect.sync(() => nats.pause(index)),
    continue: (index) => Effect.sync(() => nats.continue(index)),
    leaderOf: (channel) =>
      nats.replicas === 1
        ? Effect.succeed(0)
        : Effect.map(
            managing((manager) => manager.streams.info(channelStream(cluster, channel))),
            (info) => nats.indexOf(info.cluster?.leader ?? "")
          ),
    lose: (channel) => Effect.asVoid(managing((manager) => manager.streams.delete(channelStream(cluster, channel))))
  }
}

const natsWorld = (name: string, nats: () => Nats): World => ({
  name,
  isShared: true,
  nats,
  run: (program) => run(program()),
  place: (options = {}) =>
    Effect.gen(function* () {
      const cluster = `place-${places++}`
      yield* bootstrap({ cluster, replicas: nats().replicas }).pipe(
        Effect.provide(NatsConnection.layer({ servers: [...nats().urls] }))
      )
      return {
        open: ({ via }: OpenOptions = {}) =>
          Layer.build(Layer.fresh(natsLayer(nats(), cluster, options, via === undefined ? {} : natsVia(nats(), via)))),
        servers: serversOf(nats(), cluster)
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
  for (const replicas of [1, 3]) {
    describe(`${title}: simulated R${replicas}`, () => {
      suite(simulatedWorld(replicas))
    })
  }
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

/**
 * Makes a channel and waits until an append reaches it. A server that does not lead the new stream hears of it a moment
 * later, and says until then that nobody listens: of 139 streams of three replicas, on a busy machine, two did.
 */
export const createHeard = (log: Log["Service"], channel: number): Effect.Effect<void, StorageError> =>
  Effect.andThen(
    log.create(channel),
    eventually(
      Effect.filterOrFail(
        Effect.flatten(log.append(channel, bytesOf("is anybody there"), Number.MAX_SAFE_INTEGER - 1)),
        (outcome) => tagOf(outcome) === "conflict",
        () => new StorageError({ reason: "unavailable", detail: `channel ${channel} was made, and is not heard of` })
      )
    )
  ).pipe(Effect.asVoid)

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
  "\uFEFFmarked",
  "new\nline\ttab\u0000",
  "UPPER.lower",
  "x".repeat(900)
]

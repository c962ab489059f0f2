/**
 * From a place to run in to the ports that roles stand on there: a directory of this process, or NATS and a store of
 * objects. One of the composition roots; it decides nothing else.
 */
import { Effect, Layer } from "effect"
import { limits } from "../protocols/limits.ts"
import type { Compute } from "../storage/compute.ts"
import { layerComputeWorker } from "../storage/compute-worker.ts"
import { layerHnsw } from "../storage/index-hnsw.ts"
import type { VectorIndexes } from "../storage/index.ts"
import type { Leases } from "../storage/leases.ts"
import type { Log } from "../storage/log.ts"
import type { Meta } from "../storage/meta.ts"
import type { Objects } from "../storage/objects.ts"
import type { StorageError } from "../storage/outcome.ts"
import { layer as leasesJetStream } from "../storage/leases-jetstream.ts"
import { layer as leasesLocal } from "../storage/leases-local.ts"
import { LocalStore } from "../storage/local-store.ts"
import { layer as logJetStream } from "../storage/log-jetstream.ts"
import { layer as logLocal } from "../storage/log-local.ts"
import { bootstrap, layer as metaJetStream } from "../storage/meta-jetstream.ts"
import { layer as metaLocal } from "../storage/meta-local.ts"
import { checkRoom } from "../storage/jetstream-room.ts"
import { NatsConnection, type NatsOptions } from "../storage/nats-connection.ts"
import { layerObjectsDirectory } from "../storage/objects-directory.ts"
import type { Bus } from "./bus.ts"
import { type BusError } from "./bus.ts"
import { layer as busLocal } from "./bus-local.ts"
import { layer as busNats } from "./bus-nats.ts"
import { Catalog } from "./catalog.ts"
import { defaultSettings, Node, type NodeOptions } from "./node.ts"
import { VERSION } from "./version.ts"

export interface EmbeddedOptions extends NodeOptions {
  /** Everything is kept below it. */
  readonly directory: string
}

/** All ports of one process on its own directory: no server. */
export const embeddedLayer = (options: EmbeddedOptions) => {
  const store = Layer.mergeAll(logLocal(), metaLocal, leasesLocal).pipe(
    Layer.provide(LocalStore.layer({ directory: `${options.directory}/store` }))
  )
  return withCommon(Layer.mergeAll(busLocal, store, layerObjectsDirectory(`${options.directory}/objects`)), {
    ...options,
    cache: `${options.directory}/cache`
  })
}

export interface NatsNodeOptions extends NodeOptions {
  readonly nats: NatsOptions
  /** `dir:PATH` or `s3://BUCKET/PREFIX?endpoint=...`. */
  readonly objects: string
  /** For files of this process alone. */
  readonly cache: string
  readonly replicas?: number | undefined
  readonly channelBytesMax?: number | undefined
  /** It may become the coordinator, which makes the channels of a new cluster: then there must be room for them. */
  readonly makesChannels?: boolean
}

/** All ports of one process on a NATS server or cluster, and a store of objects. */
export const natsLayer = (options: NatsNodeOptions) => {
  const { cluster = "main", replicas = 1, channelBytesMax } = options
  const bucket = { cluster, replicas }
  const room = {
    ...bucket,
    channels: options.settings?.channels ?? defaultSettings.channels,
    channelBytesMax: channelBytesMax ?? limits.channelBytesMax
  }
  const begin = Effect.andThen(options.makesChannels === true ? checkRoom(room) : Effect.void, bootstrap(bucket))
  const store = Layer.mergeAll(
    busNats,
    logJetStream({ cluster, replicas, ...(channelBytesMax === undefined ? {} : { channelBytesMax }) }),
    metaJetStream(bucket),
    leasesJetStream(bucket)
  ).pipe(Layer.provide(Layer.effectDiscard(begin)), Layer.provideMerge(NatsConnection.layer(options.nats)))
  return withCommon(Layer.mergeAll(store, objectsAt(options.objects)), { ...options, cache: options.cache })
}

/** The store's adapter is loaded when it is known: the SDK of S3 takes as long to load as all the rest. */
const objectsAt = (url: string): Layer.Layer<Objects, StorageError> =>
  /^dir:./s.test(url)
    ? layerObjectsDirectory(url.slice("dir:".length))
    : Layer.unwrap(
        Effect.map(
          Effect.promise(() => import("../storage/objects-open.ts")),
          ({ openObjects }) => openObjects(url)
        )
      )

type StorePorts = Bus | Log | Meta | Leases | Objects
type Trouble = StorageError | BusError

/** What is the same wherever a process runs. */
const withCommon = <E extends Trouble>(
  ports: Layer.Layer<StorePorts, E>,
  options: NodeOptions & { readonly cache: string }
): Layer.Layer<StorePorts | Catalog | Node | Compute | VectorIndexes, Trouble> =>
  Catalog.layer.pipe(
    Layer.provideMerge(ports),
    Layer.provideMerge(
      Layer.mergeAll(
        Node.layer(VERSION, options),
        layerComputeWorker({ size: 1 }),
        layerHnsw({ directory: options.cache })
      )
    )
  )

/**
 * From a role's name to the actors that play it, and from a place to run in to the ports that they stand on. One of
 * the three places that know adapters; it decides nothing else.
 */
import { Effect, Layer, Random } from "effect"
import { coordinator } from "../actors/coordinator/coordinator.ts"
import { dataNode } from "../actors/data-node/data-node.ts"
import { proxy } from "../actors/proxy/proxy.ts"
import { queryNode } from "../actors/query-node/query-node.ts"
import { streamingNode } from "../actors/streaming-node/streaming-node.ts"
import type { Role } from "../protocols/metadata.ts"
import { CLIENT_SUBJECTS } from "../protocols/subjects.ts"
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
import { NatsConnection, type NatsOptions } from "../storage/nats-connection.ts"
import { layerObjectsDirectory } from "../storage/objects-directory.ts"
import type { Bus } from "./bus.ts"
import { type BusError } from "./bus.ts"
import { layer as busLocal } from "./bus-local.ts"
import { layer as busNats } from "./bus-nats.ts"
import { Catalog } from "./catalog.ts"
import { join } from "./membership.ts"
import { defaultSettings, Node, type Settings } from "./node.ts"
import { announce } from "./services.ts"

export const VERSION = "0.1.0"
export const allRoles: ReadonlyArray<Role> = ["coordinator", "streaming-node", "query-node", "data-node", "proxy"]

const descriptions: { readonly [R in Role]: string } = {
  proxy: "answers clients",
  coordinator: "decides, and gives out time",
  "streaming-node": "owns channels of the log",
  "query-node": "serves sealed segments",
  "data-node": "builds indexes"
}

/** Plays the roles in the present scope, until it closes. Returns when all of them answer. */
export const play = Effect.fnUntraced(function* (roles: ReadonlyArray<Role>) {
  const node = yield* Node
  const counts = new Map<Role, () => { requests: number; errors: number; lastError: string }>()
  const wants = (role: Role) => roles.includes(role)
  // Whoever is assigned something is there before whoever assigns; the door opens last.
  if (wants("query-node")) yield* queryNode
  if (wants("data-node")) yield* dataNode
  if (wants("streaming-node")) yield* streamingNode
  yield* join(roles)
  const health = wants("coordinator") ? yield* coordinator : undefined
  if (wants("proxy")) {
    const door = yield* proxy
    counts.set("proxy", () => door.counts)
  }
  for (const role of roles) {
    yield* announce({
      name: `elanus-${role}`,
      id: node.id,
      version: node.version,
      description: `Elanus ${role}: ${descriptions[role]}`,
      metadata: { cluster: node.cluster, node: node.id },
      endpoints: role === "proxy" ? [{ name: "requests", subject: CLIENT_SUBJECTS, queue_group: "elanus-proxy" }] : [],
      stats: () => {
        const now = counts.get(role)?.()
        return now === undefined ? {} : { requests: { ...now, handlingMs: 0 } }
      }
    })
  }
  return { health }
})

export interface NodeOptions {
  readonly cluster?: string | undefined
  readonly settings?: Partial<Settings> | undefined
}

const layerNode = ({ cluster = "main", settings }: NodeOptions): Layer.Layer<Node> =>
  Layer.effect(
    Node,
    Effect.map(Random.nextIntBetween(0, 0x7fff_ffff), (chance) =>
      Node.of({
        cluster,
        id: `n${chance.toString(36)}`,
        version: VERSION,
        settings: { ...defaultSettings, ...settings }
      })
    )
  )

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
}

/** All ports of one process on a NATS server or cluster, and a store of objects. */
export const natsLayer = (options: NatsNodeOptions) => {
  const { cluster = "main", replicas = 1, channelBytesMax } = options
  const bucket = { cluster, replicas }
  const store = Layer.mergeAll(
    busNats,
    logJetStream({ cluster, replicas, ...(channelBytesMax === undefined ? {} : { channelBytesMax }) }),
    metaJetStream(bucket),
    leasesJetStream(bucket)
  ).pipe(Layer.provide(Layer.effectDiscard(bootstrap(bucket))), Layer.provideMerge(NatsConnection.layer(options.nats)))
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
      Layer.mergeAll(layerNode(options), layerComputeWorker({ size: 1 }), layerHnsw({ directory: options.cache }))
    )
  )

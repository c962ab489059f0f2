/**
 * What a node knows of the cluster, from its watches: collections, manifests, placements, assignments, and from
 * the leases who owns each channel and who is alive. All of it may be behind: it says where to ask, not what is true.
 */
import { Context, Effect, Layer } from "effect"
import {
  type Assignment,
  type ChannelKey,
  type Collection,
  leaseKey,
  type Manifest,
  metadata,
  metaKey,
  MetadataUnreadable,
  type NodeLease,
  type Placement
} from "../protocols/metadata.ts"
import { utf8 } from "../protocols/wire.ts"
import { Leases } from "../storage/leases.ts"
import { type Entry, Meta } from "../storage/meta.ts"
import { StorageError } from "../storage/outcome.ts"
import { type Between, follow } from "../storage/watched.ts"
import { Sites, stall } from "./buggify.ts"
import { makeSignal, type Signal } from "./signal.ts"

/** A value as it came: decoded when somebody asks for it, which for most values of most nodes nobody does. */
class Kept<A> {
  private bytes: Uint8Array | undefined
  private decoded: A | undefined
  private readonly decode: (bytes: Uint8Array) => A

  /** Throws if it is of another format. */
  constructor(
    bytes: Uint8Array,
    { check, decode }: { readonly check: (bytes: Uint8Array) => void; readonly decode: (bytes: Uint8Array) => A }
  ) {
    check(bytes)
    this.bytes = bytes
    this.decode = decode
  }

  get value(): A {
    if (this.bytes !== undefined) {
      this.decoded = this.decode(this.bytes)
      this.bytes = undefined
    }
    return this.decoded!
  }
}

export interface ChannelOwner {
  readonly node: string
  readonly epoch: bigint
  readonly key: ChannelKey
  readonly revision: number
}

export class Catalog extends Context.Service<
  Catalog,
  {
    /** The metadata: all below but owners and nodes. */
    readonly changed: Signal
    /** Owners and nodes. Apart, for they change all the time, and most who wait have nothing to do with them. */
    readonly leased: Signal
    /** The newest metadata revision that is known here, with all below it. */
    readonly head: () => number
    /** Of the newest coordinator that is known here. */
    readonly epoch: () => number
    readonly collection: (id: string) => Collection | undefined
    /** The metadata revision of the collection; 0 if it is not known. */
    readonly schema: (id: string) => number
    readonly collectionNamed: (database: string, name: string) => Collection | undefined
    readonly collections: () => Iterable<Collection>
    /** Those that are being closed. */
    readonly closing: () => Iterable<Collection>
    readonly manifest: (collection: string, shard: number) => Manifest | undefined
    readonly placement: (collection: string, shard: number) => Placement | undefined
    readonly assignments: () => Iterable<Assignment>
    readonly owner: (channel: number) => ChannelOwner | undefined
    readonly nodes: () => Iterable<NodeLease>
    readonly node: (id: string) => NodeLease | undefined
    /** The node that has the coordinator's lease. */
    readonly coordinator: () => string | undefined
    /** Metadata of another format than this version reads, in words; this node must not act on it. */
    readonly unreadable: () => string | undefined
  }
>()("elanus/runtime/Catalog") {
  static readonly layer = Layer.effect(
    Catalog,
    Effect.gen(function* () {
      const meta = yield* Meta
      const leases = yield* Leases
      const sites = yield* Sites
      const changed = makeSignal()
      const leased = makeSignal()
      const collections = new Map<string, Collection>()
      const names = new Map<string, Collection>()
      const closing = new Map<string, Collection>()
      const manifests = new Map<string, Kept<Manifest>>()
      const placements = new Map<string, Kept<Placement>>()
      const assignments = new Map<string, Assignment>()
      const owners = new Map<number, ChannelOwner>()
      const nodes = new Map<string, NodeLease>()
      const schemas = new Map<string, number>()
      let head = 0
      let epoch = 0
      let coordinator: string | undefined
      let unreadable: string | undefined

      /** Puts a decoded value where it belongs, or takes it away. */
      const keep = <A>(
        map: Map<string, A>,
        key: string,
        entry: Entry | undefined,
        decode: (bytes: Uint8Array) => A
      ) => {
        if (entry === undefined) map.delete(key)
        else map.set(key, decode(entry.value))
      }
      const nameOf = (database: string, name: string) => `${database}/${name}`

      const apply = (key: string, entry: Entry | undefined) => {
        const [kind, ...rest] = key.split(".")
        const id = rest.join(".")
        switch (kind) {
          case "collection": {
            const before = collections.get(id)
            keep(collections, id, entry, metadata.collection.decode)
            if (entry === undefined) schemas.delete(id)
            else schemas.set(id, entry.revision)
            const now = collections.get(id)
            if (now?.state === "closing") closing.set(id, now)
            else closing.delete(id)
            if (now?.state === "ready") names.set(nameOf(now.spec.database, now.spec.name), now)
            else if (before !== undefined) {
              const name = nameOf(before.spec.database, before.spec.name)
              if (names.get(name)?.id === id) names.delete(name)
            }
            break
          }
          case "manifest":
            keep(manifests, id, entry, (bytes) => new Kept(bytes, metadata.manifest))
            break
          case "placement":
            keep(placements, id, entry, (bytes) => new Kept(bytes, metadata.placement))
            break
          case "assignment":
            keep(assignments, id, entry, metadata.assignment.decode)
            break
          case "channel": {
            const channel = Number(id)
            if (entry === undefined) owners.delete(channel)
            else {
              const value = metadata.channel.decode(entry.value)
              owners.set(channel, {
                node: value.node,
                epoch: value.epoch ?? BigInt(entry.revision),
                key: value,
                revision: entry.revision
              })
            }
            break
          }
          case "node":
            keep(nodes, id, entry, metadata.node.decode)
            break
          case leaseKey.coordinator:
            coordinator = entry === undefined ? undefined : utf8.decode(entry.value)
            break
        }
      }
      const isRenewal = ({ key, value }: Entry) =>
        key === leaseKey.coordinator
          ? utf8.decode(value) === coordinator
          : nodes.has(key.slice(leaseKey.node("").length)) && key.startsWith(leaseKey.node(""))
      const learn = (key: string, entry: Entry | undefined) => {
        try {
          apply(key, entry)
        } catch (cause) {
          if (!(cause instanceof MetadataUnreadable)) throw cause
          unreadable = cause.message
          changed.notify()
        }
      }

      const learnMetadata = (key: string, entry: Entry | undefined) => {
        // Every commit writes the key "commit", in the same batch and last: so nothing at or below its revision is missing.
        if (key === metaKey.commit && entry !== undefined && entry.revision > head) head = entry.revision
        if (key === metaKey.epoch && entry !== undefined && entry.revision > epoch) epoch = entry.revision
        learn(key, entry)
        // Who waits looks once for a commit, and not once for each of its keys.
        if (key === metaKey.commit || key === metaKey.epoch || entry === undefined) changed.notify()
      }
      const learnLease = (key: string, entry: Entry | undefined) => {
        // What a node says of itself stays as it is while it lives: most of what comes is a renewal, of which nobody need hear.
        if (entry !== undefined && isRenewal(entry)) return
        learn(key, entry)
        leased.notify()
      }
      // A picture can have the key "commit" before others, and of one that is made anew nobody else would hear.
      yield* Effect.all(
        [
          follow(() => meta.watch(""), learnMetadata, { between: disturbance(sites), caughtUp: changed.notify }),
          follow(() => leases.watch(""), learnLease, { between: disturbance(sites) })
        ],
        { concurrency: 2 }
      )

      return {
        changed,
        leased,
        head: () => head,
        epoch: () => epoch,
        collection: (id) => collections.get(id),
        schema: (id) => schemas.get(id) ?? 0,
        collectionNamed: (database, name) => names.get(nameOf(database, name)),
        collections: () => collections.values(),
        closing: () => closing.values(),
        manifest: (collection, shard) => manifests.get(`${collection}.${shard}`)?.value,
        placement: (collection, shard) => placements.get(`${collection}.${shard}`)?.value,
        assignments: () => assignments.values(),
        owner: (channel) => owners.get(channel),
        nodes: () => nodes.values(),
        node: (id) => nodes.get(id),
        coordinator: () => coordinator,
        unreadable: () => unreadable
      }
    })
  )
}

/** Of a watch that can fall behind: now and then some of its changes come late, and so all after them. */
const CHANGES = 16

/**
 * A watch may fall behind, and where it has told all that there is, or that a key went, it may break off. One that is made
 * anew may come late.
 */
const disturbance = (sites: Sites): Between => {
  let times = 0
  let left = CHANGES
  return {
    made: Effect.suspend(() => {
      left = CHANGES
      return times++ > 0 ? stall("a watch is made anew late", 10_000) : Effect.void
    }),
    told: (events) => {
      left -= events.length
      const isEnd = events.some(({ _tag }) => _tag !== "Put")
      if (left > 0 && !isEnd) return undefined
      const isLate = left <= 0 && sites.fires("a watch falls behind")
      if (left <= 0) left = CHANGES
      const wait = isLate ? Effect.sleep(sites.time(10_000)) : Effect.void
      return isEnd && sites.fires("a watch breaks off") ? Effect.andThen(wait, BROKEN_OFF) : wait
    }
  }
}

const BROKEN_OFF = Effect.fail(new StorageError({ reason: "unavailable", detail: "it broke off by itself" }))

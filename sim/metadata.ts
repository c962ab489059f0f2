/**
 * What the cluster decided in a run, and when: its metadata, the keys of its channels and its objects over time,
 * decoded once from what the stores accepted. A standing is all of that at one moment.
 */
import {
  type Assignment,
  type Attempt,
  type ChannelKey,
  type Collection,
  type Job,
  leaseKey,
  type Manifest,
  metadata,
  metaKey,
  type Oracle
} from "../protocols/metadata.ts"
import type { Fact, Moment } from "./ledger.ts"

/** A key of the metadata with what it says now; without a value it is gone. Keys that no check looks at are "other". */
export type Change =
  | { readonly kind: "collection"; readonly key: string; readonly value: Collection | undefined }
  | { readonly kind: "manifest"; readonly key: string; readonly value: Manifest | undefined }
  | { readonly kind: "assignment"; readonly key: string; readonly value: Assignment | undefined }
  | { readonly kind: "attempt"; readonly key: string; readonly value: Attempt | undefined }
  | { readonly kind: "job"; readonly key: string; readonly value: Job | undefined }
  | { readonly kind: "oracle"; readonly key: string; readonly value: Oracle | undefined }
  | {
      readonly kind: "commit"
      readonly key: string
      readonly value: { readonly epoch: number; readonly number: number } | undefined
    }
  | { readonly kind: "epoch"; readonly key: string }
  | { readonly kind: "other"; readonly key: string }

export type Step =
  | Exclude<Fact, { readonly _tag: "Committed" | "Leased" }>
  | {
      readonly _tag: "Decided"
      readonly moment: Moment
      readonly head: number
      readonly bytes: number
      readonly changes: ReadonlyArray<Change>
    }
  | {
      readonly _tag: "ChannelKey"
      readonly moment: Moment
      readonly channel: number
      readonly revision: number
      readonly value: ChannelKey
    }

const CHANNEL_KEY = leaseKey.channel(0).slice(0, -1)

const decoded = (key: string, bytes: Uint8Array | undefined): Change => {
  const read = <A>(codec: { readonly decode: (bytes: Uint8Array) => A }) =>
    bytes === undefined ? undefined : codec.decode(bytes)
  const kind = key.split(".", 1)[0]
  switch (kind) {
    case "collection":
      return { kind, key, value: read(metadata.collection) }
    case "manifest":
      return { kind, key, value: read(metadata.manifest) }
    case "assignment":
      return { kind, key, value: read(metadata.assignment) }
    case "attempt":
      return { kind, key, value: read(metadata.attempt) }
    case "job":
      return { kind, key, value: read(metadata.job) }
    case "oracle":
      return { kind, key, value: read(metadata.oracle) }
    case "commit":
      return { kind, key, value: read(metadata.commit) }
    case "epoch":
      return { kind, key }
    default:
      return { kind: "other", key }
  }
}

/** Undefined for what no check looks at. */
const decode = (fact: Fact): Step | undefined => {
  if (fact._tag === "Committed") {
    const { changes, head, moment } = fact
    const bytes = changes.reduce((sum, { key, value }) => sum + key.length + (value?.length ?? 0), 0)
    return { _tag: "Decided", moment, head, bytes, changes: changes.map(({ key, value }) => decoded(key, value)) }
  }
  if (fact._tag !== "Leased") return fact
  const { key, moment, revision, value } = fact
  if (!key.startsWith(CHANNEL_KEY) || value === undefined) return undefined
  const channel = Number(key.slice(CHANNEL_KEY.length))
  return { _tag: "ChannelKey", moment, channel, revision, value: metadata.channel.decode(value) }
}

/** What the facts of one run come to, as they come: each is decoded once, however often somebody looks. */
export class Steps {
  private readonly steps: Array<Step> = []
  private seen = 0

  of(facts: ReadonlyArray<Fact>): ReadonlyArray<Step> {
    for (; this.seen < facts.length; this.seen++) {
      const step = decode(facts[this.seen]!)
      if (step !== undefined) this.steps.push(step)
    }
    return this.steps
  }
}

/** Everything as it stands at one moment of a run. */
export class Standing {
  readonly collections = new Map<string, Collection>()
  readonly manifests = new Map<string, Manifest>()
  readonly attempts = new Map<string, Attempt>()
  readonly channels = new Map<number, { readonly key: ChannelKey; readonly revision: number }>()
  readonly objects = new Map<string, Uint8Array>()
  oracle: Oracle | undefined
  /** The revision of the newest key "epoch": who coordinates. */
  epoch = 0
  head = 0

  /** Goes on by one step. */
  apply(step: Step): void {
    switch (step._tag) {
      case "Decided":
        this.head = step.head
        for (const change of step.changes) this.change(change, step.head)
        return
      case "ChannelKey":
        this.channels.set(step.channel, { key: step.value, revision: step.revision })
        return
      case "Put":
        this.objects.set(step.key, step.data)
        return
      case "Removed":
        this.objects.delete(step.key)
        return
      default:
    }
  }

  manifest(collection: string, shard: number): Manifest | undefined {
    return this.manifests.get(metaKey.manifest(collection, shard))
  }

  /** The channel of a shard, as long as its collection is in the metadata. */
  channelOf(collection: string, shard: number): number | undefined {
    return this.collections.get(metaKey.collection(collection))?.channels[shard]
  }

  /** Whether its rows must be kept. */
  isReady(collection: string): boolean {
    return this.collections.get(metaKey.collection(collection))?.state === "ready"
  }

  private change(change: Change, head: number): void {
    const put = <A>(map: Map<string, A>, value: A | undefined) => {
      if (value === undefined) map.delete(change.key)
      else map.set(change.key, value)
    }
    switch (change.kind) {
      case "collection":
        return put(this.collections, change.value)
      case "manifest":
        return put(this.manifests, change.value)
      case "attempt":
        return put(this.attempts, change.value)
      case "oracle":
        this.oracle = change.value
        return
      case "epoch":
        this.epoch = head
        return
      default:
    }
  }
}

/** One collection from its making to its end. */
export interface Life {
  readonly id: string
  readonly name: string
  readonly request: string
  readonly spec: Collection["spec"]
  readonly channels: Collection["channels"]
  readonly created: Moment
  /** When it was made: until then nobody finds it. */
  ready: Moment | undefined
  /** When it was to be dropped: no owner takes writes any more as soon as each has heard of it. */
  closing: Moment | undefined
  /** When it was given up: from then on it is nobody's. */
  dropped: Moment | undefined
  /** When nothing of it was left. */
  gone: Moment | undefined
}

export const livesOf = (steps: ReadonlyArray<Step>): ReadonlyArray<Life> => {
  const lives = new Map<string, Life>()
  for (const step of steps) {
    if (step._tag !== "Decided") continue
    for (const change of step.changes) {
      if (change.kind !== "collection") continue
      let known = lives.get(change.key)
      const { value } = change
      if (value === undefined || value.state === "dropping" || value.state === "dropped") {
        if (known === undefined) continue
        known.dropped ??= step.moment
        if (value?.state !== "dropping") known.gone ??= step.moment
        continue
      }
      if (known === undefined) {
        const { channels, id, request, spec } = value
        known = {
          id,
          name: spec.name,
          request,
          spec,
          channels,
          created: step.moment,
          ready: undefined,
          closing: undefined,
          dropped: undefined,
          gone: undefined
        }
        lives.set(change.key, known)
      }
      if (value.state === "ready") known.ready ??= step.moment
      if (value.state === "closing") known.closing ??= step.moment
    }
  }
  return [...lives.values()]
}

/** Channels that lost something, or of which something rotted, and when first. */
export const brokenBy = (facts: ReadonlyArray<Fact>): ReadonlyMap<number, Moment> => {
  const broken = new Map<number, Moment>()
  for (const fact of facts) {
    if ((fact._tag === "Lost" || fact._tag === "Rotten") && !broken.has(fact.channel))
      broken.set(fact.channel, fact.moment)
  }
  return broken
}

/** When objects of a collection, by its id, became something else where they lie, in order. */
export const damagesOf = (facts: ReadonlyArray<Fact>): ReadonlyMap<string, ReadonlyArray<Moment>> => {
  const damages = new Map<string, Array<Moment>>()
  for (const fact of facts) {
    if (fact._tag !== "Damaged") continue
    // Their keys are "<kind>/<collection>/…".
    const id = fact.what.split("/")[1]!
    const known = damages.get(id)
    if (known === undefined) damages.set(id, [fact.moment])
    else known.push(fact.moment)
  }
  return damages
}

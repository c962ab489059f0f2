/** The process that an actor lives in: its name in the cluster, and the settings that an operator may change. */
import { Context, Effect, Layer, Random } from "effect"
import { limits } from "../protocols/limits.ts"

/** What may be set from outside; each begins as the limit of the same meaning. */
export interface Settings {
  /** Of a new cluster; one that is there keeps those that it has. */
  readonly channels: number
  /** A growing segment seals at this many bytes of vectors. */
  readonly segmentBytesMax: number
  readonly segmentAgeMaxMs: number
  readonly indexRowsMin: number
  readonly leaseTtlMs: number
  readonly evidenceMs: number
  /** Most bytes of segments that a query node loads. */
  readonly loadedBytesMax: number
  /** Most bytes of rows that a streaming node holds which no query node serves yet. */
  readonly growingBytesMax: number
}

export const defaultSettings: Settings = {
  channels: limits.channels,
  segmentBytesMax: limits.segmentBytesMax,
  segmentAgeMaxMs: limits.segmentAgeMaxMs,
  indexRowsMin: limits.indexRowsMin,
  leaseTtlMs: limits.leaseTtlMs,
  evidenceMs: limits.evidenceMs,
  loadedBytesMax: limits.loadedBytesMax,
  growingBytesMax: limits.growingBytesMax
}

export interface NodeOptions {
  /** "main" if absent. */
  readonly cluster?: string | undefined
  readonly settings?: Partial<Settings> | undefined
}

export class Node extends Context.Service<
  Node,
  {
    readonly cluster: string
    /** Of this start of the process: a restarted one has another. */
    readonly id: string
    readonly version: string
    readonly settings: Settings
  }
>()("elanus/runtime/Node") {
  /** A process that begins now. */
  static readonly layer = (version: string, { cluster = "main", settings }: NodeOptions): Layer.Layer<Node> =>
    Layer.effect(
      Node,
      Effect.map(Random.nextIntBetween(0, 0x7fff_ffff), (chance) =>
        Node.of({
          cluster,
          id: `n${chance.toString(36)}`,
          version,
          settings: { ...defaultSettings, ...settings }
        })
      )
    )
}

/**
 * A vector index over the rows of one segment, numbered as they lie in it. It answers with ranks (distance.ts),
 * smallest first, and knows no keys and no timestamps. Searches run where they are called, without a pause.
 */
import { Context, type Effect } from "effect"
import type { Allowed } from "./distance.ts"
import type { StorageError } from "./outcome.ts"
import type { Hits } from "./top-k.ts"

export interface VectorIndex {
  /** Rows, hidden ones included. */
  readonly count: number
  readonly dimension: number

  /**
   * At most `k` rows, ascending by (rank, row). `ef`: how many candidates an approximate index keeps (at least `k` is
   * taken); an exact one ignores it. Fewer than `k` come back if there are fewer or the graph does not reach them.
   */
  readonly search: (query: Float32Array, k: number, ef: number, allowed?: Allowed) => Hits

  /** The row is never an answer again. Doing it twice is doing it once. */
  readonly hide: (row: number) => void

  /** Gives its memory back. It must not be asked afterwards. */
  readonly dispose: () => void
}

export class VectorIndexes extends Context.Service<
  VectorIndexes,
  {
    /**
     * An index from the bytes of an index object: "damaged" if they are not that, "unfit" if they are of a newer version.
     * With the segment's `vectors`, ranks are worked out from them, so that they equal those of a scan to the last bit;
     * without, they are the index's own (float32; for IP and COSINE exact to about 1e-7 of 1).
     */
    readonly load: (bytes: Uint8Array, vectors?: Float32Array) => Effect.Effect<VectorIndex, StorageError>
  }
>()("elanus/storage/VectorIndexes") {}

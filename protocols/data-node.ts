/** What a data node does when the coordinator asks. It answers at once, and commits at the coordinator when it is done. */
import { Schema } from "effect"
import { Metric, Segment } from "./metadata.ts"
import { call, protocol } from "./protocol.ts"

export const BuildIndex = Schema.Struct({
  job: Schema.String,
  attempt: Schema.String,
  collection: Schema.String,
  shard: Schema.Int,
  segment: Segment,
  metric: Metric,
  m: Schema.Int,
  efConstruction: Schema.Int
})
export type BuildIndex = typeof BuildIndex.Type

export const DataNodeProtocol = protocol("data-node", {
  /** Takes the job, or is already at it: asking again is how the coordinator sees that the node still works. */
  Build: call(
    BuildIndex,
    Schema.Struct({
      state: Schema.Literals(["working", "failed"]),
      detail: Schema.String,
      /** Of one that failed: what it needs was away, and another try may end otherwise. */
      retry: Schema.Boolean
    })
  )
})

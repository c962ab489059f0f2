/** A collection as the metadata has it, for tests that need one and do not care what it is like. */
import type { Collection, CollectionSpec } from "../../protocols/metadata.ts"

export const specOf = (given: Partial<CollectionSpec> = {}): CollectionSpec => ({
  database: "default",
  name: "books",
  description: "",
  keyField: "id",
  keyType: "Int64",
  keyLengthMax: 100,
  vectorField: "vector",
  dimension: 2,
  metric: "L2",
  shards: 1,
  index: { m: 16, efConstruction: 200 },
  ...given
})

export const collectionOf = (id: string, given: Partial<Collection> = {}): Collection => ({
  id,
  spec: specOf(),
  channels: [0],
  created: 1n,
  request: "",
  state: "ready",
  ...given
})

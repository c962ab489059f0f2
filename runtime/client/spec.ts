/** What one must know of a collection to lay its rows out, as the collection's own description says it. */
import type { KeyType } from "../../protocols/keys.ts"
import type { CollectionSpec } from "../../protocols/metadata.ts"

export type Spec = Pick<CollectionSpec, "dimension" | "keyField" | "keyType" | "vectorField">

export const specOf = (description: unknown): Spec => {
  const { fields } = description as {
    readonly fields: ReadonlyArray<{
      readonly name: string
      readonly type: string
      readonly primaryKey?: boolean
      readonly params?: { readonly dim: number }
    }>
  }
  const key = fields.find(({ primaryKey }) => primaryKey === true)!
  const vector = fields.find(({ type }) => type === "FloatVector")!
  return {
    keyField: key.name,
    keyType: key.type as KeyType,
    vectorField: vector.name,
    dimension: vector.params!.dim
  }
}

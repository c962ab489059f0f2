/** How a collection's rows look, as its own description says it. */
import type { KeyType } from "../../protocols/keys.ts"
import type { RowSpec } from "../../protocols/row-objects.ts"

export const specOf = (description: unknown): RowSpec => {
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

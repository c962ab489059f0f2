/** How a collection's rows look, as its own description says it. */
import type { KeyType } from "../../protocols/keys.ts"
import type { RowSpec } from "../../protocols/row-objects.ts"
import { parseTimestamp, type Timestamp } from "../../protocols/timestamp.ts"

export interface Spec extends RowSpec {
  /** When it was made. */
  readonly created: Timestamp
}

export const specOf = (description: unknown): Spec => {
  const { createdTimestamp, fields } = description as {
    readonly createdTimestamp: string
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
    dimension: vector.params!.dim,
    created: parseTimestamp(createdTimestamp) ?? 0n
  }
}

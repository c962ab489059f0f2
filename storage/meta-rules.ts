/** What every adapter of `Meta` and `Leases` must judge alike, whatever it is made of. Pure. */
import { limits } from "../protocols/limits.ts"
import type { Change } from "./meta.ts"
import { type Outcome, refused } from "./outcome.ts"

const encoder = new TextEncoder()

/** A key is below a prefix if it goes on behind all of its tokens: `a.b` and `a.b.c` are below `a`; `a` and `ab` are not. */
export const isBelow = (prefix: string, key: string): boolean => prefix === "" || key.startsWith(`${prefix}.`)

/** Why this cannot be a key; nothing if it can. */
export const faultOfKey = (key: string): string | undefined => {
  if (key === "") return "a key must not be empty"
  if (/\p{Surrogate}/u.test(key)) return "a key must be well-formed Unicode"
  if (key.length > limits.metaKeyBytesMax || encoder.encode(key).length > limits.metaKeyBytesMax) {
    return `a key must have at most ${limits.metaKeyBytesMax} bytes`
  }
  return undefined
}

/** The refusal of changes that can never be committed as they are. */
export const refusalOfChanges = (changes: ReadonlyArray<Change>): Outcome<never> | undefined => {
  if (changes.length === 0) return refused("invalid", "there is nothing to commit")
  if (changes.length > limits.commitKeysMax) {
    return refused("invalid", `${changes.length} keys, and a commit takes ${limits.commitKeysMax}`)
  }
  let bytes = 0
  const keys = new Set<string>()
  for (const { key, value } of changes) {
    const fault = faultOfKey(key)
    if (fault !== undefined) return refused("invalid", fault)
    keys.add(key)
    bytes += encoder.encode(key).length + (value?.length ?? 0)
  }
  if (keys.size < changes.length) return refused("invalid", "a key is changed twice")
  return bytes > limits.commitBytesMax
    ? refused("invalid", `${bytes} bytes, and a commit takes ${limits.commitBytesMax}`)
    : undefined
}

/** The refusal of a lease that can never be written as it is. */
export const refusalOfLease = (key: string, ttlMs: number | undefined): Outcome<never> | undefined => {
  const fault = faultOfKey(key)
  if (fault !== undefined) return refused("invalid", fault)
  return ttlMs !== undefined && (ttlMs < 1_000 || ttlMs % 1_000 !== 0)
    ? refused("invalid", `a time to live is whole seconds, at least one, and not ${ttlMs} ms`)
    : undefined
}

/**
 * Whether the cluster has given a time out (protocols/README.md, 3.3). That it has, any oracle can show; that it has not,
 * only one that was not deposed: so whoever says no has asked for a grant that is proven.
 */
import { Clock, Effect } from "effect"
import type { Grant, GrantKind } from "../../protocols/coordinator.ts"
import type { ElanusError } from "../../protocols/errors.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import { sharedCall } from "../shared-call.ts"
import type { Stamps } from "./stamps.ts"

export type IsGivenOut = (stamps: Stamps, at: Timestamp) => Effect.Effect<boolean, ElanusError>

/** All who wait for a grant share it. */
export const makeIsGivenOut = (grant: (kind: GrantKind, count: number) => Effect.Effect<Grant, ElanusError>) => {
  const newest = (["reader", "proven"] as const).map((kind) => sharedCall(grant(kind, 1)))
  const isGivenOut: IsGivenOut = Effect.fnUntraced(function* (stamps, at) {
    for (const asked of newest) {
      if (at > stamps.seen) stamps.learn(yield* asked, yield* Clock.currentTimeMillis)
    }
    return at <= stamps.seen
  })
  return isGivenOut
}

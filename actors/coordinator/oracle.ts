/**
 * The timestamp oracle of one term. Nothing at or above the persisted bound is ever handed out, so the next term,
 * which begins there, is above all of this one, whatever any clock says.
 */
import { Clock, Effect } from "effect"
import type { Grant, GrantKind } from "../../protocols/coordinator.ts"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { metaKey } from "../../protocols/metadata.ts"
import { COUNTER_BITS, fromMillis, later, type Timestamp } from "../../protocols/timestamp.ts"
import { buggify } from "../../runtime/buggify.ts"
import { makeSignal } from "../../runtime/signal.ts"
import type { Truth } from "./truth.ts"

const AHEAD = BigInt(limits.oracleAheadMs) << COUNTER_BITS
/** Values that a single grant may hold. */
const GRANT_MAX = 1 << 18
const EXTEND_AGAIN_MS = 100

export interface Oracle {
  readonly grant: (kind: GrantKind, count: number) => Effect.Effect<Grant, ElanusError>
  /** Keeps the bound ahead of what is handed out; runs for as long as the term lasts. */
  readonly keepAhead: Effect.Effect<never>
}

export const makeOracle = Effect.fnUntraced(function* (truth: Truth): Effect.fn.Return<Oracle, ElanusError> {
  const before = truth.get("oracle", metaKey.oracle)
  const floor = before?.bound ?? 0n
  const clock = yield* Clock.Clock
  const wanted = makeSignal()
  let bound: Timestamp = floor
  let next: Timestamp = floor

  const physical = () => fromMillis(clock.currentTimeMillisUnsafe())
  const extend = Effect.gen(function* () {
    const isShort = yield* buggify("a window of one timestamp")
    const to = later(next, physical()) + AHEAD
    // Never back: until it is committed, timestamps are given out below the bound of before.
    const limit = later(bound, isShort ? next + 1n : to)
    yield* truth.commit((draft) => draft.put("oracle", metaKey.oracle, { bound: limit, floor }))
    bound = limit
    wanted.notify()
  })
  yield* extend

  return {
    grant: (kind, count) =>
      Effect.gen(function* () {
        if (!Number.isInteger(count) || count < 1 || count > GRANT_MAX) {
          return yield* failure("bad-request", `a grant of ${count} timestamps`)
        }
        // Who was deposed cannot commit, and so nobody has given out more by now.
        if (kind === "proven") yield* truth.commit(() => {})
        const isWriter = kind === "writer"
        const taken = isWriter ? BigInt(count) : BigInt(limits.readerGap) + 1n
        next = later(next, physical())
        while (next + taken >= bound) {
          wanted.notify()
          const extended = yield* wanted.within(limits.oracleExtendTimeoutMs, () => next + taken < bound)
          if (!extended) return yield* failure("unavailable", "the oracle cannot persist its bound")
        }
        const first = next
        next += taken
        return { first, last: isWriter ? next - 1n : first, floor }
      }),
    keepAhead: Effect.gen(function* () {
      while (true) {
        // Half of it is left: time enough for an election of the metadata.
        if (later(next, physical()) + AHEAD / 2n >= bound) {
          // Refused at once, as a deposed coordinator is: without a pause nobody else would have a turn, to end this.
          yield* Effect.catch(extend, () => Effect.sleep(EXTEND_AGAIN_MS))
        }
        yield* wanted.within(limits.oracleAheadMs / 8, () => next + AHEAD / 4n >= bound)
      }
    })
  }
})

/**
 * Asking the coordinator, whoever that is at the time: while one is deposed, the next one not yet active, or an answer
 * lost, the question is asked again. So what is asked must be harmless to ask twice, as every call there is.
 */
import { Clock, Effect } from "effect"
import { CoordinatorProtocol } from "../protocols/coordinator.ts"
import { afterTries, type ElanusError, type ErrorCode } from "../protocols/errors.ts"
import { limits } from "../protocols/limits.ts"
import type { PayloadOf, SuccessOf } from "../protocols/protocol.ts"
import { remote } from "../runtime/remote.ts"
import { COORDINATOR } from "./addresses.ts"

type Calls = typeof CoordinatorProtocol.calls

export interface Coordinator {
  readonly call: <K extends keyof Calls>(
    name: K,
    payload: PayloadOf<Calls[K]>,
    timeoutMs: number
  ) => Effect.Effect<SuccessOf<Calls[K]>, ElanusError>
}

const AGAIN: ReadonlySet<ErrorCode> = new Set(["unavailable", "disconnected", "ambiguous", "deposed"])
const WAIT_FIRST_MS = 10
const WAIT_MAX_MS = 250

export const makeCoordinator = Effect.gen(function* () {
  const coordinators = yield* remote(CoordinatorProtocol)
  const coordinator: Coordinator = {
    call: Effect.fnUntraced(function* (name, payload, timeoutMs) {
      const deadline = (yield* Clock.currentTimeMillis) + timeoutMs
      let left = timeoutMs
      let waitMs = WAIT_FIRST_MS
      let unknown: ElanusError | undefined
      const isWrite = name === "CreateCollection" || name === "DropCollection"
      while (true) {
        const answer = yield* Effect.result(
          coordinators.call(COORDINATOR, name, payload, Math.min(left, limits.coordinatorTryTimeoutMs))
        )
        if (answer._tag === "Success") return answer.success
        if (answer.failure.code === "ambiguous") unknown ??= answer.failure
        left = AGAIN.has(answer.failure.code) ? deadline - (yield* Clock.currentTimeMillis) - waitMs : 0
        if (left <= 0) return yield* isWrite ? afterTries(answer.failure, unknown, true) : answer.failure
        yield* Effect.sleep(waitMs)
        waitMs = Math.min(waitMs * 2, WAIT_MAX_MS)
      }
    })
  }
  return coordinator
})

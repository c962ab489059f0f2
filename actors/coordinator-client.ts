/**
 * Asking the coordinator, whoever that is at the time: while one is deposed, the next one not yet active, or an answer
 * lost, the question is asked again. So what is asked must be harmless to ask twice, as every call there is.
 */
import { Clock, Effect } from "effect"
import { CoordinatorProtocol } from "../protocols/coordinator.ts"
import { afterTries, type ElanusError, type ErrorCode, failure } from "../protocols/errors.ts"
import { limits } from "../protocols/limits.ts"
import type { PayloadOf, SuccessOf } from "../protocols/protocol.ts"
import { buggify } from "../runtime/buggify.ts"
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
/** Whether what was asked may have been done, or be done yet. */
export const leavesOpen = ({ code }: ElanusError): boolean => AGAIN.has(code)
const WAIT_FIRST_MS = 10
const WAIT_MAX_MS = 1_000

export const makeCoordinator = Effect.gen(function* () {
  const coordinators = yield* remote(CoordinatorProtocol)
  const clock = yield* Clock.Clock
  /** By a clock that nobody sets back. */
  const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
  const coordinator: Coordinator = {
    call: Effect.fnUntraced(function* (name, payload, timeoutMs) {
      const deadline = now() + timeoutMs
      let left = timeoutMs
      let waitMs = WAIT_FIRST_MS
      let unknown: ElanusError | undefined
      const isWrite = name === "CreateCollection" || name === "DropCollection"
      while (true) {
        const asking = coordinators.call(COORDINATOR, name, payload, Math.min(left, limits.coordinatorTryTimeoutMs))
        const answer = yield* Effect.result(asking)
        if (answer._tag === "Success") {
          // Not before: of a copy that is carried out while this one is refused, nobody would know.
          if (yield* buggify("a coordinator is asked twice")) yield* Effect.forkDetach(Effect.ignore(asking))
          return answer.success
        }
        const { code, reason } = answer.failure
        // While there are two, both are asked: who was deposed says nothing of what the other one does.
        if (code === "ambiguous" || code === "deposed") unknown ??= answer.failure
        left = AGAIN.has(code) ? deadline - now() - waitMs : 0
        if (left <= 0) {
          // That one coordinator was deposed, and none came in time, is to who asks that there is none.
          const last = code === "deposed" ? failure("unavailable", reason) : answer.failure
          return yield* isWrite ? afterTries(last, unknown, true) : last
        }
        yield* Effect.sleep(waitMs)
        waitMs = Math.min(waitMs * 2, WAIT_MAX_MS)
      }
    })
  }
  return coordinator
})

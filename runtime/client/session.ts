/**
 * What a client has been told of time. Rows that it read or wrote move its session on, so that no later read is before
 * them; any answer at all dates what it asks, so that the cluster knows whether it would still remember it.
 */
import { formatRequestId } from "../../protocols/client.ts"
import { limits } from "../../protocols/limits.ts"
import { later, type Timestamp } from "../../protocols/timestamp.ts"

export interface Session {
  /** The newest timestamp at which rows were read or written: where the session is. */
  readonly token: () => Timestamp
  /** Of an answer with rows. */
  readonly saw: (timestamp: Timestamp) => void
  /** Of an answer without any. */
  readonly learn: (timestamp: Timestamp) => void
  /** Whether a request that is made now can be dated. */
  readonly isDated: () => boolean
  /** What dated a request was too old, whatever our clock says of it. */
  readonly outdate: () => void
  /** Names a request: by the newest answer, and by chance. */
  readonly requestId: () => string
}

export const makeSession = (): Session => {
  let token: Timestamp = 0n
  /** The newest of any answer, and when it came. */
  let newest: Timestamp = 0n
  let newestAt = -Infinity
  const learn = (timestamp: Timestamp): void => {
    if (timestamp <= newest) return
    newest = timestamp
    newestAt = performance.now()
  }
  return {
    token: () => token,
    saw: (timestamp) => {
      token = later(token, timestamp)
      learn(timestamp)
    },
    learn,
    isDated: () => performance.now() - newestAt <= limits.requestDateAgeMs,
    outdate: () => {
      newestAt = -Infinity
    },
    requestId: () => {
      const random = crypto.getRandomValues(new BigUint64Array(1))
      return formatRequestId({ issued: newest, unique: random[0]! })
    }
  }
}

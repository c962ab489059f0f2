/**
 * What a client has been told of time. Rows that it read or wrote move its session on, so that no later read is before
 * them; any answer at all dates what it asks, so that the cluster knows whether it would still remember it.
 */
import { limits } from "../../protocols/limits.ts"
import type { RequestId } from "../../protocols/record.ts"
import { later, type Timestamp } from "../../protocols/timestamp.ts"

export interface Session {
  /** The newest timestamp at which rows were read or written: where the session is. */
  readonly token: () => Timestamp
  /** Of an answer with rows. */
  readonly saw: (timestamp: Timestamp) => void
  /** Of an answer without any. */
  readonly learn: (timestamp: Timestamp) => void
  /** Whether a request that is made now can be dated; by an answer that is not from before `since`, if that is given. */
  readonly isDated: (since?: Timestamp) => boolean
  /** What dated a request was too old, whatever our clock says of it. */
  readonly outdate: () => void
  /** Names a request: by the newest answer, if that can date it, and by chance. */
  readonly requestId: () => RequestId
}

/** Milliseconds of a clock that never goes back, and 64 bits of chance. */
export interface SessionSources {
  readonly now: () => number
  readonly unique: () => bigint
}

const ofThisProcess: SessionSources = {
  now: () => performance.now(),
  unique: () => crypto.getRandomValues(new BigUint64Array(1))[0]!
}

export const makeSession = ({ now, unique }: SessionSources = ofThisProcess): Session => {
  let token: Timestamp = 0n
  /** The newest of any answer, and when it came. */
  let newest: Timestamp = 0n
  let newestAt = -Infinity
  const learn = (timestamp: Timestamp): void => {
    if (timestamp <= newest) return
    newest = timestamp
    newestAt = now()
  }
  const isDated = (since: Timestamp = 0n) => newest >= since && now() - newestAt <= limits.requestDateAgeMs
  return {
    token: () => token,
    saw: (timestamp) => {
      token = later(token, timestamp)
      learn(timestamp)
    },
    learn,
    isDated,
    outdate: () => {
      newestAt = -Infinity
    },
    requestId: () => ({ issued: isDated() ? newest : 0n, unique: unique() })
  }
}

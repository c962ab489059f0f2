/**
 * Everything that can go wrong between a client and an answer, in one table: whose fault it is, whether a retry
 * helps, and the status that a NATS service or an HTTP door gives for it.
 */
import { Schema } from "effect"

interface Kind {
  /** As HTTP would say it; also `Nats-Service-Error-Code`. */
  readonly status: number
  /** `caller`: the request is wrong. `cluster`: it could not be served now. `operator`: somebody must look. */
  readonly fault: "caller" | "cluster" | "operator"
  /** Whether the very same request (with the same request id) may work later. */
  readonly retry: boolean
}

const caller = (status: number): Kind => ({ status, fault: "caller", retry: false })
const cluster = (status: number): Kind => ({ status, fault: "cluster", retry: true })
const operator = (status: number): Kind => ({ status, fault: "operator", retry: false })

export const errorKinds = {
  /** The body is not what the verb takes. */
  "bad-request": caller(400),
  /** A vector of another length than the collection's. */
  "wrong-dimension": caller(400),
  /** NaN, an infinity, or not a number at all. */
  "bad-vector": caller(400),
  /** A primary key that is missing, of the wrong type or out of range. */
  "bad-key": caller(400),
  /** A name with characters that it may not have, or too long. */
  "bad-name": caller(400),
  "collection-not-found": caller(404),
  "field-not-found": caller(404),
  "collection-exists": caller(409),
  /** The message, a row or an answer is larger than a limit. */
  "too-large": caller(413),
  /** The verb or option exists in the interface and not yet in this version. */
  "not-supported": caller(501),
  /** A timestamp that the cluster has not given out, or one below the horizon. */
  "bad-timestamp": caller(400),
  /** The request id is older than the cluster remembers: whether it was applied before cannot be told. */
  "outcome-unknown": { status: 409, fault: "cluster", retry: false },
  /** Its write may or may not have happened. The same request with the same request id settles it. */
  ambiguous: cluster(504),
  /** Nobody who could answer is there, within the deadline. */
  unavailable: cluster(503),
  /** This process has no connection; nothing was sent. */
  disconnected: cluster(503),
  /** The deadline of a read passed. */
  timeout: cluster(504),
  /** A queue, a memory budget or the log is at its limit. Nothing was stored. */
  overloaded: cluster(429),
  /** Another node owns the channel now, or this one does in another epoch. Internal: proxies follow it. */
  moved: cluster(503),
  /** A query node does not hold what it was asked for. Internal: the owner sends it again. */
  "not-here": cluster(503),
  /** This coordinator is not active any more; nothing of it was done. Internal: whoever asked asks the next one. */
  deposed: cluster(503),
  /** An order of a coordinator, an owner or an attempt that is no longer the one. Internal. */
  stale: cluster(409),
  /** Stored data is not what was written. The part concerned stops until somebody has looked. */
  damaged: operator(500),
  /** A server, a bucket or a directory that we cannot work with: too old, missing, read-only, of a newer format. */
  unfit: operator(500),
  /** A bug of ours. */
  internal: operator(500)
} as const satisfies { readonly [code: string]: Kind }

export type ErrorCode = keyof typeof errorKinds

export class ElanusError extends Schema.TaggedError<ElanusError>()("ElanusError", {
  code: Schema.Literals(Object.keys(errorKinds) as [ErrorCode, ...Array<ErrorCode>]),
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
  get status() {
    return errorKinds[this.code].status
  }
  get fault() {
    return errorKinds[this.code].fault
  }
  get retry() {
    return errorKinds[this.code].retry
  }
}

export const failure = (code: ErrorCode, reason: string) => new ElanusError({ code, reason })

/**
 * What a request ends in that was tried several times: `last` is what became of the last try, `unknown` an earlier one
 * (or the last) of which nobody knows. A write that may have been done is ambiguous, whatever was said of it later.
 */
export const afterTries = (last: ElanusError, unknown: ElanusError | undefined, isWrite: boolean): ElanusError => {
  if (isWrite) {
    const settled = unknown === undefined || last.code === "ambiguous" || last.code === "outcome-unknown"
    return settled ? last : failure("ambiguous", `${unknown.reason}; then ${last.reason}`)
  }
  return last.code === "ambiguous" ? failure("timeout", last.reason) : last
}

/**
 * What a write ends in that went in several parts, of which these failed: where a part of it is stored, or may be, it was
 * not refused, whatever a part said. Asked again it is completed, unless one of them can never be.
 */
export const afterParts = (failed: ReadonlyArray<ElanusError>, isPartStored: boolean): ElanusError => {
  const first = (wanted: ErrorCode) => failed.find(({ code }) => code === wanted)
  const worst = first("ambiguous") ?? first("outcome-unknown") ?? failed[0]!
  const code = !isPartStored ? worst.code : worst.retry ? "ambiguous" : "outcome-unknown"
  return failure(code, [...new Set(failed.map(({ reason }) => reason))].join("; "))
}

/** The body of an error as every door shows it. */
export const errorBody = (error: ElanusError) => ({
  error: { code: error.code, reason: error.reason, fault: error.fault, retry: error.retry }
})

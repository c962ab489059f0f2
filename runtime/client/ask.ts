/**
 * Asking until there is an answer. What is sent may be sent again: reads, and writes with an id. What fails for good,
 * or until the deadline, throws an ElanusError.
 */
import { headers as headerNames } from "../../protocols/client.ts"
import { afterTries, ElanusError, type ErrorCode, errorKinds, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { isWriting } from "../../protocols/subjects.ts"
import { utf8 } from "../../protocols/wire.ts"
import type { Headers, Reply } from "../bus.ts"
import { makeBreathing } from "./breathing.ts"

/** Sends once. Its answer is there at once if nothing had to be waited for, as embedded. */
export type Send = (subject: string, data: Uint8Array, headers: Headers, timeoutMs: number) => Reply | Promise<Reply>

/** Sends until an answer, a lasting error, or the deadline: `timeoutMs` from now, 10,000 if undefined. */
export type Ask = (
  subject: string,
  data: Uint8Array,
  headers: Headers,
  timeoutMs: number | undefined
) => Reply | Promise<Reply>

/** A try may take this much longer than its proxy was told: the proxy knows better what it waited for in vain. */
export const SAY_SO_MS = 250
export const RETRY_FIRST_MS = 20
export const RETRY_MAX_MS = 500

/** How long the next question may take, milliseconds. */
export type Patience = () => number

/**
 * For several questions, one after the other, with one deadline: the first may take all of the time, and each other one what
 * is left, at least 1 ms less than all.
 */
export const patience = (timeoutMs: number, now: () => number): Patience => {
  const begun = now()
  let isFirst = true
  return () => {
    if (!isFirst) return Math.max(1, Math.min(timeoutMs - 1, Math.floor(timeoutMs - (now() - begun))))
    isFirst = false
    return timeoutMs
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export const makeAsk = (send: Send): Ask => {
  const breathe = makeBreathing()

  const askAgain = async (
    subject: string,
    data: Uint8Array,
    headers: Headers,
    timeoutMs: number,
    first?: Reply | Promise<Reply>,
    pause?: Promise<void>
  ): Promise<Reply> => {
    if (!(timeoutMs >= 1 && timeoutMs <= limits.requestTimeoutMaxMs)) {
      throw failure("bad-request", `timeoutMs is from 1 to ${limits.requestTimeoutMaxMs}, not ${timeoutMs}`)
    }
    const deadline = performance.now() + timeoutMs
    let unknown: ElanusError | undefined
    let sent = first
    if (pause !== undefined) await pause
    let left = timeoutMs
    let waitMs = RETRY_FIRST_MS
    while (true) {
      let error: ElanusError
      try {
        // Reads may take longer than writes; and if one got lost, with the proxy that had it, not the next one of all that is left.
        const usualMs = isWriting(subject) ? limits.tryTimeoutMs : Math.max(limits.tryTimeoutMs, left / 2)
        const tryMs = Math.min(left, usualMs)
        const timed = { ...headers, [headerNames.timeout]: String(Math.ceil(tryMs)) }
        const asked = sent ?? send(subject, data, timed, tryMs)
        sent = undefined
        const reply = await asked
        const failed = errorOf(reply)
        if (failed === undefined) return reply
        error = failed
      } catch (cause) {
        if (!(cause instanceof ElanusError)) throw cause
        error = cause
      }
      if (error.code === "ambiguous") unknown ??= error
      left = error.retry ? deadline - performance.now() - waitMs : 0
      if (left <= 0) throw afterTries(error, unknown, isWriting(subject))
      await sleep(waitMs)
      waitMs = Math.min(waitMs * 2, RETRY_MAX_MS)
    }
  }

  return (subject, data, headers, timeoutMs = limits.requestTimeoutMs) => {
    if (timeoutMs !== limits.requestTimeoutMs) return askAgain(subject, data, headers, timeoutMs)
    const sent = send(subject, data, headers, limits.tryTimeoutMs)
    const pause = sent instanceof Promise ? undefined : breathe()
    // Answered within this process already, as most searches are when embedded: not a single promise.
    if (!(sent instanceof Promise) && pause === undefined && errorOf(sent) === undefined) return sent
    return askAgain(subject, data, headers, timeoutMs, sent, pause)
  }
}

/** The error that a reply carries, if it is one. */
export const errorOf = ({ data, headers }: Reply): ElanusError | undefined => {
  if (headers === undefined || headers[headerNames.errorCode] === undefined) return undefined
  try {
    const { error } = JSON.parse(utf8.decodeDocument(data)) as {
      readonly error: { readonly code: string; readonly reason: string }
    }
    if (error.code in errorKinds) return failure(error.code as ErrorCode, error.reason)
  } catch {
    // Not ours: what the header says has to do.
  }
  return failure("internal", headers[headerNames.error] ?? "an error without a reason")
}

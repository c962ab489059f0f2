/**
 * After the faults everything converges, without anybody's help, though of each kind only one node is left: all that
 * was asked has ended, whoever asks now is served within its patience, by the core and later by all, every node that
 * lives is one of the cluster again, and what the cluster owes by itself is done.
 */
import { limits } from "../../protocols/limits.ts"
import { fromMillis } from "../../protocols/timestamp.ts"
import { debtsOf, owedBy } from "../duties.ts"
import type { Operation } from "../history.ts"
import { type Moment, notAfter } from "../ledger.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"
import { own } from "./writes.ts"

/** Events of a node in a second in which nobody asks anything, at most: leases, looks and pings of each other, a move of a channel. */
const QUIET_PER_SECOND = 100
const DEDUPE_AGE = fromMillis(limits.dedupeAgeMs)

const bad = (detail: string, operations: ReadonlyArray<number> = []): Violation =>
  violation("convergence", detail, { operations })

const ended = ({ operations, phases }: Evidence): ReadonlyArray<Violation> => {
  const { core, deadline = phases.end } = phases
  return operations
    .filter(({ completed, invoked }) => {
      if (completed === undefined) return true
      return core !== undefined && notAfter(invoked, core) && !notAfter(completed, deadline)
    })
    .map(({ asked, id }) => bad(`operation ${id} (${asked._tag}) has not ended`, [id]))
}

/** How a channel that stands still answers: a write may have been there before it did. */
const stopped: ReadonlySet<string> = new Set(["damaged", "ambiguous", "outcome-unknown"])

/** Without an object its rows are not loaded, and so they are not answered; in the end nothing more is taken. */
const unloaded: ReadonlySet<string> = new Set([...stopped, "unavailable", "timeout", "overloaded"])

/** How a write to a collection ends that is dropped meanwhile: who asked again does not know of the first time. */
const dropped: ReadonlySet<string> = new Set(["collection-not-found", "ambiguous", "outcome-unknown"])

/** Whether there was a collection of that name then, which nobody had begun to drop. */
const isThere = ({ lives }: Evidence, collection: string, moment: Moment): boolean =>
  lives.some((life) => {
    const isBy = (other: Moment | undefined) => other !== undefined && notAfter(other, moment)
    return life.name === collection && isBy(life.ready) && !isBy(life.closing) && !isBy(life.dropped)
  })

/** What keeps a collection from being served without anybody's fault. */
const isExcused = (evidence: Evidence, asked: Pick<Operation, "collection" | "completed">, code: string): boolean => {
  // A drop of the time of the faults may be carried out late, also while somebody writes and asks again.
  if (dropped.has(code) && !isThere(evidence, asked.collection, asked.completed!)) return true
  // A log that lost something stands still until somebody has looked: that is what it should do.
  if (stopped.has(code) && evidence.isBereft(asked)) return true
  return unloaded.has(code) && evidence.isRotten(asked)
}

/**
 * Whether a log is so far ahead of the write's date that its owner cannot tell any more (protocols/README.md, section 5).
 * A client does not wait for that long; but a clock that was set forward takes the time of a log with it, at once.
 */
const isForgotten = ({ lives, model, observed }: Evidence, { asked, collection, completed }: Operation): boolean => {
  if (observed.clocksAgree || !("request" in asked) || asked.request === undefined) return false
  const { issued } = asked.request
  return lives
    .filter(({ name }) => name === collection)
    .flatMap(({ channels }) => channels.flatMap((channel) => model.log(channel)))
    .some(({ record, stored }) => record.header.timestamp - DEDUPE_AGE > issued && notAfter(stored, completed!))
}

const served = (evidence: Evidence): ReadonlyArray<Violation> =>
  (evidence.observed.probes ?? []).flatMap((probe) => {
    const { asked, collection, id, outcome } = probe
    if (outcome?._tag === "Ok" || (outcome !== undefined && isExcused(evidence, probe, outcome.code))) return []
    if (outcome?.code === "outcome-unknown" && isForgotten(evidence, probe)) return []
    const why = outcome === undefined ? "nobody answered" : `${outcome.code}: ${outcome.reason}`
    return [bad(`after the faults: ${asked._tag} of ${collection}: ${why}`, [id])]
  })

/** Nobody says what a collection is like. */
const described = (evidence: Evidence): ReadonlyArray<Violation> =>
  (evidence.observed.unasked ?? [])
    .filter(({ code, collection, moment }) => !isExcused(evidence, { collection, completed: moment }, code))
    .map(({ code, collection, id, reason }) =>
      bad(`after the faults: ${collection} was not even asked: ${code}: ${reason}`, [id])
    )

/** Where nothing fails, nobody is refused but for what he did himself, and everybody is told what he asks. */
const calm = ({ observed }: Evidence): ReadonlyArray<Violation> => {
  if (!observed.isCalm) return []
  const refused = observed.operations.flatMap(({ asked, id, outcome }) =>
    outcome === undefined || outcome._tag === "Ok" ? [] : [{ what: asked._tag, id, ...outcome }]
  )
  const skipped = (observed.skipped ?? []).map((each) => ({ what: "an operation", ...each }))
  return [...refused, ...skipped]
    .filter(({ code }) => !own.has(code))
    .map(({ code, id, reason, what }) => bad(`nothing failed, and ${what} did: ${code}: ${reason}`, [id]))
}

const rejoined = ({ observed: { owned } }: Evidence): ReadonlyArray<Violation> => [
  ...(owned?.core === false ? [bad("the nodes of the core are not all alive and owners of all channels")] : []),
  ...(owned?.all === false ? [bad("the nodes are not all alive again and owners of all channels")] : [])
]

/** What was owed before all were healed is done by the end. */
const done = ({ facts, phases: { healed }, steps }: Evidence): ReadonlyArray<Violation> =>
  healed === undefined ? [] : owedBy(debtsOf(steps, facts), healed).map(({ detail }) => bad(detail))

/** In most seconds of each node: all channels of one that is back may move to it in one of them. */
const quiet = ({ observed: { quiet = [] } }: Evidence): ReadonlyArray<Violation> => {
  const usual = quiet.map((seconds) => seconds.toSorted((a, b) => a - b)[seconds.length >> 1] ?? 0)
  const most = Math.max(0, ...usual)
  return most <= QUIET_PER_SECOND ? [] : [bad(`nobody asks anything, and a node has ${most} events a second`)]
}

export const convergence: Check = {
  property: "convergence",
  check: (evidence) => [
    ...ended(evidence),
    ...served(evidence),
    ...described(evidence),
    ...calm(evidence),
    ...rejoined(evidence),
    ...done(evidence),
    ...quiet(evidence)
  ]
}

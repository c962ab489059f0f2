/**
 * After the faults everything converges, without anybody's help, though of each kind only one node is left: all that
 * was asked has ended, and whoever asks now is served within its patience, by the core and later by all.
 */
import { notAfter } from "../ledger.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"

/** Events of a node in a second in which nobody asks anything, at most: leases, looks and pings of each other, a move. */
const QUIET_PER_SECOND = 400

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

const served = (evidence: Evidence): ReadonlyArray<Violation> =>
  (evidence.observed.probes ?? []).flatMap((probe) => {
    const { asked, collection, id, outcome } = probe
    if (outcome?._tag === "Ok") return []
    // A log that lost something stands still until somebody has looked: that is what it should do.
    if (outcome !== undefined && stopped.has(outcome.code) && evidence.isBereft(probe)) return []
    if (outcome !== undefined && unloaded.has(outcome.code) && evidence.isRotten(probe)) return []
    const why = outcome === undefined ? "nobody answered" : `${outcome.code}: ${outcome.reason}`
    return [bad(`after the faults: ${asked._tag} of ${collection}: ${why}`, [id])]
  })

/** What was begun before all were healed is made by the end. */
const made = ({ lives, phases: { healed } }: Evidence): ReadonlyArray<Violation> =>
  lives
    .filter(({ dropped, ready }) => ready === undefined && dropped === undefined)
    .filter(({ created }) => healed !== undefined && notAfter(created, healed))
    .map(({ name }) => bad(`collection ${name} is still being made`))

const quiet = ({ observed }: Evidence): ReadonlyArray<Violation> => {
  if (observed.quiet === undefined) return []
  const { events, ms, nodes } = observed.quiet
  const perSecond = Math.round(events / (ms / 1_000) / nodes)
  return perSecond <= QUIET_PER_SECOND
    ? []
    : [bad(`nobody asks anything, and there are ${perSecond} events a second on each node`)]
}

export const convergence: Check = {
  property: "convergence",
  check: (evidence) => [...ended(evidence), ...served(evidence), ...made(evidence), ...quiet(evidence)]
}

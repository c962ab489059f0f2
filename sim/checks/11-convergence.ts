/**
 * After the faults everything converges, without anybody's help, though of each kind only one node is left: all that
 * was asked has ended, and whoever asks now is served within its patience, by the core and later by all.
 */
import { notAfter } from "../ledger.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"

/** Events of a node in a second in which nobody asks anything, at most: leases, looks and pings of each other. */
const QUIET_PER_SECOND = 1_000

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

const served = ({ model, observed }: Evidence): ReadonlyArray<Violation> =>
  (observed.probes ?? []).flatMap(({ asked, collection, id, outcome }) => {
    if (outcome?._tag === "Ok") return []
    // A log that lost something stands still until somebody has looked: that is what it should do.
    if (model.bereft.size > 0 && (outcome?.code === "damaged" || outcome?.code === "ambiguous")) return []
    const why = outcome === undefined ? "nobody answered" : `${outcome.code}: ${outcome.reason}`
    return [bad(`after the faults: ${asked._tag} of ${collection}: ${why}`, [id])]
  })

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
  check: (evidence) => [...ended(evidence), ...served(evidence), ...quiet(evidence)]
}

/**
 * What a run comes to, small enough to go from one process to another, and what many runs come to together.
 */
import type { Property, Violation } from "./checks/evidence.ts"
import type { Struck } from "./faults.ts"
import { faultNames, type FaultName } from "./plan.ts"
import type { Result } from "./run.ts"

export interface Summary {
  readonly seed: string
  readonly violations: ReadonlyArray<Violation>
  /** The world or its process came to an end that no run should have: why. */
  readonly died?: string | undefined
  /** It did not die, but was killed: it took too long, on this machine. */
  readonly late?: string | undefined
  /** Run twice, it was not the same run: where they part. */
  readonly parted?: string | undefined
  readonly vacuous: ReadonlyArray<string>
  readonly hash: string
  /** Of the trace, after every thousand events. */
  readonly checkpoints: ReadonlyArray<string>
  readonly events: number
  /** Virtual milliseconds. */
  readonly ms: number
  readonly operations: Result["operations"]
  readonly struck: { readonly [K in FaultName]?: Struck }
  readonly fired: Result["fired"]
}

export const summaryOf = (result: Result): Summary => {
  const { checkpoints, died, events, fired, hash, ms, operations, seed, struck, vacuous, violations } = result
  return { seed, violations, died, vacuous, hash, checkpoints, events, ms, operations, struck, fired }
}

/** Of a run whose process said nothing more. */
export const lost = (seed: string, why: Pick<Summary, "died" | "late">): Summary => ({
  seed,
  violations: [],
  ...why,
  vacuous: [],
  hash: "",
  checkpoints: [],
  events: 0,
  ms: 0,
  operations: { asked: 0, done: 0, unknown: 0 },
  struck: {},
  fired: {}
})

/** What can be wrong with a run: a property does not hold, it died, it did not end, or it is not the same twice. */
export type Fault = Property | "died" | "late" | "determinism"

export interface Failure {
  readonly fault: Fault
  readonly detail: string
  /** Those that show it. */
  readonly operations: ReadonlyArray<number>
}

/** Everything that is wrong with a run; nothing if it may be called a pass, or was vacuous. */
export const failuresOf = ({ died, late, parted, violations }: Summary): ReadonlyArray<Failure> => [
  ...(died === undefined ? [] : [{ fault: "died" as const, detail: died, operations: [] }]),
  ...(late === undefined ? [] : [{ fault: "late" as const, detail: late, operations: [] }]),
  ...(parted === undefined ? [] : [{ fault: "determinism" as const, detail: parted, operations: [] }]),
  ...violations.map(({ detail, operations, property }) => ({ fault: property, detail, operations }))
]

export interface FaultTotal extends Struck {
  readonly kind: FaultName
  /** In how many runs, and in how many of them while somebody waited. */
  readonly seeds: number
  readonly seedsInFlight: number
}

export interface SiteTotal {
  readonly site: string
  readonly times: number
  /** In how many runs. */
  readonly seeds: number
}

export interface Totals {
  readonly runs: number
  readonly failed: number
  readonly passed: number
  readonly vacuous: ReadonlyArray<readonly [why: string, runs: number]>
  readonly events: number
  readonly hours: number
  readonly asked: number
  readonly done: number
  readonly unknown: number
  readonly faults: ReadonlyArray<FaultTotal>
  readonly sites: ReadonlyArray<SiteTotal>
}

/** So many runs should show every kind of fault. */
const RUNS_MANY = 200
const VACUOUS_MOST = 1 / 4

/** Why they prove nothing, all of them together, though none of them failed. Empty if they do. */
export const doubtsOf = ({ failed, faults, passed, runs }: Totals): ReadonlyArray<string> => {
  const vacuous = runs - passed - failed
  const doubts: Array<string> = []
  if (passed === 0) doubts.push("no run passed")
  if (runs < RUNS_MANY) return doubts
  const never = faults.flatMap(({ kind, times }) => (times === 0 ? [kind] : []))
  if (never.length > 0) doubts.push(`never struck: ${never.join(", ")}`)
  if (vacuous > VACUOUS_MOST * runs) doubts.push(`more than a quarter of the runs are vacuous: ${vacuous} of ${runs}`)
  return doubts
}

/** Of many runs: without what differs (checks/vacuity.ts). */
const reasonOf = (why: string): string => why.split(":", 1)[0]!

/** `sites`: all that there are, so that one that never fired is seen. */
export const totalsOf = (all: ReadonlyArray<Summary>, sites: ReadonlyArray<string>): Totals => {
  const sum = (of: (each: Summary) => number) => all.reduce((total, each) => total + of(each), 0)
  const reasons = new Map<string, number>()
  const isFailed = (each: Summary) => failuresOf(each).length > 0
  for (const { vacuous } of all.filter((each) => !isFailed(each))) {
    for (const why of vacuous) reasons.set(reasonOf(why), (reasons.get(reasonOf(why)) ?? 0) + 1)
  }
  return {
    runs: all.length,
    failed: all.filter(isFailed).length,
    passed: all.filter((each) => !isFailed(each) && each.vacuous.length === 0).length,
    vacuous: [...reasons],
    events: sum(({ events }) => events),
    hours: sum(({ ms }) => ms) / 3_600_000,
    asked: sum(({ operations }) => operations.asked),
    done: sum(({ operations }) => operations.done),
    unknown: sum(({ operations }) => operations.unknown),
    faults: faultNames.map((kind) => ({
      kind,
      times: sum(({ struck }) => struck[kind]?.times ?? 0),
      inFlight: sum(({ struck }) => struck[kind]?.inFlight ?? 0),
      seeds: all.filter(({ struck }) => (struck[kind]?.times ?? 0) > 0).length,
      seedsInFlight: all.filter(({ struck }) => (struck[kind]?.inFlight ?? 0) > 0).length
    })),
    sites: sites.map((site) => ({
      site,
      times: sum(({ fired }) => fired[site] ?? 0),
      seeds: all.filter(({ fired }) => (fired[site] ?? 0) > 0).length
    }))
  }
}

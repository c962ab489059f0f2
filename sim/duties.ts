/**
 * What a cluster owes without anybody asking for it: collections are made and given back, indexes built, logs purged. No
 * client waits for any of it, so that only what the stores accepted says whether it was done. (Attempts that were left
 * behind are for the collector, which is not there yet.)
 */
import { type Fact, type Moment, notAfter } from "./ledger.ts"
import { brokenBy, damagesOf, type Life, livesOf, type Step } from "./metadata.ts"

/** A duty, and since when it is owed. */
export interface Debt {
  readonly since: Moment
  readonly detail: string
}

/**
 * All that is still to be done; not what stands still because a log lost something, or an object rotted: that waits for
 * somebody who looks.
 */
export const debtsOf = (steps: ReadonlyArray<Step>, facts: ReadonlyArray<Fact>): ReadonlyArray<Debt> => {
  const broken = brokenBy(facts)
  const lives = livesOf(steps).filter((life) => !life.channels.some((channel) => broken.has(channel)))
  const damages = damagesOf(facts)
  const rotten = lives.filter(({ id }) => damages.has(id))
  const whole = new Map(lives.filter(({ id }) => !damages.has(id)).map((life) => [life.id, life]))
  // Their owners cannot begin without the object, until the collection is given back.
  const still = new Set(rotten.flatMap(({ channels, gone }) => (gone === undefined ? channels : [])))
  const logs = ofLogs(steps, (channel) => broken.has(channel) || still.has(channel))
  return [...lives.flatMap(ofCollection), ...ofWork(steps, whole), ...logs]
}

const ofCollection = ({ closing, created, dropped, gone, name, ready }: Life): ReadonlyArray<Debt> => {
  const owed = (since: Moment, what: string) => [{ since, detail: `collection ${name} is still being ${what}` }]
  if (gone !== undefined) return []
  if (dropped !== undefined) return owed(dropped, "given back")
  if (closing !== undefined) return owed(closing, "closed")
  return ready === undefined ? owed(created, "made") : []
}

/** Jobs are in the metadata from their beginning to their end. */
const ofWork = (steps: ReadonlyArray<Step>, whole: ReadonlyMap<string, Life>): ReadonlyArray<Debt> => {
  const open = new Map<string, Debt>()
  for (const step of steps) {
    if (step._tag !== "Decided") continue
    for (const change of step.changes) {
      if (change.kind !== "job") continue
      const { key, value } = change
      if (value === undefined || value.state === "done" || value.state === "failed") open.delete(key)
      else if (whole.has(value.collection) && !open.has(key)) {
        const of = `${whole.get(value.collection)!.name}.${value.shard}`
        open.set(key, { since: step.moment, detail: `the index of segment ${value.segment} of ${of} is not built` })
      }
    }
  }
  return [...open.values()]
}

/** A log forgets what is below its checkpoint: owed since the first one that it has not come to. */
const ofLogs = (steps: ReadonlyArray<Step>, isStill: (channel: number) => boolean): ReadonlyArray<Debt> => {
  const purged = new Map<number, number>()
  for (const step of steps) {
    if (step._tag === "Purged") purged.set(step.channel, Math.max(step.before, purged.get(step.channel) ?? 1))
  }
  const owed = new Map<number, Debt>()
  for (const step of steps) {
    if (step._tag !== "ChannelKey") continue
    const { channel, moment, value } = step
    const { sequence } = value.checkpoint
    if (isStill(channel) || owed.has(channel) || sequence <= (purged.get(channel) ?? 1)) continue
    owed.set(channel, { since: moment, detail: `channel ${channel} is not purged up to its checkpoint at ${sequence}` })
  }
  return [...owed.values()]
}

/** Those that were owed by then. */
export const owedBy = (debts: ReadonlyArray<Debt>, moment: Moment): ReadonlyArray<Debt> =>
  debts.filter(({ since }) => notAfter(since, moment))

/**
 * Damage is detected: whoever meets it stops and says so, and never answers wrongly. So nothing is wrong with a log
 * that kept what it stored; nobody calls damaged what is not; and of a log that did lose something nobody answers as
 * if nothing had been lost, as long as anybody is left who knows better.
 */
import { notAfter } from "../ledger.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"
import { reads } from "./reads.ts"
import { isOk, writes } from "./writes.ts"

const bad = (detail: string, operations: ReadonlyArray<number> = []): Violation =>
  violation("damage", detail, { operations })

/** A bug of ours, or a word that says: somebody must look. */
const alarms: ReadonlySet<string> = new Set(["damaged", "unfit", "internal"])

const flaws = ({ model }: Evidence): ReadonlyArray<Violation> =>
  model.flaws
    .filter(({ channel }) => !model.bereft.has(channel))
    .map(({ channel, detail, sequence }) => bad(`channel ${channel} at ${sequence}: ${detail}`))

const falseAlarms = ({ facts, model, operations }: Evidence): ReadonlyArray<Violation> => {
  const isDamaged = model.bereft.size > 0 || facts.some(({ _tag }) => _tag === "Damaged")
  return operations.flatMap(({ id, outcome }) => {
    if (outcome === undefined || outcome._tag === "Ok" || !alarms.has(outcome.code)) return []
    if (isDamaged && outcome.code === "damaged") return []
    return [bad(`"${outcome.code}", and nothing is: ${outcome.reason}`, [id])]
  })
}

/**
 * A channel lost a write that was acknowledged. If nobody has died since, somebody knows that: then nothing new is
 * written to it, and what is answered is what was there.
 */
const lost = (evidence: Evidence): ReadonlyArray<Violation> => {
  const { model, observed } = evidence
  const found: Array<Violation> = []
  for (const [channel, when] of model.bereft) {
    const gone = writes(evidence).all.filter(
      ({ applied, operation }) =>
        isOk(operation) &&
        notAfter(operation.completed!, when) &&
        applied.some(({ message }) => message.channel === channel && message.lost !== undefined)
    )
    const [first] = gone
    if (first === undefined) continue
    const since = first.operation.completed!
    const forgot = observed.crashes.find((crash) => notAfter(since, crash))
    const isKnown = (moment: { readonly event: number; readonly at: number }) =>
      forgot === undefined || notAfter(moment, forgot)
    for (const { applied, operation } of writes(evidence).all) {
      const after = applied.find(({ message }) => message.channel === channel && !notAfter(message.stored, when))
      if (!isOk(operation) || after === undefined || !isKnown(operation.completed!)) continue
      const detail = `channel ${channel} lost operation ${first.operation.id}, which was acknowledged, and took another write`
      found.push(bad(detail, [first.operation.id, operation.id]))
    }
    for (const { differences, life, operation } of reads(evidence)) {
      if (life === undefined || !life.channels.includes(channel)) continue
      if (notAfter(operation.completed!, when) || !isKnown(operation.completed!)) continue
      const concerned = differences.filter(({ key }) => key !== undefined)
      if (concerned.length === 0) continue
      found.push(
        bad(`channel ${channel} lost what was acknowledged, and answers: ${concerned[0]!.detail}`, [operation.id])
      )
    }
  }
  return found
}

export const damage: Check = {
  property: "damage",
  check: (evidence) => [...flaws(evidence), ...falseAlarms(evidence), ...lost(evidence)]
}

/**
 * Damage is detected: whoever meets it stops and says so, and never answers wrongly. So nothing is wrong with a log
 * that kept what it stored; nobody calls damaged what is not; and of a log that did lose something nobody answers as
 * if nothing had been lost, as long as anybody is left who knows better.
 */
import { requestKey } from "../../protocols/record.ts"
import type { Operation } from "../history.ts"
import { notAfter } from "../ledger.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"
import { differencesOf } from "./reads.ts"
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

/** The first acknowledged write that a channel lost. */
const firstLost = ({ model, operations }: Evidence, channel: number): Operation | undefined => {
  const lost = model.applied.filter(({ message }) => message.channel === channel && message.lost !== undefined)
  const requests = new Set(lost.map(({ request }) => requestKey(request)))
  const ids = new Set(lost.flatMap(({ versions }) => versions.map(({ row }) => row?.fields["op"])))
  return operations.find(({ asked, completed, id, outcome }) => {
    if (outcome?._tag !== "Ok" || !notAfter(completed!, model.bereft.get(channel)!)) return false
    if (asked._tag !== "Upsert" && asked._tag !== "Delete") return false
    return asked.request === undefined ? ids.has(id) : requests.has(requestKey(asked.request))
  })
}

/**
 * A channel lost a write that was acknowledged. If nobody has died since, somebody knows that: then nothing new is
 * written to it, and what is answered is what was there.
 */
const lost = (evidence: Evidence): ReadonlyArray<Violation> => {
  const { lives, model, observed, operations, remembered } = evidence
  const found: Array<Violation> = []
  for (const [channel, when] of model.bereft) {
    const first = firstLost(evidence, channel)
    if (first === undefined) continue
    const forgot = observed.crashes.find((crash) => notAfter(first.completed!, crash))
    const isKnown = ({ completed }: Operation) =>
      !notAfter(completed!, when) && (forgot === undefined || notAfter(completed!, forgot))
    for (const { applied, operation } of writes(evidence).all) {
      const after = applied.some(({ message }) => message.channel === channel && !notAfter(message.stored, when))
      if (!isOk(operation) || !after || !isKnown(operation)) continue
      const detail = `channel ${channel} lost operation ${first.id}, which was acknowledged, and took another write`
      found.push(bad(detail, [first.id, operation.id]))
    }
    for (const operation of operations) {
      const { collection, outcome } = operation
      if (outcome?._tag !== "Ok" || !isKnown(operation)) continue
      const mine = lives.filter(({ channels, name }) => name === collection && channels.includes(channel))
      const all = mine.map((life) => differencesOf(evidence, operation, outcome.timestamp, life, remembered))
      if (all.length === 0 || all.some((differences) => differences.length === 0)) continue
      const detail = `channel ${channel} lost operation ${first.id}, which was acknowledged, and answers: ${all[0]![0]!.detail}`
      found.push(bad(detail, [first.id, operation.id]))
    }
  }
  return found
}

export const damage: Check = {
  property: "damage",
  check: (evidence) => [...flaws(evidence), ...falseAlarms(evidence), ...lost(evidence)]
}

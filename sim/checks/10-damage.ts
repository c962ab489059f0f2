/**
 * Damage is detected: whoever meets it stops and says so, and never answers wrongly. So nothing is wrong with a log
 * that kept what it stored; nobody calls damaged what is not, to a client or in the log of a node; nobody answers with
 * what was never written; and of a log that did lose something nobody answers as if nothing had been lost, as long as
 * anybody is left who knows better.
 */
import type { Operation } from "../history.ts"
import { type Moment, notAfter } from "../ledger.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"
import { differencesOf, reads, viewsOf } from "./reads.ts"
import { isOk, writes } from "./writes.ts"

const bad = (detail: string, operations: ReadonlyArray<number> = []): Violation =>
  violation("damage", detail, { operations })

/** A bug of ours, or a word that says: somebody must look. */
const alarms: ReadonlySet<string> = new Set(["damaged", "unfit", "internal"])

const flaws = ({ model }: Evidence): ReadonlyArray<Violation> =>
  model.flaws
    .filter(({ channel }) => !model.bereft.has(channel))
    .map(({ channel, detail, sequence }) => bad(`channel ${channel} at ${sequence}: ${detail}`))

const falseAlarms = (evidence: Evidence): ReadonlyArray<Violation> => [
  ...evidence.operations.flatMap((operation) => {
    const { id, outcome } = operation
    if (outcome === undefined || outcome._tag === "Ok" || !alarms.has(outcome.code)) return []
    if (outcome.code === "damaged" && (evidence.isBereft(operation) || evidence.isRotten(operation))) return []
    return [bad(`"${outcome.code}", and nothing is: ${outcome.reason}`, [id])]
  }),
  ...evidence.observed.alarms.flatMap(({ channel, detail, moment }) => {
    const broken = evidence.broken.get(channel)
    if (broken !== undefined && notAfter(broken, moment)) return []
    return [bad(`a node says that channel ${channel} is damaged, and nothing is: ${detail}`)]
  })
]

/** Rows that nobody ever wrote, where there is something to read them from: what was read was not what was written. */
const altered = (evidence: Evidence): ReadonlyArray<Violation> =>
  reads(evidence).flatMap(({ differences, life, operation }) => {
    const isRead = (channel: number, shard: number) =>
      evidence.broken.has(channel) || evidence.flushedTo(life!.id, shard, operation.completed!) > 0
    if (life?.channels.some(isRead) !== true) return []
    return differences.filter(({ kind }) => kind === "unknown").map(({ detail }) => bad(detail, [operation.id]))
  })

/** Who took a channel after a record that he must read had rotted, and nevertheless goes on: that is when a key has an epoch. */
const unnoticed = ({ facts, steps }: Evidence): ReadonlyArray<Violation> =>
  facts.flatMap((fact) => {
    if (fact._tag !== "Rotten") return []
    const { channel, moment, sequence } = fact
    const gone = facts.find(
      (other) =>
        other._tag === "Lost" && other.channel === channel && other.from <= sequence && !notAfter(other.moment, moment)
    )
    let reader: bigint | undefined
    for (const step of steps) {
      if (step._tag !== "ChannelKey" || step.channel !== channel || notAfter(step.moment, moment)) continue
      if (gone !== undefined && notAfter(gone.moment, step.moment)) return []
      const { checkpoint, epoch, nonce } = step.value
      if (epoch === null) reader = checkpoint.sequence < sequence ? nonce : undefined
      else if (nonce === reader)
        return [bad(`channel ${channel} at ${sequence}: it rotted, and its owner read past it`)]
    }
    return []
  })

/** The last acknowledged write that a channel lost then, and its record. */
const lastLost = (evidence: Evidence, channel: number, when: Moment) =>
  writes(evidence)
    .all.flatMap(({ lost, operation }) => {
      const lsns = lost
        .filter(({ message }) => message.channel === channel && message.lost!.event === when.event)
        .map(({ message }) => message.record.header.lsn)
      const isMeant = lsns.length > 0 && isOk(operation) && notAfter(operation.completed!, when)
      return isMeant ? [{ operation, lsn: Math.max(...lsns) }] : []
    })
    .toSorted((a, b) => a.operation.completed!.event - b.operation.completed!.event)
    .at(-1)

/**
 * A channel lost a write that was acknowledged. Its owner knows that, for as long as it is its owner, and so does the
 * proxy that brought the answer, for as long as it lives: then nothing new is written to it, and what is answered is
 * what was there. Of several proxies another may ask first, which knows of nothing; and an owner whose checkpoint is past
 * that record cannot tell any more whose it was.
 */
const lost = (evidence: Evidence): ReadonlyArray<Violation> => {
  const { observed, pasts, steps } = evidence
  const violations: Array<Violation> = []
  const losses = pasts.flatMap(({ lost, model }) => [...lost].map(([channel, when]) => ({ channel, when, model })))
  for (const { channel, when } of losses) {
    // Its owner may remember what an earlier one took, too.
    const before = losses.filter((one) => one.channel === channel && notAfter(one.when, when)).map(({ model }) => model)
    const found = lastLost(evidence, channel, when)
    if (found === undefined) continue
    const { lsn, operation: last } = found
    const forgot = observed.crashes.find((crash) => crash.isProxy && notAfter(last.completed!, crash))
    const keys = steps.filter((step) => step._tag === "ChannelKey").filter((step) => step.channel === channel)
    const taken = keys.find(({ moment, value }) => value.epoch === null && notAfter(last.completed!, moment))
    const passed = keys.find(({ moment, value }) => value.checkpoint.lsn > lsn && notAfter(when, moment))
    const isKnown = ({ completed }: Operation) => {
      const before = (moment: Moment | undefined) => moment === undefined || !notAfter(moment, completed!)
      return (
        !notAfter(completed!, when) &&
        (before(taken?.moment) || (observed.proxies === 1 && before(forgot) && before(passed?.moment)))
      )
    }
    for (const { applied, operation } of writes(evidence).all) {
      const after = applied.some(({ message }) => message.channel === channel && !notAfter(message.stored, when))
      if (!isOk(operation) || !after || !isKnown(operation)) continue
      const detail = `channel ${channel} lost operation ${last.id}, which was acknowledged, and took another write`
      violations.push(bad(detail, [last.id, operation.id]))
    }
    for (const { life, operation, timestamp } of reads(evidence)) {
      if (life?.channels.includes(channel) !== true || !isKnown(operation)) continue
      const views = viewsOf(life, (one) => (one === channel ? before : evidence.logsOf(one)))
      const all = Array.from(views, (view) => differencesOf(evidence, operation, timestamp, life, view))
      if (all.some((differences) => differences.length === 0)) continue
      const detail = `channel ${channel} lost operation ${last.id}, which was acknowledged, and answers: ${all[0]![0]!.detail}`
      violations.push(bad(detail, [last.id, operation.id]))
    }
  }
  return violations
}

export const damage: Check = {
  property: "damage",
  check: (evidence) => [
    ...flaws(evidence),
    ...falseAlarms(evidence),
    ...altered(evidence),
    ...unnoticed(evidence),
    ...lost(evidence)
  ]
}

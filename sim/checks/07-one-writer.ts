/**
 * One writer per channel, one effective coordinator; a stale one has no effect. Of the log: nothing of an owner behind
 * the fence of a later one, and every owner is one that took the channel's key. Of the metadata: every commit is of the
 * coordinator that took over last.
 */
import { type Order, orderAbove } from "../../protocols/metadata.ts"
import { Standing } from "../metadata.ts"
import type { Message } from "../model.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"

const bad = (detail: string): Violation => violation("one-writer", detail)

const said = ({ channel, record, sequence }: Message): string =>
  `record ${record.header.lsn} of epoch ${record.header.epoch} at sequence ${sequence} of channel ${channel}`

const logs = ({ model, steps }: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  /** Channel and epoch -> the nonce of who took it. */
  const takers = new Map<string, bigint>()
  for (const step of steps) {
    if (step._tag !== "ChannelKey" || step.value.epoch !== null) continue
    takers.set(`${step.channel} ${step.revision}`, step.value.nonce)
  }
  for (const message of model.messages) {
    const { channel, record, standing } = message
    const { epoch, nonce } = record.header
    if (standing === "void") found.push(bad(`${said(message)} was accepted behind the fence of a later owner`))
    else if (standing === "record") {
      const taker = takers.get(`${channel} ${epoch}`)
      if (taker === undefined) found.push(bad(`${said(message)} is of an epoch that nobody took`))
      else if (taker !== nonce) found.push(bad(`${said(message)} is of another activation than the one that took it`))
    }
  }
  return found
}

/** The key of a channel is taken by higher orders alone, and written on by who took it. */
const keys = ({ steps }: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const last = new Map<
    number,
    { readonly node: string; readonly order: Order; readonly nonce: bigint; readonly epoch: bigint }
  >()
  for (const step of steps) {
    if (step._tag !== "ChannelKey") continue
    const { channel, revision, value } = step
    const before = last.get(channel)
    const { epoch, node, nonce, order } = value
    if (epoch === null) {
      // The same order again is the same node's, for another activation.
      const isOwn = before?.node === node && !orderAbove(before.order, order)
      if (before !== undefined && !isOwn && !orderAbove(order, before.order)) {
        const detail = `channel ${channel} was taken at ${revision} by order ${order.epoch}/${order.number}, not above ${before.order.epoch}/${before.order.number}`
        found.push(bad(detail))
      }
    } else if (before === undefined || before.nonce !== nonce || before.epoch !== epoch) {
      found.push(bad(`the key of channel ${channel} was written at ${revision} by one who is not its owner`))
    }
    last.set(channel, { node, order, nonce, epoch: epoch ?? BigInt(revision) })
  }
  return found
}

const coordinators = ({ steps }: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const standing = new Standing()
  let number = 0
  for (const step of steps) {
    const before = standing.epoch
    standing.apply(step)
    if (step._tag !== "Decided") continue
    const took = standing.epoch !== before
    if (took) number = 0
    const commit = step.changes.find((change) => change.kind === "commit")
    if (commit?.kind !== "commit" || commit.value === undefined) {
      found.push(bad(`commit ${step.head} does not say whose it is`))
      continue
    }
    if (took) continue
    if (commit.value.epoch !== standing.epoch) {
      found.push(bad(`commit ${step.head} is of epoch ${commit.value.epoch}; ${standing.epoch} had taken over`))
    } else if (commit.value.number <= number) {
      found.push(bad(`commit ${step.head} has number ${commit.value.number}, and ${number} was there`))
    } else number = commit.value.number
  }
  return found
}

export const oneWriter: Check = {
  property: "one-writer",
  check: (evidence) => [...logs(evidence), ...keys(evidence), ...coordinators(evidence)]
}

/**
 * Every queue, batch and retry has a limit, and past it there is a clear error: nothing that is stored is larger than
 * it may be, a request ends within the time that it was given, and no word for use among the parts reaches a client.
 */
import { limits } from "../../protocols/limits.ts"
import { metadata } from "../../protocols/metadata.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"

/** What a client may take longer than it was told: it says so itself a little later, and tries in steps. */
const PATIENCE_MS = 1_500

const bad = (detail: string, operations: ReadonlyArray<number> = []): Violation =>
  violation("limits", detail, { operations })

/** protocols/errors.ts: "internal" to the cluster. */
const inner: ReadonlySet<string> = new Set(["moved", "not-here", "deposed", "stale"])

const stored = ({ facts, steps }: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  for (const fact of facts) {
    if (fact._tag === "Stored" && fact.data.length > limits.recordBytesMax) {
      found.push(bad(`a record of ${fact.data.length} bytes at sequence ${fact.sequence} of channel ${fact.channel}`))
    }
  }
  for (const step of steps) {
    if (step._tag !== "Decided") continue
    const { bytes, changes, head } = step
    if (changes.length > limits.commitKeysMax) found.push(bad(`commit ${head} has ${changes.length} keys`))
    if (bytes > limits.commitBytesMax) found.push(bad(`commit ${head} has ${bytes} bytes`))
    for (const change of changes) {
      if (change.kind !== "manifest" || change.value === undefined) continue
      const { length } = metadata.manifest.encode(change.value)
      if (length > limits.manifestBytesMax) found.push(bad(`${change.key} has ${length} bytes`))
    }
  }
  return found
}

/** A fence is one record and 64 messages of padding, always: an old owner's appends count on it. */
const fences = ({ model }: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const channels = new Set(model.messages.map(({ channel }) => channel))
  for (const channel of channels) {
    const log = model.messages.filter((message) => message.channel === channel)
    log.forEach(({ record, standing }, i) => {
      if (record.header.kind !== "fence" || standing !== "record") return
      const { epoch, incarnation } = record.header
      let padding = 0
      for (let next = log[i + 1]; next?.standing === "padding"; next = log[i + 1 + padding]) {
        if (next.record.header.epoch !== epoch || next.record.header.incarnation !== incarnation) break
        padding++
      }
      if (padding !== limits.pipelineDepth) {
        found.push(
          bad(`the fence of epoch ${epoch}, ${incarnation} on channel ${channel} has ${padding} messages of padding`)
        )
      }
    })
  }
  return found
}

const answered = ({ operations }: Evidence): ReadonlyArray<Violation> =>
  operations.flatMap(({ completed, id, invoked, outcome, timeoutMs }) => {
    const found: Array<Violation> = []
    if (completed !== undefined && completed.at - invoked.at > timeoutMs + PATIENCE_MS) {
      found.push(bad(`answered after ${Math.round(completed.at - invoked.at)} ms of ${timeoutMs}`, [id]))
    }
    if (outcome !== undefined && outcome._tag !== "Ok" && inner.has(outcome.code)) {
      found.push(bad(`a client was told "${outcome.code}": ${outcome.reason}`, [id]))
    }
    return found
  })

export const limited: Check = {
  property: "limits",
  check: (evidence) => [...stored(evidence), ...fences(evidence), ...answered(evidence)]
}

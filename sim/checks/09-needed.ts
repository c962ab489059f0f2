/**
 * The log is purged, and an object deleted, only when nothing can need it: a checkpoint is below the lowest record that
 * is in no manifest, a purge is not above the checkpoint, and an object that a manifest names is there, as it was
 * written, for as long as it is named.
 */
import { crc32 } from "../../protocols/checksum.ts"
import type { ChannelKey, ObjectRef } from "../../protocols/metadata.ts"
import { type Change, Standing } from "../metadata.ts"
import type { Applied, Message } from "../model.ts"
import { type Check, type Evidence, type Violation, violation } from "./evidence.ts"

const bad = (detail: string): Violation => violation("needed", detail)

/** The entries of each channel, in order. */
const byChannel = (evidence: Evidence): ReadonlyMap<number, ReadonlyArray<Applied>> => {
  const channels = new Map<number, Array<Applied>>()
  for (const applied of evidence.model.applied) {
    const { channel } = applied.message
    const known = channels.get(channel)
    if (known === undefined) channels.set(channel, [applied])
    else known.push(applied)
  }
  return channels
}

class Walk {
  readonly found: Array<Violation> = []
  readonly standing = new Standing()
  private readonly entries: ReadonlyMap<number, ReadonlyArray<Applied>>
  /** Channel -> sequence -> what was there: more than one if a log lost something and went on. */
  private readonly messages = new Map<number, Map<number, Array<Message>>>()

  constructor(evidence: Evidence) {
    this.entries = byChannel(evidence)
    for (const message of evidence.model.messages) {
      const { channel, sequence } = message
      let log = this.messages.get(channel)
      if (log === undefined) this.messages.set(channel, (log = new Map()))
      const there = log.get(sequence)
      if (there === undefined) log.set(sequence, [message])
      else there.push(message)
    }
  }

  /** The first entry among those that `is` names whose rows are in no manifest, and must be. */
  private unflushed(channel: number, is: (message: Message) => boolean): Applied | undefined {
    return this.entries.get(channel)?.find(({ collection, message, shard }) => {
      if (!is(message) || message.lost !== undefined || !this.standing.isReady(collection)) return false
      return message.record.header.lsn > (this.standing.manifest(collection, shard)?.flushedTo ?? 0)
    })
  }

  checkpoint(channel: number, { checkpoint }: ChannelKey): void {
    const before = this.standing.channels.get(channel)?.key.checkpoint
    const { hash, lsn, sequence } = checkpoint
    const name = `the checkpoint of channel ${channel}`
    if (before !== undefined && (lsn < before.lsn || sequence < before.sequence)) {
      this.found.push(bad(`${name} goes back from record ${before.lsn} to ${lsn}`))
    }
    if (before !== undefined && checkpoint.requestFloor < before.requestFloor) {
      this.found.push(bad(`${name}: the floor of requests goes back`))
    }
    if (lsn === before?.lsn) return
    const left = this.unflushed(channel, ({ record }) => record.header.lsn <= lsn)
    if (left !== undefined) {
      const { collection, message, shard } = left
      this.found.push(
        bad(`${name} is record ${lsn}; record ${message.record.header.lsn} of ${collection}.${shard} is in no manifest`)
      )
    }
    const there = this.messages.get(channel)?.get(sequence) ?? []
    if (sequence > 0 && !there.some(({ record }) => record.header.lsn === lsn && record.hash === hash)) {
      this.found.push(bad(`${name} says record ${lsn} at sequence ${sequence}, which is another one`))
    }
  }

  purge(channel: number, before: number): void {
    const saved = this.standing.channels.get(channel)?.key.checkpoint.sequence ?? 0
    if (before > saved) this.found.push(bad(`channel ${channel} is purged below ${before}; its checkpoint is ${saved}`))
    const left = this.unflushed(channel, ({ sequence }) => sequence < before)
    if (left === undefined) return
    const { collection, message, shard } = left
    this.found.push(
      bad(
        `channel ${channel} is purged below ${before}; record ${message.record.header.lsn} of ${collection}.${shard} is in no manifest`
      )
    )
  }

  removal(key: string): void {
    for (const { collection, deletes, segments, shard } of this.standing.manifests.values()) {
      if (!this.standing.isReady(collection)) continue
      const named = segments.some(
        ({ data, filter, index }) => data.key === key || filter.key === key || index?.key === key
      )
      if (named || deletes.some(({ object }) => object.key === key)) {
        this.found.push(bad(`object ${key} was removed, and the manifest of ${collection}.${shard} names it`))
      }
    }
    const attempt = [...this.standing.attempts.values()].find(
      ({ id }) => key.includes(`/${id}.`) || key.includes(`.${id}.`)
    )
    if (attempt !== undefined) this.found.push(bad(`object ${key} was removed while its attempt ${attempt.id} lived`))
  }

  /** What a manifest names for the first time is there, as it says. */
  named(change: Change, before: ReadonlySet<string>): void {
    if (change.kind !== "manifest" || change.value === undefined) return
    const { collection, deletes, segments, shard } = change.value
    const refs: ReadonlyArray<ObjectRef> = [
      ...segments.flatMap(({ data, filter, index }) => [data, filter, ...(index === null ? [] : [index])]),
      ...deletes.map(({ object }) => object)
    ]
    for (const { bytes, crc32: crc, key } of refs) {
      if (before.has(key)) continue
      const data = this.standing.objects.get(key)
      if (data === undefined)
        this.found.push(bad(`the manifest of ${collection}.${shard} names ${key}, which is not there`))
      else if (data.length !== bytes || crc32(data) !== crc) {
        this.found.push(
          bad(`the manifest of ${collection}.${shard} names ${key} by another length or checksum than it has`)
        )
      }
    }
  }

  namedBy(key: string): ReadonlySet<string> {
    const manifest = this.standing.manifests.get(key)
    if (manifest === undefined) return new Set()
    const { deletes, segments } = manifest
    return new Set([
      ...segments.flatMap(({ data, filter, index }) => [data.key, filter.key, ...(index === null ? [] : [index.key])]),
      ...deletes.map(({ object }) => object.key)
    ])
  }
}

export const needed: Check = {
  property: "needed",
  check: (evidence) => {
    const walk = new Walk(evidence)
    for (const step of evidence.steps) {
      switch (step._tag) {
        case "ChannelKey":
          walk.checkpoint(step.channel, step.value)
          break
        case "Purged":
          walk.purge(step.channel, step.before)
          break
        case "Removed":
          walk.removal(step.key)
          break
        case "Decided":
          for (const change of step.changes) walk.named(change, walk.namedBy(change.key))
          break
        default:
      }
      walk.standing.apply(step)
    }
    return walk.found
  }
}

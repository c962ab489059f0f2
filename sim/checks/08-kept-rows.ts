/**
 * Flush, index build and handoff keep the set of rows: at every change of a manifest its objects, read as anybody could
 * read them, have exactly the rows that the log has up to its `flushedTo`, at every timestamp; it only goes forward;
 * and no answer lacks a row that is sealed, or has it twice.
 */
import { type Key, keyAt, keysOf } from "../../protocols/keys.ts"
import type { ChannelKey, Manifest } from "../../protocols/metadata.ts"
import { fieldBytesAt, parseFields } from "../../protocols/rows.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import { decodeDeletes } from "../../storage/delete-file.ts"
import { StorageError } from "../../storage/outcome.ts"
import { decodeSegment } from "../../storage/segment-file.ts"
import { Standing } from "../metadata.ts"
import { notAfter } from "../ledger.ts"
import type { Model, Row } from "../model.ts"
import { type Check, type Evidence, keyText, type Violation, violation } from "./evidence.ts"
import { reads } from "./reads.ts"
import { isOk, writes } from "./writes.ts"

const bad = (detail: string, keys: ReadonlyArray<Key> = []): Violation => violation("kept-rows", detail, { keys })

/** What an object says of a key from a timestamp on: a row, or that older ones are gone. */
interface Said {
  readonly at: Timestamp
  readonly row: Row | undefined
}

type Contents = ReadonlyMap<Key, ReadonlyArray<Said>>

const segmentOf = (bytes: Uint8Array): Contents => {
  const { dimension, fields, keys, timestamps, vectors } = decodeSegment(bytes)
  const contents = new Map<Key, Array<Said>>()
  for (let i = 0; i < keys.count; i++) {
    const row = {
      vector: vectors.slice(i * dimension, (i + 1) * dimension),
      fields: parseFields(fieldBytesAt(fields, i))
    }
    const key = keyAt(keys, i)
    contents.set(key, [...(contents.get(key) ?? []), { at: timestamps[i]!, row }])
  }
  return contents
}

const deletesOf = (bytes: Uint8Array): Contents => {
  const { keys, timestamps } = decodeDeletes(bytes)
  const contents = new Map<Key, Array<Said>>()
  keysOf(keys).forEach((key, i) => {
    contents.set(key, [...(contents.get(key) ?? []), { at: timestamps[i]!, row: undefined }])
  })
  return contents
}

/** A delete hides what is older than itself, not what has its own time. */
const rowAt = (said: ReadonlyArray<Said>, at: Timestamp): Row | undefined => {
  let row: Said | undefined
  for (const each of said)
    if (each.row !== undefined && each.at <= at && (row === undefined || each.at >= row.at)) row = each
  if (row === undefined) return undefined
  const hidden = said.some((each) => each.row === undefined && each.at <= at && each.at > row.at)
  return hidden ? undefined : row.row
}

const same = (a: Row | undefined, b: Row | undefined): boolean =>
  a === undefined || b === undefined
    ? a === b
    : JSON.stringify(a.fields) === JSON.stringify(b.fields) && a.vector.every((value, i) => value === b.vector[i])

/** What was found of a shard when its manifest was looked at last. */
interface Checked {
  readonly manifest: Manifest
  /** Of each log that its owner may have known, the keys that are not as it says. */
  readonly wrong: ReadonlyArray<ReadonlyMap<Key, Violation>>
}

type Open = (key: string, read: (bytes: Uint8Array) => Contents) => Contents | undefined

const objectsOf = ({ deletes, segments }: Manifest, open: Open): ReadonlyMap<string, Contents | undefined> =>
  new Map([
    ...segments.map(({ data }) => [data.key, open(data.key, segmentOf)] as const),
    ...deletes.map(({ object }) => [object.key, open(object.key, deletesOf)] as const)
  ])

/**
 * The objects that a manifest names, against the log up to where it is flushed, as one of its owners knew it. Undefined if
 * they cannot be read. Only what is other than in `before` is looked at: neither objects nor records change.
 */
const look = (evidence: Evidence, manifest: Manifest, open: Open, before: Checked | undefined): Checked | undefined => {
  const channel = evidence.lives.find(({ id }) => id === manifest.collection)?.channels[manifest.shard]
  const logs = channel === undefined ? [evidence.model] : evidence.logsOf(channel)
  const objects = objectsOf(manifest, open)
  // One that is not there, or not what it should be, is for `needed` and `damage` to say.
  if ([...objects.values()].includes(undefined)) return undefined
  const old = before === undefined ? undefined : objectsOf(before.manifest, open)
  const touched = new Set<Key>()
  for (const [name, each] of objects) if (old?.has(name) !== true) for (const key of each!.keys()) touched.add(key)
  for (const [name, each] of old ?? []) if (!objects.has(name)) for (const key of each!.keys()) touched.add(key)
  const ends = [before?.manifest.flushedTo ?? 0, manifest.flushedTo]
  const [from, to] = [Math.min(...ends), Math.max(...ends)]
  for (const log of logs) {
    for (const { message, versions } of log.appliedTo(manifest.collection, manifest.shard)) {
      const { lsn } = message.record.header
      if (lsn > from && lsn <= to) for (const { key } of versions) touched.add(key)
    }
  }
  const wrong = logs.map((log, which) => {
    const mine = new Map(before?.wrong[which])
    for (const key of touched) {
      const found = difference(log, manifest, objects.values() as Iterable<Contents>, key)
      if (found === undefined) mine.delete(key)
      else mine.set(key, found)
    }
    return mine
  })
  return { manifest, wrong }
}

const difference = (
  model: Model,
  { collection, flushedTo, shard, version }: Manifest,
  objects: Iterable<Contents>,
  key: Key
): Violation | undefined => {
  const versions = model.versions(collection, key).filter((each) => each.shard === shard && each.lsn <= flushedTo)
  const said: Array<Said> = []
  for (const each of objects) said.push(...(each.get(key) ?? []))
  const times = new Set([...versions.map(({ timestamp }) => timestamp), ...said.map(({ at }) => at)])
  for (const at of times) {
    const expected = versions.findLast(({ timestamp }) => timestamp <= at)?.row
    const row = rowAt(said, at)
    if (same(row, expected)) continue
    const what = row === undefined ? "is not in" : expected === undefined ? "is in" : "is another one in"
    const name = `${collection}.${shard} in version ${version}`
    return bad(`at ${at} ${keyText(key)} ${what} the objects of ${name}, flushed to ${flushedTo}`, [key])
  }
  return undefined
}

/** Each flush is a step, and each index; what waited together is committed together. */
const stepsBetween = (old: Manifest, now: Manifest): number => {
  const known = new Set([...old.segments, ...old.deletes].map(({ id }) => id))
  const added = new Set([...now.segments, ...now.deletes].map(({ id }) => id).filter((id) => !known.has(id)))
  const flushes = added.size > 0 ? added.size : now.flushedTo === old.flushedTo ? 0 : 1
  const indexes = new Map(old.segments.map(({ id, index }) => [id, index?.key]))
  return flushes + now.segments.filter(({ id, index }) => index?.key !== indexes.get(id)).length
}

const manifests = (evidence: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const standing = new Standing()
  const opened = new Map<string, Contents | undefined>()
  const checked = new Map<string, Checked>()
  const open: Open = (key, read) => {
    if (!opened.has(key)) opened.set(key, attempt(standing.objects.get(key), read))
    return opened.get(key)
  }
  for (const step of evidence.steps) {
    if (step._tag !== "Decided") {
      standing.apply(step)
      continue
    }
    const before = new Map(standing.manifests)
    standing.apply(step)
    for (const change of step.changes) {
      if (change.kind !== "manifest" || change.value === undefined) continue
      const now = change.value
      const old = before.get(change.key)
      const name = `${now.collection}.${now.shard}`
      if (old !== undefined && now.version !== old.version + stepsBetween(old, now)) {
        found.push(bad(`the manifest of ${name} goes from version ${old.version} to ${now.version}`))
      }
      if (old !== undefined && now.flushedTo < old.flushedTo) {
        found.push(bad(`${name} is flushed to ${now.flushedTo}, and was to ${old.flushedTo}`))
      }
      const looked = look(evidence, now, open, checked.get(change.key))
      if (looked === undefined) continue
      checked.set(change.key, looked)
      if (looked.wrong.every(({ size }) => size > 0)) found.push(...looked.wrong[0]!.values())
    }
  }
  return found
}

/** What was acknowledged before a flush was asked for is in the manifests when it is answered. */
const flushes = (evidence: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  for (const flush of evidence.operations) {
    if (flush.asked._tag !== "Flush" || !isOk(flush) || evidence.isBereft(flush)) continue
    for (const { applied, operation } of writes(evidence).all) {
      if (
        operation.collection !== flush.collection ||
        !isOk(operation) ||
        !notAfter(operation.completed!, flush.invoked)
      )
        continue
      for (const { collection, message, shard } of applied) {
        const { lsn } = message.record.header
        const life = evidence.lives.find(({ id }) => id === collection)
        // Of one that was dropped by then nothing is flushed any more.
        if (life?.closing !== undefined && notAfter(life.closing, flush.completed!)) continue
        if (lsn <= evidence.flushedTo(collection, shard, flush.completed!)) continue
        const detail = `record ${lsn} of ${collection}.${shard} was acknowledged before a flush, and is not in the manifest behind it`
        found.push(violation("kept-rows", detail, { operations: [operation.id, flush.id] }))
      }
    }
  }
  return found
}

const attempt = (bytes: Uint8Array | undefined, read: (bytes: Uint8Array) => Contents): Contents | undefined => {
  if (bytes === undefined) return undefined
  try {
    return read(bytes)
  } catch (cause) {
    if (cause instanceof StorageError) return undefined
    throw cause
  }
}

/**
 * Whoever takes a channel that lost what is flushed stops as soon as it knows what is flushed: what came next would count
 * as flushed, too, and be nowhere.
 */
const beyond = ({ model, steps }: Evidence): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const standing = new Standing()
  /** Who took a channel from where, and what was flushed then that its log lost. */
  const takers = new Map<number, { key: ChannelKey; head: number; lost: ReadonlyArray<Manifest> }>()
  for (const step of steps) {
    standing.apply(step)
    if (step._tag !== "ChannelKey" || !model.bereft.has(step.channel)) continue
    const { channel, moment, value } = step
    const { checkpoint, epoch, nonce } = value
    if (epoch === null) {
      const lost = [...standing.manifests.values()].filter(({ collection, flushedEpoch, flushedTo, shard }) => {
        if (standing.channelOf(collection, shard) !== channel || flushedTo <= checkpoint.lsn) return false
        const last = model.messages.filter(({ channel: of, record: { header }, standing: as }) => {
          return of === channel && as === "record" && header.lsn === flushedTo && header.epoch === flushedEpoch
        })
        return last.length > 0 && last.every((message) => message.lost !== undefined && notAfter(message.lost, moment))
      })
      takers.set(channel, { key: value, head: standing.head, lost })
      continue
    }
    const taker = takers.get(channel)
    if (taker?.key.nonce !== nonce || checkpoint.lsn <= taker.key.checkpoint.lsn || checkpoint.metadata < taker.head)
      continue
    for (const { collection, flushedTo } of taker.lost.filter((manifest) => standing.isReady(manifest.collection))) {
      found.push(
        bad(`channel ${channel} lost record ${flushedTo}, which was flushed of ${collection}, and its owner went on`)
      )
    }
  }
  return found
}

export const keptRows: Check = {
  property: "kept-rows",
  check: (evidence) => [
    ...manifests(evidence),
    ...beyond(evidence),
    ...flushes(evidence),
    ...reads(evidence).flatMap(({ differences, operation, timestamp }) =>
      differences
        .filter(
          ({ flushed, kind }) => flushed && (kind === "missing" || kind === "counted-less" || kind === "counted-more")
        )
        .map(({ detail, key }) =>
          violation("kept-rows", `at ${timestamp}: ${detail}; sealed data have a part in it`, {
            operations: [operation.id],
            ...(key === undefined ? {} : { keys: [key] })
          })
        )
    )
  ]
}

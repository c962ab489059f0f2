/**
 * What became of every write: where the log has it, whether that is what was asked, and for each key who wrote it when.
 * Requests are known by their ids; those of a client that sends none by what they wrote.
 */
import { formatRequestId } from "../../protocols/client.ts"
import { hashKey, type Key, shardOf } from "../../protocols/keys.ts"
import { requestKey } from "../../protocols/record.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import type { AskedRow, Operation } from "../history.ts"
import { type Moment, notAfter } from "../ledger.ts"
import type { Life } from "../metadata.ts"
import type { Applied } from "../model.ts"
import { type Evidence, keyIn } from "./evidence.ts"

export interface Write {
  readonly operation: Operation
  /** Where it is. */
  readonly applied: ReadonlyArray<Applied>
  /** Where it was, before a log lost it. */
  readonly lost: ReadonlyArray<Applied>
}

export interface Writes {
  /** Every insert, upsert and delete that was asked. */
  readonly all: ReadonlyArray<Write>
  /** What the log has and nobody asked for. */
  readonly strange: ReadonlyArray<Applied>
  /** Those of a key, in the order in which they began. */
  readonly ofKey: (collection: string, key: Key) => ReadonlyArray<Write>
}

export const writes = (evidence: Evidence): Writes => evidence.once(allWrites)

/** Codes that a client brings on itself: the collection is not there yet, or not any more, or is another one. */
export const own: ReadonlySet<string> = new Set([
  "collection-not-found",
  "collection-exists",
  "wrong-dimension",
  "bad-key",
  "too-large"
])

export const isRowWrite = ({ asked }: Operation): boolean => asked._tag === "Upsert" || asked._tag === "Delete"

export const keysWritten = ({ asked }: Operation): ReadonlyArray<Key> =>
  asked._tag === "Upsert" ? asked.rows.map(({ key }) => key) : asked._tag === "Delete" ? asked.keys : []

/** What each shard of a collection should have of an operation. */
export const partsOf = (
  operation: Operation,
  life: Life
): ReadonlyMap<number, ReadonlyArray<{ readonly key: Key; readonly row: AskedRow | undefined }>> => {
  const { asked } = operation
  const parts = new Map<number, Array<{ readonly key: Key; readonly row: AskedRow | undefined }>>()
  keysWritten(operation).forEach((given, i) => {
    const key = keyIn(life, given)
    const shard = shardOf(hashKey(key), life.spec.shards)
    const row = asked._tag === "Upsert" ? asked.rows[i] : undefined
    parts.set(shard, [...(parts.get(shard) ?? []), { key, row }])
  })
  return parts
}

/** Whether the log has exactly that part of the operation. */
export const isPart = (operation: Operation, life: Life, { shard, versions }: Applied): boolean => {
  const wanted = partsOf(operation, life).get(shard) ?? []
  return (
    wanted.length === versions.length &&
    wanted.every(({ key, row }, i) => {
      const version = versions[i]!
      if (key !== version.key || (row === undefined) !== (version.row === undefined)) return false
      if (row === undefined || version.row === undefined) return true
      const { fields, vector } = version.row
      const sameFields = JSON.stringify(fields) === JSON.stringify(row.fields)
      return sameFields && vector.length === row.vector.length && vector.every((value, d) => value === row.vector[d])
    })
  )
}

/**
 * Gives as many of `things` as possible to somebody each, nobody more than one: a largest matching, by augmenting paths
 * (Kuhn 1955).
 */
const dealOut = <T, W>(things: ReadonlyArray<T>, takersOf: (thing: T) => ReadonlyArray<W>): ReadonlyMap<W, T> => {
  const given = new Map<W, T>()
  const give = (thing: T, asked: Set<W>): boolean => {
    for (const taker of takersOf(thing)) {
      if (asked.has(taker)) continue
      asked.add(taker)
      const other = given.get(taker)
      if (other !== undefined && !give(other, asked)) continue
      given.set(taker, thing)
      return true
    }
    return false
  }
  for (const thing of things) give(thing, new Set())
  return given
}

const allWrites = (evidence: Evidence): Writes => {
  const { lives, model, operations } = evidence
  const matched = new Set<Applied>()
  const lifeOf = new Map(lives.map((life) => [life.id, life]))
  const byOp = new Map<number, Array<Applied>>()
  for (const applied of model.applied) {
    const op = applied.versions[0]?.row?.fields["op"]
    if (typeof op === "number") byOp.set(op, [...(byOp.get(op) ?? []), applied])
  }
  const there = (all: ReadonlyArray<Applied>) => all.filter(({ message }) => message.lost === undefined)
  const byRequest = Map.groupBy(model.applied, ({ request }) => requestKey(request))

  const named = new Set<string>()
  for (const { asked } of operations) {
    if ((asked._tag === "Upsert" || asked._tag === "Delete") && asked.request !== undefined) {
      named.add(requestKey(asked.request))
    }
  }
  // Deletes without an id: their proxy gave each one, and so all parts of one are known to be one.
  const unnamed = new Map(
    [...byRequest].filter(([key, [first]]) => !named.has(key) && first?.versions[0]?.row === undefined)
  )
  const claimed = new Map<Operation, ReadonlyArray<Applied>>()
  const couldBe = (operation: Operation, parts: ReadonlyArray<Applied>): boolean =>
    parts.every((applied) => {
      const life = lifeOf.get(applied.collection)
      if (life?.name !== operation.collection) return false
      return notAfter(operation.invoked, applied.message.stored) && isPart(operation, life, applied)
    })
  const claim = (operation: Operation, key: string): void => {
    claimed.set(operation, unnamed.get(key)!)
    unnamed.delete(key)
  }
  const deletes = operations.filter(({ asked }) => asked._tag === "Delete" && asked.request === undefined)
  // Who was told a time has one of which a part is of that time: of several in one record the one with most parts.
  for (const operation of deletes.filter(isOk)) {
    const [best] = [...unnamed]
      .filter(([, parts]) => parts.some(({ message }) => message.record.header.timestamp === timestampOf(operation)))
      .filter(([, parts]) => couldBe(operation, parts))
      .toSorted(([, a], [, b]) => b.length - a.length)
    if (best !== undefined) claim(operation, best[0])
  }
  // Who was told nothing may have any that is left. Only if they cannot be dealt out so that none is over, nobody asked for one.
  const untold = deletes.filter(({ outcome }) => outcome === undefined || outcome._tag === "Unknown")
  const dealt = dealOut([...unnamed.keys()], (key) => untold.filter((one) => couldBe(one, unnamed.get(key)!)))
  for (const [operation, key] of dealt) claim(operation, key)

  const writeOf = (operation: Operation): Write => {
    const { asked } = operation
    if (asked._tag !== "Upsert" && asked._tag !== "Delete") return { operation, applied: [], lost: [] }
    const all =
      asked.request !== undefined
        ? (byRequest.get(requestKey(asked.request)) ?? [])
        : asked._tag === "Upsert"
          ? (byOp.get(operation.id) ?? [])
          : (claimed.get(operation) ?? [])
    for (const each of all) matched.add(each)
    return { operation, applied: there(all), lost: all.filter(({ message }) => message.lost !== undefined) }
  }
  const all = operations.filter(isRowWrite).map(writeOf)

  const index = new Map<string, Map<Key, Array<Write>>>()
  for (const write of all) {
    let keys = index.get(write.operation.collection)
    if (keys === undefined) index.set(write.operation.collection, (keys = new Map()))
    for (const key of new Set(keysWritten(write.operation))) keys.set(key, [...(keys.get(key) ?? []), write])
  }
  return {
    all,
    strange: there(model.applied).filter((applied) => !matched.has(applied)),
    ofKey: (collection, key) => index.get(collection)?.get(key) ?? []
  }
}

/** The timestamp of an acknowledged operation. */
export const timestampOf = ({ outcome }: Operation): Timestamp | undefined =>
  outcome?._tag === "Ok" ? outcome.timestamp : undefined

export const isOk = ({ outcome }: Operation): boolean => outcome?._tag === "Ok"
/** It may have been carried out, or may yet be. */
export const isPossible = ({ outcome }: Operation): boolean => outcome?._tag !== "Refused"

/** Whether `a` was certainly over, and had its effect or never will, when `b` began. */
export const isBefore = (a: Operation, b: { readonly invoked: Moment }): boolean =>
  a.completed !== undefined && a.outcome?._tag !== "Unknown" && notAfter(a.completed, b.invoked)

/** The request that made a collection, as its metadata names it. */
export const makingOf = ({ asked }: Operation): string | undefined =>
  asked._tag === "Create" && asked.request !== undefined ? formatRequestId(asked.request) : undefined

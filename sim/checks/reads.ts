/**
 * Every answer held against the model at the timestamp that it states: what is missing, what should not be there, and
 * what is wrong about what should. Which property that breaks is for the checks to say.
 */
import { compareKeys, hashKey, type Key, shardOf } from "../../protocols/keys.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"
import type { AnswerHit, AnswerRow, Asked, Operation } from "../history.ts"
import { notAfter } from "../ledger.ts"
import type { Life } from "../metadata.ts"
import type { Model, Row, Version } from "../model.ts"
import { type Evidence, keyIn, keyText } from "./evidence.ts"

export type DifferenceKind =
  /** A row that is there at T is not in the answer. */
  | "missing"
  /** A row came that was overwritten by T. */
  | "stale"
  /** A row came that was deleted by T. */
  | "deleted"
  /** A row came that is written after T. */
  | "future"
  /** A row came that no log has. */
  | "unknown"
  /** The same key twice. */
  | "twice"
  /** The answer is not in the order that was promised. */
  | "order"
  /** A distance is not that of the row. */
  | "distance"
  /** There are too few hits, or too many, or there are nearer ones. */
  | "fewer"
  | "more"
  | "farther"
  /** Of count(*). */
  | "counted-less"
  | "counted-more"

export interface Difference {
  readonly kind: DifferenceKind
  readonly key: Key | undefined
  /** Whether sealed data have a part in it. */
  readonly flushed: boolean
  readonly detail: string
}

export interface Read {
  readonly operation: Operation
  readonly timestamp: Timestamp
  /** The collection that was read; undefined if there never was one of that name. */
  readonly life: Life | undefined
  readonly differences: ReadonlyArray<Difference>
}

/** Every read that was answered. */
export const reads = (evidence: Evidence): ReadonlyArray<Read> => evidence.once(allReads)

const allReads = (evidence: Evidence): ReadonlyArray<Read> =>
  evidence.operations.flatMap((operation) => {
    const { asked, outcome } = operation
    if (outcome?._tag !== "Ok") return []
    if (asked._tag !== "Get" && asked._tag !== "Count" && asked._tag !== "Search" && asked._tag !== "Stats") return []
    return [readOf(evidence, operation, outcome.timestamp)]
  })

/** What a collection is taken for. */
type View = Pick<Model, "at" | "rows" | "versions">

/** Each shard as one of the logs has it that its owner may go by. */
const viewOf = (logs: ReadonlyArray<Model>): View => {
  const [first] = logs
  if (logs.every((log) => log === first)) return first!
  const logOf = (key: Key) => logs[shardOf(hashKey(key), logs.length)]!
  return {
    at: (collection, key, timestamp) => logOf(key).at(collection, key, timestamp),
    versions: (collection, key) => logOf(key).versions(collection, key),
    rows: (collection, timestamp) =>
      [...new Set(logs)]
        .flatMap((log) => log.rows(collection, timestamp).filter(({ key }) => logOf(key) === log))
        .sort((a, b) => compareKeys(a.key, b.key))
  }
}

/**
 * All that a collection may be taken for by those who know of no loss, or of some: `logsOf` says by which logs each of
 * its channels may be read. What is so comes first.
 */
export function* viewsOf(
  life: Life,
  logsOf: (channel: number) => ReadonlyArray<Model>,
  chosen: ReadonlyArray<Model> = []
): Generator<View> {
  const { channels } = life
  const shard = chosen.length
  if (shard === channels.length) return yield viewOf(chosen)
  // Two shards on one channel have one owner.
  const twin = channels.indexOf(channels[shard]!)
  const logs = twin < shard ? [chosen[twin]!] : logsOf(channels[shard]!)
  for (const log of logs) yield* viewsOf(life, logsOf, [...chosen, log])
}

/**
 * Against the collection of that name that fits best: a proxy may not know yet that there is another one. Where a log
 * lost something, with it or without: `damage` asks which it should have been.
 */
const readOf = (evidence: Evidence, operation: Operation, timestamp: Timestamp): Read => {
  const { collection, completed } = operation
  let best: Read = { operation, timestamp, life: undefined, differences: [] }
  const lives = evidence.lives.filter(({ created, name }) => name === collection && notAfter(created, completed!))
  for (const life of lives.toReversed()) {
    for (const view of viewsOf(life, (channel) => evidence.logsOf(channel))) {
      const differences = differencesOf(evidence, operation, timestamp, life, view)
      const read: Read = { operation, timestamp, life, differences }
      if (best.life === undefined || differences.length < best.differences.length) best = read
      if (best.differences.length === 0) return best
    }
  }
  return best
}

export const differencesOf = (
  evidence: Evidence,
  operation: Operation,
  timestamp: Timestamp,
  life: Life,
  view: View
): ReadonlyArray<Difference> => {
  const { asked, outcome } = operation
  const answer = outcome?._tag === "Ok" ? outcome.answer : undefined
  const held = new Held(evidence, view, operation, timestamp, life)
  if (asked._tag === "Get" && answer?._tag === "Rows") held.get(asked.keys, answer.rows)
  if ((asked._tag === "Count" || asked._tag === "Stats") && answer?._tag === "Counted") held.count(answer.rows)
  if (asked._tag === "Search" && answer?._tag === "Hits") held.search(asked, answer.lists)
  return held.differences
}

/** One answer, held against one collection. */
class Held {
  readonly differences: Array<Difference> = []
  private readonly evidence: Evidence
  private readonly view: View
  private readonly operation: Operation
  private readonly timestamp: Timestamp
  private readonly life: Life

  constructor(evidence: Evidence, view: View, operation: Operation, timestamp: Timestamp, life: Life) {
    this.evidence = evidence
    this.view = view
    this.operation = operation
    this.timestamp = timestamp
    this.life = life
  }

  get(asked: ReadonlyArray<Key>, rows: ReadonlyArray<AnswerRow>): void {
    const came = this.once(rows)
    for (const row of rows) this.row(row, () => true)
    const wanted = [...new Set(asked)]
    for (const key of wanted) {
      const version = this.at(key)
      if (version?.row !== undefined && !came.has(key)) {
        this.differ("missing", key, version, `${keyText(key)} of ${said(version)} is missing`)
      }
    }
    for (const key of came) {
      if (!wanted.includes(key)) this.differ("unknown", key, undefined, `${keyText(key)} was not asked for`)
    }
    const order = [...came].map((key) => wanted.indexOf(key))
    if (order.some((place, i) => i > 0 && place < order[i - 1]!)) {
      this.differ("order", undefined, undefined, "the rows are not in the order of the keys that were asked for")
    }
  }

  count(counted: number): void {
    const rows = this.view.rows(this.life.id, this.timestamp)
    if (counted === rows.length) return
    const kind = counted < rows.length ? "counted-less" : "counted-more"
    const flushed = this.life.channels.some((_, shard) => this.flushedTo(shard) > 0)
    this.differences.push({ kind, key: undefined, flushed, detail: `${counted} rows counted of ${rows.length}` })
  }

  search(
    { limit, offset, queries }: Asked & { readonly _tag: "Search" },
    lists: ReadonlyArray<ReadonlyArray<AnswerHit>>
  ): void {
    if (lists.length !== queries.length) {
      this.differ("fewer", undefined, undefined, `${lists.length} lists for ${queries.length} vectors`)
      return
    }
    const rows = this.view.rows(this.life.id, this.timestamp)
    queries.forEach((query, i) => this.list(query, offset, limit, lists[i]!, rows))
  }

  private list(
    query: Float32Array,
    offset: number,
    limit: number,
    hits: ReadonlyArray<AnswerHit>,
    rows: ReadonlyArray<Version & { readonly row: Row }>
  ): void {
    const { metric } = this.life.spec
    const before = this.differences.length
    this.once(hits)
    for (const hit of hits) {
      const isRight = (row: Row) => Math.abs(distance(metric, query, row.vector) - hit.distance) <= slack(metric)
      this.row(hit, isRight)
    }
    const nearer = metric === "L2" ? 1 : -1
    if (hits.some((hit, i) => i > 0 && (hit.distance - hits[i - 1]!.distance) * nearer < 0)) {
      this.differ("order", undefined, undefined, "the hits are not ordered by distance")
    }
    // What is wrong about a hit may push out another: it is said once.
    if (this.differences.length > before) return
    const best = rows.map((version) => distance(metric, query, version.row.vector)).sort((a, b) => (a - b) * nearer)
    const wanted = best.slice(offset, offset + limit)
    if (hits.length !== wanted.length) {
      const missing = rows.find(({ key, row }) => {
        const worst = wanted[wanted.length - 1]!
        const belongs = (distance(metric, query, row.vector) - worst) * nearer <= 0
        return belongs && offset === 0 && !hits.some((hit) => keyIn(this.life, hit.key) === key)
      })
      const kind = hits.length < wanted.length ? "fewer" : "more"
      this.differ(kind, missing?.key, missing, `${hits.length} hits; ${wanted.length} rows belong there`)
      return
    }
    const farther = hits.findIndex((hit, i) => Math.abs(hit.distance - wanted[i]!) > slack(metric))
    if (farther >= 0) {
      const detail = `hit ${farther} has distance ${hits[farther]!.distance}; there is a row at ${wanted[farther]}`
      this.differ("farther", hits[farther]!.key, undefined, detail)
    }
  }

  /** The keys that came; one that comes twice is a difference. */
  private once(rows: ReadonlyArray<AnswerRow>): Set<Key> {
    const came = new Set<Key>()
    for (const { key } of rows) {
      if (came.has(key)) this.differ("twice", key, this.at(key), `${keyText(key)} comes twice`)
      came.add(key)
    }
    return came
  }

  private row(given: AnswerRow, isRight: (row: Row) => boolean): void {
    const { key } = given
    const expected = this.at(key)
    const isSame = (row: Row) => sameContent(given, row)
    if (expected?.row !== undefined && isSame(expected.row) && isRight(expected.row)) return
    const versions = this.view.versions(this.life.id, keyIn(this.life, key)).filter(({ row }) => row !== undefined)
    const like = versions.filter(({ row }) => isSame(row!))
    const told = content(given)
    // The content says which version it is; if it says nothing, the distance does.
    const found = like.findLast(({ row }) => isRight(row!)) ?? (told === "" ? undefined : like[like.length - 1])
    if (found === undefined) {
      if (expected?.row !== undefined && told === "") {
        this.differ("distance", key, expected, `the distance of ${keyText(key)} is that of no version`)
      } else if (expected?.row === undefined && told === "" && versions.length > 0) {
        this.gone(key, expected, versions[versions.length - 1]!)
      } else this.differ("unknown", key, expected, `${keyText(key)} ${told} is in no log`)
      return
    }
    if (found === expected)
      this.differ("distance", key, found, `the distance of ${keyText(key)} is not that of ${said(found)}`)
    else if (found.timestamp > this.timestamp) {
      this.differ("future", key, found, `${keyText(key)} is of ${said(found)}, after the time of the read`)
    } else if (expected?.row === undefined) this.gone(key, expected, found)
    else {
      const detail = `${keyText(key)} is of ${said(found)}, and was overwritten by ${said(expected)}`
      this.differ("stale", key, expected, detail)
    }
  }

  /** A row came for a key that has none at T. */
  private gone(key: Key, expected: Version | undefined, found: Version): void {
    if (expected === undefined) {
      this.differ("future", key, found, `${keyText(key)} is of ${said(found)}, after the time of the read`)
    } else this.differ("deleted", key, expected, `${keyText(key)} came, and was deleted by ${said(expected)}`)
  }

  private at(key: Key): Version | undefined {
    return this.view.at(this.life.id, keyIn(this.life, key), this.timestamp)
  }

  private flushedTo(shard: number): number {
    return this.evidence.flushedTo(this.life.id, shard, this.operation.completed!)
  }

  private differ(kind: DifferenceKind, key: Key | undefined, version: Version | undefined, detail: string): void {
    const flushed = version !== undefined && version.lsn <= this.flushedTo(version.shard)
    this.differences.push({ kind, key, flushed, detail })
  }
}

const said = ({ channel, lsn, row, timestamp }: Version): string =>
  `record ${lsn} of channel ${channel} (${row === undefined ? "delete" : `op ${String(row.fields["op"])}`}, ${timestamp})`

const content = ({ fields, vector }: AnswerRow): string =>
  [
    ...(fields === undefined ? [] : [JSON.stringify(fields)]),
    ...(vector === undefined ? [] : [`[${vector.join()}]`])
  ].join(" ")

const sameContent = ({ fields, vector }: AnswerRow, row: Row): boolean =>
  (fields === undefined || (fields["op"] === row.fields["op"] && fields["row"] === row.fields["row"])) &&
  (vector === undefined || sameVector(vector, row.vector))

const sameVector = (a: Float32Array, b: Float32Array): boolean =>
  a.length === b.length && a.every((value, i) => Object.is(value, b[i]))

/** As users know it, by the plainest sums. */
export const distance = (metric: Life["spec"]["metric"], a: Float32Array, b: Float32Array): number => {
  let square = 0
  let product = 0
  let aa = 0
  let bb = 0
  for (let i = 0; i < b.length; i++) {
    const x = a[i]!
    const y = b[i]!
    square += (x - y) * (x - y)
    product += x * y
    aa += x * x
    bb += y * y
  }
  if (metric === "L2") return square
  if (metric === "IP") return product
  return aa === 0 || bb === 0 ? 0 : product / Math.sqrt(aa * bb)
}

/** Vectors are quarters, so squares and products are exact; a root is not. */
const slack = (metric: Life["spec"]["metric"]): number => (metric === "COSINE" ? 1e-9 : 0)

/** One collection, as a client sees it: what it asks in the binary form, and what it knows of the collection. */
import {
  BINARY,
  binary,
  consistencies,
  formatRequestId,
  headers as headerNames,
  type ReadLevel
} from "../../protocols/client.ts"
import { afterParts, ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { collectionSubject, nameProblem } from "../../protocols/subjects.ts"
import { later, type Timestamp } from "../../protocols/timestamp.ts"
import { type Ask, type Patience, patience } from "./ask.ts"
import type { JsonAsks } from "./ask-json.ts"
import type {
  Collection,
  CollectionStats,
  Columns,
  Hit,
  ReadOptions,
  RequestOptions,
  SearchOptions,
  Written
} from "./interface.ts"
import { rowAt, toBatch, toKeys, toQueries, type Vector } from "./layout.ts"
import { split } from "./parts.ts"
import type { Session } from "./session.ts"
import { type Spec, specOf } from "./spec.ts"

/** What all collections of a client share. */
export interface Client extends JsonAsks {
  readonly ask: Ask
  readonly session: Session
  readonly database: string
  /** The largest message, bytes. */
  readonly payloadMax: number
}

export const DATE_AGAIN_MS = 200

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

const patienceOf = ({ timeoutMs = limits.requestTimeoutMs }: RequestOptions): Patience =>
  patience(timeoutMs, () => performance.now())

export const makeCollection = (client: Client, name: string): Collection => {
  const { ask, askAbout, askRows, database, payloadMax, session } = client
  const wrong = nameProblem(name)
  if (wrong !== undefined) throw failure("bad-name", wrong)
  const subject = (verb: string) => collectionSubject(database, name, verb)
  const subjects = { search: subject("search"), insert: subject("insert"), get: subject("get") }
  let known: Promise<Spec> | undefined
  /** Asked once, and again after an error that may say that it is another collection now. */
  const spec = (leftMs: Patience): Promise<Spec> =>
    (known ??= askAbout(subject("describe"), {}, { timeoutMs: leftMs() }).then(specOf, (cause: unknown) => {
      known = undefined
      throw cause
    }))
  const forget = (cause: unknown): never => {
    known = undefined
    throw cause
  }

  const level = ({ at, consistency = "Session" }: ReadOptions): ReadLevel => {
    if (consistencies.includes(consistency)) return { at, consistency, token: session.token() }
    throw failure("bad-request", `consistency is one of ${consistencies.join(", ")}, not ${consistency}`)
  }
  const asBinary = { [headerNames.format]: BINARY }

  /**
   * Dated by an old answer, the cluster could not tell a write from one that it has forgotten ("outcome-unknown"), nor from one
   * to a collection of that name before this one.
   */
  const dated = async ({ created }: Spec, leftMs: Patience): Promise<void> => {
    while (!session.isDated(created)) {
      await askAbout(subject("describe"), {}, { timeoutMs: leftMs() })
      if (session.isDated(created)) return
      // While there is no coordinator, a description has no date.
      if (leftMs() <= DATE_AGAIN_MS) throw failure("unavailable", "no coordinator gives out timestamps")
      await sleep(DATE_AGAIN_MS)
    }
  }

  const writeOne = async (verb: string, mine: Spec, data: Uint8Array, leftMs: Patience): Promise<Written> => {
    await dated(mine, leftMs)
    const headers = { ...asBinary, [headerNames.request]: formatRequestId(session.requestId()) }
    try {
      const { count, timestamp } = binary.written.decode((await ask(verb, data, headers, leftMs())).data)
      session.saw(timestamp)
      return { count, timestamp }
    } catch (cause) {
      if (cause instanceof ElanusError && cause.code === "outcome-unknown") session.outdate()
      throw cause
    }
  }

  const write = async (rows: ReadonlyArray<object> | Columns, options: RequestOptions = {}): Promise<Written> => {
    const leftMs = patienceOf(options)
    const mine = await spec(leftMs)
    // Each part may take what the whole has left now.
    const timeoutMs = leftMs()
    const batch = toBatch(mine, rows)
    const parts = split(batch, Math.min(payloadMax, limits.recordBytesMax) - limits.payloadMargin)
    let count = 0
    let timestamp: Timestamp = 0n
    let next = 0
    const worker = async () => {
      while (next < parts.length) {
        const part = parts[next++]!
        try {
          const written = await writeOne(subjects.insert, mine, binary.write.encode(part), patienceOf({ timeoutMs }))
          count += written.count
          timestamp = later(timestamp, written.timestamp)
        } catch (cause) {
          next = parts.length
          throw cause
        }
      }
    }
    const workers = Array.from({ length: Math.min(limits.insertsAtOnce, parts.length) }, worker)
    // Also those that are on their way: who is told that it failed may delete what is there, and nothing may come after that.
    const failed = (await Promise.allSettled(workers)).flatMap((each) =>
      each.status === "rejected" ? [each.reason as unknown] : []
    )
    if (failed.length === 0) return { count, timestamp }
    const errors = failed.filter((each) => each instanceof ElanusError)
    return forget(errors.length < failed.length || parts.length === 1 ? failed[0] : afterParts(errors, count > 0))
  }

  const search = async (given: Vector | ReadonlyArray<Vector>, options: SearchOptions = {}) => {
    const { dimension, queries, single } = toQueries(given)
    const { ef = 0, limit = 10, offset = 0, outputFields = [] } = options
    const request = { dimension, queries, limit, offset, ef, outputFields, level: level(options) }
    mustBeU32("limit", limit)
    mustBeU32("offset", offset)
    mustBeU32("ef", ef)
    const asked = ask(subjects.search, binary.search.encode(request), asBinary, options.timeoutMs)
    const reply = asked instanceof Promise ? await asked : asked
    const found = binary.hits.decode(reply.data)
    session.saw(found.timestamp)
    const lists: Array<Array<Hit>> = []
    let at = 0
    for (const count of found.counts) {
      const list: Array<Hit> = new Array(count)
      for (let i = 0; i < count; i++, at++) {
        const { fields, id, vector } = rowAt(found, at, outputFields)
        const distance = found.distances[at]!
        list[i] = vector === undefined ? { id, fields, distance } : { id, fields, vector, distance }
      }
      lists.push(list)
    }
    return single ? lists[0]! : lists
  }

  return {
    name,
    describe: (options) => askAbout(subject("describe"), {}, options) as Promise<Record<string, unknown>>,
    stats: (options) => askRows(subject("stats"), {}, options) as Promise<CollectionStats>,
    drop: async (options = {}) => {
      const leftMs = patienceOf(options)
      known = undefined
      // Dated by an answer of now, it drops no later collection of that name, however late it comes.
      const mine = await spec(leftMs).catch((cause: unknown) => {
        // One that is on its way out already, perhaps: that is waited for.
        if (!(cause instanceof ElanusError && cause.code === "collection-not-found")) throw cause
      })
      known = undefined
      if (mine !== undefined) await dated(mine, leftMs)
      await askAbout(subject("drop"), {}, { timeoutMs: leftMs() })
    },
    flush: async (options) => {
      await askAbout(subject("flush"), {}, options)
    },
    insert: write,
    upsert: write,
    delete: async (ids, options = {}) => {
      const leftMs = patienceOf(options)
      const mine = await spec(leftMs)
      return writeOne(subject("delete"), mine, binary.keys.encode(toKeys(mine, ids)), leftMs).catch(forget)
    },
    get: async (ids, options = {}) => {
      const leftMs = patienceOf(options)
      const mine = await spec(leftMs)
      const { outputFields = ["*"] } = options
      const request = { keys: toKeys(mine, ids), outputFields, level: level(options) }
      const data = binary.get.encode(request)
      const reply = await Promise.resolve(ask(subjects.get, data, asBinary, leftMs())).catch(forget)
      const found = binary.found.decode(reply.data)
      session.saw(found.timestamp)
      return Array.from({ length: found.keys.count }, (_, i) => rowAt(found, i, outputFields))
    },
    count: async (options = {}) => {
      const { at, consistency = "Session" } = options
      const token = session.token()
      const body = {
        outputFields: ["count(*)"],
        consistencyLevel: consistency,
        ...(token > 0n ? { guaranteeTimestamp: String(token) } : {}),
        ...(at === undefined ? {} : { travelTimestamp: String(at) })
      }
      const rows = (await askRows(subject("query"), body, options)) as ReadonlyArray<{ readonly "count(*)": number }>
      return rows[0]!["count(*)"]
    },
    search: search as Collection["search"]
  }
}

const mustBeU32 = (what: string, value: number): void => {
  if (Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff) return
  throw failure("bad-request", `${what} must be an integer, not ${value}`)
}

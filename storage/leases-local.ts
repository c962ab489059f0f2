/**
 * Leases in one process: keys that expire live in memory and are gone after a restart, as their holders are; the
 * others are on the disk. A revision is never given twice, also not after a restart.
 */
import { Effect, Layer, Option } from "effect"
import { Leases } from "./leases.ts"
import { type Database, LocalStore, type Write } from "./local-store.ts"
import { makeWatchers } from "./local-watch.ts"
import type { Entry, WatchEvent } from "./meta.ts"
import { decodeEntry, encodeEntry } from "./meta-local.ts"
import { refusalOfLease } from "./meta-rules.ts"
import { done, type Outcome, refused, type StorageError, unavailable } from "./outcome.ts"

const boundKey = "lease-bound"
const entryPrefix = "lease/"
/** Revisions set aside by one write, so that a renewal needs none. */
const revisionsAhead = 10_000

interface Lease {
  readonly entry: Entry
  readonly isDurable: boolean
}

const make = Effect.gen(function* () {
  const store = yield* LocalStore
  const scope = yield* Effect.scope
  const watchers = makeWatchers()
  const leases = new Map<string, Lease>()
  /** Of each key, as it is once everything handed over is written. */
  const revisions = new Map<string, number>()
  let revision = 0
  /** No revision above it was ever given out by an earlier process. */
  let bound = 0

  const load = async (database: Database) => {
    for (const [key, { isDurable }] of leases) if (isDurable) leases.delete(key)
    for await (const [key, bytes] of database.iterator({ gt: entryPrefix, lt: "lease0" })) {
      const name = key.slice(entryPrefix.length)
      leases.set(name, { entry: decodeEntry(name, bytes), isDurable: true })
    }
    revisions.clear()
    for (const [key, { entry }] of leases) revisions.set(key, entry.revision)
    const found = await database.get(boundKey)
    bound = found === undefined ? 0 : decodeEntry(boundKey, found).revision
    // Of the revisions set aside some may have been given out.
    revision = Math.max(revision, bound)
    watchers.failAll("the local store was opened anew")
  }
  yield* store.attach(load)

  const boundWrite = (): ReadonlyArray<Write> => {
    if (revision <= bound) return []
    const value = encodeEntry({ key: boundKey, value: new Uint8Array(0), revision: revision + revisionsAhead })
    return [{ type: "put", key: boundKey, value }]
  }

  /** Writes if something must be on the disk for this change, and then makes it seen. */
  const change = (
    key: string,
    writes: ReadonlyArray<Write>,
    seen: () => void,
    answer: (outcome: Outcome<void>) => void
  ) => {
    const all = [...writes, ...boundWrite()]
    if (all.length === 0) {
      seen()
      return answer(done(undefined))
    }
    const upTo = revision + revisionsAhead
    const movesBound = all.length > writes.length
    store.write(all, (outcome) => {
      if (outcome._tag === "Done") {
        if (movesBound) bound = Math.max(bound, upTo)
        seen()
      } else if (outcome._tag === "Unavailable") {
        // Certainly not written, so the key is as it was.
        const { entry } = leases.get(key) ?? {}
        if (entry === undefined) revisions.delete(key)
        else revisions.set(key, entry.revision)
      }
      answer(outcome)
    })
  }

  const expire = (key: string, expected: number) =>
    Effect.sync(() => {
      const lease = leases.get(key)
      if (lease?.entry.revision !== expected || revisions.get(key) !== expected) return
      leases.delete(key)
      revisions.delete(key)
      const event: WatchEvent = { _tag: "Deleted", key, revision: ++revision }
      const writes = boundWrite()
      const upTo = revision + revisionsAhead
      if (writes.length > 0) {
        store.write(writes, (outcome) => {
          if (outcome._tag === "Done") bound = Math.max(bound, upTo)
        })
      }
      watchers.publish(event)
    })

  const write = (key: string, value: Uint8Array, expected: number, ttlMs?: number) =>
    Effect.callback<Outcome<number>>((resume) => {
      const answer = (outcome: Outcome<number>) => resume(Effect.succeed(outcome))
      const refusal = refusalOfLease(key, ttlMs)
      if (refusal !== undefined) return answer(refusal)
      if (!store.isOpen()) return answer(unavailable("the local store is closed"))
      const current = revisions.get(key) ?? 0
      if (current !== expected) return answer(refused("conflict", `wrong last sequence: ${current}`))
      const entry: Entry = { key, value: new Uint8Array(value), revision: ++revision }
      const isDurable = ttlMs === undefined
      revisions.set(key, entry.revision)
      const writes: Array<Write> = isDurable
        ? [{ type: "put", key: entryPrefix + key, value: encodeEntry(entry) }]
        : leases.get(key)?.isDurable
          ? [{ type: "del", key: entryPrefix + key }]
          : []
      const seen = () => {
        leases.set(key, { entry, isDurable })
        watchers.publish({ _tag: "Put", entry })
      }
      change(key, writes, seen, (outcome) => answer(outcome._tag === "Done" ? done(entry.revision) : outcome))
    })

  const put = (key: string, value: Uint8Array, expected: number, ttlMs?: number) =>
    // Interrupted between the write and its timer, a lease would stay for ever.
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const outcome = yield* write(key, value, expected, ttlMs)
        if (outcome._tag === "Done" && ttlMs !== undefined) {
          // A renewed one has another revision, and this timer then finds nothing to do.
          const timer = Effect.andThen(Effect.sleep(ttlMs), expire(key, outcome.value))
          yield* Effect.forkIn(restore(timer), scope)
        }
        return outcome
      })
    )

  const remove = (key: string, expected: number) =>
    Effect.callback<Outcome<void>>((resume) => {
      const answer = (outcome: Outcome<void>) => resume(Effect.succeed(outcome))
      const refusal = refusalOfLease(key, undefined)
      if (refusal !== undefined) return answer(refusal)
      if (!store.isOpen()) return answer(unavailable("the local store is closed"))
      const current = revisions.get(key) ?? 0
      if (current !== expected) return answer(refused("conflict", `wrong last sequence: ${current}`))
      const event: WatchEvent = { _tag: "Deleted", key, revision: ++revision }
      revisions.delete(key)
      const writes: Array<Write> = leases.get(key)?.isDurable ? [{ type: "del", key: entryPrefix + key }] : []
      const seen = () => {
        leases.delete(key)
        watchers.publish(event)
      }
      change(key, writes, seen, answer)
    })

  return Leases.of({
    get: (key) => Effect.map(store.database, () => Option.fromNullishOr(leases.get(key)?.entry)),
    put,
    remove,
    watch: (prefix) =>
      watchers.watch(prefix, () => Array.from(leases.values(), ({ entry }): WatchEvent => ({ _tag: "Put", entry })))
  })
})

export const layer: Layer.Layer<Leases, StorageError, LocalStore> = Layer.effect(Leases, make)

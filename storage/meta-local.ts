/**
 * The metadata in a local store: all of it in memory, and every commit one synced write. It never shows a change
 * that is not on the disk.
 */
import { Effect, Layer, Option } from "effect"
import { limits } from "../protocols/limits.ts"
import { type Database, LocalStore, type Write } from "./local-store.ts"
import { makeWatchers } from "./local-watch.ts"
import { type Change, type Entry, Meta, type WatchEvent } from "./meta.ts"
import { refusalOfChanges } from "./meta-rules.ts"
import { ambiguous, done, type Outcome, refused, type StorageError, unavailable } from "./outcome.ts"

const headKey = "meta-head"
const entryPrefix = "meta/"

// A value: the revision (8 bytes), then what was committed. Leases are kept the same way.
const headBytes = 8
export const encodeEntry = ({ value, revision }: Entry): Uint8Array => {
  const bytes = new Uint8Array(headBytes + value.length)
  new DataView(bytes.buffer).setFloat64(0, revision, true)
  bytes.set(value, headBytes)
  return bytes
}
export const decodeEntry = (key: string, bytes: Uint8Array): Entry => ({
  key,
  value: new Uint8Array(bytes.subarray(headBytes)),
  revision: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat64(0, true)
})

const make = Effect.gen(function* () {
  const store = yield* LocalStore
  const entries = new Map<string, Entry>()
  const watchers = makeWatchers()
  /** On the disk, and once everything handed over is. */
  let head = 0
  let headAhead = 0

  const load = async (database: Database) => {
    entries.clear()
    for await (const [key, bytes] of database.iterator({ gt: entryPrefix, lt: "meta0" })) {
      const name = key.slice(entryPrefix.length)
      entries.set(name, decodeEntry(name, bytes))
    }
    const found = await database.get(headKey)
    head = found === undefined ? 0 : decodeEntry(headKey, found).revision
    headAhead = head
    // A commit that was ambiguous may be there now, and no watch was told.
    watchers.failAll("the local store was opened anew")
  }
  yield* store.attach(load)

  const apply = (changed: ReadonlyArray<WatchEvent>) => {
    for (const event of changed) {
      if (event._tag === "Put") entries.set(event.entry.key, event.entry)
      else if (event._tag === "Deleted") entries.delete(event.key)
      watchers.publish(event)
    }
  }

  const commit = (changes: ReadonlyArray<Change>, expectedHead: number): Effect.Effect<Outcome<number>> =>
    Effect.callback<Outcome<number>>((resume) => {
      const answer = (outcome: Outcome<number>) => resume(Effect.succeed(outcome))
      const refusal = refusalOfChanges(changes)
      if (refusal !== undefined) return answer(refusal)
      if (!store.isOpen()) return answer(unavailable("the local store is closed"))
      if (expectedHead !== headAhead) return answer(refused("conflict", `the head is ${headAhead}`))
      const events = changes.map(({ key, value }): WatchEvent => {
        const revision = ++headAhead
        return value === undefined
          ? { _tag: "Deleted", key, revision }
          : { _tag: "Put", entry: { key, value: new Uint8Array(value), revision } }
      })
      const next = headAhead
      const writes = events.map((event): Write => {
        if (event._tag === "Put") {
          return { type: "put", key: entryPrefix + event.entry.key, value: encodeEntry(event.entry) }
        }
        return { type: "del", key: entryPrefix + (event as { readonly key: string }).key }
      })
      const newHead = encodeEntry({ key: headKey, value: new Uint8Array(0), revision: next })
      store.write([...writes, { type: "put", key: headKey, value: newHead }], (outcome) => {
        if (outcome._tag !== "Done") return answer(outcome)
        head = next
        apply(events)
        answer(done(next))
      })
    }).pipe(
      Effect.timeoutOrElse({
        duration: limits.commitTimeoutMs,
        orElse: () => Effect.succeed(ambiguous("the disk did not answer in time"))
      })
    )

  return Meta.of({
    get: (key) => Effect.map(store.database, () => Option.fromNullishOr(entries.get(key))),
    snapshot: Effect.map(store.database, () => ({ head, entries: [...entries.values()] })),
    commit,
    watch: (prefix) =>
      watchers.watch(prefix, () => Array.from(entries.values(), (entry): WatchEvent => ({ _tag: "Put", entry })))
  })
})

export const layer: Layer.Layer<Meta, StorageError, LocalStore> = Layer.effect(Meta, make)

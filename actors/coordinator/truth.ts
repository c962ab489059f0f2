/**
 * The metadata as the active coordinator holds it, and the only way to change it: a change is a function of a draft,
 * run in order, committed before its answer is known to anybody, several that wait in one commit.
 *
 * 1. One commit is in flight, and names the head of our own last one: whoever took over in between has refused it.
 * 2. A commit whose outcome is unknown is decided before the next: by another with the same head.
 * 3. What is in memory is what is committed, never more.
 * 4. A change is committed as a whole, so it is small; what is large is made of many. Those that wait share a commit as
 *    far as one goes, and none of them is refused for another.
 */
import { Deferred, Effect, type Scope } from "effect"
import { ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import {
  type Assignment,
  type Attempt,
  type Collection,
  emptyManifest,
  type Format,
  type Job,
  type Manifest,
  metadata,
  metaKey,
  type Oracle,
  type Placement
} from "../../protocols/metadata.ts"
import { buggify, Sites, stall } from "../../runtime/buggify.ts"
import { makeSignal, type Signal } from "../../runtime/signal.ts"
import { type Entry, Meta } from "../../storage/meta.ts"

/** The kinds of keys that change while a coordinator is active, by the first token of the key. */
interface Kinds {
  readonly collection: Collection
  readonly gone: Collection
  readonly manifest: Manifest
  readonly placement: Placement
  readonly assignment: Assignment
  readonly attempt: Attempt
  readonly job: Job
  readonly oracle: Oracle
  readonly format: Format
}
type Kind = keyof Kinds

const isKind = (token: string): token is Kind =>
  token === "collection" ||
  token === "gone" ||
  token === "manifest" ||
  token === "placement" ||
  token === "assignment" ||
  token === "attempt" ||
  token === "job" ||
  token === "oracle" ||
  token === "format"

const kindOf = (key: string): string => key.split(".", 1)[0]!

/** A picture of the metadata; a draft adds what is about to be committed. */
export interface View {
  readonly get: <K extends Kind>(kind: K, key: string) => Kinds[K] | undefined
  readonly all: <K extends Kind>(kind: K) => Iterable<Kinds[K]>
}

export interface Draft extends View {
  readonly put: <K extends Kind>(kind: K, key: string, value: Kinds[K]) => void
  readonly remove: (key: string) => void
}

export const manifestOf = (view: View, collection: string, shard: number): Manifest =>
  view.get("manifest", metaKey.manifest(collection, shard)) ?? emptyManifest(collection, shard)

interface Put {
  readonly kind: Kind
  readonly value: unknown
  readonly bytes: Uint8Array
}

interface Waiting {
  readonly change: (draft: Draft) => unknown
  readonly answer: Deferred.Deferred<any, ElanusError>
}

/** Ends each of these, however many they are; not all at once. */
export const removeAll = (truth: Truth, keys: ReadonlyArray<string>): Effect.Effect<void, ElanusError> =>
  Effect.forEach(
    Array.from({ length: Math.ceil(keys.length / REMOVED_MAX) }, (_, i) =>
      keys.slice(i * REMOVED_MAX, (i + 1) * REMOVED_MAX)
    ),
    (some) => truth.commit((draft) => some.forEach(draft.remove)),
    { discard: true }
  )

export interface Truth extends View {
  readonly epoch: number
  readonly changed: Signal
  /**
   * Applies a change, which throws an ElanusError to refuse. The answer comes when it is committed; so one that changes
   * nothing proves that we are still the one, and what it saw is the truth.
   */
  readonly commit: <A>(change: (draft: Draft) => A) => Effect.Effect<A, ElanusError>
  /** A name that nobody has had and nobody will have: of this epoch, which is no other's. */
  readonly newId: () => string
  /** Ends when another coordinator has taken over. */
  readonly deposed: Effect.Effect<void>
}

const DEPOSED = failure("deposed", "another coordinator has taken over")
const DECIDE_AGAIN_MS = 50
/** What shares a commit stays well below what one takes: the rest goes into the next. */
const GROUP_KEYS = limits.commitKeysMax / 2
const GROUP_BYTES = limits.commitBytesMax / 2
/** What one change may remove along with what it does, and leave room in its commit. */
export const REMOVED_MAX = limits.commitKeysMax / 2
/** No name is made longer than this: four digits and more show nothing new. */
const LONG_ID = 36 ** 4

/** The number of a name that is longer by a digit than that of a collection in use, and above `last`; undefined if there is none. */
const longerThanAnother = (view: View, prefix: string, last: number): number | undefined => {
  for (const { id, state } of view.all("collection")) {
    const longer = id.startsWith(prefix) ? 36 * Number.parseInt(id.slice(prefix.length), 36) : 0
    if (state === "ready" && longer > last && longer < LONG_ID) return longer
  }
  return undefined
}

/** Begins with what a takeover found at `head`, in the present scope. */
export const makeTruth = Effect.fnUntraced(function* (
  epoch: number,
  firstHead: number,
  entries: ReadonlyArray<Entry>
): Effect.fn.Return<Truth, never, Meta | Scope.Scope> {
  const meta = yield* Meta
  const sites = yield* Sites
  const changed = makeSignal()
  const deposed = Deferred.makeUnsafe<void>()
  const values = new Map<Kind, Map<string, unknown>>()
  const waiting: Array<Waiting> = []
  let head = firstHead
  let commits = 0
  let over = false
  let ids = 0
  /** So many of those that wait go one by one: together they were refused, and most of them are not to blame. */
  let alone = 0

  const of = (kind: Kind): Map<string, unknown> => {
    let map = values.get(kind)
    if (map === undefined) values.set(kind, (map = new Map()))
    return map
  }
  for (const { key, value } of entries) {
    const kind = kindOf(key)
    if (isKind(kind)) of(kind).set(key, metadata[kind].decode(value))
  }

  const view: View = {
    get: (kind, key) => of(kind).get(key) as never,
    all: (kind) => of(kind).values() as never
  }

  /** What one commit will change: later drafts see what earlier ones staged. */
  class Staged {
    readonly puts = new Map<string, Put | undefined>()
    bytes = 0
    /** `keep` says whether there was room for it; nothing is kept of what there is none for. */
    draft(): { readonly draft: Draft; readonly keep: () => boolean } {
      const mine = new Map<string, Put | undefined>()
      const look = (key: string) =>
        mine.has(key) ? { found: mine.get(key) } : this.puts.has(key) ? { found: this.puts.get(key) } : undefined
      const draft: Draft = {
        get: (kind, key) => {
          const staged = look(key)
          return (staged === undefined ? view.get(kind, key) : staged.found?.value) as never
        },
        all: (kind) => {
          const merged = new Map(of(kind))
          for (const layer of [this.puts, mine]) {
            for (const [key, put] of layer) {
              if (put === undefined) merged.delete(key)
              else if (put.kind === kind) merged.set(key, put.value)
            }
          }
          return merged.values() as never
        },
        put: (kind, key, value) => mine.set(key, { kind, value, bytes: encode(kind, value) }),
        remove: (key) => mine.set(key, undefined)
      }
      return {
        draft,
        keep: () => {
          let bytes = this.bytes
          for (const [key, put] of mine) bytes += key.length + (put?.bytes.length ?? 0)
          const fits = this.puts.size + mine.size <= GROUP_KEYS && bytes <= GROUP_BYTES
          if (!fits && this.puts.size > 0 && mine.size > 0) return false
          for (const [key, put] of mine) this.puts.set(key, put)
          this.bytes = bytes
          return true
        }
      }
    }
  }

  const encode = (kind: Kind, value: unknown): Uint8Array =>
    (metadata[kind].encode as (value: unknown) => Uint8Array)(value)

  /** Commits what is staged. An error means that it was refused as it is. */
  const store = Effect.fnUntraced(function* (staged: Staged): Effect.fn.Return<"done" | "deposed" | ElanusError> {
    const number = ++commits
    const changes = [...staged.puts].map(([key, put]) => ({ key, value: put?.bytes }))
    // Last, and in every commit: its revision tells a reader of a watch how much it has seen.
    changes.push({ key: metaKey.commit, value: metadata.commit.encode({ epoch, number }) })
    while (true) {
      const outcome = yield* meta.commit(changes, head)
      switch (outcome._tag) {
        case "Done":
          if (yield* buggify("a commit's answer is not believed")) break
          head = outcome.value
          return "done"
        case "Unavailable":
          yield* Effect.sleep(DECIDE_AGAIN_MS)
          break
        case "Refused":
          if (outcome.reason !== "conflict") return failure("overloaded", `metadata: ${outcome.detail}`)
          return (yield* landed(number)) ? "done" : "deposed"
        case "Ambiguous":
          // The same again with the same head: done if the first was not, refused if it was, or if we are deposed.
          yield* Effect.sleep(DECIDE_AGAIN_MS)
          break
      }
    }
  })

  /** After a refusal: is the newest commit that very one of ours? Then its revision is the head. */
  const landed = Effect.fnUntraced(function* (number: number) {
    while (true) {
      const found = yield* Effect.result(meta.get(metaKey.commit))
      if (found._tag === "Success" && found.success._tag === "Some") {
        const { revision, value } = found.success.value
        const last = metadata.commit.decode(value)
        if (last.epoch !== epoch) return false
        if (last.number === number) {
          head = revision
          return true
        }
        if (last.number > number) return false
      }
      yield* Effect.sleep(DECIDE_AGAIN_MS)
    }
  })

  const apply = (staged: Staged) => {
    for (const [key, put] of staged.puts) {
      const kind = kindOf(key)
      if (!isKind(kind)) continue
      if (put === undefined) of(kind).delete(key)
      else of(kind).set(key, put.value)
    }
  }

  const round = Effect.gen(function* () {
    yield* changed.until(() => waiting.length > 0)
    const staged = new Staged()
    const accepted: Array<Waiting & { readonly value: unknown }> = []
    const keysMax = (yield* buggify("a commit of one change")) ? 1 : GROUP_KEYS
    const changesMax = alone > 0 ? 1 : Infinity
    while (waiting.length > 0 && staged.puts.size < keysMax && accepted.length < changesMax) {
      const { answer, change } = waiting[0]!
      const { draft, keep } = staged.draft()
      try {
        const value = change(draft)
        if (!keep()) break
        accepted.push({ answer, change, value })
      } catch (cause) {
        const error = cause instanceof ElanusError ? cause : failure("internal", String(cause))
        Deferred.doneUnsafe(answer, Effect.fail(error))
      }
      waiting.shift()
      alone = Math.max(0, alone - 1)
    }
    if (accepted.length === 0) return
    yield* stall("before a commit", 500)
    const outcome = yield* store(staged)
    if (outcome === "done") {
      apply(staged)
      for (const { answer, value } of accepted) Deferred.doneUnsafe(answer, Effect.succeed(value))
      changed.notify()
      return
    }
    if (outcome !== "deposed" && accepted.length > 1) {
      waiting.unshift(...accepted)
      alone = accepted.length
      return
    }
    const error = outcome === "deposed" ? DEPOSED : outcome
    for (const { answer } of accepted) Deferred.doneUnsafe(answer, Effect.fail(error))
    if (outcome !== "deposed") return
    over = true
    for (const { answer } of waiting.splice(0)) Deferred.doneUnsafe(answer, Effect.fail(DEPOSED))
    yield* Deferred.succeed(deposed, undefined)
  })

  yield* Effect.forkScoped(Effect.forever(round))

  return {
    ...view,
    epoch,
    changed,
    newId: () => {
      const prefix = `${epoch.toString(36)}-`
      // In a long life one name begins like another; a short one has not enough of them.
      const isLonger = sites.fires("a name is a digit longer than another")
      ids = (isLonger ? longerThanAnother(view, prefix, ids) : undefined) ?? ids + 1
      return `${prefix}${ids.toString(36)}`
    },
    commit: (change) =>
      Effect.suspend(() => {
        if (over) return Effect.fail(DEPOSED)
        const answer = Deferred.makeUnsafe<any, ElanusError>()
        waiting.push({ change, answer })
        changed.notify()
        return Deferred.await(answer)
      }),
    deposed: Deferred.await(deposed)
  }
})

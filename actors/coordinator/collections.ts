/**
 * Collections at the coordinator: what is asked of them, and the actor that makes one and gives one back. Its table
 * is in lifecycle.ts; its standing is the collection's own key.
 */
import { Effect, Schedule, Stream } from "effect"
import { parseRequestId } from "../../protocols/client.ts"
import type { CoordinatorProtocol } from "../../protocols/coordinator.ts"
import { failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { type Collection, emptyManifest, metaKey, objectKey } from "../../protocols/metadata.ts"
import { fromMillis, type Timestamp } from "../../protocols/timestamp.ts"
import { activate, type Keep } from "../../runtime/actor.ts"
import { stall } from "../../runtime/buggify.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { lifecycleOf } from "../../runtime/lifecycle.ts"
import type { Handlers } from "../../runtime/remote.ts"
import { either } from "../../runtime/signal.ts"
import { type ObjectInfo, Objects } from "../../storage/objects.ts"
import { collectionLifecycle } from "./lifecycle.ts"
import type { Oracle } from "./oracle.ts"
import { pickChannels } from "./placing.ts"
import { type Draft, removeAll, type Truth, type View } from "./truth.ts"

type Calls = Handlers<typeof CoordinatorProtocol.calls>

const table = lifecycleOf(collectionLifecycle)

const named = (view: View, database: string, name: string): Collection | undefined => {
  for (const each of view.all("collection")) {
    const { spec, state } = each
    const isThere = state === "creating" || state === "ready" || state === "closing"
    if (isThere && spec.database === database && spec.name === name) return each
  }
  return undefined
}

/** So long after it was made, in log time, a collection that is gone is remembered for who asks again for it to be made. */
const AGE = fromMillis(limits.dedupeAgeMs)

/** What this request made; it may be gone by now. */
const madeBy = (view: View, request: string): Collection | undefined => {
  for (const kind of ["collection", "gone"] as const) {
    for (const each of view.all(kind)) if (each.request === request) return each
  }
  return undefined
}

/** More than the one that a collection leaves, so that none stay; and not all that there may be, which no commit takes. */
const FORGOTTEN_AT_ONCE = 100

const forgetGone = (draft: Draft, before: Timestamp): void => {
  const old = [...draft.all("gone")].filter(({ created }) => created < before)
  for (const { id } of old.slice(0, FORGOTTEN_AT_ONCE)) draft.remove(metaKey.gone(id))
}

export const collectionCalls = (
  truth: Truth,
  oracle: Oracle
): Pick<Calls, "CreateCollection" | "DropCollection" | "ListCollections"> => ({
  CreateCollection: Effect.fnUntraced(function* ({ request, spec }) {
    const { first: created } = yield* oracle.grant("writer", 1)
    const made = yield* truth.commit((draft) => {
      const before = madeBy(draft, request)
      if (before !== undefined) return before
      const issued = parseRequestId(request)?.issued ?? 0n
      // It may have been made, dropped and forgotten since. Without a date it was asked just now: by who knows no time yet.
      if (issued > 0n && issued < created - AGE) {
        throw failure("outcome-unknown", "the request is too old to tell whether it was carried out before")
      }
      if (named(draft, spec.database, spec.name) !== undefined) {
        throw failure("collection-exists", `collection ${spec.database}/${spec.name} exists`)
      }
      forgetGone(draft, created - AGE)
      const all = [...draft.all("collection")]
      if (all.length + [...draft.all("gone")].length >= limits.collectionsMax) {
        throw failure("overloaded", `${limits.collectionsMax} collections are the most, with those dropped lately`)
      }
      const used = all.flatMap(({ channels }) => channels)
      const channels = pickChannels(used, draft.get("format", metaKey.format)!.channels, spec.shards)
      const id = truth.newId()
      const collection: Collection = { id, spec, channels, created, request, state: "creating" }
      draft.put("collection", metaKey.collection(id), collection)
      return collection
    })
    const now = () => truth.get("collection", metaKey.collection(made.id))
    const isMade = yield* truth.changed.within(limits.requestTimeoutMs, () => now()?.state !== "creating")
    if (!isMade) return yield* failure("ambiguous", `collection ${spec.name} is being created`)
    return now() ?? made
  }),

  DropCollection: Effect.fnUntraced(function* ({ collection }) {
    const key = metaKey.collection(collection)
    yield* truth.commit((draft) => {
      const found = draft.get("collection", key)
      const next = found && table.step({ value: found.state, context: {} }, { type: "Drop" })
      if (found !== undefined && next !== undefined) draft.put("collection", key, { ...found, state: next.value })
    })
    const closed = yield* truth.changed.within(
      limits.requestTimeoutMs,
      () => truth.get("collection", key)?.state !== "closing"
    )
    if (!closed) return yield* failure("ambiguous", `collection ${collection} is being dropped`)
    return {}
  }),

  ListCollections: ({ database }) =>
    truth.commit((draft) => ({
      collections: [...draft.all("collection")].filter(
        ({ spec, state }) =>
          (state === "ready" || state === "closing") && (database === "" || spec.database === database)
      )
    }))
})

const PASS_MS = 1_000
const PASSES = 2
const RETRY_MS = 500

/** Whether something is owed to a collection, and it needs a keeper. */
export const isMoving = ({ state }: Collection): boolean =>
  state === "creating" || state === "closing" || state === "dropping"

/** Makes or gives back one collection; ends when it is ready or gone. */
export const collectionKeeper = (truth: Truth, id: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const objects = yield* Objects
      const catalog = yield* Catalog
      const key = metaKey.collection(id)
      const collection = truth.get("collection", key)
      if (collection === undefined) return

      const keep: Keep<typeof collectionLifecycle> = {
        load: Effect.sync(() => ({ value: truth.get("collection", key)!.state, context: {} })),
        save: ({ value }) =>
          truth
            .commit((draft) => {
              const now = draft.get("collection", key)
              if (now === undefined) throw failure("stale", `collection ${id} is gone`)
              // Dropped while it was being made: the drop counts, and the next keeper sees it.
              if (now.state === "dropping" && value === "ready") throw failure("stale", `collection ${id} is dropped`)
              if (value === "dropped") {
                draft.remove(key)
                draft.put("gone", metaKey.gone(id), { ...now, state: value })
              } else draft.put("collection", key, { ...now, state: value })
            })
            .pipe(
              Effect.as("saved" as const),
              Effect.catch(() => Effect.succeed("stale" as const))
            )
      }

      const provision = truth
        .commit((draft) => {
          collection.channels.forEach((_, shard) =>
            draft.put("manifest", metaKey.manifest(id, shard), emptyManifest(id, shard))
          )
        })
        .pipe(Effect.retry(Schedule.spaced(RETRY_MS)), Effect.orDie, Effect.as({ type: "Provisioned" } as const))

      /**
       * An owner writes into its channel's key how much of the metadata it knows, and whoever takes that key after it
       * knows no less; so from here on no write of this collection is acknowledged by anybody.
       */
      const owners = () => {
        const since = catalog.schema(id)
        return (
          catalog.collection(id)?.state === "closing" &&
          collection.channels.every((channel) => (catalog.owner(channel)?.key.checkpoint.metadata ?? 0) >= since)
        )
      }
      const close = Effect.as(either(catalog.changed, catalog.leased).until(owners), { type: "Closed" } as const)

      /** In doubt is not done either: the next pass tells. */
      const removeObject = Effect.fnUntraced(function* ({ key }: ObjectInfo) {
        const outcome = yield* objects.remove(key)
        if (outcome._tag !== "Done") return yield* failure("unavailable", `object ${key}: ${outcome.detail}`)
      })
      const removeObjects = Effect.forEach(objectKey.ofCollection(id), (prefix) =>
        Stream.runForEach(objects.list(prefix), removeObject)
      ).pipe(Effect.retry(Schedule.spaced(RETRY_MS)))
      const keysOf = (kind: "attempt" | "job") =>
        [...truth.all(kind)].filter((each) => each.collection === id).map((each) => metaKey[kind](each.id))
      /**
       * Attempts end first: nothing that is still written can be committed, and a second pass finds what came late. Of a
       * collection that is dropped no flush begins, and without its job no index.
       */
      const sweep = Effect.gen(function* () {
        yield* removeAll(truth, keysOf("job"))
        yield* removeAll(truth, keysOf("attempt"))
        yield* truth.commit((draft) => {
          collection.channels.forEach((_, shard) => {
            draft.remove(metaKey.manifest(id, shard))
            draft.remove(metaKey.placement(id, shard))
          })
        })
        for (let pass = 0; pass < PASSES; pass++) {
          yield* stall("between what is dropped and its objects", 2_000)
          yield* removeObjects
          yield* Effect.sleep(PASS_MS)
        }
      }).pipe(Effect.retry(Schedule.spaced(RETRY_MS)), Effect.orDie, Effect.as({ type: "Swept" } as const))

      const actor = yield* activate(
        collectionLifecycle,
        () => Effect.succeed({ on: {}, duties: { provision, close, sweep } }),
        keep
      )
      yield* Effect.raceFirst(
        actor.until(({ value }) => value === "ready"),
        actor.ended
      )
    })
  )

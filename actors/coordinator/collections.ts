/**
 * Collections at the coordinator: what is asked of them, and the actor that makes one and gives one back. Its table
 * is in lifecycle.ts; its standing is the collection's own key.
 */
import { Effect, Schedule, Stream } from "effect"
import type { CoordinatorProtocol } from "../../protocols/coordinator.ts"
import { failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { type Collection, emptyManifest, metaKey, objectKey } from "../../protocols/metadata.ts"
import { activate, type Keep } from "../../runtime/actor.ts"
import { lifecycleOf } from "../../runtime/lifecycle.ts"
import type { Handlers } from "../../runtime/remote.ts"
import { Objects } from "../../storage/objects.ts"
import { collectionLifecycle } from "./lifecycle.ts"
import type { Oracle } from "./oracle.ts"
import { pickChannels } from "./placing.ts"
import type { Truth, View } from "./truth.ts"

type Calls = Handlers<typeof CoordinatorProtocol.calls>

const table = lifecycleOf(collectionLifecycle)

const named = (view: View, database: string, name: string): Collection | undefined => {
  for (const each of view.all("collection")) {
    const { spec, state } = each
    if (spec.database === database && spec.name === name && (state === "creating" || state === "ready")) return each
  }
  return undefined
}

export const collectionCalls = (
  truth: Truth,
  oracle: Oracle
): Pick<Calls, "CreateCollection" | "DropCollection" | "ListCollections"> => ({
  CreateCollection: Effect.fnUntraced(function* ({ request, spec }) {
    const { first: created } = yield* oracle.grant("writer", 1)
    const id = yield* truth.commit((draft) => {
      const known = named(draft, spec.database, spec.name)
      if (known !== undefined) {
        if (known.request === request) return known.id
        throw failure("collection-exists", `collection ${spec.database}/${spec.name} exists`)
      }
      const all = [...draft.all("collection")]
      if (all.length >= limits.collectionsMax) throw failure("overloaded", `${all.length} collections are the most`)
      const used = all.flatMap(({ channels }) => channels)
      const channels = pickChannels(used, draft.get("format", metaKey.format)!.channels, spec.shards)
      const made = truth.newId()
      draft.put("collection", metaKey.collection(made), {
        id: made,
        spec,
        channels,
        created,
        request,
        state: "creating"
      })
      return made
    })
    const key = metaKey.collection(id)
    const ready = yield* truth.changed.within(
      limits.requestTimeoutMs,
      () => truth.get("collection", key)?.state === "ready"
    )
    if (!ready) return yield* failure("ambiguous", `collection ${spec.name} is being created`)
    return truth.get("collection", key)!
  }),

  DropCollection: ({ collection }) =>
    truth.commit((draft) => {
      const key = metaKey.collection(collection)
      const found = draft.get("collection", key)
      const next = found && table.step({ value: found.state, context: {} }, { type: "Drop" })
      if (found !== undefined && next !== undefined) draft.put("collection", key, { ...found, state: next.value })
      return {}
    }),

  ListCollections: ({ database }) =>
    truth.commit((draft) => ({
      collections: [...draft.all("collection")].filter(
        ({ spec, state }) => state === "ready" && (database === "" || spec.database === database)
      )
    }))
})

const PASS_MS = 1_000
const PASSES = 2
const RETRY_MS = 500

/** Makes or gives back one collection; ends when it is ready or gone. */
export const collectionKeeper = (truth: Truth, id: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const objects = yield* Objects
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
              if (value === "dropped") draft.remove(key)
              else draft.put("collection", key, { ...now, state: value })
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

      const removeObjects = Effect.forEach(objectKey.ofCollection(id), (prefix) =>
        Stream.runForEach(objects.list(prefix), (object) => objects.remove(object.key))
      )
      /** Attempts end first: nothing that is still written can be committed, and a second pass finds what came late. */
      const sweep = Effect.gen(function* () {
        yield* truth.commit((draft) => {
          for (const attempt of draft.all("attempt")) {
            if (attempt.collection === id) draft.remove(metaKey.attempt(attempt.id))
          }
          for (const job of draft.all("job")) if (job.collection === id) draft.remove(metaKey.job(job.id))
          collection.channels.forEach((_, shard) => {
            draft.remove(metaKey.manifest(id, shard))
            draft.remove(metaKey.placement(id, shard))
          })
        })
        for (let pass = 0; pass < PASSES; pass++) {
          yield* removeObjects
          yield* Effect.sleep(PASS_MS)
        }
      }).pipe(Effect.retry(Schedule.spaced(RETRY_MS)), Effect.orDie, Effect.as({ type: "Swept" } as const))

      const actor = yield* activate(
        collectionLifecycle,
        () => Effect.succeed({ on: {}, duties: { provision, sweep } }),
        keep
      )
      yield* Effect.raceFirst(
        actor.until(({ value }) => value === "ready"),
        actor.ended
      )
    })
  )

/**
 * What others have written, made the truth: flushes and indexes. Every one is an attempt that was announced before
 * its first object; a commit needs it alive, and is rebased on the manifest as it is now.
 */
import { Effect } from "effect"
import type { CoordinatorProtocol } from "../../protocols/coordinator.ts"
import { failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { type Manifest, metadata, metaKey } from "../../protocols/metadata.ts"
import { buggify, type Sites } from "../../runtime/buggify.ts"
import type { Settings } from "../../runtime/node.ts"
import type { Handlers } from "../../runtime/remote.ts"
import { type Draft, manifestOf, type Truth, type View } from "./truth.ts"

type Calls = Handlers<typeof CoordinatorProtocol.calls>

const requireReady = (view: View, collection: string): void => {
  if (view.get("collection", metaKey.collection(collection))?.state !== "ready") {
    throw failure("collection-not-found", `collection ${collection} is not there`)
  }
}

/** Of what a flush adds to a manifest, and of an index: more than they take. */
const FLUSH_BYTES = 1_024
const INDEX_BYTES = 256

const requireRoom = (manifest: Manifest, bytes: number): void => {
  if (metadata.manifest.encode(manifest).length + bytes > limits.manifestBytesMax) {
    throw failure("overloaded", `shard ${manifest.collection}.${manifest.shard} has too many segments`)
  }
}

const putManifest = (draft: Draft, manifest: Manifest): void => {
  requireRoom(manifest, 0)
  draft.put("manifest", metaKey.manifest(manifest.collection, manifest.shard), manifest)
}

const FLUSH_MS = 5_000

/** An index can be long on its way, and its shard be flushed meanwhile. */
const flushBefore = Effect.fnUntraced(function* (truth: Truth, attempt: string) {
  const waiting = truth.get("attempt", metaKey.attempt(attempt))
  if (waiting === undefined || !(yield* buggify("an index is committed after a flush"))) return
  const { collection, shard } = waiting
  const { version } = manifestOf(truth, collection, shard)
  yield* truth.changed.within(FLUSH_MS, () => manifestOf(truth, collection, shard).version > version)
})

export const commitCalls = (
  truth: Truth,
  settings: Settings,
  sites: Sites
): Pick<Calls, "BeginFlush" | "CommitFlush" | "CommitIndex" | "AbandonAttempt"> => ({
  BeginFlush: ({ collection, node, request, shard }) =>
    truth.commit((draft) => {
      requireReady(draft, collection)
      const attempts = [...draft.all("attempt")]
      const before = attempts.find((each) => each.node === node && each.request === request)
      if (before !== undefined) return { attempt: before.id } // asked again
      if (attempts.length >= limits.attemptsMax) throw failure("overloaded", "too many attempts")
      // Before any object is written, and with the indexes that are still to come.
      const manifest = manifestOf(draft, collection, shard)
      const jobs = manifest.segments.filter(({ id }) => draft.get("job", metaKey.job(id)) !== undefined)
      requireRoom(manifest, FLUSH_BYTES + (jobs.length + 1) * INDEX_BYTES)
      const attempt = truth.newId()
      draft.put("attempt", metaKey.attempt(attempt), {
        id: attempt,
        kind: "flush",
        collection,
        shard,
        segment: "",
        node,
        request
      })
      return { attempt }
    }),

  CommitFlush: ({ attempt, collection, deletes, epoch, from, segment, shard, to }) =>
    truth.commit((draft) => {
      requireReady(draft, collection)
      const now = manifestOf(draft, collection, shard)
      const has = (list: ReadonlyArray<{ readonly id: string }>) => list.some(({ id }) => id === attempt)
      if (has(now.segments) || has(now.deletes)) return { version: now.version } // asked again
      if (draft.get("attempt", metaKey.attempt(attempt)) === undefined) {
        throw failure("stale", `attempt ${attempt} is over`)
      }
      if (now.flushedTo !== from) {
        throw failure("stale", `shard ${collection}.${shard} is flushed to ${now.flushedTo}, not ${from}`)
      }
      const version = now.version + 1
      putManifest(draft, {
        ...now,
        version,
        flushedTo: to,
        flushedEpoch: epoch,
        segments: segment === null ? now.segments : [...now.segments, segment],
        deletes: deletes === null ? now.deletes : [...now.deletes, deletes]
      })
      draft.remove(metaKey.attempt(attempt))
      const isLarge = segment !== null && segment.rows >= settings.indexRowsMin
      if (segment !== null && isLarge !== sites.fires("an index against the rule")) {
        draft.put("job", metaKey.job(segment.id), {
          id: segment.id,
          collection,
          shard,
          segment: segment.id,
          state: "queued",
          attempt: null,
          node: null,
          tries: 0
        })
      }
      return { version }
    }),

  CommitIndex: Effect.fnUntraced(function* ({ attempt, index }) {
    yield* flushBefore(truth, attempt)
    return yield* truth.commit((draft) => {
      const alive = draft.get("attempt", metaKey.attempt(attempt))
      if (alive === undefined) {
        for (const { segments } of draft.all("manifest")) {
          if (segments.some((segment) => segment.index?.key === index.key)) return {} // asked again
        }
        throw failure("stale", `attempt ${attempt} is over`)
      }
      const now = manifestOf(draft, alive.collection, alive.shard)
      if (!now.segments.some(({ id }) => id === alive.segment)) {
        throw failure("stale", `segment ${alive.segment} is not listed any more`)
      }
      putManifest(draft, {
        ...now,
        version: now.version + 1,
        segments: now.segments.map((segment) => (segment.id === alive.segment ? { ...segment, index } : segment))
      })
      draft.remove(metaKey.attempt(attempt))
      return {}
    })
  }),

  AbandonAttempt: ({ attempt, reason }) =>
    truth
      .commit((draft) => draft.remove(metaKey.attempt(attempt)))
      .pipe(Effect.andThen(Effect.logDebug(`attempt ${attempt} abandoned: ${reason}`)), Effect.as({}))
})

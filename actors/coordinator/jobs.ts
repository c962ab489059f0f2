/**
 * One index job at the coordinator: given to a data node, watched, given to another if that one is lost, until it is
 * done or has failed too often. Kept.
 */
import { Effect } from "effect"
import type { DataNodeProtocol } from "../../protocols/data-node.ts"
import { failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { metaKey } from "../../protocols/metadata.ts"
import { activate, type Keep, type Self } from "../../runtime/actor.ts"
import { buggify, stall } from "../../runtime/buggify.ts"
import type { Remote } from "../../runtime/remote.ts"
import { jobLifecycle } from "./lifecycle.ts"
import { leastLoaded } from "./placing.ts"
import { manifestOf, type Truth } from "./truth.ts"

interface JobDeps {
  readonly truth: Truth
  readonly dataNodes: Remote<typeof DataNodeProtocol.calls>
  readonly alive: () => ReadonlyArray<string>
}

type Event = Parameters<Self<typeof jobLifecycle>["advance"]>[0]

const LOOK_MS = 300
/** After a try that came to nothing, each time twice as long: a store that is away is not asked all the time. */
const AGAIN_FIRST_MS = 1_000
const AGAIN_MAX_MS = 15_000

export const jobKeeper = ({ alive, dataNodes, truth }: JobDeps, id: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const key = metaKey.job(id)
      const job = truth.get("job", key)
      if (job === undefined) return
      const { collection, shard } = job

      const keep: Keep<typeof jobLifecycle> = {
        load: Effect.sync(() => {
          const { attempt, node, state, tries } = truth.get("job", key)!
          return { value: state, context: { attempt, node, tries } }
        }),
        save: ({ context, value }) =>
          truth
            .commit((draft) => {
              const before = draft.get("job", key)
              if (before === undefined) return "stale" as const
              if (before.attempt !== null && before.attempt !== context.attempt) {
                draft.remove(metaKey.attempt(before.attempt))
              }
              if (value === "done") draft.remove(key)
              else draft.put("job", key, { ...before, ...context, state: value })
              return "saved" as const
            })
            .pipe(Effect.catch(() => Effect.succeed("stale" as const)))
      }

      /** The segment as the manifest has it: without an index yet, or undefined if there is nothing left to do. */
      const segmentToDo = () =>
        manifestOf(truth, collection, shard).segments.find((each) => each.id === job.segment && each.index === null)

      let waitMs = 0
      const place: Effect.Effect<Event> = Effect.gen(function* () {
        yield* truth.changed.within(waitMs, () => segmentToDo() === undefined)
        while (true) {
          if (segmentToDo() === undefined) return { type: "Done" }
          const busy = new Map(alive().map((node) => [node, 0]))
          for (const { node, state } of truth.all("job")) {
            if (state === "assigned" && node !== null && busy.has(node)) busy.set(node, busy.get(node)! + 1)
          }
          const node = leastLoaded(busy)
          if (node !== undefined) {
            const attempt = truth.newId()
            const begun = yield* Effect.result(
              truth.commit((draft) => {
                // What is dropped has no jobs any more, and must get no attempts.
                if (draft.get("job", key) === undefined) throw failure("stale", `job ${id} is gone`)
                draft.put("attempt", metaKey.attempt(attempt), {
                  id: attempt,
                  kind: "index",
                  collection,
                  shard,
                  segment: job.segment,
                  node
                })
              })
            )
            yield* stall("between a job's attempt and its node", 2_000)
            if (begun._tag === "Success") return { type: "Assigned", attempt, node }
          }
          yield* Effect.sleep(LOOK_MS)
        }
      })

      const actor = yield* activate(
        jobLifecycle,
        (self) => {
          const supervise: Effect.Effect<Event> = Effect.gen(function* () {
            const { attempt, node, tries } = self.standing().context
            const spec = truth.get("collection", metaKey.collection(collection))?.spec
            while (true) {
              const segment = segmentToDo()
              if (segment === undefined || spec === undefined) return { type: "Done" }
              const { efConstruction, m } = spec.index
              const request = {
                job: id,
                attempt: attempt!,
                collection,
                shard,
                segment,
                metric: spec.metric,
                m,
                efConstruction
              }
              const answer = yield* Effect.result(dataNodes.call(node!, "Build", request, limits.requestTimeoutMs))
              if (answer._tag === "Success" && answer.success.state === "failed") {
                const { detail, retry } = answer.success
                yield* Effect.logWarning(`index of segment ${job.segment}: ${detail}`)
                waitMs = Math.min(Math.max(2 * waitMs, AGAIN_FIRST_MS), AGAIN_MAX_MS)
                if (retry) return { type: "Lost" }
                return tries + 1 >= limits.jobTriesMax ? { type: "GaveUp" } : { type: "Failed" }
              }
              if (answer._tag === "Failure" && !alive().includes(node!)) return { type: "Lost" }
              if (yield* buggify("a job is taken back")) return { type: "Lost" }
              yield* truth.changed.within(LOOK_MS, () => segmentToDo() === undefined)
            }
          })
          return Effect.succeed({ on: {}, duties: { place, supervise } })
        },
        keep
      )
      yield* actor.tryAdvance({ type: "Again" })
      yield* Effect.raceFirst(
        actor.until(({ value }) => value === "failed"),
        actor.ended
      )
    })
  )

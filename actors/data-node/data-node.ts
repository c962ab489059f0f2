/**
 * A data node: takes jobs from the coordinator, does the heavy part off the event loop, and commits at the
 * coordinator. What it is at is in memory only: a job that a node forgot is given to another, as a new attempt.
 */
import { Effect, FiberMap } from "effect"
import { type BuildIndex, DataNodeProtocol } from "../../protocols/data-node.ts"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { limits } from "../../protocols/limits.ts"
import { objectKey } from "../../protocols/metadata.ts"
import { buggify, stall } from "../../runtime/buggify.ts"
import { Node } from "../../runtime/node.ts"
import { serve } from "../../runtime/remote.ts"
import { Compute, type ComputeError } from "../../storage/compute.ts"
import { Objects } from "../../storage/objects.ts"
import type { StorageError } from "../../storage/outcome.ts"
import { makeCoordinator } from "../coordinator-client.ts"

type BuildError = StorageError | ComputeError | ElanusError

/** Whether the same may work another time: not if what is stored, or the task itself, is to blame. */
const mayWork = (error: BuildError): boolean => {
  if (error._tag === "ComputeError") return error.fault === "worker"
  if (error._tag === "StorageError") return error.reason === "unavailable" || error.reason === "missing"
  return error.retry
}

export const dataNode = Effect.gen(function* () {
  const node = yield* Node
  const objects = yield* Objects
  const compute = yield* Compute
  const coordinator = yield* makeCoordinator
  const working = yield* FiberMap.make<string>()
  const failed = new Map<string, { readonly detail: string; readonly retry: boolean }>()

  const build = Effect.fnUntraced(function* (job: BuildIndex) {
    const { attempt, collection, efConstruction, m, metric, segment, shard } = job
    const bytes = yield* objects.get(segment.data.key)
    const built = yield* compute.run("build-index", {
      segment: { bytes, length: segment.data.bytes, crc32: segment.data.crc32 },
      metric,
      M: m,
      efConstruction
    })
    if (yield* buggify("a build fails")) return yield* failure("overloaded", "the build was given up")
    yield* stall("between an index and its object", 1_000)
    const key = objectKey.index(collection, shard, segment.id, attempt)
    const put = yield* objects.put(key, built.parts)
    if (put._tag !== "Done") return yield* failure("unavailable", `object ${key}: ${put.detail}`)
    yield* stall("between an index's object and its commit", 3_000)
    const index = { key, bytes: built.bytes, crc32: built.crc32 }
    yield* coordinator.call("CommitIndex", { attempt, index }, limits.requestTimeoutMs)
  })

  const remember = (attempt: string, error: BuildError) => {
    failed.set(attempt, { detail: "detail" in error ? error.detail : error.reason, retry: mayWork(error) })
    if (failed.size > limits.jobsRememberedMax) failed.delete(failed.keys().next().value!)
  }

  yield* serve(DataNodeProtocol, node.id, {
    Build: Effect.fnUntraced(function* (job) {
      const end = failed.get(job.attempt)
      if (end !== undefined) return { state: "failed", ...end } as const
      yield* FiberMap.run(
        working,
        job.attempt,
        build(job).pipe(Effect.catch((error) => Effect.sync(() => remember(job.attempt, error)))),
        { onlyIfMissing: true }
      )
      return { state: "working", detail: "", retry: false } as const
    })
  })
})

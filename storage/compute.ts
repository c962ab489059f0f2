/**
 * Work that is too long for an event loop: it takes bytes, gives bytes, and touches nothing else.
 * The tasks themselves are pure functions in compute-tasks.ts; an adapter only decides where they run.
 */
import { Context, Data, type Effect } from "effect"
import type { ComputeTasks } from "./compute-tasks.ts"

/** The task failed. `fault: "task"`: it would again. `fault: "worker"`: the thread went away or the queue is full, and another try may help. */
export class ComputeError extends Data.TaggedError("ComputeError")<{
  readonly fault: "task" | "worker"
  readonly detail: string
  /** If stored bytes are to blame: as in StorageError. */
  readonly reason?: "damaged" | "unfit" | undefined
}> {}

export class Compute extends Context.Service<
  Compute,
  {
    /**
     * Runs one task and gives its result. Buffers in the input may be moved away: the caller must not touch them
     * afterwards. At most `limits.computeQueueMax` tasks wait.
     */
    readonly run: <K extends keyof ComputeTasks>(
      task: K,
      input: ComputeTasks[K]["input"]
    ) => Effect.Effect<ComputeTasks[K]["output"], ComputeError>
  }
>()("elanus/storage/Compute") {}

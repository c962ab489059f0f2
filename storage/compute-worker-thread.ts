/**
 * What runs in a worker of compute-worker.ts: takes one task at a time, answers, and moves the buffers of the answer
 * to whoever asked. It keeps nothing between tasks.
 */
import { setPriority } from "node:os"
import { parentPort, workerData } from "node:worker_threads"
import { taskFault, type TaskName, tasksWith } from "./compute-tasks.ts"
import { movable } from "./compute-worker.ts"
import { hnswBuilder } from "./index-hnsw.ts"

/** Of threads for slow tasks. On Linux it is this thread's alone; it cannot be raised again without privileges. */
const NICE = 10

if (parentPort !== null) {
  const port = parentPort
  const { slow, stop } = workerData as { readonly slow: boolean; readonly stop: Int32Array }
  const tasks = tasksWith(hnswBuilder(() => Atomics.load(stop, 0) !== 0))
  if (slow) {
    try {
      setPriority(0, NICE)
    } catch {
      // A system that does not let us be polite still lets us work.
    }
  }
  port.on("message", ({ task, input }: { readonly task: TaskName; readonly input: never }) => {
    try {
      const output = tasks[task](input)
      port.postMessage({ output }, movable(output))
    } catch (cause) {
      port.postMessage({ fault: taskFault(cause) })
    }
  })
}

/**
 * What worker threads do, in a simulated world: the same tasks, on bytes that were moved away as a thread's are, done
 * some virtual time later, one at a time in each of two lanes. A crash takes the threads along.
 *
 * Indexes are exact here: a file of the real form around the vectors themselves, and a scan to search it. The native
 * engine would give other bytes on another machine; how well it finds is measured elsewhere.
 */
import { Effect } from "effect"
import { limits } from "../protocols/limits.ts"
import { WireError } from "../protocols/wire.ts"
import { Compute, ComputeError } from "../storage/compute.ts"
import { type ComputeTasks, slowTasks, taskFault, type TaskName, tasksWith } from "../storage/compute-tasks.ts"
import { movable } from "../storage/compute-worker.ts"
import { decodeIndex, type Engine, type IndexBuilder } from "../storage/index-file.ts"
import { flatIndex } from "../storage/index-flat.ts"
import { VectorIndexes } from "../storage/index.ts"
import { StorageError } from "../storage/outcome.ts"
import type { Chance, SimNode, World } from "./world.ts"

/** Probabilities are of one task. All of it can change while the world runs. */
export interface ComputeFaults {
  /** Of one task, at most. */
  taskMs: number
  /** It takes a hundred times as long. */
  slow: number
  /** Its thread dies of it. */
  died: number
}

export const noComputeFaults = (): ComputeFaults => ({ taskMs: 5, slow: 0, died: 0 })

/** Each kind is there or not, and if so, often or seldom. */
export const drawComputeFaults = (chance: Chance): ComputeFaults => {
  const rate = (most: number) => (chance.happens(0.5) ? most * 10 ** -chance.between(0, 2) : 0)
  return { taskMs: chance.pick([1, 20, 200]), slow: rate(0.1), died: rate(0.2) }
}

export interface SimCompute {
  /** The threads of the node's present life. */
  readonly of: (node: SimNode) => Compute["Service"]
  readonly faults: ComputeFaults
  /** How often each thing happened: what never did was not tested. */
  readonly counts: { [name: string]: number }
  readonly heal: () => void
}

const flat: Engine = {
  name: "flat",
  check: (body, { count, dimension }) => {
    const bytes = count * dimension * 4
    if (body.length !== bytes) throw new WireError(`${body.length} bytes of vectors, not ${bytes}`)
  }
}

export const flatBuilder: IndexBuilder = {
  engine: flat,
  build: (vectors) => new Uint8Array(vectors.slice().buffer)
}

/** What `flatBuilder` built. */
export const flatIndexes = VectorIndexes.of({
  load: (bytes, vectors) =>
    Effect.suspend(() => {
      try {
        const { body, facts } = decodeIndex(flat, bytes)
        if (vectors !== undefined && vectors.length !== facts.count * facts.dimension) {
          return Effect.fail(new StorageError({ reason: "damaged", detail: "the index is not one of these vectors" }))
        }
        return Effect.succeed(flatIndex(facts.metric, facts.dimension, new Float32Array(body.slice().buffer)))
      } catch (cause) {
        return cause instanceof StorageError ? Effect.fail(cause) : Effect.die(cause)
      }
    })
})

interface Job {
  readonly task: TaskName
  readonly input: unknown
  readonly done: (output: unknown) => void
  readonly failed: (error: ComputeError) => void
}

const moved = <A>(value: A): A => structuredClone(value, { transfer: movable(value) })

export const simCompute = (
  world: World,
  faults: ComputeFaults = noComputeFaults(),
  builder: IndexBuilder = flatBuilder
): SimCompute => {
  const chance = world.chance("compute")
  const tasks = tasksWith(builder)
  const counts: { [name: string]: number } = {}
  const fault = (name: "slow" | "died", node: SimNode) => {
    if (!chance.happens(faults[name])) return false
    counts[name] = (counts[name] ?? 0) + 1
    world.struck(`compute.${name}`, node)
    return true
  }

  const lane = (node: SimNode) => {
    const waiting: Array<Job> = []
    let isBusy = false

    const begin = (job: Job): void => {
      isBusy = true
      let input: unknown
      try {
        input = moved(job.input)
      } catch (cause) {
        next()
        return job.failed(new ComputeError({ fault: "task", detail: String(cause) }))
      }
      const times = fault("slow", node) ? 100 : 1
      const end = () => {
        next()
        if (fault("died", node)) {
          return job.failed(new ComputeError({ fault: "worker", detail: "the thread ended with code 1" }))
        }
        let output: unknown
        try {
          output = moved(tasks[job.task](input as never))
        } catch (cause) {
          return job.failed(new ComputeError({ fault: "task", ...taskFault(cause) }))
        }
        job.done(output)
      }
      world.after(times * chance.between(0, faults.taskMs), end, node, node.life, job.task)
    }
    const next = () => {
      isBusy = false
      const job = waiting.shift()
      if (job !== undefined) begin(job)
    }
    return {
      submit: (job: Job) => {
        if (!isBusy) return begin(job)
        if (waiting.length >= limits.computeQueueMax) {
          return job.failed(new ComputeError({ fault: "worker", detail: `${waiting.length} tasks wait already` }))
        }
        waiting.push(job)
      },
      giveUp: (job: Job) => {
        const at = waiting.indexOf(job)
        if (at >= 0) waiting.splice(at, 1)
      }
    }
  }

  return {
    of: (node) => {
      const quick = lane(node)
      const slow = lane(node)
      return Compute.of({
        run: <K extends TaskName>(task: K, input: ComputeTasks[K]["input"]) =>
          Effect.callback<ComputeTasks[K]["output"], ComputeError>((resume) => {
            const job: Job = {
              task,
              input,
              done: (output) => resume(Effect.succeed(output as ComputeTasks[K]["output"])),
              failed: (error) => resume(Effect.fail(error))
            }
            const chosen = slowTasks.has(task) ? slow : quick
            chosen.submit(job)
            return Effect.sync(() => chosen.giveUp(job))
          })
      })
    },
    faults,
    counts,
    heal: () => Object.assign(faults, noComputeFaults())
  }
}

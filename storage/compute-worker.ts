/**
 * Compute in worker threads: some for quick tasks, some with a lower priority for slow ones, so that an index build
 * never stands in front of a segment that is to be opened. Buffers are moved, not copied; shared memory is shared.
 *
 * 1. A thread has at most one task; the others wait in line, at most `limits.computeQueueMax` of each kind.
 * 2. A thread that dies fails its task ("worker") and is replaced when there is work again. No task is tried twice.
 * 3. A task that was given up is not stopped: its thread answers to nobody and takes the next one.
 * 4. A thread that is ended while it is inside the engine takes the whole process with it (the engine throws into an
 *    environment that is gone). So a slow task is asked to stop, which it does between two rows, and waited for.
 */
import { isMarkedAsUntransferable, type Transferable, Worker } from "node:worker_threads"
import { Effect, Layer } from "effect"
import { limits } from "../protocols/limits.ts"
import { Compute, ComputeError } from "./compute.ts"
import { type ComputeTasks, slowTasks, type TaskFault, type TaskName } from "./compute-tasks.ts"

export interface ComputeWorkerOptions {
  /** Threads for quick tasks. */
  readonly size?: number | undefined
  /** Threads for slow ones. */
  readonly slowSize?: number | undefined
  /** What a thread runs; only tests have another. */
  readonly entry?: URL | undefined
}

export const layerComputeWorker = (options: ComputeWorkerOptions = {}): Layer.Layer<Compute> =>
  Layer.effect(
    Compute,
    Effect.gen(function* () {
      const entry = options.entry ?? threadEntry()
      const quick = yield* lane(() => new Lane(entry, options.size ?? 1, false))
      const slow = yield* lane(() => new Lane(entry, options.slowSize ?? 1, true))
      return Compute.of({
        run: <K extends keyof ComputeTasks>(task: K, input: ComputeTasks[K]["input"]) =>
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
    })
  )

const lane = (make: () => Lane) =>
  Effect.acquireRelease(Effect.sync(make), (held) => Effect.promise(() => held.close()))

/** Beside this file, and compiled if this file is. */
const threadEntry = (): URL => {
  const extension = new URL(import.meta.url).pathname.endsWith(".ts") ? ".ts" : ".js"
  return new URL(`./compute-worker-thread${extension}`, import.meta.url)
}

interface Job {
  readonly task: TaskName
  readonly input: unknown
  readonly done: (output: unknown) => void
  readonly failed: (error: ComputeError) => void
}

interface Answer {
  readonly output?: unknown
  readonly fault?: TaskFault
}

const workerFault = (detail: string) => new ComputeError({ fault: "worker", detail })

/** Threads of one kind and the line in front of them. */
class Lane {
  private readonly entry: URL
  private readonly size: number
  private readonly slow: boolean
  private readonly waiting: Array<Job> = []
  private readonly idle: Array<Worker> = []
  private readonly busy = new Map<Worker, Job>()
  /** Not 0: whatever a thread is at shall end. */
  private readonly stop = new Int32Array(new SharedArrayBuffer(4))
  private closed = false
  private quiet = () => {}

  constructor(entry: URL, size: number, slow: boolean) {
    this.entry = entry
    this.size = size
    this.slow = slow
  }

  submit(job: Job): void {
    if (this.closed) return job.failed(workerFault("closed"))
    const worker = this.idle.pop() ?? (this.busy.size < this.size ? this.spawn() : undefined)
    if (worker !== undefined) return this.start(worker, job)
    if (this.waiting.length >= limits.computeQueueMax) {
      return job.failed(workerFault(`${this.waiting.length} tasks wait already`))
    }
    this.waiting.push(job)
  }

  giveUp(job: Job): void {
    const at = this.waiting.indexOf(job)
    if (at >= 0) this.waiting.splice(at, 1)
  }

  async close(): Promise<void> {
    this.closed = true
    Atomics.store(this.stop, 0, 1)
    for (const job of this.waiting.splice(0)) job.failed(workerFault("closed"))
    if (this.slow && this.busy.size > 0) await this.untilQuiet()
    await Promise.all([...this.idle, ...this.busy.keys()].map((worker) => worker.terminate()))
  }

  private untilQuiet(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, limits.computeStopTimeoutMs)
      this.quiet = () => {
        if (this.busy.size > 0) return
        clearTimeout(timer)
        resolve()
      }
    })
  }

  private spawn(): Worker {
    // Without the flags of the process: a test runner's loader has no business in there.
    const worker = new Worker(this.entry, { workerData: { slow: this.slow, stop: this.stop }, execArgv: [] })
    let reason = ""
    worker.unref()
    worker.on("message", (answer: Answer) => this.answered(worker, answer))
    worker.on("messageerror", (error) => this.answered(worker, { fault: { detail: String(error), reason: undefined } }))
    worker.on("error", (error) => (reason = `: ${error instanceof Error ? error.message : String(error)}`))
    worker.on("exit", (code) => this.died(worker, `the thread ended with code ${code}${reason}`))
    return worker
  }

  private start(worker: Worker, job: Job): void {
    this.busy.set(worker, job)
    worker.ref() // a process must not end while somebody waits for a task
    try {
      worker.postMessage({ task: job.task, input: job.input }, movable(job.input))
    } catch (cause) {
      this.release(worker)
      job.failed(new ComputeError({ fault: "task", detail: String(cause) }))
    }
  }

  private answered(worker: Worker, answer: Answer): void {
    const job = this.busy.get(worker)
    this.release(worker)
    if (answer.fault !== undefined) job?.failed(new ComputeError({ fault: "task", ...answer.fault }))
    else job?.done(answer.output)
  }

  private release(worker: Worker): void {
    this.busy.delete(worker)
    worker.unref()
    this.idle.push(worker)
    this.quiet()
    this.next()
  }

  private died(worker: Worker, detail: string): void {
    const job = this.busy.get(worker)
    this.busy.delete(worker)
    const at = this.idle.indexOf(worker)
    if (at >= 0) this.idle.splice(at, 1)
    job?.failed(workerFault(detail))
    this.quiet()
    if (!this.closed) this.next()
  }

  private next(): void {
    const job = this.waiting.shift()
    if (job !== undefined) this.submit(job)
  }
}

/**
 * Every buffer in `value` that can be moved, once. Not Node's pool of small buffers, which cannot, nor shared memory, which
 * need not; nor empty ones: they may be constants that many hold, and a moved buffer can never be sent again.
 */
export const movable = (value: unknown): Array<Transferable> => {
  const found = new Set<ArrayBuffer>()
  const add = (buffer: ArrayBufferLike) => {
    if (buffer instanceof ArrayBuffer && buffer.byteLength > 0 && !isMarkedAsUntransferable(buffer)) found.add(buffer)
  }
  const visit = (part: unknown): void => {
    if (typeof part !== "object" || part === null) return
    if (ArrayBuffer.isView(part)) add(part.buffer)
    else if (part instanceof ArrayBuffer) add(part)
    else for (const inner of Object.values(part)) visit(inner)
  }
  visit(value)
  return [...found]
}

/**
 * Runs, spread over processes. One that dies is a run that died, and one that does not end in time is late; a new process takes its place.
 * No two processes have the same hash seed, time zone or folder, so that runs which should not care show it if they do.
 */
import { type ChildProcess, fork } from "node:child_process"
import { availableParallelism, tmpdir } from "node:os"
import { fileURLToPath } from "node:url"
import { encodePlan, type Plan } from "../plan.ts"
import { lost, type Summary } from "../summary.ts"
import type { Keep, TraceEvent } from "../trace.ts"
import type { Job } from "./process.ts"

export interface PoolOptions {
  /** The name of a bug that is planted in every process. */
  readonly bug?: string | undefined
  /** Two at least, so that there is another one. */
  readonly processes?: number | undefined
  /** Of the real world: a run that takes longer goes round in a circle. */
  readonly patienceMs?: number | undefined
  /** What a process runs: of another commit, say. */
  readonly program?: string | undefined
  /** Of Node. */
  readonly flags?: ReadonlyArray<string> | undefined
}

export interface Ran {
  readonly summary: Summary
  readonly kept: ReadonlyArray<TraceEvent>
  /** Which process it was. */
  readonly by: number
}

export interface AskOptions {
  readonly keep?: Keep | undefined
  /** A process that must not do it. */
  readonly notBy?: number | undefined
  /** Other than that of all. */
  readonly patienceMs?: number | undefined
}

interface Waiting {
  readonly seed: string
  readonly job: Job
  readonly notBy: number | undefined
  readonly patienceMs: number
  readonly resolve: (ran: Ran) => void
}

const PATIENCE_MS = 120_000
const PROGRAM = fileURLToPath(new URL("process.ts", import.meta.url))
const ZONES = ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham"] as const

export class Pool {
  readonly size: number
  private readonly patienceMs: number
  private readonly bug: string | undefined
  private readonly program: string
  private readonly flags: ReadonlyArray<string>
  private readonly children: Array<ChildProcess | undefined> = []
  private readonly idle: Array<number>
  private readonly waiting: Array<Waiting> = []
  private isClosed = false

  constructor(options: PoolOptions = {}) {
    const { bug, patienceMs = PATIENCE_MS, processes = availableParallelism(), program = PROGRAM, flags = [] } = options
    this.size = Math.max(2, processes)
    this.patienceMs = patienceMs
    this.bug = bug
    this.program = program
    this.flags = flags
    this.idle = Array.from({ length: this.size }, (_, i) => i)
  }

  /** Never fails: what goes wrong is in the summary. */
  run(what: string | Plan, { keep, notBy, patienceMs = this.patienceMs }: AskOptions = {}): Promise<Ran> {
    const isSeed = typeof what === "string"
    const job: Job = isSeed ? { seed: what, keep } : { plan: encodePlan(what), keep }
    return new Promise((resolve) => {
      this.waiting.push({ seed: isSeed ? what : what.seed, job, notBy, patienceMs, resolve })
      this.next()
    })
  }

  /** Ends the processes; what has not ended never will. */
  close(): void {
    this.isClosed = true
    for (const child of this.children) child?.kill("SIGKILL")
  }

  private next(): void {
    if (this.isClosed) return
    for (const by of [...this.idle]) {
      const at = this.waiting.findIndex(({ notBy }) => notBy !== by)
      if (at < 0) continue
      this.idle.splice(this.idle.indexOf(by), 1)
      const [first] = this.waiting.splice(at, 1)
      this.give(by, first!)
    }
  }

  private give(by: number, { job, patienceMs, resolve, seed }: Waiting): void {
    const child = (this.children[by] ??= this.begin(by))
    const end = (ran: Omit<Ran, "by">) => {
      clearTimeout(timer)
      child.removeAllListeners()
      this.idle.push(by)
      resolve({ ...ran, by })
      this.next()
    }
    const die = (why: Pick<Summary, "died" | "late">) => {
      child.kill("SIGKILL")
      this.children[by] = undefined
      end({ summary: lost(seed, why), kept: [] })
    }
    const late = `it had not ended after ${Math.round(patienceMs / 1_000)} s`
    const timer = setTimeout(() => die({ late }), patienceMs)
    child.once("message", (ran) => end(ran as Omit<Ran, "by">))
    child.once("error", ({ message }) => die({ died: message }))
    child.once("exit", (code, signal) => die({ died: `its process ended with ${code ?? signal}` }))
    child.send(job)
  }

  private begin(by: number): ChildProcess {
    return fork(this.program, this.bug === undefined ? [] : [this.bug], {
      cwd: by % 2 === 0 ? process.cwd() : tmpdir(),
      env: { ...process.env, TZ: ZONES[by % ZONES.length] },
      // What lives for one run alone should die young: fewer and shorter pauses of the collector. And large pages for Node's own
      // code, where there are any: a run goes all over it (5 % less time).
      execArgv: [`--hash-seed=${by + 1}`, "--max-semi-space-size=128", "--use-largepages=silent", ...this.flags],
      stdio: ["ignore", "ignore", "inherit", "ipc"]
    })
  }
}

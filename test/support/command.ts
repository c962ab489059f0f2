/**
 * The command `elanus` as scripts use it, in processes of its own. It ends only what it started, by pid, and a test
 * process that ends early takes them along.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

const PROGRAM = fileURLToPath(new URL("../../runtime/main.ts", import.meta.url))
const READY_MS = 60_000
const RUN_MS = 60_000

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string | Uint8Array
  readonly env?: NodeJS.ProcessEnv
}

const begin = (args: ReadonlyArray<string>, env: NodeJS.ProcessEnv | undefined): ChildProcess => {
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", ELANUS_NATS: "", ...env }
  })
  const end = () => child.kill("SIGKILL")
  process.once("exit", end)
  child.once("exit", () => process.off("exit", end))
  return child
}

/** Runs one command to its end. */
export const elanus = (args: ReadonlyArray<string>, { env, input }: RunOptions = {}): Promise<Ran> =>
  new Promise((resolve, reject) => {
    const child = begin(args, env)
    let stdout = ""
    let stderr = ""
    const timer = setTimeout(() => {
      child.kill("SIGKILL")
      reject(new Error(`elanus ${args.join(" ")} did not end\n${stdout}\n${stderr}`))
    }, RUN_MS)
    child.stdout!.on("data", (data) => (stdout += String(data)))
    child.stderr!.on("data", (data) => (stderr += String(data)))
    child.once("error", reject)
    child.once("close", (code) => {
      clearTimeout(timer)
      resolve({ code, stdout, stderr })
    })
    // A command that ends before it has read everything is no failure of ours.
    child.stdin!.on("error", () => undefined)
    child.stdin!.end(input)
  })

export interface Started {
  /** The line that it printed when it was ready. */
  readonly ready: {
    readonly ready: boolean
    readonly node: string
    readonly roles: ReadonlyArray<string>
    readonly nats: string
    readonly objects: string
    readonly milliseconds: number
  }
  readonly pid: number
  readonly stderr: () => string
  /** Sends a signal and waits until it is gone; answers its exit code. */
  readonly end: (signal: NodeJS.Signals) => Promise<number | null>
}

/** Starts a process of a cluster, and waits until it is ready. */
export const start = (args: ReadonlyArray<string>, env?: NodeJS.ProcessEnv): Promise<Started> =>
  new Promise((resolve, reject) => {
    const child = begin(["start", "--json", ...args], env)
    let stdout = ""
    let stderr = ""
    const gone = new Promise<number | null>((done) => child.once("close", done))
    const fail = (why: string) => reject(new Error(`elanus start ${args.join(" ")} ${why}\n${stdout}\n${stderr}`))
    const timer = setTimeout(() => {
      child.kill("SIGKILL")
      fail("is not ready")
    }, READY_MS)
    child.stderr!.on("data", (data) => (stderr += String(data)))
    child.stdout!.on("data", (data) => {
      stdout += String(data)
      if (!stdout.includes("\n")) return
      clearTimeout(timer)
      resolve({
        ready: JSON.parse(stdout) as Started["ready"],
        pid: child.pid!,
        stderr: () => stderr,
        end: async (signal) => {
          if (child.exitCode === null && child.signalCode === null) child.kill(signal)
          return gone
        }
      })
    })
    void gone.then((code) => {
      clearTimeout(timer)
      fail(`ended with ${code}`)
    })
  })

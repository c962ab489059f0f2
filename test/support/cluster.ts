/**
 * A cluster of real processes: a nats-server and one process for each set of roles, which a test may kill, stop,
 * continue and start again. Everything lives in one temporary directory and is gone after `stop`.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Role } from "../../protocols/metadata.ts"
import { type Nats, startNats } from "./nats.ts"
import type { RoleOptions } from "./role.ts"

const PROGRAM = fileURLToPath(new URL("./role.ts", import.meta.url))
const READY_MS = 60_000

export interface RoleProcess {
  readonly roles: ReadonlyArray<Role>
  readonly pid: () => number
  /** Ends it at once, as a crash would. */
  readonly kill: () => Promise<void>
  /** Begins it again: another process, with an empty memory. */
  readonly start: () => Promise<void>
  readonly pause: () => void
  readonly resume: () => void
  readonly output: () => string
}

export interface Cluster {
  readonly nats: Nats
  readonly url: string
  readonly directory: string
  readonly add: (roles: ReadonlyArray<Role>) => Promise<RoleProcess>
  readonly stop: () => Promise<void>
}

export const startCluster = async (
  options: Omit<RoleOptions, "roles" | "servers" | "objects" | "cache"> & { readonly objects?: string } = {}
): Promise<Cluster> => {
  const directory = await mkdtemp(join(tmpdir(), "elanus-cluster-"))
  const nats = await startNats()
  const url = nats.urls[0]!
  const processes: Array<RoleProcess> = []

  const add = async (roles: ReadonlyArray<Role>): Promise<RoleProcess> => {
    let child: ChildProcess | undefined
    let output = ""
    const start = async () => {
      const argument: RoleOptions = {
        objects: `dir:${join(directory, "objects")}`,
        cache: join(directory, `cache-${processes.length}-${roles.join("-")}`),
        channelBytesMax: 256 * 1024 * 1024,
        ...options,
        roles,
        servers: url
      }
      const mine = spawn(process.execPath, [PROGRAM, JSON.stringify(argument)], { stdio: ["ignore", "pipe", "pipe"] })
      child = mine
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${roles.join(", ")} is not ready:\n${output}`)), READY_MS)
        const read = (data: Buffer) => {
          output = (output + data.toString()).slice(-20_000)
          if (output.includes("ready\n")) {
            clearTimeout(timer)
            resolve()
          }
        }
        mine.stdout.on("data", read)
        mine.stderr.on("data", read)
        mine.once("exit", (code) => {
          clearTimeout(timer)
          reject(new Error(`${roles.join(", ")} ended with ${code}:\n${output}`))
        })
      })
      output = output.replace("ready\n", "")
    }
    const role: RoleProcess = {
      roles,
      pid: () => child!.pid!,
      start,
      kill: () =>
        new Promise((resolve) => {
          if (child === undefined || child.exitCode !== null || child.signalCode !== null) return resolve()
          child.once("exit", () => resolve())
          child.kill("SIGKILL")
        }),
      pause: () => void child!.kill("SIGSTOP"),
      resume: () => void child!.kill("SIGCONT"),
      output: () => output
    }
    processes.push(role)
    await start()
    return role
  }

  return {
    nats,
    url,
    directory,
    add,
    stop: async () => {
      await Promise.all(processes.map((each) => each.kill()))
      await nats.stop()
      await rm(directory, { recursive: true, force: true })
    }
  }
}

/**
 * Starts a nats-server that acknowledges nothing before it is on the disk (`sync_interval: always`), for
 * `elanus start` and the tests. It listens on this machine only, and it never ends a process that it did not start.
 */
import { spawn, type ChildProcess } from "node:child_process"
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { connect, createServer } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { failure } from "../protocols/errors.ts"
import { findServer } from "./server-finder.ts"

export interface NatsServerOptions {
  /** The folder of the streams, the configuration and the server's own messages. */
  readonly storeDir: string
  /** A free one unless given. */
  readonly port?: number
  /** Must be unique in a cluster. */
  readonly name?: string
  /** Makes the server one of a cluster: its own port for routes, and those of all. */
  readonly cluster?: { readonly name: string; readonly port: number; readonly routes: ReadonlyArray<number> }
  /** More lines for the configuration file, as they are. */
  readonly extraConfig?: string
  /** In a process group of its own, so that what a terminal sends to ours does not reach it. */
  readonly detached?: boolean
  /** How long the server may take until it accepts connections. */
  readonly startTimeoutMs?: number
  /** Hears, for people, of what takes its time: getting a binary where there is none. */
  readonly tell?: (line: string) => void
}

export interface NatsServer {
  readonly url: string
  readonly port: number
  readonly pid: number
  readonly process: ChildProcess
  /** Asks it to end (SIGTERM unless told), and is there when it has. Ended already is fine. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<void>
}

/** A port that was free a moment ago. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    const answer = (yes: boolean) => {
      socket.destroy()
      resolve(yes)
    }
    // The greeting, not the open port: the kernel accepts before the server does.
    socket.once("data", () => answer(true))
    socket.once("error", () => answer(false))
    socket.setTimeout(1_000, () => answer(false))
  })

const configuration = (options: NatsServerOptions, port: number): string => {
  const quoted = JSON.stringify
  const cluster = options.cluster
  const lines = [
    `listen: "127.0.0.1:${port}"`,
    ...(options.name === undefined ? [] : [`server_name: ${quoted(options.name)}`]),
    `jetstream {`,
    `  store_dir: ${quoted(join(options.storeDir, "jetstream"))}`,
    `  sync_interval: always`,
    // The limits of all channels are set aside when they are made, 128 GiB, whatever this machine's disk has.
    `  max_file_store: 1TB`,
    `}`,
    ...(cluster === undefined
      ? []
      : [
          `cluster {`,
          `  name: ${quoted(cluster.name)}`,
          `  listen: "127.0.0.1:${cluster.port}"`,
          `  routes: [${cluster.routes.map((route) => quoted(`nats://127.0.0.1:${route}`)).join(", ")}]`,
          `}`
        ]),
    ...(options.extraConfig === undefined ? [] : [options.extraConfig])
  ]
  return lines.join("\n") + "\n"
}

export const startNatsServer = async (options: NatsServerOptions): Promise<NatsServer> => {
  const binary = await findServer("nats-server", options.tell)
  const port = options.port ?? (await freePort())
  await mkdir(options.storeDir, { recursive: true })
  const configFile = join(options.storeDir, "nats-server.conf")
  const logFile = join(options.storeDir, "nats-server.log")
  await writeFile(configFile, configuration(options, port))

  const child = spawn(binary, ["--config", configFile, "--log", logFile], {
    stdio: "ignore",
    detached: options.detached === true
  })
  // A failed spawn is an event and not an exit, and both mean that there is no server.
  let ended: string | undefined
  const end = new Promise<void>((resolve) => {
    child.once("exit", (code, signal) => {
      ended ??= `it ended (${signal ?? code})`
      resolve()
    })
    child.once("error", (error) => {
      ended ??= error.message
      resolve()
    })
  })

  const stop = async (signal: NodeJS.Signals = "SIGTERM") => {
    if (ended === undefined) child.kill(signal)
    await end
  }

  const deadline = performance.now() + (options.startTimeoutMs ?? 20_000)
  while (!(await accepts(port))) {
    if (ended !== undefined || performance.now() > deadline) {
      const log = await readFile(logFile, "utf8").catch(() => "")
      const why = ended ?? "it does not accept connections"
      await stop("SIGKILL")
      const lastLines = log.trim().split("\n").slice(-5).join("\n")
      throw failure("unfit", `nats-server on port ${port} did not start: ${why}\n${lastLines}`)
    }
    await sleep(10)
  }
  // Something else on our port would have accepted as well.
  if (ended !== undefined) throw failure("unfit", `nats-server on port ${port} did not start: ${ended}`)
  return { url: `nats://127.0.0.1:${port}`, port, pid: child.pid as number, process: child, stop }
}

/**
 * The nats-server of `elanus start`, for those who have none. It outlives an `elanus` that was killed, and is then found
 * again by its name and taken over, so that nobody has to look for a process that holds the port and the files. It
 * ends no server but the one that was started on the same folder.
 */
import { createHash } from "node:crypto"
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { connect } from "node:net"
import { join, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { failure } from "../../protocols/errors.ts"
import { startNatsServer } from "../nats-server.ts"

export interface OwnServer {
  readonly url: string
  /** Resolves if the server ends by itself. */
  readonly ended: Promise<void>
  readonly stop: () => Promise<void>
  /** As `stop`, for a process that is on its way out and waits for nobody. */
  readonly stopNow: () => void
}

/** Holds the pid of the `elanus` whose server this is. */
const OWNER = "owner.pid"
const STOP_MS = 8_000
const LOOK_MS = 50

const nameOf = (folder: string): string => `elanus-${createHash("sha256").update(folder).digest("hex").slice(0, 12)}`

/** Whether a server bears a name that only `elanus start` gives. */
export const isOwnName = (name: string): boolean => /^elanus-[0-9a-f]{12}$/.test(name)

/** What listens at a port of this machine: nothing, a nats-server with its name, or something else (""). */
const listenerAt = (port: number): Promise<string | undefined> =>
  new Promise((done) => {
    const socket = connect(port, "127.0.0.1")
    let said = ""
    const end = (name: string | undefined) => {
      socket.destroy()
      done(name)
    }
    socket.setTimeout(1_000, () => end(""))
    socket.once("error", () => end(undefined))
    socket.once("end", () => end(""))
    socket.on("data", (data) => {
      said += String(data)
      if (!said.includes("\n")) return
      const name = /"server_name":"([^"]*)"/.exec(said)?.[1]
      end(said.startsWith("INFO ") ? (name ?? "") : "")
    })
  })

/** The server that an earlier `elanus` left on this folder, if it lives. */
const leftBehind = async (
  folder: string,
  name: string
): Promise<{ readonly port: number; readonly pid: number } | undefined> => {
  const [configuration, pidText] = await Promise.all(
    ["nats-server.conf", "nats-server.pid"].map((file) => readFile(join(folder, file), "utf8").catch(() => ""))
  )
  const port = Number(/^listen: "127\.0\.0\.1:(\d+)"/m.exec(configuration!)?.[1])
  const pid = Number(pidText)
  // The pid alone may be anybody's by now; the name, at the port that it was given, is nobody else's.
  if (!(port > 0) || !(pid > 0) || (await listenerAt(port)) !== name) return undefined
  return { port, pid }
}

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name)
  } catch {
    // Gone already.
  }
}

const end = async (pid: number): Promise<void> => {
  signal(pid, "SIGTERM")
  for (const started = performance.now(); isRunning(pid); await sleep(LOOK_MS)) {
    if (performance.now() - started > STOP_MS) signal(pid, "SIGKILL")
  }
}

export const startOwnServer = async (directory: string, port: number): Promise<OwnServer> => {
  const folder = resolve(directory)
  const name = nameOf(folder)
  const left = await leftBehind(folder, name)
  const owner = Number(await readFile(join(folder, OWNER), "utf8").catch(() => ""))
  if (left !== undefined && owner > 0 && owner !== process.pid && isRunning(owner)) {
    throw failure(
      "unfit",
      `${folder} is in use: process ${owner} keeps its nats-server, at nats://127.0.0.1:${left.port}`
    )
  }
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, OWNER), String(process.pid))
  if (left !== undefined) {
    if (left.port === port) {
      return {
        url: `nats://127.0.0.1:${port}`,
        ended: (async () => {
          while (isRunning(left.pid)) await sleep(1_000, undefined, { ref: false })
        })(),
        stop: () => end(left.pid),
        stopNow: () => signal(left.pid, "SIGTERM")
      }
    }
    await end(left.pid)
  }
  const taken = await listenerAt(port)
  if (taken !== undefined) {
    throw failure(
      "unfit",
      taken === ""
        ? `port ${port} is taken by another program: give another --port`
        : `port ${port} is taken by the nats-server ${taken}: use that one with --nats nats://127.0.0.1:${port}, or give another --port`
    )
  }
  const server = await startNatsServer({
    storeDir: folder,
    port,
    name,
    // A group of its own: Ctrl-C in a terminal would else end it before its clients have said goodbye.
    detached: true,
    tell: (line) => process.stderr.write(`${line}\n`),
    extraConfig: `pid_file: ${JSON.stringify(join(folder, "nats-server.pid"))}`
  })
  return {
    url: server.url,
    ended: new Promise((done) => server.process.once("exit", () => done())),
    stop: () => server.stop(),
    stopNow: () => signal(server.pid, "SIGTERM")
  }
}

/**
 * A real S3 server for tests (versitygw) with one bucket, in a temporary folder. A test that cannot have one fails;
 * it is never skipped. Ends only what it started, by pid.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, mkdtemp, rm } from "node:fs/promises"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { freePort } from "../../runtime/nats-server.ts"
import { findServer } from "../../runtime/server-finder.ts"

export interface S3Server {
  readonly endpoint: string
  readonly bucket: string
  /** Puts the credentials into the environment of this process, where the SDK looks for them. */
  readonly useCredentials: () => void
  readonly stop: () => Promise<void>
}

const ACCESS_KEY = "elanus-test"
const SECRET_KEY = "elanus-test-secret"

export const startS3 = async (): Promise<S3Server> => {
  const program = await findServer("versitygw")
  const folder = await mkdtemp(join(tmpdir(), "elanus-s3-"))
  const bucket = "elanus"
  await mkdir(join(folder, "data", bucket), { recursive: true })
  const port = await freePort()
  const child = spawn(program, ["--port", `127.0.0.1:${port}`, "posix", join(folder, "data")], {
    env: { ...process.env, ROOT_ACCESS_KEY: ACCESS_KEY, ROOT_SECRET_KEY: SECRET_KEY },
    stdio: ["ignore", "pipe", "pipe"]
  })
  let said = ""
  child.stdout.on("data", (data) => (said = (said + String(data)).slice(-4000)))
  child.stderr.on("data", (data) => (said = (said + String(data)).slice(-4000)))
  const stop = async () => {
    await end(child)
    await rm(folder, { recursive: true, force: true })
  }
  const deadline = performance.now() + 20_000
  while (!(await accepts(port))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      await stop()
      throw new Error(`versitygw did not start (its folder needs user xattrs, as ext4 and xfs have): ${said}`)
    }
    await sleep(20)
  }
  return {
    endpoint: `http://127.0.0.1:${port}`,
    bucket,
    useCredentials: () => {
      process.env["AWS_ACCESS_KEY_ID"] = ACCESS_KEY
      process.env["AWS_SECRET_ACCESS_KEY"] = SECRET_KEY
    },
    stop
  }
}

const end = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, "exit")
  child.kill("SIGKILL")
  await gone
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.once("error", () => resolve(false))
  })

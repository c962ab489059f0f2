/**
 * Real nats-servers for tests, in temporary folders: one (R1) or a cluster of three (R3). It can pause, kill and
 * restart them. A test that cannot have a server fails; it is never skipped. Ends only what it started, by pid.
 */
import { connect } from "nats"
import { jetstreamManager } from "@nats-io/jetstream"
import { readdirSync, readFileSync, rmSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { freePort, startNatsServer, type NatsServer, type NatsServerOptions } from "../../runtime/nats-server.ts"

export interface Nats {
  /** Of all servers, also of one that is down: ports stay. */
  readonly urls: ReadonlyArray<string>
  readonly replicas: number
  /** Stops the process (SIGSTOP) with its connections open: it answers nobody, and goes on later as if nothing had been. */
  readonly pause: (index: number) => void
  readonly continue: (index: number) => void
  /** SIGKILL: what was not on the disk is gone. */
  readonly kill: (index: number) => Promise<void>
  /** Same ports, same store. */
  readonly restart: (index: number) => Promise<void>
  /** Which of the servers bears that name, as a stream's leader is named. */
  readonly indexOf: (serverName: string) => number
  /** Waits until a stream can be made on all servers, which must be up: after a start or a restart. */
  readonly usable: () => Promise<void>
  /** Ends all servers and removes their folders. */
  readonly stop: () => Promise<void>
}

/** As Linux tells it: all threads of the process stand still. */
const isStopped = (pid: number): boolean =>
  readdirSync(`/proc/${pid}/task`).every((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T")
  })

const startAll = async (all: ReadonlyArray<NatsServerOptions>, folder: string): Promise<Nats> => {
  const running: Array<NatsServer | undefined> = await Promise.all(all.map(startNatsServer))
  const urls = all.map((options) => `nats://127.0.0.1:${options.port}`)
  const signal = (index: number, name: NodeJS.Signals) => {
    running[index]?.process.kill(name)
  }

  // JetStream answers before it can be used: the meta leader, and its peers, come later. Making a stream proves it, if
  // that is done twice. One that was there before counts as a peer also while it is down, so the first must have come to
  // all. And the moment it is back it cannot be chosen ("peer offline") until it was heard of, some 200 ms later.
  const usable = async () => {
    const deadline = performance.now() + 60_000
    for (;;) {
      let nc: Awaited<ReturnType<typeof connect>> | undefined
      try {
        nc = await connect({ servers: [...urls], timeout: 2_000, maxReconnectAttempts: 1 })
        const { streams } = await jetstreamManager(nc, { timeout: 5_000 })
        const name = `PROBE_${process.pid}`
        const probe = { name, subjects: [`probe.${process.pid}`], num_replicas: all.length }
        let { cluster } = await streams.add(probe)
        while (cluster?.replicas?.some(({ current, offline }) => !current || offline) === true) {
          if (performance.now() > deadline) throw new Error(`not at all replicas: ${JSON.stringify(cluster)}`)
          await sleep(20)
          cluster = (await streams.info(name)).cluster
        }
        await streams.delete(name)
        await streams.add(probe)
        await streams.delete(name)
        return
      } catch (cause) {
        if (performance.now() > deadline) throw new Error("JetStream did not become usable", { cause })
        await sleep(50)
      } finally {
        await nc?.close()
      }
    }
  }

  // A test process that ends early (a failed setup, an interrupt) takes its servers along.
  const onExit = () => {
    for (const server of running) server?.process.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  process.once("exit", onExit)

  const nats: Nats = {
    urls,
    replicas: all.length,
    pause: (index) => {
      signal(index, "SIGSTOP")
      const pid = running[index]?.pid
      // A signal takes its time, on a busy machine long enough to answer one more request.
      while (pid !== undefined && !isStopped(pid));
    },
    continue: (index) => signal(index, "SIGCONT"),
    kill: async (index) => {
      await running[index]?.stop("SIGKILL")
      running[index] = undefined
    },
    restart: async (index) => {
      await running[index]?.stop()
      running[index] = await startNatsServer(all[index] as NatsServerOptions)
    },
    indexOf: (serverName) => all.findIndex((options) => options.name === serverName),
    usable,
    stop: async () => {
      process.off("exit", onExit)
      // SIGKILL, since a paused process takes no other, and nobody needs these folders again.
      await Promise.all(running.map((server) => server?.stop("SIGKILL")))
      await rm(folder, { recursive: true, force: true, maxRetries: 5 })
    }
  }
  try {
    await usable()
  } catch (cause) {
    await nats.stop()
    throw cause
  }
  return nats
}

const newFolder = () => mkdtemp(join(tmpdir(), "elanus-nats-"))

export const startNats = async (extraConfig?: string): Promise<Nats> => {
  const folder = await newFolder()
  return startAll(
    [{ name: "n0", storeDir: folder, port: await freePort(), ...(extraConfig === undefined ? {} : { extraConfig }) }],
    folder
  )
}

export const startNatsCluster = async (extraConfig?: string): Promise<Nats> => {
  const folder = await newFolder()
  const ports = await Promise.all(Array.from({ length: 6 }, freePort))
  const routes = ports.slice(3)
  return startAll(
    routes.map((port, index) => ({
      name: `n${index}`,
      storeDir: join(folder, `n${index}`),
      port: ports[index] as number,
      cluster: { name: "elanus-test", port, routes },
      ...(extraConfig === undefined ? {} : { extraConfig })
    })),
    folder
  )
}

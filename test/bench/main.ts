/**
 * `npm run bench`: Elanus beside the engine that it is built on, on the same vectors, in one run. Every figure is taken
 * in processes of its own; ratios compare rounds that took turns in one process. `--json` for machines, `--quick` for a
 * look (10,000 rows of each set), names of sets to run only those.
 */
import { type ChildProcess, fork } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { cpus, tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import type { Role } from "../../protocols/metadata.ts"
import { startNatsServer } from "../../runtime/nats-server.ts"
import type { ClientOptions, Filled, Loaded, Memory, Searched } from "./client.ts"
import { type DatasetName, datasetNames, loadDataset, recipes } from "./datasets.ts"
import { INSERTED, median } from "./measure.ts"
import type { NodeOptions, NodeQuestion } from "./node.ts"
import { print, type Report, type SetReport } from "./report.ts"

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "boolean", default: false }, quick: { type: "boolean", default: false } }
})
const wrong = positionals.find((name) => !datasetNames.some((known) => known === name))
if (wrong !== undefined) {
  process.stderr.write(`There is no set ${wrong}. There are: ${datasetNames.join(", ")}.\n`)
  process.exit(2)
}
const chosen = positionals.length === 0 ? datasetNames : (positionals as ReadonlyArray<DatasetName>)

/** All in one segment, so that our graph is the very graph of the raw engine. */
const ONE_SEGMENT = { segmentBytesMax: 512 * 1024 * 1024 }
const ALL: ReadonlyArray<Role> = ["coordinator", "streaming-node", "query-node", "data-node", "proxy"]

const say = (text: string) => {
  if (!values.json) process.stderr.write(`${text}\n`)
}

// ---- processes

const fileOf = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const living = new Set<ChildProcess>()

const begin = (file: string, argument: object): ChildProcess => {
  const child = fork(fileOf(file), [JSON.stringify(argument)], {
    execArgv: ["--expose-gc"],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "inherit", "ipc"]
  })
  living.add(child)
  child.once("exit", () => living.delete(child))
  return child
}

const ended = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve()
    else child.once("exit", () => resolve())
  })

const nextMessage = (child: ChildProcess, what: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const gone = (code: number | null) => reject(new Error(`${what} ended with ${code} before it answered`))
    child.once("exit", gone)
    child.once("message", (message) => {
      child.off("exit", gone)
      resolve(message)
    })
  })

/** One step of a client in a process of its own: what it measured. */
const client = async <A>(argument: ClientOptions, onInserted: () => Promise<unknown> = async () => {}): Promise<A> => {
  const child = begin("./client.ts", argument)
  const what = `${argument.step} of ${argument.dataset}`
  let answer = await nextMessage(child, what)
  if (answer === INSERTED) {
    ;[answer] = await Promise.all([nextMessage(child, what), onInserted()])
  }
  await ended(child)
  return answer as A
}

interface RunningNode {
  readonly ask: (question: NodeQuestion) => Promise<number>
  readonly stop: () => Promise<void>
}

const startNode = async (options: NodeOptions): Promise<RunningNode> => {
  const child = begin("./node.ts", options)
  const what = options.roles.join(", ")
  await nextMessage(child, what)
  return {
    ask: (question) => {
      const answer = nextMessage(child, what) as Promise<number>
      child.send(question)
      return answer
    },
    stop: async () => {
      child.disconnect()
      const timer = setTimeout(() => child.kill("SIGKILL"), 10_000)
      await ended(child)
      clearTimeout(timer)
    }
  }
}

// ---- one set

const measure = async (dataset: DatasetName, folder: string): Promise<SetReport> => {
  const { dimension, metric, title } = recipes[dataset]
  const { quick } = values
  say(`${dataset}: exact answers`)
  const { rows } = loadDataset(dataset, quick)
  const directory = join(folder, "embedded")
  const embeddedClient = {
    at: { directory },
    settings: ONE_SEGMENT,
    dataset,
    quick,
    objects: join(directory, "objects")
  }

  say(`${dataset}: embedded, insert and build`)
  const filled = await client<Filled>({ ...embeddedClient, step: "fill" })
  say(`${dataset}: embedded, search`)
  const embedded = await client<Searched>({ ...embeddedClient, step: "search" })
  say(`${dataset}: embedded, start and memory`)
  const starts: Array<number> = []
  for (let i = 0; i < 3; i++) {
    const began = performance.now()
    const child = begin("./client.ts", { ...embeddedClient, step: "first" })
    await nextMessage(child, "first")
    starts.push(performance.now() - began)
    await ended(child)
  }
  const { bytesPerVector } = await client<Memory>({ ...embeddedClient, step: "memory" })

  const nats = await startNatsServer({ storeDir: join(folder, "nats") })
  try {
    const objects = join(folder, "objects")
    const node = (roles: ReadonlyArray<Role>, settings: NodeOptions["settings"] = ONE_SEGMENT) =>
      startNode({
        roles,
        servers: nats.url,
        objects: `dir:${objects}`,
        cache: join(folder, `cache-${roles.join("-")}`),
        settings
      })
    const remote = { at: { servers: nats.url }, settings: {}, dataset, quick, objects }

    say(`${dataset}: over NATS, all roles in one process`)
    const all = await node(ALL)
    await all.ask("watch")
    let insertStalledMs = 0
    const remoteFilled = await client<Filled>({ ...remote, step: "fill" }, async () => {
      insertStalledMs = await all.ask("stalled")
      await all.ask("watch")
    })
    const together = await client<Searched>({ ...remote, step: "search" })
    const stalledMs = await all.ask("stalled")
    await all.stop()

    say(`${dataset}: over NATS, insert`)
    const ordinary = await node(ALL, {})
    const loaded = await client<Loaded>({ ...remote, step: "load" })
    await ordinary.stop()

    say(`${dataset}: over NATS, each role in a process`)
    const nodes: Array<RunningNode> = []
    for (const role of ALL) nodes.push(await node([role]))
    const apart = await client<Searched>({ ...remote, step: "search" })
    await Promise.all(nodes.map((each) => each.stop()))

    return {
      dataset,
      title,
      metric,
      rows,
      dimension,
      embedded,
      together,
      apart,
      insert: {
        embeddedPerSecond: filled.insertPerSecond,
        natsPerSecond: median(loaded.perSecond),
        natsRounds: loaded.perSecond
      },
      buildSeconds: { embedded: filled.buildSeconds, nats: remoteFilled.buildSeconds },
      stalledMs,
      insertStalledMs,
      bytesPerVector,
      firstAnswerMs: median(starts)
    }
  } finally {
    await nats.stop()
  }
}

// ---- all of them

const folder = await mkdtemp(join(tmpdir(), "elanus-bench-"))
try {
  const sets: Array<SetReport> = []
  for (const dataset of chosen) sets.push(await measure(dataset, join(folder, dataset)))
  const report: Report = {
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    machine: `${cpus().length} x ${cpus()[0]?.model.trim() ?? "?"}`,
    quick: values.quick,
    sets
  }
  process.stdout.write(values.json ? `${JSON.stringify(report, null, 2)}\n` : print(report))
} finally {
  for (const child of living) child.kill("SIGKILL")
  await rm(folder, { recursive: true, force: true })
}

/**
 * Finds the two servers that nobody here wrote, or gets them once into our cache folder. It never takes a
 * binary that it could not vouch for: Go's checksum database or the release's own checksum file must agree.
 */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { access, constants, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { homedir } from "node:os"
import { delimiter, join } from "node:path"
import { promisify } from "node:util"
import { failure } from "../protocols/errors.ts"

export type ServerName = "nats-server" | "versitygw"

interface Server {
  readonly variable: string
  readonly module: string
  readonly version: string
  /** Why this one cannot be used; nothing if it can. */
  readonly unfit: (versionText: string) => string | undefined
  /** The official release: its folder, the file of checksums, and the archive for this machine. */
  readonly release: string
  readonly checksums: string
  readonly archive: (platform: string, architecture: string) => string
}

const run = promisify(execFile)

/** What `text` says of a version, as numbers; nothing if it says none. */
const versionIn = (text: string): readonly [number, number] | undefined => {
  const found = /v?(\d+)\.(\d+)\.\d+/.exec(text)
  return found === null ? undefined : [Number(found[1]), Number(found[2])]
}

const servers: Record<ServerName, Server> = {
  "nats-server": {
    variable: "ELANUS_NATS_SERVER",
    module: "github.com/nats-io/nats-server/v2",
    version: "v2.15.2",
    unfit: (text) => {
      const version = versionIn(text)
      if (version === undefined) return `does not tell its version (${JSON.stringify(text.trim())})`
      const [major, minor] = version
      // Older servers take a stream with TTLs or atomic batches, and silently do neither.
      return major > 2 || (major === 2 && minor >= 12) ? undefined : `is ${major}.${minor}, and 2.12 is the least`
    },
    release: "https://github.com/nats-io/nats-server/releases/download/v2.15.2",
    checksums: "SHA256SUMS",
    archive: (platform, architecture) =>
      `nats-server-v2.15.2-${platform}-${architecture === "x64" ? "amd64" : architecture}.tar.gz`
  },
  versitygw: {
    variable: "ELANUS_VERSITYGW",
    module: "github.com/versity/versitygw/cmd/versitygw",
    version: "v1.8.0",
    unfit: () => undefined,
    release: "https://github.com/versity/versitygw/releases/download/v1.8.0",
    checksums: "checksums.txt",
    archive: (platform, architecture) =>
      `versitygw_v1.8.0_${platform === "darwin" ? "Darwin" : "Linux"}_${architecture === "x64" ? "x86_64" : architecture}.tar.gz`
  }
}

const reasonOf = (cause: unknown): string => {
  const lines = (cause instanceof Error ? cause.message : String(cause)).trim().split("\n")
  return lines.slice(0, 3).join(" ")
}

/** Nothing if `file` is a binary that we can work with, else why not. */
const unfitness = async (name: ServerName, file: string): Promise<string | undefined> => {
  try {
    await access(file, constants.X_OK)
  } catch {
    return "is not there, or may not be run"
  }
  try {
    const { stdout, stderr } = await run(file, ["--version"], { timeout: 20_000 })
    return servers[name].unfit(stdout + stderr)
  } catch (cause) {
    return `does not run: ${reasonOf(cause)}`
  }
}

const isThere = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false
  )

const cacheFolder = (): string => join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "elanus", "bin")

/**
 * Lets `get` put the binary into a folder of its own and then moves it to its place, so that of several processes
 * that do this at once nobody ever sees half a file. Says why the binary is of no use, if it is.
 */
const install = async (name: ServerName, get: (folder: string) => Promise<void>): Promise<string | undefined> => {
  await mkdir(cacheFolder(), { recursive: true })
  const folder = await mkdtemp(join(cacheFolder(), ".install-"))
  try {
    await get(folder)
    const unfit = await unfitness(name, join(folder, name))
    if (unfit === undefined) await rename(join(folder, name), join(cacheFolder(), name))
    return unfit
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const installWithGo = (name: ServerName) =>
  install(name, async (folder) => {
    const { module, version } = servers[name]
    // A GOBIN cannot be combined with a foreign platform, so whatever the environment says of one is dropped.
    const environment = { ...process.env, GOBIN: folder, GOOS: "", GOARCH: "", GOFLAGS: "" }
    await run("go", ["install", `${module}@${version}`], { env: environment, timeout: 600_000 })
  })

const download = async (address: string): Promise<Buffer> => {
  const answer = await fetch(address, { signal: AbortSignal.timeout(300_000) })
  if (!answer.ok) throw new Error(`${address} answered ${answer.status}`)
  return Buffer.from(await answer.arrayBuffer())
}

const installRelease = (name: ServerName) =>
  install(name, async (folder) => {
    const { release, checksums, archive } = servers[name]
    const file = archive(process.platform, process.arch)
    const sums = (await download(`${release}/${checksums}`)).toString("utf8")
    const expected = sums
      .split("\n")
      .map((line) => line.trim().split(/\s+\*?/))
      .find(([, listed]) => listed === file)?.[0]
    if (expected === undefined) throw new Error(`${checksums} does not list ${file}`)
    const bytes = await download(`${release}/${file}`)
    if (createHash("sha256").update(bytes).digest("hex") !== expected) throw new Error(`${file} has another checksum`)
    await writeFile(join(folder, file), bytes)
    const { stdout } = await run("tar", ["-tzf", join(folder, file)])
    const entry = stdout.split("\n").find((path) => path === name || path.endsWith(`/${name}`))
    if (entry === undefined) throw new Error(`there is no ${name} in ${file}`)
    await run("tar", [
      "-xzf",
      join(folder, file),
      "-C",
      folder,
      `--strip-components=${entry.split("/").length - 1}`,
      entry
    ])
  })

/**
 * The path of a binary that we can work with; `tell` hears of what takes its time. Fails with everything that was tried
 * and what would help: it is the machine's owner who must look, so it is "unfit".
 */
export const findServer = async (name: ServerName, tell: (line: string) => void = () => undefined): Promise<string> => {
  const server = servers[name]
  const tried: Array<string> = []

  const given = process.env[server.variable]
  if (given !== undefined && given !== "") {
    const unfit = await unfitness(name, given)
    if (unfit === undefined) return given
    // Whoever names a binary wants that one: another one instead would only hide the mistake.
    throw failure("unfit", `${name}: ${server.variable} names ${given}, which ${unfit}`)
  }
  tried.push(`${server.variable} is not set`)

  let onPath = false
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    if (folder === "" || !(await isThere(join(folder, name)))) continue
    onPath = true
    const unfit = await unfitness(name, join(folder, name))
    if (unfit === undefined) return join(folder, name)
    tried.push(`${join(folder, name)} ${unfit}`)
  }
  if (!onPath) tried.push("it is not on the PATH")

  const cached = join(cacheFolder(), name)
  const unfitCached = await unfitness(name, cached)
  if (unfitCached === undefined) return cached
  tried.push(`${cached} ${unfitCached}`)

  for (const [how, what, attempt] of [
    ["with Go", `go install ${server.module}@${server.version}`, installWithGo],
    ["from its release", `the release at ${server.release}`, installRelease]
  ] as const) {
    tell(`getting ${name} ${how}, once: this may take a minute ...`)
    try {
      const unfit = await attempt(name)
      if (unfit === undefined) return cached
      tried.push(`${what}: what came of it ${unfit}`)
    } catch (cause) {
      tried.push(`${what}: ${reasonOf(cause)}`)
    }
  }

  throw failure(
    "unfit",
    `There is no ${name} that Elanus can use. Tried:\n${tried.map((line) => `  - ${line}`).join("\n")}\n` +
      `With Go installed, this gets it: GOBIN=${cacheFolder()} go install ${server.module}@${server.version}`
  )
}

/**
 * The style guide, enforced. Rules that pass in silence are the normal failure of linters, so the first part feeds
 * each rule one bad line, in a small tree that is laid out like this one, and expects exactly those errors.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join, posix } from "node:path"
import { pathToFileURL } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { VERSION } from "../runtime/version.ts"

const root = join(import.meta.dirname, "..")
const layers = ["protocols", "storage", "runtime", "actors", "sim", "test"]
/** May talk to a person, and are started, not imported. */
const programs = ["runtime/main.ts", "runtime/demo.ts", "runtime/elanus.ts", "sim/main.ts"]
/** Holds the bad lines, as strings. */
const self = "test/tidy.test.ts"

const sources = (
  await Promise.all(
    layers.map(async (layer) => {
      const folder = join(root, layer)
      if (!existsSync(folder)) return []
      const entries = await readdir(folder, { recursive: true })
      return entries.filter((name) => name.endsWith(".ts")).map((name) => posix.join(layer, name.replaceAll("\\", "/")))
    })
  )
).flat()
const textOf = new Map(
  await Promise.all(sources.map(async (file) => [file, await readFile(join(root, file), "utf8")] as const))
)

describe("every lint rule of the house bites", () => {
  /** [file, bad line, the rule that says so]. A line without a rule is one that must pass. */
  const lines: ReadonlyArray<readonly [file: string, line: string, rule?: string]> = [
    // Arrows to the left only
    ["protocols/layer.ts", `export * from "../storage/log.ts"`, "elanus(imports)"],
    ["protocols/layer-type.ts", `export type { Log } from "../storage/log.ts"`, "elanus(imports)"],
    ["protocols/layer-inline-type.ts", `export type A = import("../storage/log.ts").Log`, "elanus(imports)"],
    [
      "protocols/layer-inline-type.ts",
      `export type A = import("../storage/log.ts").Log`,
      "typescript(consistent-type-imports)"
    ],
    ["storage/layer.ts", `import type { Bus } from "../runtime/bus.ts"\nexport type B = Bus`, "elanus(imports)"],
    ["runtime/layer.ts", `export const a = () => import("../actors/proxy/proxy.ts")`, "elanus(imports)"],
    ["actors/proxy/layer.ts", `export * from "../../sim/world.ts"`, "elanus(imports)"],
    ["sim/layer.ts", `export * from "../test/support/nats.ts"`, "elanus(imports)"],
    ["actors/proxy/fine.ts", `export * from "../../storage/log.ts"\nexport * from "../merge.ts"`],
    // Roots import anything, and only roots and tests import them
    ["runtime/places.ts", `export * from "../storage/log-jetstream.ts"\nexport * from "./roles.ts"`],
    ["runtime/main.ts", `import process from "node:process"\nexport const a = process.argv`],
    ["runtime/cli/start.ts", `export * from "../roles.ts"\nexport * from "nats"`],
    ["runtime/client/fine.ts", `export const a = () => performance.now()`],
    ["actors/proxy/of-client.ts", `export * from "../../runtime/client/fine.ts"`, "elanus(imports)"],
    ["runtime/of-cli.ts", `export * from "./cli/start.ts"`, "elanus(imports)"],
    ["runtime/of-root.ts", `export * from "./places.ts"`, "elanus(imports)"],
    ["runtime/demo.ts", `export * from "./elanus.ts"`],
    ["test/anything.ts", `export * from "../runtime/roles.ts"\nexport * from "nats"`],
    // The cast knows all actors and no adapter
    ["runtime/roles.ts", `export * from "../actors/proxy/proxy.ts"\nexport * from "./node.ts"`],
    ["runtime/of-cast.ts", `export * from "./roles.ts"`, "elanus(imports)"],
    ["actors/proxy/of-cast.ts", `export * from "../../runtime/roles.ts"`, "elanus(imports)"],
    ["sim/of-cast.ts", `export * from "../runtime/roles.ts"`],
    // Adapters and drivers
    ["actors/proxy/adapter.ts", `export * from "../../storage/log-jetstream.ts"`, "elanus(imports)"],
    ["actors/proxy/bus.ts", `export * from "../../runtime/bus-nats.ts"`, "elanus(imports)"],
    ["actors/proxy/edge.ts", `export * from "../../runtime/server-finder.ts"`, "elanus(imports)"],
    ["runtime/adapter.ts", `export * from "../storage/objects-s3.ts"`, "elanus(imports)"],
    ["storage/adapter.ts", `export * from "./local-store.ts"`, "elanus(imports)"],
    ["sim/adapter.ts", `export * from "../storage/meta-jetstream.ts"`, "elanus(imports)"],
    ["sim/native.ts", `export * from "../storage/index-hnsw.ts"`, "elanus(imports)"],
    ["sim/cli/seeds.ts", `export * from "../../runtime/cli/output.ts"\nexport const a = process.argv`],
    ["sim/of-cli.ts", `export * from "./cli/seeds.ts"`, "elanus(imports)"],
    ["sim/fine.ts", `export * from "../runtime/bus-local.ts"\nexport * from "../storage/compute-tasks.ts"`],
    ["storage/nats.ts", `export * from "nats"`, "elanus(imports)"],
    ["storage/kv.ts", `export * from "@nats-io/kv"`, "elanus(imports)"],
    ["storage/s3.ts", `export * from "@aws-sdk/client-s3"`, "elanus(imports)"],
    ["storage/hnsw.ts", `export * from "hnswlib-node"`, "elanus(imports)"],
    ["storage/level.ts", `export * from "classic-level"`, "elanus(imports)"],
    ["storage/arrow.ts", `export * from "apache-arrow"`, "elanus(imports)"],
    ["storage/objects-s3.ts", `export * from "classic-level"`, "elanus(imports)"],
    ["storage/segment-file.ts", `export * from "apache-arrow"`],
    ["storage/log-jetstream.ts", `export * from "@nats-io/jetstream"\nexport * from "./nats-connection.ts"`],
    ["actors/proxy/node.ts", `export * from "node:path"`, "elanus(imports)"],
    ["actors/proxy/package.ts", `export * from "@effect/platform-node"`, "elanus(imports)"],
    ["protocols/node.ts", `export * from "node:path"`, "elanus(imports)"],
    ["protocols/checksum.ts", `export * from "node:zlib"`],
    ["protocols/wire.ts", `export * from "node:buffer"`],
    ["protocols/keys.ts", `export * from "node:buffer"`, "elanus(imports)"],
    // xstate is a table
    ["actors/proxy/machine.ts", `export { setup } from "xstate"`, "elanus(imports)"],
    ["protocols/machine.ts", `export type { AnyStateMachine } from "xstate"`, "elanus(imports)"],
    ["runtime/machine.ts", `export type { AnyStateMachine } from "xstate"`],
    ["actors/proxy/lifecycle.ts", `export { setup } from "xstate"`],
    ["actors/proxy/lease-lifecycle.ts", `export { setup } from "xstate"`],
    // State belongs to a closure
    ["actors/proxy/let.ts", `let count = 0\nexport const next = () => ++count`, "elanus(module-state)"],
    ["protocols/map.ts", `export const seen = new Map<string, number>()`, "elanus(module-state)"],
    [
      "runtime/set.ts",
      `const seen = new Set<string>()\nexport const has = (a: string) => seen.has(a)`,
      "elanus(module-state)"
    ],
    ["sim/static.ts", `export class A {\n  static readonly all = new Map<string, A>()\n}`, "elanus(module-state)"],
    ["actors/proxy/table.ts", `export const names: ReadonlySet<string> = new Set(["a"])`],
    // The world differs from run to run
    ...[
      `Date.now()`,
      `new Date().getTime()`,
      `performance.now()`,
      `process.pid`,
      `crypto.randomUUID()`,
      `globalThis.name`,
      `Buffer.alloc(1)`,
      `setTimeout(() => undefined, 1)`,
      `setInterval(() => undefined, 1)`,
      `setImmediate(() => undefined)`,
      `queueMicrotask(() => undefined)`,
      `Math.random()`,
      `((M) => M.random())(Math)`,
      `Math["random"]()`
    ].map(
      (expression, index) =>
        [`actors/proxy/world-${index}.ts`, `export const a = () => ${expression}`, "elanus(world)"] as const
    ),
    ["protocols/world.ts", `export const a = () => Date.now()`, "elanus(world)"],
    ["runtime/world.ts", `export const a = () => Math.random()`, "elanus(world)"],
    ["storage/world.ts", `export const a = () => performance.now()`, "elanus(world)"],
    ["sim/world.ts", `export const a = () => Date.now()`, "elanus(world)"],
    ["storage/objects-local.ts", `export const a = () => Date.now() + Math.random()`],
    [
      "actors/proxy/own.ts",
      `const fetch = (a: number) => a\nexport const a = (process: number): Date | number => fetch(process)`
    ],
    ["actors/proxy/math.ts", `export const a = (b: { Date: number }) => Math.max(b.Date, Math.PI)`],
    // What is made and not run
    [
      "actors/proxy/floating.ts",
      `import { Effect } from "effect"\nexport const a = Effect.gen(function* () {\n  yield* Effect.void\n  Effect.log("b").pipe(Effect.asVoid)\n})`,
      "elanus(floating-effect)"
    ],
    [
      "storage/a-jetstream.ts",
      `export const a = async (b: () => Promise<void>) => {\n  b()\n  await b()\n}`,
      "typescript(no-floating-promises)"
    ],
    // Built in
    ["runtime/cycle-a.ts", `export { b } from "./cycle-b.ts"`, "import(no-cycle)"],
    [
      "runtime/cycle-b.ts",
      `import { b as c } from "./cycle-a.ts"\nexport const b: unknown = () => c`,
      "import(no-cycle)"
    ],
    [
      "runtime/type-import.ts",
      `import { Bus } from "./set.ts"\nexport type A = typeof Bus`,
      "typescript(consistent-type-imports)"
    ],
    ["runtime/equal.ts", `export const a = (b: unknown) => b == "1"`, "eslint(eqeqeq)"]
  ]

  let tree = ""
  beforeAll(async () => {
    tree = await mkdtemp(join(tmpdir(), "elanus-tidy-"))
    for (const name of [".oxlintrc.json", ".oxlint", "tsconfig.json"]) {
      await cp(join(root, name), join(tree, name), { recursive: true })
    }
    await symlink(join(root, "node_modules"), join(tree, "node_modules"), "junction")
    for (const [file, line] of lines) {
      await mkdir(dirname(join(tree, file)), { recursive: true })
      await writeFile(join(tree, file), `/** A file. */\n${line}\n`)
    }
  })
  afterAll(() => rm(tree, { recursive: true, force: true }))

  it("and nothing else does", async () => {
    const printed = await new Promise<string>((resolve) =>
      execFile(
        process.execPath,
        [join(root, "node_modules/oxlint/bin/oxlint"), "--format", "json", ...layers],
        { cwd: tree, maxBuffer: 64 * 1024 * 1024 },
        (_, stdout) => resolve(stdout)
      )
    )
    const { diagnostics } = JSON.parse(printed) as { diagnostics: ReadonlyArray<{ code: string; filename: string }> }
    const found = diagnostics.map(({ code, filename }) => `${filename.replaceAll("\\", "/")} ${code}`)
    const expected = lines.flatMap(([file, , rule]) => (rule === undefined ? [] : [`${file} ${rule}`]))
    assert.deepStrictEqual(found.toSorted(), expected.toSorted())
  })
})

interface Ban {
  readonly pattern: RegExp
  /** Comments may speak of most of it. */
  readonly inComments?: boolean
  readonly instead: string
  readonly where: (file: string) => boolean
  readonly bad: readonly [file: string, line: string]
}

const isTest = (file: string) => file.startsWith("test/")
const bans: ReadonlyArray<Ban> = [
  {
    pattern: /\bcreateActor\b/,
    instead: "activate() of the kernel: xstate runs nothing",
    where: () => true,
    bad: ["actors/a.ts", "const a = createActor(machine)"]
  },
  {
    pattern: /\bas any\b/,
    instead: "a Schema, or the type that it is",
    where: (file) => !isTest(file),
    bad: ["storage/a.ts", "const a = b as any"]
  },
  {
    pattern: /\bEffect\.runSync/,
    instead: "runPromise or runFork, at the edge",
    where: () => true,
    bad: ["runtime/a.ts", "Effect.runSync(b)"]
  },
  {
    pattern: /\bconsole\./,
    instead: "Effect.log; only programs print",
    where: (file) => !isTest(file) && !programs.includes(file),
    bad: ["runtime/a.ts", 'console.log("b")']
  },
  {
    pattern: /\bcatch \{/,
    instead: "a tag: an actor that swallows what it does not know hides a bug",
    where: (file) => file.startsWith("actors/"),
    bad: ["actors/a.ts", "} catch {"]
  },
  {
    pattern: /@ts-(?:ignore|nocheck)/,
    inComments: true,
    instead: "@ts-expect-error, in tests, with its reason",
    where: () => true,
    bad: ["runtime/a.ts", "// @ts-ignore"]
  },
  {
    pattern: /\bFIXME\b/,
    inComments: true,
    instead: "fixing it",
    where: () => true,
    bad: ["runtime/a.ts", "// FIXME: later"]
  },
  {
    pattern: /["'`](?:\/root|\/home|\/work|\/Users)\//,
    instead: "a path from the repository, or a temporary one",
    where: () => true,
    bad: ["test/a.ts", 'const a = "/home/somebody/b"']
  }
]

const isComment = (line: string) => /^\s*(?:\/\/|\/\*|\*)/.test(line)

const offences = (file: string, text: string): ReadonlyArray<string> =>
  bans
    .filter(({ where }) => where(file))
    .flatMap(({ inComments = false, instead, pattern }) =>
      text
        .split("\n")
        .flatMap((line, index) =>
          pattern.test(line) && (inComments || !isComment(line))
            ? [`${file}:${index + 1} ${line.trim()} -> ${instead}`]
            : []
        )
    )

describe("the ban list", () => {
  it("bites", () => {
    for (const { bad, instead } of bans) {
      const found = offences(...bad)
      assert.strictEqual(found.length, 1, bad.join(": "))
      assert.include(found[0], instead)
    }
  })

  it("finds nothing", () => {
    const found = [...textOf].filter(([file]) => file !== self).flatMap(([file, text]) => offences(file, text))
    assert.deepStrictEqual(found, [])
  })
})

describe("files", () => {
  it("begin by saying what they are", () => {
    const silent = [...textOf]
      .filter(([, text]) => !/^(?:#!.*\n)?\/\*\*\s*(?:\n \* )?\S/.test(text))
      .map(([file]) => file)
    assert.deepStrictEqual(silent, [])
  })

  it("are all used, by more than tests", () => {
    // The simulated world is driven by tests.
    const isSimulated = (file: string) => file.startsWith("sim/")
    const used = new Set<string>()
    for (const [file, text] of textOf) {
      // Also dynamic imports, and the files that a worker is started from.
      for (const [, path] of text.matchAll(/["'`](\.{1,2}\/[^"'`$]+)(?:\.ts|\$\{\w+\})["'`]/g)) {
        const target = `${posix.join(posix.dirname(file), path!)}.ts`
        if (isTest(target) || isSimulated(target) || !isTest(file)) used.add(target)
      }
    }
    const isStarted = (file: string) =>
      file.endsWith(".test.ts") || file.startsWith("test/bench/") || programs.includes(file)
    assert.deepStrictEqual(
      sources.filter((file) => !used.has(file) && !isStarted(file)),
      []
    )
  })

  it("agree on the version", async () => {
    const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string }
    assert.strictEqual(VERSION, version)
  })

  it("that the README names are there", async () => {
    const readme = join(root, "README.md")
    const text = existsSync(readme) ? await readFile(readme, "utf8") : ""
    const named = [
      ...text.matchAll(/(?:`|\]\()((?:protocols|storage|runtime|actors|sim|test|docker|\.ci)\/[^`)#\s*<>]*)(?=[`)#])/g)
    ]
    const missing = named.map(([, path]) => path!).filter((path) => !existsSync(join(root, path)))
    assert.deepStrictEqual(missing, [])
  })
})

interface StateConfig {
  readonly states?: { readonly [name: string]: StateConfig }
}

/** What xstate would run by itself, which a restart would lose. */
const runsItself = (config: StateConfig, path: string): ReadonlyArray<string> => [
  ...["invoke", "after", "entry", "exit"].filter((key) => key in config).map((key) => `${path}: ${key}`),
  ...Object.entries(config.states ?? {}).flatMap(([name, state]) => runsItself(state, `${path}.${name}`))
]

describe("lifecycles", async () => {
  const machines: Array<{ readonly id: string; readonly config: StateConfig }> = []
  for (const file of sources.filter((name) => name.startsWith("actors/") && /(?:^|[/-])lifecycle\.ts$/.test(name))) {
    const module = (await import(pathToFileURL(join(root, file)).href)) as { readonly [name: string]: unknown }
    for (const value of Object.values(module)) {
      const isMachine = typeof value === "object" && value !== null && "config" in value && "id" in value
      if (isMachine) machines.push(value as { readonly id: string; readonly config: StateConfig })
    }
  }

  it("would be caught running something by themselves", () => {
    const bad: object = { states: { a: { entry: () => 0, states: { b: { after: {} } } }, c: { invoke: {}, exit: [] } } }
    assert.deepStrictEqual(runsItself(bad, "m"), ["m.a: entry", "m.a.b: after", "m.c: invoke", "m.c: exit"])
  })

  it("are tables: they run nothing", () => {
    assert.deepStrictEqual(
      machines.flatMap(({ config, id }) => runsItself(config, id)),
      []
    )
  })

  it("each have a golden table", async () => {
    const folder = join(root, "test/golden")
    const golden = existsSync(folder) ? await readdir(folder) : []
    const missing = machines.map(({ id }) => id).filter((id) => !golden.some((name) => name.startsWith(`${id}.`)))
    assert.deepStrictEqual(missing, [])
  })
})

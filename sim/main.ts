/**
 * `npm run sim`: the simulator by hand and in CI. Without a command it runs seeds; a plan that failed is a file, which is
 * run again, made smaller and drawn. With `--json` it answers one JSON value on stdout.
 */
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { tmpdir } from "node:os"
import { parseArgs } from "node:util"
import { CANARY, namedBug, plantBug } from "./cli/bugs.ts"
import { FileError, tryFile, tryFolder, UsageError } from "./cli/usage.ts"

const USAGE = `npm run sim -- [options]              run many seeds on all cores
npm run sim -- --seed S [options]     run one seed
npm run sim -- replay PLAN.json       run a plan again
npm run sim -- shrink PLAN.json       make a plan that fails as small as it can be, in two minutes
npm run sim -- report PLAN.json       draw a run as one HTML page
npm run sim -- mutants [NAME ...]     plant one bug after the other, to see after how many seeds each is found; and hollow
                                      the simulator out in one way after the other, to see whether its guards notice
npm run sim -- golden                 write test/sim/golden.json anew

  --seeds N        how many (100; of mutants, for each at most: 200)
  --from S         the first of them, a number (0)
  --within S       seconds: seeds that have not begun by then are left out
  --drawn TEXT     of mutants only a few, others for another text
  --canary         seeds that must fail: with a planted bug, to see that it is seen
  --bug NAME       with a planted bug (sim/mutants.ts has them)
  --out PATH       where plans of failed runs, the smaller plan or the page go
  --processes N    at once (one for each core, two at least)
  --json           for programs

Exit codes: 0 nothing failed, 1 something failed, or the runs prove nothing (no run passed; of 200 seeds or more also: a kind of
fault never struck, more than a quarter are vacuous; not with a planted bug), 2 the command line is wrong.
Ctrl-C: 130, and what is known by then: what many seeds showed, the smallest plan so far.
shrink: 0 the smaller plan is written, 1 the plan does not fail, or does not end. report: 0 the page is written, whatever it shows.
mutants: 1 a bug was not caught, or a hollow simulator not noticed.
`

const options = {
  seeds: { type: "string" },
  from: { type: "string" },
  within: { type: "string" },
  seed: { type: "string" },
  out: { type: "string" },
  bug: { type: "string" },
  drawn: { type: "string" },
  processes: { type: "string" },
  canary: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  help: { type: "boolean", default: false }
} as const

/** Of what is wrong with a plan. */
const WHY_MAX = 200

/** What each command takes, beside --json and --help: what it would not look at is refused. */
const taken: { readonly [command: string]: ReadonlyArray<keyof typeof options> } = {
  "": ["seeds", "from", "within", "out", "bug", "canary", "processes"],
  "--seed": ["seed", "out", "bug", "canary", "processes"],
  replay: ["bug", "canary", "processes"],
  shrink: ["out", "bug", "canary", "processes"],
  report: ["out", "bug", "canary"],
  mutants: ["seeds", "drawn", "processes"],
  golden: []
}

const refuseOthers = (command: string, values: { readonly [name: string]: unknown }): void => {
  const known = taken[command]
  if (known === undefined) throw new UsageError(`there is no command ${command}`)
  const all: ReadonlyArray<string> = [...known, "json", "help"]
  const others = Object.keys(values).filter((name) => values[name] !== false && !all.includes(name))
  const who = command === "" ? "many seeds" : command
  if (others.length > 0) throw new UsageError(`${who} cannot do with ${others.map((name) => `--${name}`).join(", ")}`)
  if (values["bug"] !== undefined && values["canary"] === true) throw new UsageError("--bug or --canary?")
}

const whole = (name: string, text: string | undefined, otherwise: number): number => {
  if (text === undefined) return otherwise
  if (!/^\d{1,15}$/.test(text)) throw new UsageError(`--${name} takes a number, not ${text}`)
  return Number(text)
}

const parsed = () => {
  try {
    return parseArgs({ allowPositionals: true, options })
  } catch (cause) {
    throw new UsageError((cause as Error).message)
  }
}

const planFrom = async (file: string | undefined) => {
  if (file === undefined) throw new UsageError("which plan?")
  const { decodePlan } = await import("./plan.ts")
  try {
    return decodePlan(await readFile(file, "utf8"))
  } catch (cause) {
    const why = (cause as Error).message.replaceAll(/\s+/g, " ")
    throw new FileError(`${file} is no plan: ${why.length > WHY_MAX ? `${why.slice(0, WHY_MAX)}...` : why}`)
  }
}

const main = async (): Promise<number> => {
  const { positionals, values } = parsed()
  const [command, ...names] = positionals
  const [file, ...more] = command === "mutants" ? [] : names
  const { canary, json, out, seed } = values
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  if (more.length > 0) throw new UsageError(`what is ${more.join(" ")}?`)
  refuseOthers(command ?? (seed === undefined ? "" : "--seed"), values)
  const processes = values.processes === undefined ? undefined : whole("processes", values.processes, 2)
  const bug = values.bug ?? (canary ? CANARY : undefined)
  if (bug !== undefined) await namedBug(bug)
  if (processes === 0) throw new UsageError("--processes must be at least 1")
  const pool = { bug, processes }
  const say = (answer: object, text: string) => process.stdout.write(json ? `${JSON.stringify(answer)}\n` : `${text}\n`)

  switch (command) {
    case undefined: {
      const folder = out ?? join(tmpdir(), `elanus-sim-${process.pid}`)
      await tryFolder(folder)
      if (seed !== undefined) {
        const { planOf } = await import("./draw.ts")
        const { runOne } = await import("./cli/one.ts")
        return runOne(planOf(seed), pool, say, { folder })
      }
      const { codeOf, runSeeds, seedsText } = await import("./cli/seeds.ts")
      const from = whole("from", values.from, 0)
      const seeds = Array.from({ length: whole("seeds", values.seeds, 100) }, (_, i) => String(from + i))
      if (seeds.length === 0) throw new UsageError("--seeds must be at least 1")
      const withinMs = values.within === undefined ? undefined : 1_000 * whole("within", values.within, 0)
      if (withinMs === 0) throw new UsageError("--within must be at least 1")
      const ran = await runSeeds({ ...pool, seeds, out: folder, withinMs })
      say(ran, seedsText(ran))
      return codeOf(ran)
    }
    case "replay": {
      const { runOne } = await import("./cli/one.ts")
      return runOne(await planFrom(file), pool, say, { file: file! })
    }
    case "shrink": {
      const plan = await planFrom(file)
      const small = out ?? file!.replace(/(?:\.json)?$/, ".small.json")
      await tryFile(small)
      const { shrinkPlan } = await import("./cli/shrink.ts")
      return shrinkPlan(plan, { ...pool, out: small }, say)
    }
    case "report": {
      // The world runs in this process: first of all, for what reads a plan may be where the bug is.
      await plantBug(bug)
      const { reportOf } = await import("./cli/report.ts")
      const plan = await planFrom(file)
      const page = out ?? file!.replace(/(?:\.json)?$/, ".html")
      await tryFile(page)
      const { html, summary } = await reportOf(plan, file!, bug)
      await writeFile(page, html)
      say({ page, summary }, page)
      return 0
    }
    case "mutants": {
      const { huntBugs } = await import("./cli/mutants.ts")
      return huntBugs(names, { seeds: whole("seeds", values.seeds, 200), processes, drawn: values.drawn }, say)
    }
    case "golden": {
      const { writeGolden } = await import("./cli/golden.ts")
      say(...(await writeGolden()))
      return 0
    }
    default:
      throw new UsageError(`there is no command ${command}`)
  }
}

try {
  process.exitCode = await main()
} catch (cause) {
  if (!(cause instanceof UsageError)) throw cause
  process.stderr.write(cause instanceof FileError ? `sim: ${cause.message}\n` : `sim: ${cause.message}\n\n${USAGE}`)
  process.exitCode = 2
}

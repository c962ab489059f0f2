/**
 * A seal around a simulated process: while it is closed, what differs from run to run throws, so that a leak is found
 * where it leaks. It must never be closed over anything that waits: a world runs in one go.
 *
 * A promise that sneaks in throws too, when somebody wants to hear of it. Module state that outlives a crash is found by
 * lint, not here. Memory that nobody has written yet reads as a pattern, the same every time.
 */
import { createRequire, syncBuiltinESMExports } from "node:module"

/** Something from outside of the world was asked for. */
export class Leak extends Error {
  override readonly name = "Leak"
  constructor(what: string) {
    super(`${what} belongs to the real world: in a simulated one it is asked for through a port`)
  }
}

type Holder = { [name: string]: unknown }

const forbidden = (what: string) =>
  function leak(): never {
    throw new Leak(what)
  }

const require = createRequire(import.meta.url)
const moduleOf = (name: string): Holder => require(name) as Holder

/** What a module gives to those who import it is what `require` gives. Without names: every function of it. */
const modules: ReadonlyArray<readonly [name: string, names?: ReadonlyArray<string>]> = [
  ["node:child_process"],
  ["node:dgram", ["createSocket"]],
  ["node:dns", ["lookup", "resolve"]],
  ["node:fs"],
  ["node:fs/promises"],
  ["node:net", ["connect", "createConnection", "createServer"]],
  ["node:timers"],
  ["node:timers/promises"],
  ["node:worker_threads", ["Worker"]],
  ["node:crypto", ["randomBytes", "randomFill", "randomFillSync", "randomInt", "randomUUID"]]
]

const globals = [
  "clearImmediate",
  "clearInterval",
  "clearTimeout",
  "fetch",
  "queueMicrotask",
  "setImmediate",
  "setInterval",
  "setTimeout",
  "EventSource",
  "FinalizationRegistry",
  "WeakRef",
  "WebSocket"
]

const ofProcess = ["cpuUsage", "memoryUsage", "nextTick", "resourceUsage", "uptime"]

/** They answer in the machine's time zone or language. */
const localDates = Object.getOwnPropertyNames(Date.prototype).filter((name) =>
  /^(?:get|set)(?!UTC|Time$)|^toLocale|^toString$|^toDateString$|^toTimeString$/.test(name)
)

interface Replacement {
  readonly holder: object
  readonly name: string
  readonly value: unknown
}

/** A time that is given is a number like any other. */
const timeless = new Proxy(Date, {
  apply: forbidden("Date()"),
  construct: (target, given: []) => (given.length === 0 ? forbidden("new Date()")() : new target(...given)),
  get: (target, name) => (name === "now" ? forbidden("Date.now") : Reflect.get(target, name))
})

/** Effect gives functions hashes by chance, when it compares what two fibers died of. One for all is as good, and the same. */
const unlessHashed = (leak: () => never) => (): number => {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 2
  const { stack = "" } = new Error()
  Error.stackTraceLimit = stackTraceLimit
  return stack.includes("/effect/dist/Hash.js") ? 0.5 : leak()
}

const patterned =
  (allocate: (size: number) => Buffer) =>
  (size: number): Buffer =>
    allocate(size).fill(0xa5)

const replacements: ReadonlyArray<Replacement> = [
  ...modules.flatMap(([name, names]) => {
    const holder = moduleOf(name)
    const all = names ?? Object.keys(holder).filter((key) => typeof holder[key] === "function")
    return all.map((key) => ({ holder, name: key, value: forbidden(`${key} of ${name}`) }))
  }),
  ...globals.map((name) => ({ holder: globalThis, name, value: forbidden(name) })),
  ...ofProcess.map((name) => ({ holder: process, name, value: forbidden(`process.${name}`) })),
  ...localDates.map((name) => ({ holder: Date.prototype, name, value: forbidden(`Date's ${name}`) })),
  ...["getRandomValues", "randomUUID"].map((name) => ({
    holder: Object.getPrototypeOf(crypto) as object,
    name,
    value: forbidden(`crypto.${name}`)
  })),
  {
    holder: process,
    name: "hrtime",
    value: Object.assign(forbidden("process.hrtime"), { bigint: forbidden("process.hrtime") })
  },
  { holder: globalThis, name: "Date", value: timeless },
  { holder: Math, name: "random", value: unlessHashed(forbidden("Math.random")) },
  { holder: Object.getPrototypeOf(performance) as object, name: "now", value: forbidden("performance.now") },
  { holder: AbortSignal, name: "timeout", value: forbidden("AbortSignal.timeout") },
  { holder: Promise.prototype, name: "then", value: forbidden("a promise") },
  { holder: String.prototype, name: "localeCompare", value: forbidden("localeCompare") },
  {
    holder: (moduleOf("node:net")["Socket"] as { readonly prototype: object }).prototype,
    name: "connect",
    value: forbidden("a socket")
  },
  { holder: Buffer, name: "allocUnsafe", value: patterned(Buffer.allocUnsafe) },
  { holder: Buffer, name: "allocUnsafeSlow", value: patterned(Buffer.allocUnsafeSlow) }
]

/** Runs `run`, from its beginning to its end, with nothing of the real world to ask. */
export const sealed = <A>(run: () => A): A => {
  const before = replacements.map(({ holder, name }) => Object.getOwnPropertyDescriptor(holder, name))
  const restore = () => {
    replacements.forEach(({ holder, name }, i) => {
      const descriptor = before[i]
      if (descriptor === undefined) Reflect.deleteProperty(holder, name)
      else Object.defineProperty(holder, name, descriptor)
    })
    syncBuiltinESMExports()
  }
  for (const { holder, name, value } of replacements) {
    Object.defineProperty(holder, name, { value, writable: true, enumerable: true, configurable: true })
  }
  syncBuiltinESMExports()
  try {
    return run()
  } finally {
    restore()
  }
}

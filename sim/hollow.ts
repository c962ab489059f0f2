/**
 * The simulator hollowed out: ways in which it would pass everything and test nothing, each one edit of one of its own
 * files. The guards (guards.ts) must notice every one of them.
 */
import type { Edit } from "./mutate.ts"

export interface Hollow extends Edit {
  /** The guard that must notice. */
  readonly guard: string
  readonly why: string
}

export const hollows: ReadonlyArray<Hollow> = [
  {
    name: "crash-keeps-memory",
    guard: "crashes",
    file: "sim/world.ts",
    find: "this.life++",
    replace: "",
    why: "What ran before a crash runs on."
  },
  {
    name: "crash-runs-finalizers",
    guard: "crashes",
    file: "sim/world.ts",
    find: "const begin = () => Effect.runForkWith(context)(effect).addObserver(ended)",
    replace:
      "const begin = () => {\n      const fiber = Effect.runForkWith(context)(effect)\n      fiber.addObserver(ended)\n      this.onCrash(() => fiber.interruptUnsafe())\n    }",
    why: "A crash tells everybody to clean up first."
  },
  {
    name: "crash-says-goodbye",
    guard: "processes",
    file: "sim/cluster.ts",
    find: "this.isWanted = false\n    this.die()",
    replace: "this.stop()",
    why: "A process that crashes ends as one that is told to."
  },
  {
    name: "pause-is-no-pause",
    guard: "pauses",
    file: "sim/world.ts",
    find: "if (node.pausedUntil > this.now) {",
    replace: "if (false) {",
    why: "A node that stands still goes on."
  },
  {
    name: "skew-is-ignored",
    guard: "clocks",
    file: "sim/world.ts",
    find: "Math.floor(world.now + this.skewMs + this.drifted())",
    replace: "Math.floor(world.now)",
    why: "All clocks go right."
  },
  {
    name: "chance-is-constant",
    guard: "chance",
    file: "sim/world.ts",
    find: "return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000",
    replace: "return 0.5",
    why: "Every draw is the same."
  },
  {
    name: "one-stream-of-chance",
    guard: "chance",
    file: "sim/world.ts",
    find: "let state = hashKey(seed)",
    replace: "let state = 1",
    why: "Every seed is the same."
  },
  {
    name: "first-come-first-served",
    guard: "turns",
    file: "sim/world.ts",
    find: "const index = ready.length === 1 ? 0 : this.order.below(ready.length)",
    replace: "const index = 0",
    why: "What is ready at one time runs in the order in which it came."
  },
  {
    name: "nobody-loses-a-turn",
    guard: "turns",
    file: "sim/world.ts",
    find: "untilLost = drawn()\n        return true",
    replace: "return false",
    why: "A fiber is never interrupted between a look and a step."
  },
  {
    name: "sites-never-fire",
    guard: "sites",
    file: "sim/world.ts",
    find: "if (!isActive || !chance.happens(SITE_FIRES)) return false",
    replace: "if (!isActive || chance.next() >= 0) return false",
    why: "What seldom happens does not happen here either."
  },
  {
    name: "seal-is-open",
    guard: "seal",
    file: "sim/sealed.ts",
    find: "Object.defineProperty(holder, name, { value, writable: true, enumerable: true, configurable: true })",
    replace: "",
    why: "The wall clock and chance without a seed can be had."
  },
  {
    name: "partition-drops-nothing",
    guard: "partitions",
    file: "sim/network.ts",
    find: "if (upBlocked || isPaused || this.isAstray) this.up.isBlocked = true",
    replace: "if (isPaused || this.isAstray) this.up.isBlocked = true",
    why: "A node that is cut off is heard."
  },
  {
    name: "partition-is-symmetric",
    guard: "partitions",
    file: "sim/network.ts",
    find: 'place.downBlocked = ways !== "up"',
    replace: "place.downBlocked = true",
    why: "A way is never cut in one direction alone."
  },
  {
    name: "delay-is-constant",
    guard: "delays",
    file: "sim/network.ts",
    find: "return Math.min(drawn * slow + extra, LATENCY_MAX_MS)",
    replace: "return 1",
    why: "All messages take the same time."
  },
  {
    name: "answers-arrive",
    guard: "answers lost",
    file: "sim/jetstream.ts",
    find: 'if (this.happens("lostAnswer", connection.node)) return\n      answer(outcome)',
    replace: "answer(outcome)",
    why: "Whoever writes always hears what became of it."
  },
  {
    name: "reads-are-fresh",
    guard: "stale reads",
    file: "sim/jetstream.ts",
    find: "const former = this.formerOf(lead)\n",
    replace: "const former = undefined as Lead['former']\n",
    why: "Whoever is asked is the leader and knows everything."
  },
  {
    name: "power-loss-loses-nothing",
    guard: "power",
    file: "sim/jetstream.ts",
    find: "if (!stream.isBucket) lost += stream.lose(Math.floor((most + 1) ** this.chance.next()) - 1)",
    replace: "",
    why: "What was not synced is there after a power loss."
  },
  {
    name: "objects-never-fail",
    guard: "objects",
    file: "sim/objects.ts",
    find: "chance.happens(faults[name]) && count(name, node)",
    replace: "false && count(name, node)",
    why: "The object store does what it is told."
  },
  {
    name: "nemesis-strikes-nobody",
    guard: "nemesis",
    file: "sim/faults.ts",
    find: "const end = strikeOf(cluster, fault)",
    replace: "const end = undefined",
    why: "Faults have their time, and do nothing."
  },
  {
    name: "faults-come-at-once",
    guard: "nemesis",
    file: "sim/faults.ts",
    find: "world.after(at, begin",
    replace: "world.after(0, begin",
    why: "All faults strike before there is any work, and most are over by then."
  },
  {
    name: "faults-end-at-once",
    guard: "nemesis",
    file: "sim/faults.ts",
    find: "world.after(lengthMs, end",
    replace: "world.after(0, end",
    why: "No fault lasts."
  },
  {
    name: "nobody-waits-for-a-fault",
    guard: "runs",
    file: "sim/run.ts",
    find: "this.nemesis.strike(plan.faults)",
    replace:
      "this.nemesis.strike(plan.faults.map((fault) => ({ ...fault, at: plan.phases.warmUpMs + chaosMs + 60_000 })))",
    why: "Faults strike when the work is done."
  },
  {
    name: "everything-is-refused",
    guard: "runs",
    file: "sim/workload.ts",
    find: "const { collection, id } = op",
    replace: 'const { id } = op\n    const collection = "nobody"',
    why: "Nothing that is asked can be done."
  },
  {
    name: "audit-is-skipped",
    guard: "runs",
    file: "sim/run.ts",
    find: "yield* this.readsOut",
    replace: "",
    why: "Nobody looks what is left in the end."
  },
  {
    name: "core-has-help",
    guard: "runs",
    file: "sim/run.ts",
    find: "else process.crash()",
    replace: "else process.start()",
    why: "What should do with one node of each kind has all of them."
  },
  {
    name: "answers-of-no-time",
    guard: "runs",
    file: "sim/workload.ts",
    find: 'history.end(operation, { _tag: "Ok", ...told.success })',
    replace: 'history.end(operation, { _tag: "Ok", ...told.success, timestamp: 0n })',
    why: "Every answer is held against the time before everything."
  },
  {
    name: "checks-say-nothing",
    guard: "sight",
    file: "sim/checks/all.ts",
    find: "checks.flatMap(({ check }) => check(evidence))",
    replace: "[]",
    why: "Whatever is shown to the checks, they are content."
  }
]

/** The guard "sight" is for a database with this bug: a few runs of it must show it. */
export const SIGHT = {
  bug: "grows-on-after-handoff",
  property: "answers",
  seeds: ["1", "2", "3", "4", "5", "6"]
} as const

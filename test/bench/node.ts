/**
 * A process of the benchmark that plays roles on NATS. It says "ready" to its parent, and answers it: how long its
 * event loop stood still since it was last asked to watch, and how much memory it has.
 */
import { Effect } from "effect"
import type { Role } from "../../protocols/metadata.ts"
import type { Settings } from "../../runtime/node.ts"
import { natsLayer } from "../../runtime/places.ts"
import { play } from "../../runtime/roles.ts"
import { loopWatch } from "./measure.ts"

export interface NodeOptions {
  readonly roles: ReadonlyArray<Role>
  readonly servers: string
  readonly objects: string
  readonly cache: string
  readonly settings: Partial<Settings>
}

export type NodeQuestion = "watch" | "stalled" | "memory"

const { cache, objects, roles, servers, settings } = JSON.parse(process.argv[2]!) as NodeOptions

const watch = loopWatch()
process.on("message", (question: NodeQuestion) => {
  if (question === "watch") watch.start()
  const answers = { watch: () => 0, stalled: () => watch.stop(), memory: () => process.memoryUsage().rss }
  process.send!(answers[question]())
})
process.on("disconnect", () => playing.interruptUnsafe())

const main = Effect.gen(function* () {
  yield* play(roles)
  process.send!("ready")
  return yield* Effect.never
})
const playing = Effect.runFork(
  Effect.scoped(main).pipe(
    Effect.provide(natsLayer({ nats: { servers }, objects, cache, settings })),
    Effect.tapCause((cause) => Effect.sync(() => process.stderr.write(`${String(cause)}\n`)))
  )
)

/**
 * One process of a cluster under test: plays the roles that its arguments name, says "ready" on a line, and stays
 * until it is ended from outside. `node test/support/role.ts '{"roles":[...],"servers":"...", ...}'`
 */
import { Effect, References } from "effect"
import type { Role } from "../../protocols/metadata.ts"
import type { Settings } from "../../runtime/node.ts"
import { natsLayer } from "../../runtime/places.ts"
import { play } from "../../runtime/roles.ts"

export interface RoleOptions {
  readonly roles: ReadonlyArray<Role>
  readonly servers: string
  readonly objects: string
  readonly cache: string
  readonly replicas?: number
  readonly channelBytesMax?: number
  readonly settings?: Partial<Settings>
}

const options = JSON.parse(process.argv[2]!) as RoleOptions

const main = Effect.gen(function* () {
  yield* play(options.roles)
  process.stdout.write("ready\n")
  return yield* Effect.never
})

Effect.runFork(
  Effect.scoped(main).pipe(
    Effect.provide(
      natsLayer({
        nats: { servers: options.servers },
        objects: options.objects,
        cache: options.cache,
        replicas: options.replicas,
        channelBytesMax: options.channelBytesMax,
        settings: options.settings
      })
    ),
    Effect.provideService(References.MinimumLogLevel, process.env["ELANUS_LOG"] === "debug" ? "Debug" : "Info"),
    Effect.tapCause((cause) =>
      Effect.sync(() => {
        process.stderr.write(`${String(cause)}\n`)
        process.exitCode = 1
      })
    )
  )
)

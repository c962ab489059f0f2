/** One process of a cluster: it plays its roles until something ends that it cannot do without. */
import { Effect, Layer, Option } from "effect"
import { join, resolve } from "node:path"
import { failure } from "../../protocols/errors.ts"
import { metadata, metaKey, type Role } from "../../protocols/metadata.ts"
import { databaseSubject } from "../../protocols/subjects.ts"
import { Meta } from "../../storage/meta.ts"
import { Objects } from "../../storage/objects.ts"
import { Bus } from "../bus.ts"
import { Catalog } from "../catalog.ts"
import { Node } from "../node.ts"
import { natsLayer } from "../places.ts"
import { allRoles, play as playRoles } from "../roles.ts"
import { toElanusError } from "./exit.ts"
import { natsOptions } from "./nats-options.ts"
import { reportNats } from "./nats-report.ts"
import { printJson, printText } from "./output.ts"
import { startOwnServer } from "./own-server.ts"
import { settingsOf, type StartFlags } from "./start-flags.ts"

/** Until the first answer. */
const STATUS_RETRY_MS = 100

/** A store of objects that may only be read opens like any other; who is going to write to it finds out before it begins. */
const tryObjects = Effect.fnUntraced(function* (node: string, where: string) {
  const objects = yield* Objects
  const key = `probe/${node}`
  const outcome = yield* objects.put(key, [new TextEncoder().encode(node)])
  if (outcome._tag === "Done") return yield* Effect.asVoid(objects.remove(key))
  const reason = `objects at ${where} cannot be written: ${outcome.detail}`
  // With no room it can still serve what there is.
  if (outcome._tag === "Refused" && outcome.reason === "full") return yield* Effect.logWarning(reason)
  return yield* failure("unfit", reason)
})

/** Metadata that a newer version has written is none that we could read, or may write. */
const newer = (reason: string) => failure("unfit", `${reason}: this version of Elanus is too old for the cluster`)

const checkFormat = Effect.gen(function* () {
  const format = yield* (yield* Meta).get(metaKey.format)
  yield* Effect.try({
    try: () => Option.map(format, ({ value }) => metadata.format.decode(value)),
    catch: (cause) => newer(cause instanceof Error ? cause.message : String(cause))
  })
})

/** Ends when something appears that a newer version has written. */
const untilUnreadable = Effect.gen(function* () {
  const catalog = yield* Catalog
  yield* catalog.changed.until(() => catalog.unreadable() !== undefined)
  return yield* newer(catalog.unreadable()!)
})

/** Until a client would get an answer. */
const untilAnswering = Effect.gen(function* () {
  const bus = yield* Bus
  const ask = bus.request(databaseSubject("default", "status"), new Uint8Array(0), { timeoutMs: 5_000 })
  const isAnswer = Effect.match(ask, {
    onFailure: () => false,
    onSuccess: ({ headers }) => headers === undefined || !("Nats-Service-Error-Code" in headers)
  })
  while (!(yield* isAnswer)) yield* Effect.sleep(STATUS_RETRY_MS)
})

/** A nats-server in `folder` that lives and ends with us. */
const ownServer = Effect.fnUntraced(function* (folder: string, port: number) {
  const server = yield* Effect.acquireRelease(
    Effect.tryPromise({ try: () => startOwnServer(folder, port), catch: toElanusError }),
    ({ stop }) => Effect.promise(stop)
  )
  process.once("exit", server.stopNow)
  return server
})

/** Plays the roles until it is told to stop, or something ends that it cannot do without. */
export const play = Effect.fnUntraced(function* (flags: StartFlags) {
  const data = resolve(flags.data)
  const server = flags.nats === undefined ? yield* ownServer(join(data, "nats"), flags.port) : undefined
  const nats = yield* Effect.tryPromise({
    try: () => natsOptions(server?.url ?? flags.nats!, flags),
    catch: (cause) => cause
  })
  // As it may be shown: without the password that it may have been given with.
  const url = [nats.servers ?? []]
    .flat()
    .map((each) => `nats://${each}`)
    .join(",")
  const objects = flags.objects ?? `dir:${join(data, "objects")}`
  const roles: ReadonlyArray<Role> = flags.role.length === 0 ? allRoles : [...new Set(flags.role)]
  const isWhole = roles.length === allRoles.length
  const ports = yield* Layer.build(
    natsLayer({
      nats,
      objects,
      cache: join(data, "cache"),
      cluster: flags.cluster,
      replicas: flags.replicas,
      channelBytesMax: flags.channelBytes,
      makesChannels: roles.includes("coordinator"),
      settings: settingsOf(flags)
    })
  )

  const serve = Effect.gen(function* () {
    yield* playRoles(roles)
    // Whole, it is ready when it answers; a part of a cluster, when it waits for the others.
    if (isWhole) yield* untilAnswering
    const { cluster, id } = yield* Node
    const milliseconds = Math.round(performance.now())
    if (flags.json) printJson({ ready: true, node: id, roles, cluster, nats: url, objects, milliseconds })
    else {
      const what = isWhole ? "all roles" : roles.join(", ")
      printText(
        `ready: node ${id} of cluster ${cluster} plays ${what} on ${url}, objects at ${objects} (${milliseconds} ms)`
      )
    }
    if (server === undefined) {
      const report = yield* Effect.option(Effect.tryPromise(() => reportNats(nats, flags.cluster)))
      if (Option.isSome(report)) for (const note of report.value.notes) yield* Effect.logInfo(`nats-server: ${note}`)
    }
    return yield* Effect.never
  })
  const run = Effect.gen(function* () {
    if (roles.includes("streaming-node") || roles.includes("data-node")) yield* tryObjects((yield* Node).id, objects)
    yield* checkFormat
    return yield* Effect.raceFirst(serve, untilUnreadable)
  }).pipe(Effect.provideContext(ports))

  if (server === undefined) return yield* run
  const ended = Effect.promise(() => server.ended).pipe(
    Effect.andThen(
      Effect.fail(failure("unfit", `our nats-server ended: ${join(data, "nats", "nats-server.log")} may say why`))
    )
  )
  return yield* Effect.raceFirst(run, ended)
})

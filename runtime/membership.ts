/**
 * Being seen: a process keeps its lease and answers pings; others judge by both. A lease that was lost is taken
 * again, for as long as the process lives: being slow is no reason to go.
 */
import { Clock, Effect, type Scope } from "effect"
import type { BusError } from "./bus.ts"
import type { Bus } from "./bus.ts"
import { limits } from "../protocols/limits.ts"
import { leaseKey, metadata, type Role } from "../protocols/metadata.ts"
import { NodeProtocol } from "../protocols/node.ts"
import { Leases } from "../storage/leases.ts"
import { buggify, stall } from "./buggify.ts"
import { Catalog } from "./catalog.ts"
import { Node } from "./node.ts"
import { remote, serve } from "./remote.ts"

/** Renewed three times in the life of a lease. */
const RENEWALS = 3
/** Before a lease is given back again. Whoever takes the channels over may need half a minute to judge their logs. */
const KEPT_MS = 60_000

/** Announces this process and its roles until the scope closes, and says goodbye then. */
export const join = Effect.fnUntraced(function* (
  roles: ReadonlyArray<Role>
): Effect.fn.Return<void, BusError, Bus | Node | Leases | Scope.Scope> {
  const node = yield* Node
  const leases = yield* Leases
  const key = leaseKey.node(node.id)
  const value = metadata.node.encode({ id: node.id, roles, version: node.version })
  let revision = 0
  let givenBackAt = -Infinity

  yield* serve(NodeProtocol, node.id, { Ping: () => Effect.succeed({ id: node.id }) })

  const renew = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (revision > 0 && now - givenBackAt >= KEPT_MS && (yield* buggify("a lease is given back"))) {
      // It is taken again at the next turn, as one that has expired.
      givenBackAt = now
      yield* leases.remove(key, revision)
    }
    const outcome = yield* leases.put(key, value, revision, node.settings.leaseTtlMs)
    if (outcome._tag === "Done") {
      revision = outcome.value
      return
    }
    // Expired meanwhile, or written by a try whose answer was lost: nobody else writes this key.
    const found = yield* Effect.result(leases.get(key))
    if (found._tag === "Success") revision = found.success._tag === "Some" ? found.success.value.revision : 0
  })
  yield* renew
  const late = stall("before a node's lease is renewed", node.settings.leaseTtlMs)
  yield* Effect.andThen(late, renew).pipe(
    Effect.delay(node.settings.leaseTtlMs / RENEWALS),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeoutOption(leases.remove(key, revision), limits.evidenceMs)))
})

/** Who is alive, for those who decide by it: has a lease, and was not silent for longer than the evidence takes. */
export interface Liveness {
  readonly alive: (id: string) => boolean
  /** One look at every node of the catalog; says if anything changed. */
  readonly look: Effect.Effect<boolean>
}

export const makeLiveness: Effect.Effect<Liveness, never, Bus | Node | Catalog> = Effect.gen(function* () {
  const { settings } = yield* Node
  const catalog = yield* Catalog
  const nodes = yield* remote(NodeProtocol)
  /** Since when nobody answers at a node's address; a timeout says nothing, for a paused one comes back. */
  const silent = new Map<string, number>()
  let known = ""

  const ping = Effect.fnUntraced(function* (id: string) {
    const answer = yield* Effect.result(nodes.call(id, "Ping", {}, settings.evidenceMs))
    const now = yield* Clock.currentTimeMillis
    if (answer._tag === "Success") silent.delete(id)
    else if (answer.failure.code === "unavailable" && !silent.has(id)) silent.set(id, now)
  })
  const dead = (id: string, now: number) => {
    const since = silent.get(id)
    return since !== undefined && now - since >= settings.evidenceMs
  }
  let lastLook = 0
  return {
    alive: (id) => catalog.node(id) !== undefined && !dead(id, lastLook),
    look: Effect.gen(function* () {
      const ids = [...catalog.nodes()].map(({ id }) => id)
      yield* Effect.forEach(ids, ping, { concurrency: "unbounded", discard: true })
      for (const id of silent.keys()) if (catalog.node(id) === undefined) silent.delete(id)
      lastLook = yield* Clock.currentTimeMillis
      const now = ids.filter((id) => !dead(id, lastLook)).join(" ")
      const changed = now !== known
      known = now
      return changed
    })
  }
})

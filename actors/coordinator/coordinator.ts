/**
 * The coordinator: one active among any number of standbys. It decides who owns which channel, who serves which
 * segment and who builds which index, gives out time, and keeps the manifests. Whatever it decides is committed
 * before it is acted on, by a commit that an older or a newer coordinator cannot make.
 */
import { Clock, Effect, Exit, FiberMap, Scope, Semaphore } from "effect"
import { CoordinatorProtocol } from "../../protocols/coordinator.ts"
import { DataNodeProtocol } from "../../protocols/data-node.ts"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { channelNumbers, leaseKey, metadata, MetadataUnreadable, metaKey, type Role } from "../../protocols/metadata.ts"
import { NodeProtocol } from "../../protocols/node.ts"
import { utf8 } from "../../protocols/wire.ts"
import { activate } from "../../runtime/actor.ts"
import type { Bus } from "../../runtime/bus.ts"
import { buggify, late, Sites, stall } from "../../runtime/buggify.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { makeLiveness } from "../../runtime/membership.ts"
import { Node } from "../../runtime/node.ts"
import { provider } from "../../runtime/provide.ts"
import { remote, serve } from "../../runtime/remote.ts"
import { either } from "../../runtime/signal.ts"
import { Leases } from "../../storage/leases.ts"
import { Log } from "../../storage/log.ts"
import { Meta } from "../../storage/meta.ts"
import type { Objects } from "../../storage/objects.ts"
import { nonce } from "../nonce.ts"
import { COORDINATOR } from "../addresses.ts"
import { collectionCalls, collectionKeeper, isMoving } from "./collections.ts"
import { commitCalls } from "./commits.ts"
import { jobKeeper } from "./jobs.ts"
import { coordinatorLifecycle } from "./lifecycle.ts"
import { makeOracle, type Oracle } from "./oracle.ts"
import { place } from "./placing.ts"
import { makeTruth, REMOVED_MAX, removeAll, type Truth, type View } from "./truth.ts"

const RETRY_MS = 200
const LOOK_MS = 1_000

/** A term: all that an active coordinator has, and that ends with it. */
interface Term {
  readonly truth: Truth
  readonly oracle: Oracle
  readonly scope: Scope.Closeable
}

/** Says why, once the metadata turned out not to be for this version. */
export interface CoordinatorHealth {
  readonly active: () => boolean
  readonly trouble: () => string
}

export const coordinator = Effect.gen(function* () {
  const node = yield* Node
  const catalog = yield* Catalog
  const leases = yield* Leases
  const log = yield* Log
  const meta = yield* Meta
  const sites = yield* Sites
  const nodes = yield* remote(NodeProtocol)
  const dataNodes = yield* remote(DataNodeProtocol)
  const liveness = yield* makeLiveness
  const provide = yield* provider<Bus | Node | Meta | Objects | Catalog>()
  const outer = yield* Effect.scope
  const lease = utf8.encode(node.id)
  let revision = 0
  let term: Term | undefined
  let trouble = ""

  const aliveWith = (role: Role) =>
    [...catalog.nodes()].filter(({ id, roles }) => roles.includes(role) && liveness.alive(id)).map(({ id }) => id)

  // ---- duties

  /** Waits for the lease to be free, or for its holder to be seen gone, and takes it. */
  const campaign = Effect.gen(function* () {
    /** Since when nobody answers at the holder's address. */
    let silentSince: number | undefined
    while (true) {
      const found = yield* Effect.result(leases.get(leaseKey.coordinator))
      if (found._tag === "Failure") {
        yield* Effect.sleep(RETRY_MS)
        continue
      }
      const held = found.success._tag === "Some" ? found.success.value : undefined
      const holder = held === undefined ? undefined : utf8.decode(held.value)
      if (holder !== undefined && holder !== node.id) {
        const answer = yield* Effect.result(nodes.call(holder, "Ping", {}, node.settings.evidenceMs))
        const now = yield* Clock.currentTimeMillis
        if (answer._tag === "Success" || answer.failure.code !== "unavailable") silentSince = undefined
        else silentSince ??= now
        if (silentSince === undefined || now - silentSince < node.settings.evidenceMs) {
          yield* Effect.sleep(RETRY_MS)
          // One that is there says goodbye, or its lease goes, or it dies: that alone has to be looked for.
          if (silentSince === undefined) {
            yield* catalog.leased.within(node.settings.evidenceMs / 2, () => catalog.coordinator() !== holder)
          }
          continue
        }
      }
      yield* stall("before the coordinator's lease is taken", 1_000)
      const outcome = yield* leases.put(leaseKey.coordinator, lease, held?.revision ?? 0, node.settings.leaseTtlMs)
      if (outcome._tag === "Done") {
        revision = outcome.value
        return { type: "Elected" } as const
      }
      yield* Effect.sleep(RETRY_MS)
    }
  })

  /** Who is late to renew is late to hear of a successor, and what it gives out and decides till then counts for nothing. */
  const attention = Semaphore.makeUnsafe(1)
  const unaware = attention.withPermit(stall("before a deposed coordinator is silent", 10_000))
  const lateToRenew = attention.withPermit(
    late("a coordinator renews its lease too late", 2 * node.settings.leaseTtlMs)
  )

  const renew = Effect.gen(function* () {
    while (true) {
      yield* Effect.sleep(node.settings.leaseTtlMs / 3)
      if (yield* buggify("a coordinator steps down")) return { type: "Deposed" } as const
      yield* lateToRenew
      const outcome = yield* leases.put(leaseKey.coordinator, lease, revision, node.settings.leaseTtlMs)
      if (outcome._tag === "Done") {
        revision = outcome.value
        continue
      }
      const found = yield* Effect.result(leases.get(leaseKey.coordinator))
      if (found._tag === "Failure") continue
      if (found.success._tag === "None") revision = 0
      else if (utf8.decode(found.success.value.value) === node.id) revision = found.success.value.revision
      else return yield* Effect.as(unaware, { type: "Deposed" } as const)
    }
  })

  const endTerm = Effect.suspend(() => {
    const mine = term
    term = undefined
    return mine === undefined ? Effect.void : Scope.close(mine.scope, Exit.void)
  })

  /** Reads everything, and writes the epoch key on exactly that: from here on no older coordinator can write any key. */
  const takeOver = Effect.gen(function* () {
    yield* endTerm
    const mine = (yield* nonce).toString(36)
    while (true) {
      const tried = yield* Effect.result(takeOverOnce(mine))
      if (tried._tag === "Success") return tried.success
      if (trouble !== tried.failure.reason) yield* Effect.logWarning(`coordinator: ${tried.failure.reason}`)
      trouble = tried.failure.reason
      if (tried.failure.code === "unfit" || tried.failure.code === "damaged") {
        yield* Effect.logError(`coordinator: ${trouble}`)
        return { type: "Unfit" } as const
      }
      yield* Effect.sleep(RETRY_MS)
    }
  })

  const takeOverOnce = Effect.fnUntraced(function* (mine: string) {
    const picture = yield* meta.snapshot.pipe(
      Effect.mapError(({ detail, reason }) => failure(reason === "unavailable" ? "unavailable" : "damaged", detail))
    )
    // Before anything is written: who cannot read the metadata must not depose somebody who can.
    yield* checkFormat(picture.entries)
    yield* stall("between a picture and the epoch on it", 1_000)
    const outcome = yield* meta.commit(
      [
        { key: metaKey.epoch, value: metadata.epoch.encode({ node: node.id, nonce: mine }) },
        { key: metaKey.commit, value: metadata.commit.encode({ epoch: 0, number: 0 }) }
      ],
      picture.head
    )
    // Whatever it was, if not done: the next picture shows it, and its head is a proof again.
    if (outcome._tag !== "Done") return yield* failure("unavailable", `epoch key: ${outcome.detail}`)
    const epoch = outcome.value
    const scope = yield* Scope.fork(outer)
    const made = yield* Effect.gen(function* () {
      const truth = yield* provide(makeTruth(epoch, outcome.value, picture.entries))
      return { truth, oracle: yield* makeOracle(truth) }
    }).pipe(
      Scope.provide(scope),
      Effect.catchDefect((cause) =>
        Effect.fail(failure(cause instanceof MetadataUnreadable ? "unfit" : "internal", String(cause)))
      )
    )
    yield* bootstrap(made.truth, picture.entries)
    term = { ...made, scope }
    yield* Effect.logDebug(`coordinator: epoch ${epoch}`)
    return { type: "TookOver" } as const
  })

  const checkFormat = (entries: ReadonlyArray<{ readonly key: string; readonly value: Uint8Array }>) =>
    Effect.try({
      try: () => {
        const found = entries.find(({ key }) => key === metaKey.format)
        if (found !== undefined) metadata.format.decode(found.value)
      },
      catch: (cause) => failure("unfit", String(cause instanceof Error ? cause.message : cause))
    })

  /** Makes the channels' logs, once in the life of a cluster: the format key says that it has happened. */
  const bootstrap = Effect.fnUntraced(function* (
    truth: Truth,
    entries: ReadonlyArray<{ readonly key: string }>
  ): Effect.fn.Return<void, ElanusError> {
    if (entries.some(({ key }) => key === metaKey.format)) return
    const format = { cluster: node.cluster, channels: node.settings.channels }
    for (const channel of channelNumbers(format)) {
      const there = yield* Effect.result(log.open(channel))
      if (there._tag === "Success") continue // an earlier bootstrap that did not get to its end
      if (there.failure.reason !== "missing") return yield* failure("unavailable", there.failure.detail)
      yield* stall("between two logs of a new cluster", 200)
      yield* log
        .create(channel)
        .pipe(
          Effect.mapError(({ detail, reason }) => failure(reason === "unavailable" ? "unavailable" : "unfit", detail))
        )
    }
    yield* truth.commit((draft) => draft.put("format", metaKey.format, format))
  })

  /** Everything that an active coordinator does by itself, until it is deposed. */
  const lead = Effect.gen(function* () {
    const { oracle, scope, truth } = term!
    const work = Effect.gen(function* () {
      yield* serve(CoordinatorProtocol, COORDINATOR, {
        ...collectionCalls(truth, oracle),
        ...commitCalls(truth, node.settings, sites),
        Grant: ({ count, kind }) => oracle.grant(kind, count),
        Status: () => truth.commit(() => status(truth))
      })
      const kept = yield* FiberMap.make<string>()
      const jobDeps = { truth, dataNodes, alive: () => aliveWith("data-node") }
      const keepJob = (id: string) => FiberMap.run(kept, id, provide(jobKeeper(jobDeps, id)), { onlyIfMissing: true })
      // Those that failed too, once in a term.
      for (const { id } of truth.all("job")) yield* keepJob(id)
      while (true) {
        yield* reconcile(truth)
        for (const each of truth.all("collection")) {
          if (isMoving(each)) {
            yield* FiberMap.run(kept, each.id, provide(collectionKeeper(truth, each.id)), { onlyIfMissing: true })
          }
        }
        for (const { id, state } of truth.all("job")) if (state !== "failed") yield* keepJob(id)
        const unkept = () =>
          [...truth.all("collection")].some((each) => isMoving(each) && !FiberMap.hasUnsafe(kept, each.id)) ||
          [...truth.all("job")].some(({ id, state }) => state !== "failed" && !FiberMap.hasUnsafe(kept, id))
        yield* either(truth.changed, catalog.leased).within(LOOK_MS, () => homeless(truth) || unkept())
      }
    })
    const succeeded = catalog.changed.until(() => catalog.epoch() > truth.epoch)
    const over = Effect.andThen(Effect.raceFirst(truth.deposed, succeeded), unaware)
    yield* Effect.ignore(Effect.raceFirst(Effect.scoped(provide(work)), over))
    yield* Scope.close(scope, Exit.void)
    return { type: "Deposed" } as const
  })

  const keepTime = Effect.suspend(() => term!.oracle.keepAhead)

  /** Looks who is alive; a change is for `lead`, which waits on the leases. */
  const look = Effect.gen(function* () {
    while (true) {
      if (yield* liveness.look) catalog.leased.notify()
      yield* Effect.sleep(node.settings.evidenceMs / 2)
    }
  })

  // ---- decisions

  const channelsOf = (truth: Truth) => channelNumbers(truth.get("format", metaKey.format)!)
  const assignmentsToMake = (truth: Truth, alive = aliveWith("streaming-node")) => {
    const of = (channel: number) => truth.get("assignment", metaKey.assignment(channel))?.node
    return place(channelsOf(truth), alive, of, () => 1)
  }
  const placementsToMake = (truth: Truth, alive = aliveWith("query-node")) => {
    const segments = [...truth.all("manifest")]
      .filter(({ collection }) => truth.get("collection", metaKey.collection(collection))?.state === "ready")
      .flatMap(({ collection, segments, shard }) => {
        const nodes = truth.get("placement", metaKey.placement(collection, shard))?.nodes
        return segments.map((segment) => ({ collection, shard, segment, node: nodes?.[segment.id] }))
      })
    return place(
      segments,
      alive,
      ({ node }) => node,
      ({ segment }) => segment.data.bytes
    )
  }
  /** Whether there is something to place, and somebody to place it on: asked after every commit and every lease. */
  const homeless = (truth: Truth): boolean => {
    const owners = new Set(aliveWith("streaming-node"))
    const isOwned = (channel: number) => owners.has(truth.get("assignment", metaKey.assignment(channel))?.node ?? "")
    if (owners.size > 0 && !channelsOf(truth).every(isOwned)) return true
    const holders = new Set(aliveWith("query-node"))
    if (holders.size === 0) return false
    for (const { collection, segments, shard } of truth.all("manifest")) {
      const nodes = truth.get("placement", metaKey.placement(collection, shard))?.nodes
      if (segments.every(({ id }) => holders.has(nodes?.[id] ?? ""))) continue
      if (truth.get("collection", metaKey.collection(collection))?.state === "ready") return true
    }
    return false
  }

  const reconcile = Effect.fnUntraced(function* (truth: Truth) {
    let assignments = assignmentsToMake(truth)
    let placements = placementsToMake(truth)
    if (assignments.length === 0 && placements.length === 0) return
    // Nobody needs a reason to give what a node has to another one.
    if (yield* buggify("channels move without need")) {
      assignments = assignmentsToMake(truth, aliveWith("streaming-node").slice(1))
    }
    if (yield* buggify("segments move without need")) {
      placements = placementsToMake(truth, aliveWith("query-node").slice(1))
    }
    yield* stall("between a placing and its commit", 1_000)
    // One change for each channel and each shard: together they can be more than a commit takes.
    const changes = [
      ...assignments.map(({ item, node }) => assign(truth, item, node)),
      ...[...Map.groupBy(placements, ({ item }) => metaKey.placement(item.collection, item.shard))].map(
        ([key, chosen]) => placeSegments(truth, key, chosen)
      )
    ]
    const placed = yield* Effect.forEach(changes, Effect.result, { concurrency: "unbounded" })
    // Refused: there is as much to be placed as before, and we are deposed, or must wait.
    if (placed.some(({ _tag }) => _tag === "Failure")) yield* Effect.sleep(RETRY_MS)
  })

  /** What the nodes before had begun on the channel ends with it: if one is only slow, its commits come too late. */
  const assign = Effect.fnUntraced(function* (truth: Truth, channel: number, chosen: string) {
    const key = metaKey.assignment(channel)
    const begun = (view: View) =>
      [...view.all("attempt")]
        .filter(({ collection, kind, shard }) => {
          const on = view.get("collection", metaKey.collection(collection))?.channels[shard]
          return kind === "flush" && on === channel
        })
        .map(({ id }) => metaKey.attempt(id))
    // More than a few are those of owners that died: they go before, and what is begun meanwhile along with it.
    yield* removeAll(truth, begun(truth).slice(REMOVED_MAX))
    yield* truth.commit((draft) => {
      const number = (draft.get("assignment", key)?.order.number ?? 0) + 1
      draft.put("assignment", key, { channel, node: chosen, order: { epoch: truth.epoch, number } })
      begun(draft).forEach(draft.remove)
    })
  })

  const placeSegments = (truth: Truth, key: string, chosen: ReturnType<typeof placementsToMake>) =>
    truth.commit((draft) => {
      const { collection, shard } = chosen[0]!.item
      // Dropped since it was looked at: nobody would take the placement away again.
      if (draft.get("manifest", metaKey.manifest(collection, shard)) === undefined) return
      const before = draft.get("placement", key)?.nodes
      const nodes = Object.fromEntries(chosen.map(({ item, node }) => [item.segment.id, node]))
      draft.put("placement", key, { collection, shard, nodes: { ...before, ...nodes } })
    })

  const status = (truth: Truth) => {
    const warnings: Array<string> = []
    for (const role of ["streaming-node", "query-node", "data-node", "proxy"] as const) {
      if (aliveWith(role).length === 0) warnings.push(`no ${role} is alive`)
    }
    for (const { id, state, tries } of truth.all("job")) {
      if (state === "failed") warnings.push(`job ${id} failed after ${tries} tries`)
    }
    return {
      cluster: node.cluster,
      coordinator: node.id,
      epoch: truth.epoch,
      nodes: [...catalog.nodes()].map(({ id, roles, version }) => ({ id, roles, version, alive: liveness.alive(id) })),
      channels: channelsOf(truth).map((channel) => {
        const owner = catalog.owner(channel)
        return { channel, node: owner?.node ?? "", epoch: owner === undefined ? "" : String(owner.epoch) }
      }),
      collections: [...truth.all("collection")].filter(({ state }) => state === "ready").length,
      jobs: [...truth.all("job")].filter(({ state }) => state === "queued" || state === "assigned").length,
      warnings
    }
  }

  const actor = yield* activate(coordinatorLifecycle, () =>
    Effect.succeed({ on: {}, duties: { campaign, takeOver, renew, lead, keepTime, look } })
  )
  const health: CoordinatorHealth = {
    active: () => actor.standing().value === "active",
    trouble: () => trouble
  }
  return health
})

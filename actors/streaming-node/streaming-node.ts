/**
 * A streaming node: keeps an owner for every channel that the coordinator assigns to it, and hands each request to
 * the owner that it is for. Level-triggered: it compares what the assignments say with what it has, whenever either changes.
 */
import { Effect, Exit, Scope } from "effect"
import { type ElanusError, failure } from "../../protocols/errors.ts"
import { type Order, orderAbove } from "../../protocols/metadata.ts"
import { type Route, StreamingNodeProtocol } from "../../protocols/streaming-node.ts"
import { stall } from "../../runtime/buggify.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { serve } from "../../runtime/remote.ts"
import { channelOwner } from "./channel.ts"
import { count, get, search } from "./reading.ts"

type ChannelOwner = Effect.Success<ReturnType<typeof channelOwner>>

interface Held {
  readonly order: Order
  readonly scope: Scope.Closeable
  readonly owner: ChannelOwner
}

/** An owner that ended is begun again only after so long: whoever deposed it needs a moment too. */
const REVIVE_MS = 500
const LOOK_AGAIN_MS = 5_000

export const streamingNode = Effect.gen(function* () {
  const node = yield* Node
  const catalog = yield* Catalog
  const held = new Map<number, Held>()
  const outer = yield* Effect.scope

  const release = Effect.fnUntraced(function* (channel: number) {
    const mine = held.get(channel)
    if (mine === undefined) return
    held.delete(channel)
    yield* Scope.close(mine.scope, Exit.void)
  })

  const begin = Effect.fnUntraced(function* (channel: number, order: Order) {
    yield* release(channel)
    yield* stall("between two owners of a channel", 1_000)
    const scope = yield* Scope.fork(outer)
    const owner = yield* channelOwner(channel, order).pipe(Scope.provide(scope))
    held.set(channel, { order, scope, owner })
    yield* Effect.logDebug(`channel ${channel}: taken by order ${order.epoch}.${order.number}`)
    // A damaged one stays as it is, so that whoever asks is told why; a stale one makes room.
    yield* owner
      .until(({ value }) => value === "stale" || value === "damaged")
      .pipe(
        Effect.andThen(({ value }) =>
          Effect.gen(function* () {
            yield* Effect.logWarning(`channel ${channel}: ${value}: ${owner.trouble()}`)
            if (value === "damaged") return
            yield* Effect.sleep(REVIVE_MS)
            if (held.get(channel)?.owner !== owner) return
            // Somewhere else, for it ends this very fiber; and only then is there anything to begin.
            const released = Effect.andThen(release(channel), Effect.sync(catalog.changed.notify))
            yield* Effect.forkIn(released, outer)
          })
        ),
        Effect.forkIn(scope)
      )
  })

  const wanted = () =>
    [...catalog.assignments()].filter((each) => each.node === node.id && needs(each.channel, each.order))
  const needs = (channel: number, order: Order) => {
    const mine = held.get(channel)
    return mine === undefined || orderAbove(order, mine.order)
  }
  const unwanted = () =>
    [...held].filter(([channel, { order }]) => {
      const assigned = [...catalog.assignments()].find((each) => each.channel === channel)
      return assigned !== undefined && assigned.node !== node.id && orderAbove(assigned.order, order)
    })

  const reconcile = Effect.gen(function* () {
    if (unwanted().length > 0) yield* stall("before a channel is let go of", 10_000)
    for (const [channel] of unwanted()) yield* release(channel)
    for (const { channel, order } of wanted()) yield* begin(channel, order)
    yield* catalog.changed.within(LOOK_AGAIN_MS, () => wanted().length > 0 || unwanted().length > 0)
  }).pipe(Effect.forever)

  const ownerOf = (route: Route): Effect.Effect<ChannelOwner, ElanusError> => {
    const mine = held.get(route.channel)
    return mine === undefined
      ? Effect.fail(failure("moved", `node ${node.id} does not own channel ${route.channel}`))
      : Effect.succeed(mine.owner)
  }

  yield* serve(StreamingNodeProtocol, node.id, {
    Write: (request) => Effect.flatMap(ownerOf(request.route), ({ on }) => on.write(request)),
    Search: (request) =>
      Effect.flatMap(ownerOf(request.route), ({ on }) =>
        on.read(request, (owner, shard, at) =>
          Effect.map(search(on.deps, owner, shard, request, at), (hits) => ({ hits }))
        )
      ),
    Get: (request) =>
      Effect.flatMap(ownerOf(request.route), ({ on }) =>
        on.read(request, (owner, shard, at) =>
          Effect.map(get(on.deps, owner, shard, request, at), (found) => ({ found }))
        )
      ),
    Count: (request) =>
      Effect.flatMap(ownerOf(request.route), ({ on }) =>
        on.read(request, (owner, shard, at) =>
          Effect.map(count(on.deps, owner, shard, request.timeoutMs, at), (rows) => ({ rows }))
        )
      ),
    Flush: ({ route, timeoutMs }) => Effect.flatMap(ownerOf(route), ({ on }) => on.flush(route, timeoutMs)),
    Stats: ({ route }) => Effect.flatMap(ownerOf(route), ({ on }) => on.stats(route))
  })
  yield* Effect.forkScoped(reconcile)
})

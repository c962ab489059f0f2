/**
 * The broker of a simulated world, with everything that nodes get of it: bus, log, metadata and leases. It is what a
 * NATS server or cluster is to the real adapters: linearizable and lossless in what it said was stored ("as
 * specified"), lossy and late in everything else.
 *
 * Who breaks things changes `faults` and `network.faults`, or calls `elect`, `network.block`, `network.disconnect` and
 * so on. What struck is counted in `counts` and told to `world.struck`.
 *
 * @example
 * const broker = simBroker(world)
 * node.start(program.pipe(Effect.provide(broker.layer), Effect.scoped))
 */
import { Context, Effect, Layer } from "effect"
import { limits } from "../protocols/limits.ts"
import { Bus } from "../runtime/bus.ts"
import { Leases } from "../storage/leases.ts"
import type { LogEntry } from "../storage/log.ts"
import { Log } from "../storage/log.ts"
import { Meta } from "../storage/meta.ts"
import type { StorageError } from "../storage/outcome.ts"
import { askStream } from "./bucket.ts"
import { makeBus } from "./bus.ts"
import { leasesStream, makeLeases } from "./leases.ts"
import { type Ledger, ledgerOf } from "./ledger.ts"
import { channelStream, makeLog } from "./log.ts"
import { makeMeta, metaStream } from "./meta.ts"
import { calmNetwork, Network, type NetworkFaults } from "./network.ts"
import { type BrokerFaults, BrokerServer, calmBroker, type OutageKind } from "./server.ts"
import { Session } from "./session.ts"
import { type Chance, here, type SimNode, type World } from "./world.ts"

export interface BrokerOptions {
  /** What was accepted is written down there; without, in one of its own. */
  readonly ledger?: Ledger | undefined
  readonly channelBytesMax?: number | undefined
  /** Of a message's body; as a NATS server has it by default. */
  readonly payloadMax?: number | undefined
}

export interface Broker {
  /**
   * The ports of the node whose code builds it, in its present life, on a connection of its own, until the scope
   * closes. Fails "unavailable" if the broker cannot be reached, or no stream has a leader.
   */
  readonly layer: Layer.Layer<Bus | Log | Meta | Leases, StorageError>
  readonly network: Network
  readonly faults: BrokerFaults
  /** How often each thing happened. */
  readonly counts: { readonly [name: string]: number }
  readonly ledger: Ledger
  /** No stream has a leader for so long. */
  readonly elect: (kind: OutageKind, forMs: number) => void
  /** Ends all faults, of the network too; what is on its way still comes. */
  readonly heal: () => void
  /** What is in a channel now. */
  readonly entries: (channel: number) => ReadonlyArray<LogEntry>
}

const PAYLOAD_MAX = 1024 * 1024 - limits.payloadMargin

export const simBroker = (world: World, options: BrokerOptions = {}): Broker => {
  const { channelBytesMax = limits.channelBytesMax, ledger = ledgerOf(world), payloadMax = PAYLOAD_MAX } = options
  const counts: { [name: string]: number } = {}
  const struck = (what: string, node?: SimNode) => {
    counts[what] = (counts[what] ?? 0) + 1
    world.struck(what, node)
  }
  const network = new Network(world, calmNetwork(), struck)
  const server = new BrokerServer(network, calmBroker(), struck)
  server.make(leasesStream(ledger))
  server.make(metaStream(ledger))

  const ports = Effect.gen(function* () {
    const node = yield* here(Effect.succeed)
    const session = new Session(network, node)
    yield* session.open
    for (const bucket of ["live", "meta"]) yield* askStream(server, session, bucket, () => undefined)
    return Context.make(Bus, yield* makeBus(server, session, payloadMax)).pipe(
      Context.add(Log, makeLog(server, session, ledger, channelBytesMax)),
      Context.add(Meta, makeMeta(server, session)),
      Context.add(Leases, makeLeases(server, session))
    )
  })

  return {
    layer: Layer.effectContext(ports),
    network,
    faults: server.faults,
    counts,
    ledger,
    elect: (kind, forMs) => server.elect(kind, forMs),
    heal: () => {
      server.heal()
      network.heal()
    },
    entries: (channel) =>
      (server.streams.get(channelStream(channel))?.history ?? []).flatMap(({ data, goneAt, sequence }) =>
        goneAt === Infinity ? [{ sequence, data }] : []
      )
  }
}

/** Each kind of fault is there or not, and if so, often or seldom: what is always there hides what it suppresses. */
export const drawFaults = (chance: Chance): { readonly broker: BrokerFaults; readonly network: NetworkFaults } => {
  const rate = (most: number) => (chance.happens(0.5) ? most * 10 ** -chance.between(0, 2) : 0)
  return {
    broker: {
      ...calmBroker(),
      lostAnswer: rate(0.1),
      lostRequest: rate(0.1),
      late: rate(0.1),
      broken: rate(0.3),
      oldLeader: rate(0.3),
      behind: rate(0.5),
      expiryMs: chance.happens(0.5) ? chance.between(0, 900) : 0,
      outageEveryMs: chance.happens(0.5) ? chance.between(500, 20_000) : 0,
      outageMs: chance.between(100, 9_000)
    },
    network: {
      ...calmNetwork(),
      latencyMs: [0.05, chance.pick([0.5, 5, 50])],
      tail: rate(0.05),
      tailMs: chance.between(10, 2_000),
      late: chance.happens(0.5) ? chance.next() : 0
    }
  }
}

/**
 * The broker of a simulated world, with everything that nodes get of it: bus, log, metadata and leases. It is what a
 * NATS server or cluster is to the real adapters: linearizable, and lossless in what it said was stored unless it loses
 * power; lossy and late in everything else.
 *
 * Who breaks things changes `faults` and `network.faults`, or calls `network.block`, `network.disconnect`, `network.slow`,
 * `servers.crash`, `servers.pause`, `servers.cutOff`, `streams.cut`, `elect`, `losePower` and `rot`. What struck is counted in
 * `counts` and told to `world.struck`.
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
import { calmStreams, JetStream, type StreamFaults } from "./jetstream.ts"
import { type Machine, Servers } from "./servers.ts"
import { Session } from "./session.ts"
import { type SubjectFaults, Subjects } from "./subjects.ts"
import { type Chance, here, type SimNode, type World } from "./world.ts"

export type BrokerFaults = StreamFaults & SubjectFaults
export const calmBroker = (): BrokerFaults => ({ ...calmStreams(), spreadMs: 0 })

export interface BrokerOptions {
  /** Servers, and of each stream: 1 or 3. */
  readonly replicas?: number | undefined
  /** What was accepted is written down there; without, in one of its own. */
  readonly ledger?: Ledger | undefined
  readonly channelBytesMax?: number | undefined
  /** Of a message's body; as a NATS server has it by default. */
  readonly payloadMax?: number | undefined
}

/**
 * How a leader goes. "crash": with its server, and the connections to it. "pause": its server stands still. "step
 * down": it leads no longer, and nothing else happens.
 */
export type ElectionKind = "crash" | "pause" | "step down"

export interface Broker {
  /**
   * The ports of the node whose code builds it, in its present life, on a connection of its own, until the scope
   * closes. Fails "unavailable" if the broker cannot be reached, or no stream has a leader.
   */
  readonly layer: Layer.Layer<Bus | Log | Meta | Leases, StorageError>
  /** The same by way of these servers alone, and of the first of them first. */
  readonly layerVia: (indexes: ReadonlyArray<number>) => Layer.Layer<Bus | Log | Meta | Leases, StorageError>
  readonly network: Network
  readonly servers: Servers
  readonly streams: Pick<JetStream, "cut" | "isCut" | "mend">
  readonly faults: BrokerFaults
  /** How often each thing happened. */
  readonly counts: { readonly [name: string]: number }
  readonly ledger: Ledger
  /** The metadata has no leader for about so long, and in case of a "step down" no other stream has. */
  readonly elect: (kind: ElectionKind, forMs: number) => void
  /** All servers are down for so long, and each channel lost up to `most` of the records that it said were stored. */
  readonly losePower: (forMs: number, most: number) => void
  /** Changes one bit of what is stored of some channel. */
  readonly rot: () => void
  /** A channel's stream is gone, and can be made again. */
  readonly lose: (channel: number) => void
  /** The server that leads a channel now. */
  readonly leaderOf: (channel: number) => number | undefined
  /** Ends all faults, of the network too; what is on its way still comes, what was lost stays lost. */
  readonly heal: () => void
  /** What is in a channel now. */
  readonly entries: (channel: number) => ReadonlyArray<LogEntry>
}

const PAYLOAD_MAX = 1024 * 1024 - limits.payloadMargin

export const simBroker = (world: World, options: BrokerOptions = {}): Broker => {
  const {
    channelBytesMax = limits.channelBytesMax,
    ledger = ledgerOf(world),
    payloadMax = PAYLOAD_MAX,
    replicas = 1
  } = options
  const counts: { [name: string]: number } = {}
  const struck = (what: string, node?: SimNode) => {
    counts[what] = (counts[what] ?? 0) + 1
    world.struck(what, node)
  }
  const faults = calmBroker()
  const servers = new Servers(world, replicas, struck)
  const network = new Network(servers, calmNetwork(), struck)
  const subjects = new Subjects(servers, faults, struck)
  const streams = new JetStream(servers, faults, struck)
  streams.make(leasesStream(ledger))
  streams.make(metaStream(ledger))

  const portsVia = Effect.fnUntraced(function* (known: ReadonlyArray<Machine>) {
    const node = yield* here(Effect.succeed)
    const session = new Session(network, node, known, payloadMax)
    yield* session.open
    for (const bucket of ["live", "meta"]) yield* askStream(streams, session, bucket, () => undefined)
    return Context.make(Bus, yield* makeBus(subjects, session)).pipe(
      Context.add(Log, makeLog(streams, session, ledger, channelBytesMax)),
      Context.add(Meta, makeMeta(streams, session)),
      Context.add(Leases, makeLeases(streams, session))
    )
  })

  /** All servers, beginning with any. */
  const anyWhere = Effect.sync(() => {
    const { all } = servers
    const first = network.chance.below(all.length)
    return [...all.slice(first), ...all.slice(0, first)]
  })

  return {
    layer: Layer.effectContext(Effect.flatMap(anyWhere, portsVia)),
    layerVia: (indexes) => Layer.effectContext(portsVia(indexes.map((index) => servers.all[index]!))),
    network,
    servers,
    streams,
    faults,
    counts,
    ledger,
    elect: (kind, forMs) => {
      const leader = streams.leaderOf("meta")
      if (kind === "step down" || leader === undefined) streams.elect(forMs)
      else if (kind === "crash") servers.crash(leader, forMs)
      else servers.pause(leader, forMs)
    },
    losePower: (forMs, most) => streams.losePower(forMs, most),
    rot: () => streams.rot(),
    lose: (channel) => streams.lose(channelStream(channel)),
    leaderOf: (channel) => streams.leaderOf(channelStream(channel))?.index,
    heal: () => {
      Object.assign(faults, calmBroker())
      servers.heal()
      streams.heal()
      network.heal()
    },
    entries: (channel) =>
      (streams.find(channelStream(channel))?.history ?? []).flatMap(({ data, goneAt, sequence }) =>
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
      electionEveryMs: chance.happens(0.5) ? chance.between(500, 20_000) : 0,
      electionMs: chance.between(100, 9_000),
      spreadMs: chance.pick([0, 1, 20])
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

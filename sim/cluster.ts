/**
 * A cluster in a simulated world: processes that play roles, with the actors and the kernel as they are, on a simulated
 * broker, object store and compute. What can be done to a process is done by its name; what can be done to the rest,
 * by `broker`, `objects` and `compute`.
 *
 * A process that ends by itself (it did not reach the broker when it began, say) is begun again after a while, as
 * whatever keeps processes would. Each time it has another node id and nothing in memory.
 *
 * @example
 * const world = new World(seed)
 * const cluster = new Cluster(world, { nodes: [{ name: "a", roles: allRoles }], settings })
 * world.run(Effect.gen(function* () {
 *   cluster.start()
 *   yield* cluster.ready // every process plays its roles
 *   const client = cluster.client("client") // a machine without roles
 *   yield* on(client, program.pipe(Effect.provide(cluster.broker.layer), Effect.scoped))
 *   cluster.process("a").crash()
 *   cluster.process("a").start()
 * }))
 */
import { Deferred, Effect, Exit, Layer } from "effect"
import type { Role } from "../protocols/metadata.ts"
import type { Bus, BusError } from "../runtime/bus.ts"
import { Catalog } from "../runtime/catalog.ts"
import { Node, type Settings } from "../runtime/node.ts"
import { play, VERSION } from "../runtime/roles.ts"
import { Compute } from "../storage/compute.ts"
import { VectorIndexes } from "../storage/index.ts"
import type { Leases } from "../storage/leases.ts"
import type { Log } from "../storage/log.ts"
import type { Meta } from "../storage/meta.ts"
import { Objects } from "../storage/objects.ts"
import type { StorageError } from "../storage/outcome.ts"
import { type Broker, type BrokerOptions, simBroker } from "./broker.ts"
import { flatIndexes, type SimCompute, simCompute } from "./compute.ts"
import { type Ledger, ledgerOf } from "./ledger.ts"
import { type SimObjects, simObjects } from "./objects.ts"
import { ask, type Chance, type SimNode, type World } from "./world.ts"

export interface ClusterOptions {
  readonly nodes: ReadonlyArray<{ readonly name: string; readonly roles: ReadonlyArray<Role> }>
  readonly settings?: Partial<Settings> | undefined
  readonly broker?: BrokerOptions | undefined
}

type Ports = Bus | Log | Meta | Leases | Objects | Compute | VectorIndexes | Catalog | Node

/** A process that ended by itself is begun again after this time, and up to twice as long. */
const RESTART_MS = 1_000
/** As runtime/cli/start.ts does: then it is killed. */
const STOP_MS = 10_000

/** `starting`: not all of its roles answer yet. `stopping`: it was told to end. */
export type ProcessState = "down" | "starting" | "up" | "stopping"

/** A process that plays roles, as whoever keeps it sees it. */
export class Process {
  readonly node: SimNode
  readonly roles: ReadonlyArray<Role>
  /** Of its present life, as the cluster knows it; empty until it has one. */
  id = ""
  /** How often it was killed while there was something to kill. */
  killed = 0
  private readonly cluster: Cluster
  private now: ProcessState = "down"
  private isWanted = false
  private told = Deferred.makeUnsafe<void>()

  constructor(cluster: Cluster, name: string, roles: ReadonlyArray<Role>) {
    this.cluster = cluster
    this.node = cluster.world.node(name)
    this.roles = roles
  }

  get state(): ProcessState {
    return this.now
  }

  /** Begins it, if it is down. */
  start(): void {
    this.isWanted = true
    if (this.now !== "down") return
    const { node } = this
    const told = (this.told = Deferred.makeUnsafe<void>())
    this.become("starting")
    const life = Effect.gen({ self: this }, function* () {
      this.id = (yield* Node).id
      yield* play(this.roles)
      if (this.now === "starting") this.become("up")
      return yield* Effect.never
    })
    const whole = Effect.provide(Effect.scoped(life), this.cluster.portsOf(node))
    node.start(Effect.raceFirst(whole, Deferred.await(told)), (exit) => this.ended(exit))
  }

  /** It is gone at once: no finalizer runs, what it sent is on its way. It stays down until it is started. */
  crash(): void {
    if (this.now !== "down") this.killed++
    this.isWanted = false
    this.die()
  }

  /** Tells it to end, as a signal does; one that takes too long is killed. It stays down until it is started. */
  stop(): void {
    this.isWanted = false
    if (this.now !== "starting" && this.now !== "up") return
    const { node, told } = this
    const { life } = node
    this.become("stopping")
    node.start(Deferred.succeed(told, undefined))
    const kill = () => {
      if (node.life === life) this.die()
    }
    node.world.after(STOP_MS, kill, undefined, 0, "kill")
  }

  /** It stands still, and then goes on with what it believed. */
  pause(forMs: number): void {
    this.node.pause(forMs)
  }

  /** Its last fiber ended, and the operating system takes back the rest. */
  private ended(exit: Exit.Exit<void, unknown>): void {
    const { node } = this
    const { world } = node
    if (Exit.isFailure(exit)) {
      world.log({ at: world.now, node: node.name, level: "Error", message: "ended", cause: exit.cause })
    }
    this.die()
    const again = () => {
      if (this.isWanted) this.start()
    }
    world.after(this.cluster.chance.between(RESTART_MS, 2 * RESTART_MS), again, undefined, 0, "restart")
  }

  private die(): void {
    this.node.crash()
    this.id = ""
    this.become("down")
  }

  private become(state: ProcessState): void {
    this.now = state
    this.cluster.changed()
  }
}

export class Cluster {
  readonly world: World
  readonly ledger: Ledger
  readonly broker: Broker
  readonly objects: SimObjects
  readonly compute: SimCompute
  /** By name, in the order in which they were given. */
  readonly processes: ReadonlyMap<string, Process>
  readonly chance: Chance
  private readonly settings: Partial<Settings> | undefined
  private readonly clients = new Map<string, SimNode>()
  private readonly watchers = new Set<() => void>()

  constructor(world: World, { broker, nodes, settings }: ClusterOptions) {
    this.world = world
    this.settings = settings
    this.chance = world.chance("cluster")
    this.ledger = broker?.ledger ?? ledgerOf(world)
    this.broker = simBroker(world, { ...broker, ledger: this.ledger })
    this.objects = simObjects(world, this.ledger)
    this.compute = simCompute(world)
    this.processes = new Map(nodes.map(({ name, roles }) => [name, new Process(this, name, roles)]))
  }

  process(name: string): Process {
    const found = this.processes.get(name)
    if (found === undefined) throw new Error(`there is no process ${name}`)
    return found
  }

  start(): void {
    for (const each of this.processes.values()) each.start()
  }

  /** A machine without roles: for clients. The same one for the same name. */
  client(name: string): SimNode {
    let node = this.clients.get(name)
    if (node === undefined) this.clients.set(name, (node = this.world.node(name)))
    return node
  }

  /** Waits until `test` holds of its processes. */
  until(test: (processes: ReadonlyArray<Process>) => boolean): Effect.Effect<void> {
    return ask<void>((_, reply) => {
      const look = () => {
        if (!test([...this.processes.values()])) return
        this.watchers.delete(look)
        reply.give(undefined)
      }
      this.watchers.add(look)
      look()
    })
  }

  /** Waits until every process plays its roles, but for those that are down. */
  readonly ready: Effect.Effect<void> = Effect.suspend(() =>
    this.until((processes) => processes.every(({ state }) => state === "up" || state === "down"))
  )

  /** Ends every fault of the broker, the network, the store, compute and the machines. What is down stays down. */
  heal(): void {
    this.broker.heal()
    this.objects.heal()
    this.compute.heal()
    for (const { node } of this.processes.values()) node.heal()
    for (const node of this.clients.values()) node.heal()
  }

  /** All that a process stands on: new in each of its lives. */
  portsOf(node: SimNode): Layer.Layer<Ports, StorageError | BusError> {
    return Catalog.layer.pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          this.broker.layer,
          Layer.succeed(Objects)(this.objects.objects),
          Layer.succeed(Compute)(this.compute.of(node)),
          Layer.succeed(VectorIndexes)(flatIndexes),
          Node.layer(VERSION, { settings: this.settings })
        )
      )
    )
  }

  /** The state of a process is another one. */
  changed(): void {
    for (const look of this.watchers) look()
  }
}

/**
 * The network of a simulated world: one connection after the other between each node and the broker. A connection
 * delivers what was sent in that order, or breaks; so messages overtake each other only on different connections.
 *
 * Every message is an event of its receiver. A way that is blocked keeps what it carries, as TCP does, and goes on when
 * it is free again; whoever hears nothing for too long gives the connection up, and what is still on its way may then
 * be lost, or arrive late.
 */
import type { Chance, SimNode, World } from "./world.ts"

/** All of it can change while the world runs. */
export interface NetworkFaults {
  /** Of one way, milliseconds: seldom near the second. */
  latencyMs: readonly [number, number]
  /** Probability that a message, and so all behind it, takes up to `tailMs` longer. */
  tail: number
  tailMs: number
  /** Of one connection. */
  bytesPerMs: number
  /** Probability that what a node sent on a connection that broke still arrives, when it can. */
  late: number
}

export const calmNetwork = (): NetworkFaults => ({
  latencyMs: [0.05, 1],
  tail: 0,
  tailMs: 0,
  bytesPerMs: 100_000,
  late: 0
})

/** The ways between a node and the broker: "up" is what it sends, "down" is what it hears. */
export type Ways = "up" | "down" | "both"

/** Counts each thing that struck: what never did was not tested. `node` is whom it struck, if it was one. */
export type Struck = (what: string, node?: SimNode) => void

/** Of a message with little in it. */
const BYTES_MIN = 64
/** A client pings every 5 s and gives up with the third that is not answered. */
const STALE_MS: readonly [number, number] = [10_000, 15_000]
/** A server that hears nothing of a client, and cannot tell it so, keeps its subscriptions for so long. */
const GHOST_MS = 240_000

/** One direction of a connection. */
class Lane {
  isBlocked = false
  private readonly network: Network
  private readonly place: Place
  private readonly receiver: SimNode | undefined
  private readonly life: number
  private inFlight: Array<() => void> = []
  private at = 0
  /** Messages whose time came while it was blocked. */
  private due = 0

  constructor(network: Network, place: Place, receiver: SimNode | undefined) {
    this.network = network
    this.place = place
    this.receiver = receiver
    this.life = receiver?.life ?? 0
  }

  send(label: string, bytes: number, arrive: () => void): void {
    const { network, place } = this
    const { now } = network.world
    this.inFlight.push(arrive)
    const transfer = (bytes + BYTES_MIN) / network.faults.bytesPerMs
    this.at = Math.max(this.at, now + network.delay(place)) + transfer * place.slow
    this.expect(this.at - now, label)
  }

  unblock(): void {
    if (!this.isBlocked) return
    this.isBlocked = false
    const { due } = this
    this.due = 0
    const delay = this.network.delay(this.place)
    for (let i = 0; i < due; i++) this.expect(delay, "held")
  }

  /** What is on its way is gone. */
  lose(): number {
    const lost = this.inFlight.length
    this.inFlight = []
    return lost
  }

  // Whichever of the events comes first takes the message that was sent first: also a paused receiver finds them in order.
  private expect(delayMs: number, label: string): void {
    this.network.world.after(delayMs, this.arrive, this.receiver, this.life, label)
  }

  private readonly arrive = () => {
    if (this.isBlocked) this.due++
    else this.inFlight.shift()?.()
  }
}

/** Where a node is, as the network sees it. */
interface Place {
  readonly node: SimNode
  readonly chance: Chance
  /** Everything takes so many times as long. */
  slow: number
  upBlocked: boolean
  downBlocked: boolean
  /** How often it was blocked: a wait that began before does not count for the next. */
  blocks: number
}

/** One connection. Each side learns in its own time that it is over. */
export class Connection {
  readonly node: SimNode
  /** As the node sees it. */
  isOpen = true
  /** As the broker sees it. */
  isKnown = true
  private readonly network: Network
  private readonly up: Lane
  private readonly down: Lane
  /** At the broker, when it learns that the connection is over. */
  private readonly ends = new Set<() => void>()
  /** At the node, when it learns that the connection is over. */
  private readonly losses = new Set<() => void>()

  constructor(network: Network, place: Place) {
    this.network = network
    this.node = place.node
    this.up = new Lane(network, place, undefined)
    this.down = new Lane(network, place, place.node)
    this.block(place)
  }

  /** From the node to the broker. */
  toBroker(label: string, bytes: number, arrive: () => void): void {
    if (!this.isOpen) return
    this.up.send(label, bytes, () => {
      if (this.isKnown) arrive()
    })
  }

  /** From the broker to the node. */
  toNode(label: string, bytes: number, arrive: () => void): void {
    if (!this.isKnown) return
    this.down.send(label, bytes, () => {
      if (this.isOpen) arrive()
    })
  }

  /** Whether what the broker says now gets through. */
  get isHeard(): boolean {
    return this.isOpen && this.isKnown && !this.down.isBlocked
  }

  atEnd(callback: () => void): void {
    this.ends.add(callback)
  }

  onLost(callback: () => void): () => void {
    this.losses.add(callback)
    return () => {
      this.losses.delete(callback)
    }
  }

  /** The node has done with it: what it sent before arrives, and then the broker knows. */
  close(): void {
    this.toBroker("close", 0, () => this.end())
    this.isOpen = false
  }

  /** It breaks in the middle, and both sides see it. */
  break(): void {
    const lost = this.up.lose() + this.down.lose()
    if (lost > 0) this.network.struck("disconnect", this.node)
    this.end()
    this.giveUp()
  }

  /** The node takes it for broken. What it sent is on its way still, or is not. */
  abandon(): void {
    const { faults, struck } = this.network
    if (!this.network.chance.happens(faults.late)) this.up.lose()
    else struck("late", this.node)
    this.giveUp()
  }

  block({ downBlocked, upBlocked }: Place): void {
    if (upBlocked) this.up.isBlocked = true
    else this.up.unblock()
    if (downBlocked) this.down.isBlocked = true
    else this.down.unblock()
    // A packet to a connection that the node closed long ago is answered with a reset.
    if (!upBlocked && !downBlocked && !this.isOpen && this.isKnown) {
      this.up.send("reset", 0, () => this.end())
    }
  }

  /** The broker knows that it is over. */
  end(): void {
    if (!this.isKnown) return
    this.isKnown = false
    this.network.forget(this)
    for (const end of this.ends) end()
  }

  /** The node crashed: its kernel says so, if it can. */
  crashed(): void {
    this.isOpen = false
    this.up.send("reset", 0, () => this.end())
    this.network.world.after(GHOST_MS, () => this.end(), undefined, 0, "ghost")
  }

  private giveUp(): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.network.world.after(GHOST_MS, () => this.end(), undefined, 0, "ghost")
    for (const lost of [...this.losses]) lost()
  }
}

export class Network {
  readonly world: World
  readonly faults: NetworkFaults
  readonly struck: Struck
  readonly chance: Chance
  private readonly places = new Map<SimNode, Place>()
  private readonly connections = new Set<Connection>()

  constructor(world: World, faults: NetworkFaults, struck: Struck) {
    this.world = world
    this.faults = faults
    this.struck = struck
    this.chance = world.chance("network")
  }

  /** The node in its present life begins a connection. */
  connect(node: SimNode): Connection {
    const connection = new Connection(this, this.place(node))
    this.connections.add(connection)
    return connection
  }

  /** Nothing comes through these ways until `mend`. Messages wait, connections are given up after a while. */
  block(node: SimNode, ways: Ways): void {
    const place = this.place(node)
    place.upBlocked = ways !== "down"
    place.downBlocked = ways !== "up"
    const blocks = ++place.blocks
    this.struck(`blocked ${ways}`, node)
    for (const connection of this.of(node)) {
      connection.block(place)
      const giveUp = () => {
        if (place.blocks === blocks && connection.isOpen) connection.abandon()
      }
      this.world.after(this.chance.between(...STALE_MS), giveUp, node, node.life, "stale")
    }
  }

  mend(node: SimNode): void {
    const place = this.place(node)
    place.upBlocked = false
    place.downBlocked = false
    place.blocks++
    for (const connection of this.of(node)) connection.block(place)
  }

  /** Breaks the node's connections: what is in flight is lost. It may connect again at once. */
  disconnect(node: SimNode): void {
    for (const connection of this.of(node)) connection.break()
  }

  /** Everything to and from the node takes so many times as long; 1 is usual. */
  slow(node: SimNode, times: number): void {
    this.place(node).slow = times
    if (times > 1) this.struck("slow link", node)
  }

  isBlocked(node: SimNode): boolean {
    const { downBlocked, upBlocked } = this.place(node)
    return upBlocked || downBlocked
  }

  /** All ways are free, and as fast as usual. */
  heal(): void {
    Object.assign(this.faults, calmNetwork())
    for (const [node, place] of this.places) {
      place.slow = 1
      this.mend(node)
    }
  }

  delay({ chance, slow }: Place): number {
    const [least, most] = this.faults.latencyMs
    const drawn = least + (most - least) * chance.next() ** 4
    const extra = chance.happens(this.faults.tail) ? chance.between(0, this.faults.tailMs) : 0
    return (drawn + extra) * slow
  }

  forget(connection: Connection): void {
    this.connections.delete(connection)
  }

  private of(node: SimNode): ReadonlyArray<Connection> {
    return [...this.connections].filter((one) => one.node === node)
  }

  private place(node: SimNode): Place {
    let place = this.places.get(node)
    if (place === undefined) {
      const chance = this.world.chance(`network of ${node.name}`)
      place = { node, chance, slow: 1, upBlocked: false, downBlocked: false, blocks: 0 }
      this.places.set(node, place)
      node.onCrash(() => {
        for (const connection of this.of(node)) connection.crashed()
      })
    }
    return place
  }
}

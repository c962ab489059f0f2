/**
 * The network of a simulated world: one connection after the other between each node and a server of the broker. A
 * connection delivers what was sent in that order, or breaks; so messages overtake each other only on different ones.
 *
 * Every message is an event of its receiver. A way that is blocked keeps what it carries, as TCP does, and goes on when
 * it is free again; whoever hears nothing for too long gives the connection up, and what is still on its way may then
 * be lost, or arrive late.
 */
import type { Machine, Servers, Turn } from "./servers.ts"
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
  /** A server breaks a connection with more than this on its way down: a slow consumer. */
  pendingBytesMax: number
  /** Probability that what a node sent on a connection that broke still arrives, when it can. */
  late: number
}

export const calmNetwork = (): NetworkFaults => ({
  latencyMs: [0.05, 1],
  tail: 0,
  tailMs: 0,
  bytesPerMs: 100_000,
  pendingBytesMax: 64 * 1024 * 1024,
  late: 0
})

/** The ways between a node and the broker: "up" is what it sends, "down" is what it hears. */
export type Ways = "up" | "down" | "both"

/** Counts each thing that struck: what never did was not tested. `node` is whom it struck, if it was one. */
export type Struck = (what: string, node?: SimNode) => void

/** Of a message with little in it. */
const BYTES_MIN = 64
/** Of a way that is slow, however slow: past it nobody would take the connection for alive. */
const LATENCY_MAX_MS = 8_000
/** A client pings every 5 s and gives up with the third that is not answered. */
const STALE_MS: readonly [number, number] = [10_000, 15_000]
/** Until a node takes another connection for one whose packets went astray, and until they come. */
const STRAY_MS: readonly [number, number] = [50, 1_000]
const LATE_MS: readonly [number, number] = [1_000, 15_000]
/** A server keeps the subscriptions of a client for so long after it heard of it for the last time. */
const GHOST_MS = 240_000

/** Where a node is, as the network sees it. */
interface Place {
  readonly node: SimNode
  readonly chance: Chance
  /** Everything takes so many times as long. */
  slow: number
  upBlocked: boolean
  downBlocked: boolean
}

/** One direction of a connection. */
class Lane {
  isBlocked = false
  /** On their way. */
  bytes = 0
  private readonly network: Network
  private readonly place: Place
  private readonly receiver: SimNode | undefined
  private readonly life: number
  private inFlight: Array<{ readonly bytes: number; readonly arrive: () => void }> = []
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
    this.inFlight.push({ bytes, arrive })
    this.bytes += bytes
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
    this.bytes = 0
    return lost
  }

  // Whichever of the events comes first takes the message that was sent first: also a paused receiver finds them in order.
  private expect(delayMs: number, label: string): void {
    this.network.world.after(delayMs, this.arrive, this.receiver, this.life, label)
  }

  private readonly arrive = () => {
    if (this.isBlocked) {
      this.due++
      return
    }
    const next = this.inFlight.shift()
    if (next === undefined) return
    this.bytes -= next.bytes
    next.arrive()
  }
}

/** One connection. Each side learns in its own time that it is over. */
export class Connection {
  readonly node: SimNode
  readonly machine: Machine
  /** As the node sees it. */
  isOpen = true
  /** As the server sees it. */
  isKnown = true
  private readonly network: Network
  private readonly place: Place
  private readonly up: Lane
  private readonly down: Lane
  /** What the node sends on it takes another way, and a long one. */
  private isAstray = false
  /** How often it was blocked: a wait that began before does not count for the next. */
  private blocks = 0
  /** At the server, when it learns that the connection is over. */
  private readonly ends = new Set<() => void>()
  /** At the node, when it learns that the connection is over. */
  private readonly losses = new Set<() => void>()

  constructor(network: Network, place: Place, machine: Machine) {
    this.network = network
    this.place = place
    this.node = place.node
    this.machine = machine
    this.up = new Lane(network, place, undefined)
    this.down = new Lane(network, place, place.node)
    this.review()
  }

  /** Whether what the server says now gets through. */
  get isHeard(): boolean {
    return this.isOpen && this.isKnown && !this.down.isBlocked
  }

  /** From the node to the server. */
  toBroker(label: string, bytes: number, arrive: () => void): void {
    if (!this.isOpen) return
    this.up.send(label, bytes, () => {
      if (this.isKnown) arrive()
    })
  }

  /** From the server to the node. */
  toNode(label: string, bytes: number, arrive: () => void): void {
    if (!this.isKnown) return
    if (this.down.bytes + bytes > this.network.faults.pendingBytesMax) {
      this.network.struck("slow consumer", this.node)
      return this.break()
    }
    this.down.send(label, bytes, () => {
      if (this.isOpen) arrive()
    })
  }

  /** Calls back when the server has done with it; at once if it has already. */
  atEnd(callback: () => void): void {
    if (this.isKnown) this.ends.add(callback)
    else callback()
  }

  onLost(callback: () => void): () => void {
    this.losses.add(callback)
    return () => {
      this.losses.delete(callback)
    }
  }

  /** The node has done with it: what it sent before arrives, and then the server knows. */
  close(): void {
    this.toBroker("close", 0, () => this.end())
    this.isOpen = false
  }

  /** It breaks in the middle, and both sides see it, the node if it lives. */
  break(): void {
    const lost = this.up.lose() + this.down.lose()
    if (lost > 0) this.network.struck("lost in flight", this.node)
    this.end()
    const { node } = this
    this.network.world.after(0, () => this.giveUp(), node, node.life, "broken")
  }

  /** What the node sends from now on comes after what it will send on its next connection, which it soon takes. */
  stray(): void {
    const { network, node } = this
    const { chance, world } = network
    this.isAstray = true
    this.review()
    world.after(chance.between(...STRAY_MS), () => this.abandon(), node, node.life, "stray")
    const come = () => {
      this.isAstray = false
      this.review()
    }
    world.after(chance.between(...LATE_MS), come, undefined, 0, "late")
  }

  /** Looks again at what blocks it. */
  review(): void {
    const { downBlocked, upBlocked } = this.place
    const { isPaused } = this.machine
    const wasBlocked = this.up.isBlocked || this.down.isBlocked
    if (upBlocked || isPaused || this.isAstray) this.up.isBlocked = true
    else this.up.unblock()
    if (downBlocked || isPaused) this.down.isBlocked = true
    else this.down.unblock()
    const isBlocked = this.up.isBlocked || this.down.isBlocked
    if (isBlocked !== wasBlocked) this.blocks++
    if (isBlocked && !wasBlocked) this.expectStale()
    // A packet to a connection that the node closed long ago is answered with a reset.
    if (!isBlocked && !this.isOpen) this.reset()
  }

  /** The node crashed: its kernel says so, if it can. */
  crashed(): void {
    this.isOpen = false
    this.reset()
  }

  private reset(): void {
    this.up.send("reset", 0, () => this.end())
  }

  private expectStale(): void {
    const { blocks, network, node } = this
    const stale = () => {
      if (this.blocks === blocks && this.isOpen) this.abandon()
    }
    network.world.after(network.chance.between(...STALE_MS), stale, node, node.life, "stale")
  }

  /** The node takes it for broken. What it sent is on its way still, or is not: in the socket of a server it is. */
  private abandon(): void {
    if (!this.isOpen) return
    const { chance, faults, struck } = this.network
    const isKept = this.machine.isPaused || chance.happens(faults.late)
    if (!isKept) this.up.lose()
    else if (this.up.bytes > 0) struck("late connection", this.node)
    this.giveUp()
  }

  private giveUp(): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.network.world.after(GHOST_MS, () => this.end(), undefined, 0, "ghost")
    for (const lost of [...this.losses]) lost()
  }

  private end(): void {
    if (!this.isKnown) return
    this.isKnown = false
    this.network.forget(this)
    for (const end of this.ends) end()
  }
}

export class Network {
  readonly world: World
  readonly servers: Servers
  readonly faults: NetworkFaults
  readonly struck: Struck
  readonly chance: Chance
  private readonly places = new Map<SimNode, Place>()
  private readonly connections = new Set<Connection>()

  constructor(servers: Servers, faults: NetworkFaults, struck: Struck) {
    this.world = servers.world
    this.servers = servers
    this.faults = faults
    this.struck = struck
    this.chance = this.world.chance("network")
    servers.onTurn((machine, turn) => this.turn(machine, turn))
  }

  /** The node in its present life begins a connection to a server. */
  connect(node: SimNode, machine: Machine): Connection {
    const connection = new Connection(this, this.place(node), machine)
    this.connections.add(connection)
    return connection
  }

  /** Nothing comes through these ways until `mend`. Messages wait, connections are given up after a while. */
  block(node: SimNode, ways: Ways): void {
    const place = this.place(node)
    place.upBlocked = ways !== "down"
    place.downBlocked = ways !== "up"
    this.struck(`blocked ${ways}`, node)
    for (const connection of this.of(node)) connection.review()
  }

  mend(node: SimNode): void {
    const place = this.place(node)
    place.upBlocked = false
    place.downBlocked = false
    for (const connection of this.of(node)) connection.review()
  }

  /** Breaks the node's connections: what is in flight is lost. It may connect again at once. */
  disconnect(node: SimNode): void {
    const connections = this.of(node)
    if (connections.length > 0) this.struck("disconnect", node)
    for (const connection of connections) connection.break()
  }

  /** The node's connections go astray: it takes new ones, and what it sent on the old is late, or lost. */
  stray(node: SimNode): void {
    for (const connection of this.of(node)) if (connection.isOpen) connection.stray()
  }

  /** Everything to and from the node takes so many times as long; 1 is usual. */
  slow(node: SimNode, times: number): void {
    this.place(node).slow = times
    if (times > 1) this.struck("slow link", node)
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
    return Math.min(drawn * slow + extra, LATENCY_MAX_MS)
  }

  forget(connection: Connection): void {
    this.connections.delete(connection)
  }

  private turn(machine: Machine, turn: Turn): void {
    for (const connection of [...this.connections]) {
      if (connection.machine !== machine) continue
      if (turn === "crash") connection.break()
      else connection.review()
    }
  }

  private of(node: SimNode): ReadonlyArray<Connection> {
    return [...this.connections].filter((one) => one.node === node)
  }

  private place(node: SimNode): Place {
    let place = this.places.get(node)
    if (place === undefined) {
      const chance = this.world.chance(`network of ${node.name}`)
      place = { node, chance, slow: 1, upBlocked: false, downBlocked: false }
      this.places.set(node, place)
      node.onCrash(() => {
        for (const connection of this.of(node)) connection.crashed()
      })
    }
    return place
  }
}

/**
 * What a process keeps of its connection to the broker, as a NATS client does: it connects again for ever, tells who
 * waits that the connection broke, and never sends anything twice.
 */
import { Effect, type Scope } from "effect"
import { StorageError } from "../storage/outcome.ts"
import type { Connection, Network } from "./network.ts"
import type { Machine } from "./servers.ts"
import type { Scheduled, SimNode, World } from "./world.ts"

/** A value that comes once, within an event of its node. The first one given counts. */
export class Once<A> {
  private given: { readonly value: A } | undefined
  private readonly waiting = new Set<() => void>()

  get isGiven(): boolean {
    return this.given !== undefined
  }

  give(value: A): void {
    if (this.given !== undefined) return
    this.given = { value }
    for (const wake of this.waiting) wake()
  }

  readonly wait: Effect.Effect<A> = Effect.callback((resume) => {
    const wake = () => resume(Effect.succeed(this.given!.value))
    if (this.given !== undefined) return wake()
    this.waiting.add(wake)
    return Effect.sync(() => this.waiting.delete(wake))
  })
}

/** A question to the broker. */
export interface Question<A> {
  /** In the trace. */
  readonly label: string
  readonly bytes: number
  readonly timeoutMs: number
  /** At the broker; `answer` may be called then, later or never. */
  readonly at: (answer: (value: A, bytes?: number) => void, connection: Connection) => void
  /** What it amounts to if nothing was heard of it. */
  readonly unheard: (why: string) => A
}

const CONNECT_TIMEOUT_MS = 5_000
/** Until it hears that a server is down. */
const REFUSED_MS = 1
/** Before it tries again, and up to twice as long. */
const RECONNECT_MS = 100

export class Session {
  readonly world: World
  readonly node: SimNode
  readonly life: number
  /** Of a message's body. */
  readonly payloadMax: number
  private readonly network: Network
  private connection: Connection | undefined
  private isClosed = false
  private readonly losses = new Set<() => void>()
  private readonly returns = new Set<() => void>()
  /** Servers that it knows, and which of them it asks next: all in turn. */
  private readonly known: ReadonlyArray<Machine>
  private turn = -1

  constructor(network: Network, node: SimNode, known: ReadonlyArray<Machine>, payloadMax: number) {
    this.world = network.world
    this.network = network
    this.node = node
    this.life = node.life
    this.known = known
    this.payloadMax = payloadMax
  }

  get isConnected(): boolean {
    return this.connection !== undefined
  }

  /** Called whenever the connection breaks, until the answer is called. */
  onLost(callback: () => void): () => void {
    this.losses.add(callback)
    return () => {
      this.losses.delete(callback)
    }
  }

  /** Called whenever there is another connection, before anything else is sent on it. */
  onReturn(callback: () => void): () => void {
    this.returns.add(callback)
    return () => {
      this.returns.delete(callback)
    }
  }

  /** Lets something happen in this life of the node. */
  after(delayMs: number, label: string, run: () => void): Scheduled {
    return this.world.after(delayMs, run, this.node, this.life, label)
  }

  /** One message; nothing is said if it does not arrive. */
  send(label: string, bytes: number, arrive: (connection: Connection) => void): void {
    const { connection } = this
    connection?.toBroker(label, bytes, () => arrive(connection))
  }

  /** One message and its answer. Without a connection it is unheard at once. */
  ask<A>({ at, bytes, label, timeoutMs, unheard }: Question<A>): Once<A> {
    const once = new Once<A>()
    const { connection } = this
    if (connection === undefined) {
      once.give(unheard("not connected"))
      return once
    }
    const end = (value: A) => {
      forget()
      timer.cancel()
      once.give(value)
    }
    const forget = this.onLost(() => end(unheard("the connection broke")))
    const { world } = this
    const timer = this.after(timeoutMs, world.label(label, " timeout"), () => end(unheard("no answer in time")))
    connection.toBroker(label, bytes, () =>
      at((value, bytes = 0) => connection.toNode(world.label(label, " answer"), bytes, () => end(value)), connection)
    )
    return once
  }

  /** Connects, or fails "unavailable". */
  readonly open: Effect.Effect<void, StorageError, Scope.Scope> = Effect.acquireRelease(
    Effect.callback<void, StorageError>((resume) => {
      const tries = (left: number) =>
        this.dial((isConnected) => {
          if (isConnected) resume(Effect.void)
          else if (left > 1) tries(left - 1)
          else resume(Effect.fail(new StorageError({ reason: "unavailable", detail: "no NATS server answers" })))
        })
      tries(this.known.length)
    }),
    () =>
      Effect.sync(() => {
        this.isClosed = true
        this.connection?.close()
        this.connection = undefined
      })
  )

  private dial(ended: (isConnected: boolean) => void): void {
    this.turn = (this.turn + 1) % this.known.length
    const machine = this.known[this.turn]!
    if (!machine.isUp) {
      this.after(REFUSED_MS, "refused", () => ended(false))
      return
    }
    const connection = this.network.connect(this.node, machine)
    let isOver = false
    const end = (isConnected: boolean) => {
      if (isOver) return
      isOver = true
      timer.cancel()
      forget()
      if (isConnected && !this.isClosed) this.connected(connection)
      else connection.close()
      ended(isConnected)
    }
    const timer = this.after(CONNECT_TIMEOUT_MS, "connect timeout", () => end(false))
    const forget = connection.onLost(() => end(false))
    connection.toBroker("connect", 0, () => connection.toNode("connected", 0, () => end(true)))
  }

  private connected(connection: Connection): void {
    this.connection = connection
    connection.onLost(() => {
      this.connection = undefined
      for (const lost of [...this.losses]) lost()
      this.redial()
    })
    for (const back of [...this.returns]) back()
  }

  private redial(): void {
    const wait = this.network.chance.between(RECONNECT_MS, 2 * RECONNECT_MS)
    this.after(wait, "reconnect", () => {
      if (this.isClosed) return
      this.dial((isConnected) => {
        if (!isConnected) this.redial()
      })
    })
  }
}

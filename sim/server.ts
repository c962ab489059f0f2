/**
 * The broker's side of a simulated world: who serves which subject, the streams and who leads them, and what happens
 * to a request between a connection and a stream. Everything in it happens to no node.
 */
import { makeSubjectTable, type SubjectTable } from "../runtime/bus-local.ts"
import type { BusError, Message, Reply } from "../runtime/bus.ts"
import { type Outcome, StorageError, unavailable } from "../storage/outcome.ts"
import type { Connection, Network } from "./network.ts"
import { type Expectation, type NewMessage, SimStream, type StreamOptions } from "./stream.ts"
import type { Chance, Scheduled, SimNode, World } from "./world.ts"

/** Probabilities are of one request to a stream. All of it can change while the world runs. */
export interface BrokerFaults {
  /** Stored, and nobody hears of it. */
  lostAnswer: number
  /** The way to the stream's leader breaks: what is on it is gone, and nobody hears of it. */
  lostRequest: number
  /** The way to the stream's leader breaks: what is on it comes after its sender gave up. */
  late: number
  /** A question finds nobody; a reader is cut off. */
  broken: number
  /** A question is answered by a leader that is none any more; up to `oldMs` after it knew all. */
  oldLeader: number
  oldMs: number
  /** A reader reads from a replica that is behind, by up to `behindMs`. */
  behind: number
  behindMs: number
  /** Keys go by themselves up to so much too late, or too early. */
  expiryMs: number
  /** Time between elections of all streams; 0: there are none but those of `elect`. */
  outageEveryMs: number
  outageMs: number
}

export const calmBroker = (): BrokerFaults => ({
  lostAnswer: 0,
  lostRequest: 0,
  late: 0,
  broken: 0,
  oldLeader: 0,
  oldMs: 10_000,
  behind: 0,
  behindMs: 500,
  expiryMs: 0,
  outageEveryMs: 0,
  outageMs: 0
})

/**
 * A leader that crashed: what reached it is lost, and soon the others say that nobody is there. One that stands still:
 * nobody says anything, and what reached it may be carried out when it goes on.
 */
export type OutageKind = "crash" | "pause"

interface Outage {
  readonly kind: OutageKind
  /** From here on somebody says that nobody is there. */
  readonly noticed: number
  readonly until: number
}

/** A way to a stream that broke: what is sent on it until then is lost, or comes so much later. */
interface Break {
  readonly until: number
  readonly lateMs: number | undefined
}

/** What a request brings: a reply, or why there is none. */
export type Answer = { readonly reply: Reply } | { readonly error: BusError }
/** Nobody waits for an answer of a message that was published. */
export type Respond = ((answer: Answer) => void) | undefined

/** Who serves a subject, as the broker knows it. */
export interface Subscription {
  readonly pattern: string
  readonly queue: string | undefined
  readonly connection: Connection
  /** At the node. */
  readonly receive: (message: Message, respond: Respond) => void
}

export const MARKER_TTL_MS = 60_000
/** Until a connection has another way to a stream. */
const REROUTE_MS = 50

export class BrokerServer {
  readonly world: World
  readonly network: Network
  readonly faults: BrokerFaults
  readonly chance: Chance
  readonly subscriptions: SubjectTable<Subscription> = makeSubjectTable<Subscription>()
  readonly streams = new Map<string, SimStream>()
  private readonly struck: (what: string, node?: SimNode) => void
  private readonly breaks = new Map<Connection, Map<SimStream, Break>>()
  private readonly expiries = new Map<string, Scheduled>()
  private outage: Outage | undefined
  private nextOutage = Infinity

  constructor(network: Network, faults: BrokerFaults, struck: (what: string, node?: SimNode) => void) {
    this.world = network.world
    this.network = network
    this.faults = faults
    this.struck = struck
    this.chance = this.world.chance("broker")
  }

  make(options: StreamOptions): SimStream {
    const stream = new SimStream(options, `${options.name} of seed ${this.world.seed}`)
    this.streams.set(options.name, stream)
    return stream
  }

  subscribe(subscription: Subscription): void {
    this.subscriptions.add(subscription)
    subscription.connection.atEnd(() => this.subscriptions.remove(subscription))
  }

  unsubscribe(subscription: Subscription): void {
    this.subscriptions.remove(subscription)
  }

  /** No stream has a leader for so long. */
  elect(kind: OutageKind, forMs: number): void {
    const { now } = this.world
    this.struck(`election after a ${kind}`)
    const noticed = kind === "crash" ? now + this.chance.between(0, forMs) : Infinity
    this.outage = { kind, noticed, until: now + forMs }
  }

  /** Ends the outage, if there is one, and begins no other. */
  heal(): void {
    Object.assign(this.faults, calmBroker())
    this.outage = undefined
    this.nextOutage = Infinity
    this.breaks.clear()
  }

  /** The outage that there is now. */
  away(): Outage | undefined {
    const { now } = this.world
    const { outageEveryMs, outageMs } = this.faults
    if (outageEveryMs > 0) {
      if (this.nextOutage === Infinity) this.nextOutage = now + this.chance.between(0, 2 * outageEveryMs)
      if (now >= this.nextOutage) {
        this.elect(this.chance.pick(["crash", "pause"]), this.chance.between(0, 2 * outageMs))
        this.nextOutage = this.outage!.until + this.chance.between(0, 2 * outageEveryMs)
      }
    }
    return this.outage !== undefined && now < this.outage.until ? this.outage : undefined
  }

  happens(name: "lostAnswer" | "lostRequest" | "late" | "broken" | "oldLeader" | "behind", node?: SimNode): boolean {
    if (!this.chance.happens(this.faults[name])) return false
    this.struck(name, node)
    return true
  }

  /** Brings a write to the stream's leader; `nobody` if the others say that there is none. */
  reach(connection: Connection, stream: SimStream, arrive: () => void, nobody: () => void): void {
    const broken = this.breakOf(connection, stream)
    if (broken !== undefined) {
      if (broken.lateMs !== undefined)
        this.world.after(broken.lateMs, () => this.lead(connection, arrive, nobody), undefined, 0, "late")
      return
    }
    this.lead(connection, arrive, nobody)
  }

  private lead({ node }: Connection, arrive: () => void, nobody: () => void): void {
    const outage = this.away()
    if (outage === undefined) return arrive()
    if (this.world.now >= outage.noticed) {
      this.struck("unavailable", node)
      return nobody()
    }
    // Kept by a server that stands still and then goes on, or gone with it.
    if (outage.kind === "crash" || this.chance.happens(0.5)) return this.struck("lostInOutage", node)
    this.struck("heldInOutage", node)
    this.world.after(outage.until - this.world.now, arrive, undefined, 0, "held")
  }

  private breakOf(connection: Connection, stream: SimStream): Break | undefined {
    const { now } = this.world
    let ways = this.breaks.get(connection)
    const there = ways?.get(stream)
    if (there !== undefined && now < there.until) return there
    const isLost = this.happens("lostRequest", connection.node)
    if (!isLost && !this.happens("late", connection.node)) return undefined
    if (ways === undefined) {
      this.breaks.set(connection, (ways = new Map()))
      connection.atEnd(() => this.breaks.delete(connection))
    }
    const made: Break = {
      until: now + this.chance.between(0, REROUTE_MS) * this.chance.next(),
      lateMs: isLost ? undefined : this.chance.between(0, 10_000)
    }
    ways.set(stream, made)
    return made
  }

  /** As of when somebody answers a question now; undefined: nobody does. Silence is for ever. */
  answering(connection: Connection): { readonly time: number } | "nobody" | "silence" {
    const outage = this.away()
    const { node } = connection
    if (outage !== undefined) return this.world.now >= outage.noticed ? "nobody" : "silence"
    if (this.happens("broken", node)) return this.chance.happens(0.5) ? "nobody" : "silence"
    const old = this.happens("oldLeader", node) ? this.chance.between(0, this.faults.oldMs) : 0
    return { time: this.world.now - old }
  }

  /** A write, as it reached the broker. */
  write(
    connection: Connection,
    name: string,
    batch: ReadonlyArray<NewMessage>,
    expected: Expectation,
    answer: (outcome: Outcome<number>) => void
  ): void {
    const stream = this.streams.get(name)
    if (stream === undefined) return answer(unavailable(`no stream ${name} listens`))
    const decide = () => {
      const outcome = this.store(stream, batch, expected)
      if (outcome._tag === "Refused") this.struck("conflict", connection.node)
      if (!this.happens("lostAnswer", connection.node)) answer(outcome)
    }
    this.reach(connection, stream, decide, () => answer(unavailable("no stream listens")))
  }

  /** Who leads the stream decides, whoever wrote it. */
  store(stream: SimStream, batch: ReadonlyArray<NewMessage>, expected: Expectation): Outcome<number> {
    const outcome = stream.write(batch, expected, this.world.now)
    if (outcome._tag === "Done") batch.forEach(({ subject, ttlMs }) => this.expireLater(stream, subject, ttlMs))
    return outcome
  }

  /** A question to a stream's leader, as it reached the broker. */
  question<A>(
    connection: Connection,
    name: string,
    answer: (told: A | StorageError) => void,
    tell: (stream: SimStream, time: number) => A
  ): void {
    const who = this.answering(connection)
    if (who === "silence") return
    if (who === "nobody") return answer(new StorageError({ reason: "unavailable", detail: `${name}: nobody answers` }))
    const stream = this.streams.get(name)
    if (stream === undefined) {
      return answer(new StorageError({ reason: "missing", detail: `${name}: there is no such stream` }))
    }
    answer(tell(stream, who.time))
  }

  /** The broker's clock decides, and nobody hears of it but by a watch. */
  private expireLater(stream: SimStream, subject: string, ttlMs: number | undefined): void {
    const key = `${stream.name} ${subject}`
    this.expiries.get(key)?.cancel()
    this.expiries.delete(key)
    if (ttlMs === undefined) return
    const expire = () => {
      // Nothing goes while nobody leads.
      const outage = this.away()
      if (outage !== undefined) return wait(outage.until - this.world.now)
      this.expiries.delete(key)
      const sequence = stream.newestOf(subject)
      const { isMarker } = stream.history[sequence - 1]!
      if (isMarker) return stream.forget(sequence, this.world.now)
      this.struck("expired")
      this.store(stream, [{ subject, data: new Uint8Array(0), isMarker: true, ttlMs: MARKER_TTL_MS }], undefined)
    }
    const wait = (ms: number) => this.expiries.set(key, this.world.after(ms, expire, undefined, 0, "expiry"))
    wait(ttlMs + this.chance.between(-this.faults.expiryMs, this.faults.expiryMs))
  }
}

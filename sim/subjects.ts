/** Who serves which subject, as the servers of a simulated world know it: each learns it in its own time. */
import { makeSubjectTable } from "../runtime/bus-local.ts"
import type { BusError, Message, Reply } from "../runtime/bus.ts"
import type { Connection } from "./network.ts"
import type { Machine, Servers } from "./servers.ts"
import type { SimNode } from "./world.ts"

/** Of a reply that is too large for one message: gets another part of it, as seen at the broker. */
export interface Rest {
  readonly bytes: number
  readonly fetch: (index: number, from: Machine, answer: (part: Uint8Array | undefined) => void) => void
}

/** What a request brings: a reply, or its first part, or why there is none. */
export type Answer =
  { readonly reply: Reply; readonly rest?: Rest | undefined } | { readonly error: BusError; readonly reply?: undefined }

/** Who asked, as a server sees it: from which server the answer goes on. */
export interface Asked {
  readonly from: Machine
  readonly answer: (answer: Answer) => void
}

export interface Subscription {
  readonly pattern: string
  readonly queue: string | undefined
  readonly connection: Connection
  /** At the node. Nobody asked for an answer to a message that was published. */
  readonly receive: (message: Message, asked: Asked | undefined) => void
}

/** Until a server gives up the way to one that it does not reach. */
export const ROUTE_LOST_MS = 10_000

export interface SubjectFaults {
  /** Until the other servers know of a new subscription, at most. */
  spreadMs: number
}

export class Subjects {
  private readonly servers: Servers
  private readonly faults: SubjectFaults
  private readonly struck: (what: string, node?: SimNode) => void
  private readonly table = makeSubjectTable<Subscription>()
  /** From when on the other servers know of it. */
  private readonly spreads = new Map<Subscription, number>()

  constructor(servers: Servers, faults: SubjectFaults, struck: (what: string, node?: SimNode) => void) {
    this.servers = servers
    this.faults = faults
    this.struck = struck
  }

  add(subscription: Subscription): void {
    const { chance, world } = this.servers
    this.table.add(subscription)
    this.spreads.set(subscription, world.now + chance.between(0, this.faults.spreadMs))
    subscription.connection.atEnd(() => this.remove(subscription))
  }

  remove(subscription: Subscription): void {
    this.table.remove(subscription)
    this.spreads.delete(subscription)
  }

  reaches(from: Machine, to: Machine): boolean {
    return this.servers.reaches(from, to)
  }

  /** To whom a message goes that a server got; undefined: it knows of nobody. */
  route(subject: string, from: Machine): ReadonlyArray<Subscription> | undefined {
    const known = this.table.all(subject).filter((one) => this.isKnown(one, from))
    if (known.length === 0) return undefined
    const chosen: Array<Subscription> = []
    const queues = new Map<string, Array<Subscription>>()
    for (const one of known) {
      if (one.queue === undefined) chosen.push(one)
      else queues.set(one.queue, [...(queues.get(one.queue) ?? []), one])
    }
    for (const queue of queues.values()) chosen.push(this.servers.chance.pick(queue))
    return chosen.filter(({ connection }) => {
      if (this.servers.reaches(from, connection.machine)) return true
      this.struck("lost between servers", connection.node)
      return false
    })
  }

  private isKnown(subscription: Subscription, from: Machine): boolean {
    const { machine } = subscription.connection
    const { now } = this.servers.world
    if (machine === from) return true
    if (now < this.spreads.get(subscription)!) return false
    const cutOffSince = Math.max(machine.cutOffSince ?? 0, from.cutOffSince ?? 0)
    return this.servers.reaches(from, machine) || now < cutOffSince + ROUTE_LOST_MS
  }
}

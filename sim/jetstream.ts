/**
 * The streams of a simulated broker: who leads each of them, and what becomes of a request between a connection and
 * the leader. What a stream said was stored stays stored, unless the broker loses power; everything else may be lost,
 * late, repeated by nobody, or told by a leader that is none any more.
 *
 * 1. Writes are decided in the order in which they reach the leader, a moment later. If the leader goes in between,
 *    chance says whether the others have it; nobody hears of it either way.
 * 2. A leader that is gone is replaced after 4 to 9 s, by whoever is with the majority. One that only stands still for
 *    less than that goes on, with what reached it meanwhile.
 * 3. A leader that was cut off answers questions with what it knew, for 10 s; what is written to it is lost.
 */
import { type Outcome, refused, StorageError, unavailable } from "../storage/outcome.ts"
import type { Connection } from "./network.ts"
import type { Machine, Servers, Turn } from "./servers.ts"
import { type Expectation, type NewMessage, SimStream, type StreamOptions } from "./stream.ts"
import { ROUTE_LOST_MS } from "./subjects.ts"
import type { Chance, Scheduled, SimNode, World } from "./world.ts"

/** Probabilities are of one request to a stream. All of it can change while the world runs. */
export interface StreamFaults {
  /** Stored, and nobody hears of it. */
  lostAnswer: number
  /** The way to the stream's leader breaks: what is on it is gone, and nobody hears of it. */
  lostRequest: number
  /** The way to the stream's leader breaks: what is on it comes seconds later, mostly after its sender gave up. */
  late: number
  /** A question finds nobody; a reader is cut off. */
  broken: number
  /** Leaders change without a break, and a question goes to the former, who knows nothing new for up to `oldMs`. */
  oldLeader: number
  oldMs: number
  /** A reader reads from a replica that is behind, by up to `behindMs`. */
  behind: number
  behindMs: number
  /** Keys go by themselves up to so much too late, or too early. */
  expiryMs: number
  /** Most bytes of each channel, if that is less than what it was made with. */
  channelBytesMax: number
  /** Time between leaders that go by themselves; 0: they do not. */
  electionEveryMs: number
  electionMs: number
}

export const calmStreams = (): StreamFaults => ({
  lostAnswer: 0,
  lostRequest: 0,
  late: 0,
  broken: 0,
  oldLeader: 0,
  oldMs: 10_000,
  behind: 0,
  behindMs: 500,
  expiryMs: 0,
  channelBytesMax: Infinity,
  electionEveryMs: 0,
  electionMs: 0
})

export const MARKER_TTL_MS = 60_000

const ELECTION_MS: readonly [number, number] = [4_000, 9_000]
/** A leader that hears of nobody leads no longer. */
const QUORUM_LOST_MS = 10_000
/** Until it is stored: on one disk, on the disks of most. */
const STORE_MS: readonly [number, number] = [0.1, 0.5]
const COMMIT_MS: readonly [number, number] = [0.3, 2]
/** Until a connection has another way to a stream, if what is on the old one is lost, and if it is only late. */
const REROUTE_MS = 50
const DETOUR_MS = 5_000
/** Where several are on the way at once it is so many times as often that they are late. */
const CROWDED = 10
/** Mostly it comes soon after its sender gave up: just behind the fence that is to shut it out. */
const LATE_MS: readonly [number, number] = [4_500, 15_000]
/** Before the broker looks again whether a key can go. */
const EXPIRY_RETRY_MS = 500

/** Who leads a stream. */
interface Lead {
  readonly stream: SimStream
  leader: Machine | undefined
  /** When somebody else will lead, unless the leader is back before. */
  electedAt: number
  /** From when on somebody says that nobody is there. */
  noticedAt: number
  /** Who led it before, what it knows, and until when it takes itself for the leader. */
  former: { readonly machine: Machine; readonly knows: number; readonly until: number } | undefined
  /** Decided and not stored yet, in order. */
  readonly pending: Array<Proposal>
}

interface Proposal {
  readonly leader: Machine
  readonly batch: ReadonlyArray<NewMessage>
  readonly expected: Expectation
  readonly told: (outcome: Outcome<number>) => void
}

/** A way to a stream that broke: what is sent on it until then is lost, or comes so much later. */
interface Break {
  readonly until: number
  readonly lateMs: number | undefined
}

export class JetStream {
  readonly world: World
  readonly servers: Servers
  readonly faults: StreamFaults
  readonly chance: Chance
  private readonly struck: (what: string, node?: SimNode) => void
  private readonly leads = new Map<string, Lead>()
  /** Nodes that no stream hears, and that hear of none. */
  private readonly away = new Set<SimNode>()
  private readonly breaks = new Map<Connection, Map<Lead, Break>>()
  private readonly expiries = new Map<string, Scheduled>()
  private nextElection = Infinity
  private made = 0

  constructor(servers: Servers, faults: StreamFaults, struck: (what: string, node?: SimNode) => void) {
    this.world = servers.world
    this.servers = servers
    this.faults = faults
    this.struck = struck
    this.chance = this.world.chance("streams")
    servers.onTurn((machine, turn) => {
      for (const lead of this.leads.values()) this.turn(lead, machine, turn)
    })
  }

  /** False if there is one of that name. */
  make(options: StreamOptions): boolean {
    if (this.leads.has(options.name)) return false
    const stream = new SimStream(options, `${options.name} of seed ${this.world.seed}, made ${++this.made}`)
    this.leads.set(options.name, {
      stream,
      leader: this.chance.pick(this.servers.all),
      electedAt: Infinity,
      noticedAt: Infinity,
      former: undefined,
      pending: []
    })
    return true
  }

  /** The stream is gone, with all that was in it; it can be made again, as another. */
  lose(name: string): void {
    this.struck("lost stream")
    this.leads.get(name)?.stream.end()
    this.leads.delete(name)
  }

  find(name: string): SimStream | undefined {
    return this.leads.get(name)?.stream
  }

  leaderOf(name: string): Machine | undefined {
    const lead = this.leads.get(name)
    return lead === undefined ? undefined : this.leading(lead)
  }

  /** Nobody takes itself for a leader wrongly, and where there is none there soon is. */
  heal(): void {
    for (const node of this.away) this.mend(node)
    this.nextElection = Infinity
    this.breaks.clear()
    for (const lead of this.leads.values()) {
      lead.former = undefined
      if (lead.leader === undefined) lead.electedAt = this.world.now
    }
  }

  /** What the node asks of a stream is lost, and what it reads stops; what else it sends goes through. */
  cut(node: SimNode): void {
    this.away.add(node)
  }

  mend(node: SimNode): void {
    this.away.delete(node)
    for (const { stream } of this.leads.values()) for (const wake of [...stream.followers]) wake()
  }

  isCut(node: SimNode): boolean {
    return this.away.has(node)
  }

  /** All servers lose power for so long, and each channel up to `most` of the records that it said were stored. */
  losePower(forMs: number, most: number): void {
    for (const machine of this.servers.all) this.servers.crash(machine, forMs)
    let lost = 0
    for (const { pending, stream } of this.leads.values()) {
      pending.length = 0
      // Little as often as much: past its checkpoint a log has other ways to tell.
      if (!stream.isBucket) lost += stream.lose(Math.floor((most + 1) ** this.chance.next()) - 1)
    }
    if (lost > 0) this.struck("power loss")
  }

  /** A bit of what the channels have is another one, for good; of much rather than of little. */
  rot(): void {
    const channels = [...this.leads.values()].map(({ stream }) => stream).filter(({ isBucket }) => !isBucket)
    let bytes = this.chance.below(channels.reduce((total, stream) => total + stream.bytes, 0) || 1)
    for (const stream of channels) {
      if (bytes < stream.bytes) {
        this.struck("rot")
        return stream.rot(this.chance)
      }
      bytes -= stream.bytes
    }
  }

  /** The leaders of all streams step down, and there is none for so long. */
  elect(forMs: number): void {
    this.struck("election")
    for (const lead of this.leads.values()) this.depose(lead, forMs)
  }

  // ---- who leads

  private leading(lead: Lead): Machine | undefined {
    this.disturb()
    const { now } = this.world
    if (now >= lead.electedAt) {
      const able = this.servers.able()
      if (able.length === 0) return undefined
      if (lead.leader !== undefined) this.replace(lead, lead.leader)
      lead.leader = this.chance.pick(able)
      lead.electedAt = Infinity
      lead.noticedAt = Infinity
    }
    return lead.leader
  }

  /** Whether somebody leads who can have something stored by most. */
  private isLed(lead: Lead): boolean {
    return this.leading(lead)?.isAble === true && this.servers.able().length > 0
  }

  private depose(lead: Lead, forMs: number): void {
    const { now } = this.world
    if (lead.leader !== undefined) this.replace(lead, lead.leader)
    lead.leader = undefined
    this.electAt(lead, now + forMs)
    lead.noticedAt = now + this.chance.between(0, forMs)
  }

  private electAt(lead: Lead, time: number): void {
    lead.electedAt = time
    this.world.after(time - this.world.now, () => this.leading(lead), undefined, 0, "elected")
  }

  private replace(lead: Lead, machine: Machine): void {
    const { now } = this.world
    const knows = machine.cutOffSince ?? now
    lead.former = { machine, knows, until: knows + (machine.isPaused ? Infinity : QUORUM_LOST_MS) }
  }

  /** Whoever was deposed, does not know it, and can speak. */
  private formerOf(lead: Lead): Lead["former"] {
    const { now } = this.world
    if (this.faults.oldLeader > 0 && this.servers.all.length > 1 && !(now < (lead.former?.until ?? 0))) {
      const machine = this.chance.pick(this.servers.all)
      lead.former = { machine, knows: now, until: now + this.chance.between(0, this.faults.oldMs) }
    }
    const { former } = lead
    return former !== undefined && now < former.until && former.machine.isUp && !former.machine.isPaused
      ? former
      : undefined
  }

  private turn(lead: Lead, machine: Machine, turn: Turn): void {
    const { now } = this.world
    const isAlone = this.servers.all.length === 1
    const electedAt = now + (isAlone ? 0 : this.chance.between(...ELECTION_MS))
    if (turn === "crash") {
      if (lead.leader === machine) this.depose(lead, electedAt - now)
      if (lead.former?.machine === machine) lead.former = undefined
    } else if (turn === "pause" || turn === "cut off") {
      if (lead.leader === machine && !isAlone) this.electAt(lead, Math.min(lead.electedAt, electedAt))
    } else if (turn === "continue" || turn === "join" || turn === "restart") {
      const isDue = now >= lead.electedAt
      // Nobody was elected meanwhile: it still leads, or the election begins now that there are enough.
      if (lead.leader === machine && !isDue && machine.isAble) lead.electedAt = Infinity
      else if (isDue && this.servers.able().length > 0) this.electAt(lead, electedAt)
      // It learns soon that it leads no longer.
      const { former } = lead
      if (former?.machine === machine) {
        lead.former = { ...former, until: Math.min(former.until, now + this.chance.between(0, 1_000)) }
      }
    }
  }

  /** Leaders that go by themselves, at times that only chance knows. */
  private disturb(): void {
    const { electionEveryMs, electionMs } = this.faults
    if (electionEveryMs === 0) return
    const { now } = this.world
    if (this.nextElection === Infinity) this.nextElection = now + this.chance.between(0, 2 * electionEveryMs)
    if (now < this.nextElection) return
    const forMs = this.chance.between(0, 2 * electionMs)
    this.nextElection = now + forMs + this.chance.between(0, 2 * electionEveryMs)
    this.elect(forMs)
  }

  // ---- what becomes of a request

  happens(name: "lostAnswer" | "lostRequest" | "late" | "broken" | "behind", node?: SimNode, times = 1): boolean {
    if (!this.chance.happens(times * this.faults[name])) return false
    this.struck(name, node)
    return true
  }

  /** A write, as it reached the server of its connection. */
  write(
    connection: Connection,
    name: string,
    batch: ReadonlyArray<NewMessage>,
    expected: Expectation,
    answer: (outcome: Outcome<number>) => void
  ): void {
    const nobody = () => answer(unavailable(`no stream ${name} listens`))
    const lead = this.leads.get(name)
    if (lead === undefined) return nobody()
    const told = (outcome: Outcome<number>) => {
      if (outcome._tag === "Refused") this.struck(outcome.reason, connection.node)
      if (this.happens("lostAnswer", connection.node)) return
      answer(outcome)
    }
    this.reach(
      connection,
      lead,
      (leader) => this.propose(lead, leader, { leader, batch, expected, told }, connection),
      nobody
    )
  }

  /** Something else that the leader carries out, as it reached the server of its connection. */
  order(connection: Connection, name: string, carryOut: (stream: SimStream) => void, nobody: () => void): void {
    const lead = this.leads.get(name)
    if (lead === undefined) return nobody()
    this.reach(connection, lead, () => carryOut(lead.stream), nobody)
  }

  /** A question to a stream's leader, as it reached the server of its connection. */
  question<A>(
    connection: Connection,
    name: string,
    answer: (told: A | StorageError) => void,
    tell: (stream: SimStream, time: number) => A
  ): void {
    const { machine, node } = connection
    const { now } = this.world
    const error = (reason: StorageError["reason"], detail: string) =>
      answer(new StorageError({ reason, detail: `${name}: ${detail}` }))
    if (this.isLost(node)) return
    const lead = this.leads.get(name)
    if (lead === undefined) return error("missing", "there is no such stream")
    const { stream } = lead
    if (this.happens("broken", node))
      return this.chance.happens(0.5) ? error("unavailable", "nobody answers") : undefined
    const leader = this.leading(lead)
    const former = this.formerOf(lead)
    if (former !== undefined && this.servers.reaches(machine, former.machine)) {
      const isOnlyOne = leader === undefined || !this.servers.reaches(machine, leader)
      if (isOnlyOne || this.chance.happens(this.faults.oldLeader)) {
        this.struck("oldLeader", node)
        return answer(tell(stream, former.knows))
      }
    }
    if (leader === undefined) {
      if (now >= lead.noticedAt) error("unavailable", "nobody leads it")
      return
    }
    if (!this.servers.reaches(machine, leader)) {
      if (this.isGivenUp(machine, leader)) error("unavailable", "nobody answers")
      return
    }
    if (leader.isPaused) return
    if (leader.cutOffSince !== undefined) {
      if (now >= leader.cutOffSince + QUORUM_LOST_MS) return
      this.struck("oldLeader", node)
      return answer(tell(stream, leader.cutOffSince))
    }
    answer(tell(stream, now))
  }

  /** Brings a request to the stream's leader; `nobody` if somebody says that there is none. */
  private reach(connection: Connection, lead: Lead, arrive: (leader: Machine) => void, nobody: () => void): void {
    if (this.isLost(connection.node)) return
    const broken = this.breakOf(connection, lead)
    const go = () => this.lead(connection, lead, arrive, nobody)
    if (broken === undefined) go()
    else if (broken.lateMs !== undefined) this.world.after(broken.lateMs, go, undefined, 0, "late")
  }

  private lead({ machine, node }: Connection, lead: Lead, arrive: (leader: Machine) => void, nobody: () => void): void {
    const leader = this.leading(lead)
    if (leader === undefined) {
      if (this.world.now < lead.noticedAt) return this.struck("lostInElection", node)
      this.struck("unavailable", node)
      return nobody()
    }
    if (!this.servers.reaches(machine, leader)) {
      if (this.isGivenUp(machine, leader)) return nobody()
      return this.struck("lost between servers", node)
    }
    if (!leader.isPaused) return arrive(leader)
    // In its socket: if it goes on before another was elected, it goes on with this.
    leader.held.push(() => {
      if (this.leading(lead) !== leader) return this.struck("lostInElection", node)
      this.struck("heldInElection", node)
      arrive(leader)
    })
  }

  private isLost(node: SimNode): boolean {
    if (this.isCut(node)) this.struck("stream cut", node)
    return this.isCut(node)
  }

  private isGivenUp(a: Machine, b: Machine): boolean {
    return this.world.now >= Math.max(a.cutOffSince ?? 0, b.cutOffSince ?? 0) + ROUTE_LOST_MS
  }

  private breakOf(connection: Connection, lead: Lead): Break | undefined {
    const { now } = this.world
    let ways = this.breaks.get(connection)
    const there = ways?.get(lead)
    if (there !== undefined && now < there.until) return there
    const isLost = this.happens("lostRequest", connection.node)
    const times = lead.pending.length > 0 ? CROWDED : 1
    if (!isLost && !this.happens("late", connection.node, times)) return undefined
    if (ways === undefined) {
      this.breaks.set(connection, (ways = new Map()))
      connection.atEnd(() => this.breaks.delete(connection))
    }
    const made: Break = {
      until: now + (isLost ? REROUTE_MS : DETOUR_MS) * this.chance.next() ** 2,
      lateMs: isLost ? undefined : LATE_MS[0] + (LATE_MS[1] - LATE_MS[0]) * this.chance.next() ** 2
    }
    ways.set(lead, made)
    return made
  }

  // ---- storing

  private propose(lead: Lead, leader: Machine, proposal: Proposal, { machine, node }: Connection): void {
    const { expected } = proposal
    // It cannot have it stored by most, and does not know.
    if (leader.cutOffSince !== undefined) return this.struck("lost between servers", node)
    const isReplicated = this.servers.all.length > 1
    const isInFlight = (subject: string) =>
      lead.pending.some(({ batch }) => batch.some((message) => message.subject === subject))
    // A replicated stream judges one write to a subject at a time.
    if (
      isReplicated &&
      expected !== undefined &&
      "lastOfSubject" in expected &&
      isInFlight(proposal.batch[0]!.subject)
    ) {
      return proposal.told(refused("conflict", "wrong last sequence (10164)"))
    }
    // The others are away: it waits for them, and its writer does not.
    if (this.servers.able().length === 0) return this.struck("lostInElection", node)
    const told = (outcome: Outcome<number>) => {
      if (this.servers.reaches(leader, machine)) proposal.told(outcome)
    }
    lead.pending.push({ ...proposal, told })
    const decide = () => {
      const next = lead.pending.shift()
      if (next === undefined) return
      if (lead.leader === next.leader && next.leader.isAble) {
        return next.told(this.store(lead.stream, next.batch, next.expected))
      }
      this.struck("leaderWent", node)
      if (this.chance.happens(0.5)) this.store(lead.stream, next.batch, next.expected)
    }
    this.world.after(this.chance.between(...(isReplicated ? COMMIT_MS : STORE_MS)), decide, undefined, 0, "store")
  }

  private store(stream: SimStream, batch: ReadonlyArray<NewMessage>, expected: Expectation): Outcome<number> {
    const outcome = stream.write(batch, expected, this.world.now)
    if (outcome._tag === "Done") for (const { subject, ttlMs } of batch) this.expireLater(stream, subject, ttlMs)
    return outcome
  }

  /** The broker's clock decides, and nobody hears of it but by a watch. */
  private expireLater(stream: SimStream, subject: string, ttlMs: number | undefined): void {
    const key = `${stream.name} ${subject}`
    this.expiries.get(key)?.cancel()
    this.expiries.delete(key)
    if (ttlMs === undefined) return
    const expire = () => {
      // Nothing goes while nobody leads.
      if (!this.isLed(this.leads.get(stream.name)!)) return wait(EXPIRY_RETRY_MS)
      this.expiries.delete(key)
      const sequence = stream.newestOf(subject)
      const newest = stream.history[sequence - 1]
      if (newest === undefined) return
      if (newest.isMarker) return stream.forget(sequence, this.world.now)
      this.struck("expired")
      this.store(stream, [{ subject, data: new Uint8Array(0), isMarker: true, ttlMs: MARKER_TTL_MS }], undefined)
    }
    const wait = (ms: number) => this.expiries.set(key, this.world.after(ms, expire, undefined, 0, "expiry"))
    wait(ttlMs + this.chance.between(-this.faults.expiryMs, this.faults.expiryMs))
  }
}

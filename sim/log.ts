/**
 * The log of a simulated world: every channel is one linearizable sequence of records, as bytes, that decides
 * expectations in the order in which requests reach it. It never loses what it said was stored; everything else
 * that a real log may do to its writer it does, drawn by the seed: it answers late or not at all, stores what it
 * did not answer, stores what its writer has given up, and is away for a while.
 */
import { Effect, Option, Stream } from "effect"
import { limits } from "../protocols/limits.ts"
import { Log, type LogEntry, type LogState } from "../storage/log.ts"
import { ambiguous, done, type Outcome, refused, StorageError, unavailable } from "../storage/outcome.ts"
import { ask, type Chance, here, Reply, type SimNode, type World } from "./world.ts"

/** Probabilities are of one request. All of it can change while the world runs. */
export interface LogFaults {
  /** Of one way, at most; requests of a node keep their order, answers do not. */
  latencyMs: number
  /** Stored, and nobody hears of it. */
  lostAnswer: number
  /** Never comes, and nobody hears of it. */
  lostRequest: number
  /** Comes after its sender gave up. */
  late: number
  /** A read ends in the middle; a question finds nobody. */
  broken: number
  /** The state is told by a leader that is not one any more. */
  oldLeader: number
  /** Time between elections; 0: there are none. */
  outageEveryMs: number
  outageMs: number
}

export const noFaults = (): LogFaults => ({
  latencyMs: 1,
  lostAnswer: 0,
  lostRequest: 0,
  late: 0,
  broken: 0,
  oldLeader: 0,
  outageEveryMs: 0,
  outageMs: 0
})

/** Each kind of fault is there or not, and if so, often or seldom: what is always there hides what it suppresses. */
export const drawFaults = (chance: Chance): LogFaults => {
  const rate = (most: number) => (chance.happens(0.5) ? most * 10 ** -chance.between(0, 2) : 0)
  return {
    latencyMs: chance.pick([0.5, 5, 50]),
    lostAnswer: rate(0.1),
    lostRequest: rate(0.1),
    late: rate(0.1),
    broken: rate(0.3),
    oldLeader: rate(0.3),
    outageEveryMs: chance.happens(0.5) ? chance.between(500, 20_000) : 0,
    outageMs: chance.between(100, 9_000)
  }
}

interface Channel {
  readonly incarnation: string
  readonly bytesMax: number
  first: number
  bytes: number
  /** By sequence - 1; undefined where it was purged. */
  readonly entries: Array<Uint8Array | undefined>
  /** Last sequences that it had once. */
  readonly lasts: Array<number>
  readonly followers: Set<() => void>
}

export interface SimLog {
  readonly log: Log["Service"]
  readonly faults: LogFaults
  /** How often each thing happened: what never did was not tested. */
  readonly counts: { [name: string]: number }
  /** Ends all faults; what is on its way still comes. */
  readonly heal: () => void
  /** What is there, as nobody in the world can see it. */
  readonly entries: (channel: number) => ReadonlyArray<LogEntry>
}

const unavailableError = (detail: string) => new StorageError({ reason: "unavailable", detail })

export const simLog = (world: World, faults: LogFaults = noFaults(), bytesMax = limits.channelBytesMax): SimLog => {
  const chance = world.chance("log")
  const channels = new Map<number, Channel>()
  const counts: { [name: string]: number } = {}
  const count = (name: string) => {
    counts[name] = (counts[name] ?? 0) + 1
    return true
  }
  const fault = (name: "lostAnswer" | "lostRequest" | "late" | "broken" | "oldLeader") =>
    chance.happens(faults[name]) && count(name)
  const latency = () => chance.between(0.05, faults.latencyMs)

  // Elections begin at times that only chance knows; until `back` nothing is decided or told.
  let back = 0
  let away = Infinity
  const isAway = () => {
    if (faults.outageEveryMs === 0) return false
    if (away === Infinity) away = world.now + chance.between(0, 2 * faults.outageEveryMs)
    while (world.now >= away) {
      back = away + chance.between(0, 2 * faults.outageMs)
      away = back + chance.between(0, 2 * faults.outageEveryMs)
    }
    return world.now < back
  }

  /** One connection of each life of a node: what it sends arrives in that order. */
  const lanes = new Map<SimNode, { life: number; at: number }>()
  const arrival = (node: SimNode) => {
    let lane = lanes.get(node)
    if (lane === undefined || lane.life !== node.life) lanes.set(node, (lane = { life: node.life, at: 0 }))
    // Never two at one time: what is ready together is drawn in any order.
    lane.at = Math.max(lane.at + 0.001, world.now + latency())
    return lane.at - world.now
  }
  /** The last sequence that each node knows of: it would not believe a lower one. */
  const known = new Map<SimNode, number>()
  const learn = (node: SimNode, sequence: number) => known.set(node, Math.max(known.get(node) ?? 0, sequence))

  const decide = (
    number: number,
    batch: ReadonlyArray<Uint8Array>,
    expectedLast: number | undefined
  ): Outcome<number> => {
    const channel = channels.get(number)
    if (channel === undefined) return unavailable(`there is no log of channel ${number}`)
    const { entries } = channel
    if (batch.length === 0) return refused("invalid", "there is nothing to write")
    if (batch.some((data) => data.length > limits.recordBytesMax)) return refused("invalid", "a record is too large")
    if (expectedLast !== undefined && expectedLast !== entries.length) {
      count("conflict")
      return refused("conflict", `wrong last sequence: ${entries.length}`)
    }
    const bytes = batch.reduce((total, data) => total + data.length, 0)
    if (channel.bytes + bytes > channel.bytesMax) return refused("full", `channel ${number} is full`)
    for (const data of batch) entries.push(data)
    channel.bytes += bytes
    channel.lasts.push(entries.length)
    for (const wake of channel.followers) wake()
    return done(entries.length)
  }

  const send = (number: number, batch: ReadonlyArray<Uint8Array>, expectedLast: number | undefined) =>
    here((node) => {
      const reply = new Reply<Outcome<number>>(node)
      const copies = batch.map((data) => data.slice())
      if (isAway() && chance.happens(0.3) && count("unavailable")) {
        reply.give(unavailable("an election is going on"))
        return Effect.succeed(reply)
      }
      reply.give(ambiguous("no answer in time"), limits.appendTimeoutMs)
      const arrive = () => {
        if (isAway()) {
          // Kept by a server that stands still and then goes on, or gone with it.
          if (chance.happens(0.5) && count("lostInOutage")) return
          count("heldInOutage")
          world.after(back - world.now + latency(), arrive)
          return
        }
        const outcome = decide(number, copies, expectedLast)
        if (fault("lostAnswer")) {
          reply.give(ambiguous("the connection was lost"), chance.between(0, limits.appendTimeoutMs))
          return
        }
        const delay = latency()
        reply.give(outcome, delay)
        if (outcome._tag === "Done") world.after(delay, () => learn(node, outcome.value), node)
      }
      if (fault("lostRequest")) {
        reply.give(ambiguous("the connection was lost"), chance.between(0, limits.appendTimeoutMs))
      } else if (fault("late")) {
        const gaveUp = chance.between(0, limits.appendTimeoutMs)
        reply.give(ambiguous("the connection was lost"), gaveUp)
        world.after(gaveUp + chance.between(0, 1_000) * chance.next(), arrive)
      } else world.after(arrival(node), arrive)
      return Effect.succeed(reply)
    })

  /** Asks what is there now, if somebody answers. */
  const question = <A>(number: number, answer: (channel: Channel, node: SimNode) => A) =>
    Effect.flatMap(
      ask<A | StorageError>((node, reply) =>
        world.after(arrival(node), () => {
          const channel = channels.get(number)
          const delay = latency()
          if (isAway() || fault("broken")) reply.give(unavailableError("nobody answered"), delay)
          else if (channel === undefined) {
            reply.give(new StorageError({ reason: "missing", detail: `no log of channel ${number}` }), delay)
          } else reply.give(answer(channel, node), delay)
        })
      ),
      (answer) => (answer instanceof StorageError ? Effect.fail(answer) : Effect.succeed(answer))
    )

  const stateOf = ({ bytes, bytesMax, entries, first, incarnation, lasts }: Channel, node: SimNode): LogState => {
    let last = entries.length
    if (fault("oldLeader")) {
      const told = lasts[Math.max(0, lasts.length - 1 - chance.below(4))] ?? 0
      last = Math.max(told, known.get(node) ?? 0, first)
    }
    learn(node, last)
    return { first: Math.min(first, last + 1), last: Math.min(last, entries.length), bytes, bytesMax, incarnation }
  }

  const page = (number: number, from: number, to: number) =>
    question(number, ({ entries, first }, node) => {
      if (first > from) return unavailableError(`channel ${number} was purged while it was read`)
      const end = Math.min(to, entries.length, from + chance.below(100))
      learn(node, end)
      return entries
        .slice(from - 1, end)
        .map((data, index): LogEntry => ({ sequence: from + index, data: data!.slice() }))
    })
  const pages = (number: number, from: number, to: number) =>
    Stream.paginate(
      from,
      Effect.fnUntraced(function* (from: number) {
        const entries = yield* page(number, from, to)
        if (entries instanceof StorageError) return yield* entries
        const next = from + entries.length
        return [entries, next > to ? Option.none<number>() : Option.some(next)] as const
      })
    )

  const log = Log.of({
    recordBytesMax: limits.recordBytesMax,
    create: Effect.fnUntraced(function* (number: number) {
      if (channels.has(number)) {
        return yield* new StorageError({ reason: "unfit", detail: `there is a log of channel ${number} already` })
      }
      channels.set(number, {
        incarnation: `of seed ${world.seed}, ${number}`,
        bytesMax,
        first: 1,
        bytes: 0,
        entries: [],
        lasts: [0],
        followers: new Set()
      })
    }),
    open: (number) => question(number, stateOf),
    append: (number, data, expectedLast) => Effect.map(send(number, [data], expectedLast), ({ wait }) => wait),
    appendBatch: (number, batch, expectedLast) => Effect.flatMap(send(number, batch, expectedLast), ({ wait }) => wait),
    read: (number, from, to) =>
      Stream.unwrap(
        Effect.map(
          question(number, ({ entries, first }) => ({
            start: Math.max(from, first),
            end: Math.min(to, entries.length)
          })),
          ({ end, start }) => (start > end ? Stream.empty : pages(number, start, end))
        )
      ),
    follow: (number, from) =>
      Stream.unwrap(
        Effect.map(
          question(number, ({ first }) => Math.max(from, first)),
          (start) =>
            Stream.paginate(
              start,
              Effect.fnUntraced(function* (from: number) {
                yield* ask<void>((_, reply) => {
                  const channel = channels.get(number)!
                  const look = () => {
                    if (channel.entries.length < from) return
                    channel.followers.delete(look)
                    reply.give(undefined, latency())
                  }
                  channel.followers.add(look)
                  look()
                })
                const entries = yield* page(number, from, Infinity)
                if (entries instanceof StorageError) return yield* entries
                return [entries, Option.some(from + entries.length)] as const
              })
            )
        )
      ),
    purge: (number, before) =>
      question(number, (channel): Outcome<void> => {
        const first = Math.min(before, channel.entries.length)
        for (; channel.first < first; channel.first++) {
          channel.bytes -= channel.entries[channel.first - 1]!.length
          channel.entries[channel.first - 1] = undefined
        }
        if (fault("lostAnswer")) return ambiguous("the connection was lost")
        return done(undefined)
      }).pipe(Effect.catch((error) => Effect.succeed<Outcome<void>>(unavailable(error.detail))))
  })

  return {
    log,
    faults,
    counts,
    heal: () => {
      Object.assign(faults, noFaults())
      away = Infinity
      back = Math.min(back, world.now)
    },
    entries: (number) =>
      (channels.get(number)?.entries ?? []).flatMap((data, index) =>
        data === undefined ? [] : [{ sequence: index + 1, data }]
      )
  }
}

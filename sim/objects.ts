/**
 * The object store of a simulated world: one, for all nodes, that is consistent as S3 is, in what it answers and in
 * what it does not. An object appears whole or not at all, and a name that is taken stays as it is; beyond that it is
 * slow, overloaded, away, or silent about what it did, and what is read from it may not be what was written.
 *
 * Who asks is the node whose code is running. What a node had sent when it crashed is carried out or cut off.
 */
import { Effect, Option, Stream } from "effect"
import { compareKeys } from "../protocols/keys.ts"
import { limits } from "../protocols/limits.ts"
import { utf8 } from "../protocols/wire.ts"
import { joined } from "../storage/framed-file.ts"
import { type ObjectInfo, Objects } from "../storage/objects.ts"
import { ambiguous, done, type Outcome, refused, StorageError, unavailable } from "../storage/outcome.ts"
import type { Ledger } from "./ledger.ts"
import { ask, type Chance, type Reply, type SimNode, type World } from "./world.ts"

/** Probabilities are of one request. All of it can change while the world runs. */
export interface ObjectFaults {
  /** Of one way, at most. */
  latencyMs: number
  bytesPerMs: number
  /** The store says so (503 Slow Down) and does nothing. */
  overloaded: number
  /** It answers 500; a write was carried out, or not. */
  error: number
  /** No answer in time; a write was carried out, or comes late, or never. */
  timeout: number
  /** It finds nobody: no connection, so nothing was done. */
  away: number
  /** The answer takes up to `limits.objectTimeoutMs`, and sometimes longer. */
  slow: number
  /** A read ends early, and says that this is all. */
  truncated: number
  /** A read has one bit that is not what was written. */
  flipped: number
  /** An object that is seconds old is not found yet: S3 is not so, but others that speak it are. */
  unseen: number
}

export const noObjectFaults = (): ObjectFaults => ({
  latencyMs: 5,
  bytesPerMs: 100_000,
  overloaded: 0,
  error: 0,
  timeout: 0,
  away: 0,
  slow: 0,
  truncated: 0,
  flipped: 0,
  unseen: 0
})

/** Each kind is there or not, and if so, often or seldom. */
export const drawObjectFaults = (chance: Chance): ObjectFaults => {
  const rate = (most: number) => (chance.happens(0.5) ? most * 10 ** -chance.between(0, 2) : 0)
  return {
    latencyMs: chance.pick([2, 20, 200]),
    bytesPerMs: chance.pick([1_000, 100_000]),
    overloaded: rate(0.3),
    error: rate(0.3),
    timeout: rate(0.1),
    away: rate(0.3),
    slow: rate(0.1),
    truncated: rate(0.2),
    flipped: rate(0.2),
    unseen: rate(0.2)
  }
}

export interface SimObjects {
  /** The port, for every node. */
  readonly objects: Objects["Service"]
  readonly faults: ObjectFaults
  /** How often each thing happened: what never did was not tested. */
  readonly counts: { [name: string]: number }
  /** Nodes that do not reach the store. */
  readonly cut: Set<SimNode>
  /** Ends all faults; what is on its way still comes. */
  readonly heal: () => void
  /** What is there, as nobody in the world can see it. Not to be written to. */
  readonly held: ReadonlyMap<string, Uint8Array>
  /** Flips a bit of an object where it lies, for good. */
  readonly rot: (key: string) => void
}

/** Until everybody finds an object. */
const FRESH_MS = 10_000

/** As in S3. */
const KEY_BYTES_MAX = 1024

const unanswered = (detail: string) => new StorageError({ reason: "unavailable", detail })

const isKey = (key: string): boolean => {
  const bytes = utf8.encode(key)
  // A lone surrogate has no UTF-8.
  return bytes.length > 0 && bytes.length <= KEY_BYTES_MAX && utf8.decode(bytes) === key
}

export const simObjects = (world: World, ledger: Ledger, faults: ObjectFaults = noObjectFaults()): SimObjects => {
  const chance = world.chance("objects")
  const held = new Map<string, Uint8Array>()
  const putAt = new Map<string, number>()
  /** How many writes to each name are on their way. */
  const coming = new Map<string, number>()
  const come = (key: string, by: 1 | -1) => coming.set(key, (coming.get(key) ?? 0) + by)
  const counts: { [name: string]: number } = {}
  const cut = new Set<SimNode>()

  const count = (name: string, node: SimNode) => {
    counts[name] = (counts[name] ?? 0) + 1
    world.struck(`objects.${name}`, node)
    return true
  }
  type Kind = Exclude<keyof ObjectFaults, "latencyMs" | "bytesPerMs">
  const fault = (name: Kind, node: SimNode) => chance.happens(faults[name]) && count(name, node)
  const latency = (bytes = 0) => chance.between(0.2, faults.latencyMs) + bytes / faults.bytesPerMs

  /** Whether the request reaches the store at all. */
  const reaches = (node: SimNode) => {
    if (cut.has(node)) return !count("cut", node)
    return !fault("away", node)
  }

  /** A write: `carryOut` happens once or never, and what is said of it need not be what happened. */
  const write = (kind: "put" | "remove", key: string, bytes: number, carryOut: (node: SimNode) => Outcome<void>) =>
    ask<Outcome<void>>((node, reply) => {
      const { life } = node
      const what = `object ${kind} ${key}`
      reply.give(ambiguous("the object store did not answer in time"), limits.objectTimeoutMs, `${what} late`)
      if (!reaches(node)) return reply.give(unavailable("ECONNREFUSED"), latency())
      const overloaded = fault("overloaded", node)
      const error = fault("error", node)
      const timeout = fault("timeout", node)
      const slow = fault("slow", node)
      const arrive = () => {
        come(key, -1)
        if (overloaded) return reply.give(unavailable("SlowDown 503"), latency())
        if (error && chance.happens(0.5)) return reply.give(ambiguous("InternalError 500"), latency())
        // What its sender had not sent to the end when it died is no object.
        if (node.life !== life && chance.happens(0.5)) return
        const outcome = carryOut(node)
        if (timeout) return
        reply.give(error ? ambiguous("InternalError 500") : outcome, latency() + delay(slow), `${what} done`)
      }
      if (timeout && chance.happens(0.3)) return
      const late = timeout && chance.happens(0.3) ? chance.between(0, 2 * limits.objectTimeoutMs) : 0
      come(key, 1)
      world.after(latency(bytes) + late, arrive, undefined, 0, `${what} ${bytes}`)
    })

  const delay = (slow: boolean) => (slow ? chance.between(0, 1.2) * limits.objectTimeoutMs : 0)

  const read = <A>(what: string, answer: (node: SimNode) => A | StorageError, sizeOf: (value: A) => number = () => 0) =>
    Effect.flatMap(
      ask<A | StorageError>((node, reply: Reply<A | StorageError>) => {
        const late = unanswered("the object store did not answer in time")
        reply.give(late, limits.objectTimeoutMs, `object ${what} late`)
        if (!reaches(node)) return reply.give(unanswered("ECONNREFUSED"), latency())
        if (fault("timeout", node)) return
        const arrive = () => {
          if (fault("overloaded", node)) return reply.give(unanswered("SlowDown 503"), latency())
          if (fault("error", node)) return reply.give(unanswered("InternalError 500"), latency())
          const found = answer(node)
          const bytes = found instanceof StorageError ? 0 : sizeOf(found)
          reply.give(found, latency(bytes) + delay(fault("slow", node)), `object ${what} ${bytes}`)
        }
        world.after(latency(), arrive, undefined, 0, `object ${what}`)
      }),
      (answer) => (answer instanceof StorageError ? Effect.fail(answer) : Effect.succeed(answer))
    )

  /** Half of them where the rows lie: what describes them, at both ends, is most of a small file, and noticed anyway. */
  const flip = (bytes: Uint8Array) => {
    const bits = bytes.length * 8
    const bit = chance.happens(0.5) ? chance.below(bits) : Math.floor(chance.between(bits / 4, (bits * 3) / 4))
    bytes[bit >> 3]! ^= 1 << (bit & 7)
  }
  const find = (key: string, node: SimNode) => {
    const isFresh = held.has(key) && world.now < putAt.get(key)! + FRESH_MS
    return isFresh && fault("unseen", node) ? undefined : held.get(key)
  }
  const missing = (key: string) => new StorageError({ reason: "missing", detail: `no object ${key}` })

  const objects = Objects.of({
    put: (key, parts) => {
      if (!isKey(key)) return Effect.succeed(refused("invalid", `no key of an object: ${key.slice(0, 100)}`))
      const bytes = parts.reduce((sum, part) => sum + part.length, 0)
      const carryOut = (node: SimNode) => {
        if (coming.get(key)! > 0 && chance.happens(0.5)) {
          count("contended", node)
          return unavailable("ConditionalRequestConflict 409")
        }
        if (held.has(key)) {
          count("conflict", node)
          return refused("conflict", "PreconditionFailed 412")
        }
        // Joined only now: whoever changes a buffer while it is being sent has sent that.
        const data = joined(parts)
        held.set(key, data)
        putAt.set(key, world.now)
        ledger.add({ _tag: "Put", key, data })
        return done(undefined)
      }
      return write("put", key, bytes, carryOut)
    },
    get: (key, range) =>
      read(
        `get ${key}`,
        (node) => {
          const whole = find(key, node)
          if (whole === undefined) return missing(key)
          const { length, offset } = range ?? { length: whole.length, offset: 0 }
          let bytes = whole.slice(offset, offset + Math.max(0, length))
          if (bytes.length > 0 && fault("truncated", node)) bytes = bytes.slice(0, chance.below(bytes.length))
          if (bytes.length > 0 && fault("flipped", node)) flip(bytes)
          return bytes
        },
        (bytes) => bytes.length
      ),
    head: (key) =>
      read(`head ${key}`, (node) => {
        const bytes = find(key, node)
        return bytes === undefined ? Option.none() : Option.some({ key, bytes: bytes.length })
      }),
    list: (prefix) =>
      Stream.paginate(undefined as string | undefined, (after) =>
        read(`list ${prefix}`, (): readonly [Array<ObjectInfo>, Option.Option<string | undefined>] => {
          const keys = [...held.keys()]
            .filter((key) => key.startsWith(prefix) && (after === undefined || compareKeys(key, after) > 0))
            .sort(compareKeys)
          const page = keys.slice(0, 1 + chance.below(100))
          return [
            page.map((key) => ({ key, bytes: held.get(key)!.length })),
            page.length < keys.length ? Option.some(page.at(-1)) : Option.none()
          ]
        })
      ),
    remove: (key) =>
      write("remove", key, 0, () => {
        if (held.delete(key)) ledger.add({ _tag: "Removed", key })
        return done(undefined)
      })
  })

  return {
    objects,
    faults,
    counts,
    cut,
    heal: () => {
      Object.assign(faults, noObjectFaults())
      cut.clear()
    },
    held,
    rot: (key) => {
      const bytes = held.get(key)
      if (bytes === undefined || bytes.length === 0) return
      const damaged = bytes.slice()
      flip(damaged)
      held.set(key, damaged)
      ledger.add({ _tag: "Damaged", what: key })
      world.struck("objects.rot")
    }
  }
}

/**
 * What can be left out of a plan. Each of these gives a smaller plan, whether or not it still fails; nothing in a plan
 * depends on what comes before it, so what is left stays as it is.
 */
import { roles } from "../protocols/metadata.ts"
import type { Fault, Op, Plan } from "./plan.ts"

/** All of them in the order of time, so that those side by side have to do with each other. */
export const opsOf = (plan: Plan): ReadonlyArray<Op> =>
  plan.clients.flatMap(({ ops }) => ops).toSorted((a, b) => a.at - b.at)

const changed = (plan: Plan, change: (op: Op) => Op): Plan => ({
  ...plan,
  clients: plan.clients.map((client) => ({ ...client, ops: client.ops.map(change) }))
})

const withOps = (plan: Plan, keep: (op: Op) => boolean): Plan => ({
  ...plan,
  clients: plan.clients.map((client) => ({ ...client, ops: client.ops.filter(keep) }))
})

export const onlyOps = (plan: Plan, kept: ReadonlyArray<Op>): Plan => {
  const ids = new Set(kept.map(({ id }) => id))
  return withOps(plan, ({ id }) => ids.has(id))
}

export const onlyFaults = (plan: Plan, faults: ReadonlyArray<Fault>): Plan => ({ ...plan, faults })

export const onlyFaultKinds = (plan: Plan, kinds: ReadonlyArray<Fault["kind"]>): Plan =>
  onlyFaults(
    plan,
    plan.faults.filter(({ kind }) => kinds.includes(kind))
  )

export const onlyOpKinds = (plan: Plan, kinds: ReadonlyArray<Op["kind"]>): Plan =>
  withOps(plan, ({ kind }) => kinds.includes(kind))

export const onlyCollections = (plan: Plan, names: ReadonlyArray<string>): Plan =>
  withOps(plan, ({ collection }) => names.includes(collection))

/** With their faults goes who is not there. */
const withoutTargets = ({ faults }: Plan, gone: ReadonlyArray<string>): ReadonlyArray<Fault> =>
  faults.filter(({ target }) => !gone.includes(target))

export const onlyClients = (plan: Plan, clients: Plan["clients"]): Plan => {
  const gone = plan.clients.map(({ name }) => name).filter((name) => !clients.some((client) => client.name === name))
  return { ...plan, clients, faults: withoutTargets(plan, gone) }
}

/** The core loses who is gone, and gets others if it has nobody for a role any more. */
export const onlyNodes = (plan: Plan, nodes: Plan["topology"]["nodes"]): Plan => {
  const gone = plan.topology.nodes.map(({ name }) => name).filter((name) => !nodes.some((node) => node.name === name))
  const core = new Set(plan.topology.core.filter((name) => !gone.includes(name)))
  for (const role of roles) {
    const able = nodes.filter((node) => node.roles.includes(role))
    if (able.length > 0 && !able.some(({ name }) => core.has(name))) core.add(able[0]!.name)
  }
  return {
    ...plan,
    topology: { ...plan.topology, nodes, core: nodes.map(({ name }) => name).filter((name) => core.has(name)) },
    faults: withoutTargets(plan, gone)
  }
}

// ---- time

const endOf = ({ phases }: Plan): number => phases.warmUpMs + phases.chaosMs

/**
 * What happens between two times, and nothing before it but the making of collections: the time before is cut out, so
 * that what is left follows the warm-up at once.
 */
const between = (plan: Plan, from: number, to: number): Plan => {
  const { warmUpMs } = plan.phases
  const shift = Math.max(0, from - warmUpMs)
  const end = Math.min(to, endOf(plan))
  const makers = makersBefore(plan, from)
  const kept = withOps(plan, ({ at, id }) => makers.has(id) || (at >= from && at <= end))
  return {
    ...changed(kept, (op) => ({
      ...op,
      at: op.at >= from ? op.at - shift : Math.min(op.at, Math.floor(warmUpMs / 2))
    })),
    faults: plan.faults
      .filter(({ at, lengthMs }) => at <= end && at + lengthMs >= from)
      .map((fault) => {
        const at = Math.max(fault.at, from)
        return { ...fault, at: at - shift, lengthMs: Math.min(fault.at + fault.lengthMs, end) - at }
      }),
    phases: { ...plan.phases, chaosMs: Math.max(0, end - shift - warmUpMs) }
  }
}

/** Those that made the collections which are there by then: of each the first since it was dropped. */
const makersBefore = (plan: Plan, from: number): ReadonlySet<number> => {
  const makers = new Map<string, number>()
  for (const { at, collection, id, kind } of opsOf(plan)) {
    if (at >= from) break
    if (kind === "drop") makers.delete(collection)
    if (kind === "create" && !makers.has(collection)) makers.set(collection, id)
  }
  return new Set(makers.values())
}

const WINDOWS_MS = [2_000, 5_000, 10_000, 20_000, 40_000, Infinity]
/** Less than this is not worth a cut. */
const SHORTER = 0.9

/**
 * Stretches of time around the operations that show what is wrong, from the shortest: what led to it came shortly
 * before, as a rule, and what a write suffers comes after it.
 */
export const windows = (plan: Plan, shown: ReadonlyArray<number>): ReadonlyArray<Plan> => {
  const times = opsOf(plan).flatMap(({ at, id }) => (shown.includes(id) ? [at] : []))
  const last = Math.max(...times, -1)
  const at = last < 0 ? endOf(plan) : last
  return WINDOWS_MS.flatMap((ms) => [between(plan, at - ms, at + 1), between(plan, at - ms, at + ms)]).filter(
    ({ phases }) => phases.chaosMs < SHORTER * plan.phases.chaosMs
  )
}

/** The same up to an earlier end of it all: with the same seed the run is the same up to there. */
export const ends = (plan: Plan): ReadonlyArray<Plan> =>
  plan.phases.chaosMs === 0
    ? []
    : [0.1, 0.3, 0.5, 0.7, 0.85, 0.95].map((part) => between(plan, 0, Math.round(part * endOf(plan))))

/** The same in less time: nothing waits for longer than it must. */
export const closer = (plan: Plan): ReadonlyArray<Plan> => {
  const { chaosMs, warmUpMs } = plan.phases
  if (chaosMs <= 1_000) return []
  return [0.25, 0.5, 0.75].map((part) => {
    const at = (ms: number) => Math.round(ms <= warmUpMs ? ms : warmUpMs + (ms - warmUpMs) * part)
    return {
      ...changed(plan, (op) => ({ ...op, at: at(op.at) })),
      faults: plan.faults.map((fault) => ({
        ...fault,
        at: at(fault.at),
        lengthMs: Math.round(fault.lengthMs * part)
      })),
      phases: { ...plan.phases, chaosMs: Math.ceil(chaosMs * part) }
    }
  })
}

/** A fault that takes less time. */
export const shorter = (plan: Plan, id: number): ReadonlyArray<Plan> => {
  const fault = plan.faults.find((each) => each.id === id)
  if (fault === undefined || fault.lengthMs <= 100) return []
  return [0, 0.1, 0.5].map((part) => {
    const lengthMs = Math.round(fault.lengthMs * part)
    return onlyFaults(
      plan,
      plan.faults.map((each) => (each === fault ? { ...each, lengthMs } : each))
    )
  })
}

// ---- what is there less of

/** All keys of an operation but the first, which it needs. */
export const moreKeysOf = (plan: Plan, id: number): ReadonlyArray<number> => {
  const op = opsOf(plan).find((each) => each.id === id)
  return op !== undefined && "keys" in op ? op.keys.slice(1) : []
}

export const withMoreKeys = (plan: Plan, id: number, more: ReadonlyArray<number>): Plan =>
  changed(plan, (op) => (op.id === id && "keys" in op ? { ...op, keys: [op.keys[0]!, ...more] } : op))

/** As plain as a world can be: a broker of one server, fibers that keep their turn, nothing that only looks odd. */
export const plainer = ({ topology, world, ...plan }: Plan): ReadonlyArray<Plan> => [
  ...(topology.replicas > 1 ? [{ ...plan, world, topology: { ...topology, replicas: 1 as const } }] : []),
  ...(world.preempt > 0 ? [{ ...plan, topology, world: { ...world, preempt: 0 } }] : []),
  ...(world.buggify ? [{ ...plan, topology, world: { ...world, buggify: false } }] : [])
]

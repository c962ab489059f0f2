/**
 * A plan that fails, made smaller while it still fails in the same way: first what is coarse (all that comes after, whole
 * clients, whole kinds of faults), then by delta debugging what is left of faults and of operations, then nodes, then
 * time. Each plan that is tried is a run; several are tried at once, and of those that fail the first is taken, so the
 * way does not depend on which ends first.
 *
 * A race that is lost by chance may need other chances in a smaller plan: where nothing can be left out any more, some
 * other seeds of the world are tried.
 */
import { roles } from "../protocols/metadata.ts"
import { type Fault, type Op, type Plan, planProblem } from "./plan.ts"

export interface ShrinkOptions {
  /** Whether a plan still fails as the first one did. */
  readonly fails: (plan: Plan) => Promise<boolean>
  /** So many at once. */
  readonly width: number
  /** Whether the time is over. */
  readonly isOver: () => boolean
  /** Told of every smaller plan. */
  readonly smaller?: (plan: Plan, tried: number) => void
}

export interface Size {
  readonly faults: number
  readonly operations: number
  readonly clients: number
  readonly nodes: number
  /** Virtual milliseconds. */
  readonly ms: number
}

export const sizeOf = ({ clients, faults, phases, topology }: Plan): Size => ({
  faults: faults.length,
  operations: clients.reduce((total, { ops }) => total + ops.length, 0),
  clients: clients.length,
  nodes: topology.nodes.length,
  ms: phases.warmUpMs + phases.chaosMs + phases.convergeMs + phases.healMs
})

/** Other seeds that are tried, one after the other, before a plan is taken for the smallest. */
const CHANCES = 3

export const shrink = async (plan: Plan, options: ShrinkOptions): Promise<Plan> => {
  const search = new Search(plan, options)
  for (let chances = 0; chances <= CHANCES && !options.isOver();) {
    const before = search.best
    if (chances > 0) search.seed = `${plan.seed}~${chances}`
    for (const pass of passes) await pass(search)
    if (search.best === before) chances++
  }
  return search.best
}

type Pass = (search: Search) => Promise<void>

/** The smallest plan so far, and whatever tries for a smaller one. */
class Search {
  best: Plan
  tried = 0
  /** Of the plans to try. */
  seed: string
  private readonly options: ShrinkOptions

  constructor(plan: Plan, options: ShrinkOptions) {
    this.best = plan
    this.seed = plan.seed
    this.options = options
  }

  /** Takes the first of these that fails; which one it was, or -1. */
  async first(candidates: ReadonlyArray<Plan>): Promise<number> {
    const { fails, isOver, smaller, width } = this.options
    for (let from = 0; from < candidates.length && !isOver(); from += width) {
      const some = candidates.slice(from, from + width).map((plan) => ({ ...plan, seed: this.seed }))
      const failed = await Promise.all(some.map((plan) => planProblem(plan) === undefined && fails(plan)))
      this.tried += some.length
      const at = failed.indexOf(true)
      if (at < 0) continue
      this.best = some[at]!
      smaller?.(this.best, this.tried)
      return from + at
    }
    return -1
  }

  /** Does with as few of `items` as it can: first without large parts of them, then without ever smaller ones. */
  async fewest<A>(items: (plan: Plan) => ReadonlyArray<A>, only: (plan: Plan, kept: ReadonlyArray<A>) => Plan) {
    let length = items(this.best).length
    while (length >= 1) {
      length = Math.ceil(length / 2)
      // Past what was left out the next part begins where it began, so it is only looked for from there on.
      let from = 0
      while (from < items(this.best).length && !this.options.isOver()) {
        const all = items(this.best)
        const starts: Array<number> = []
        for (let start = from; start < all.length; start += length) starts.push(start)
        const plan = this.best
        const at = await this.first(starts.map((start) => only(plan, all.toSpliced(start, length))))
        if (at < 0) break
        from = starts[at]!
      }
      if (length === 1) return
    }
  }
}

// ---- what can be left out

const opsOf = (plan: Plan): ReadonlyArray<Op> => plan.clients.flatMap(({ ops }) => ops)

const withOps = (plan: Plan, keep: (op: Op) => boolean): Plan => ({
  ...plan,
  clients: plan.clients.map((client) => ({ ...client, ops: client.ops.filter(keep) }))
})

const withFaults = (plan: Plan, faults: ReadonlyArray<Fault>): Plan => ({ ...plan, faults })

/** The faults end by then, and whatever should have come later does not. */
const until = (plan: Plan, ms: number): Plan => ({
  ...withOps(plan, ({ at }) => at <= ms),
  faults: plan.faults
    .filter(({ at }) => at <= ms)
    .map((fault) => ({ ...fault, lengthMs: Math.min(fault.lengthMs, ms - fault.at) })),
  phases: { ...plan.phases, chaosMs: Math.max(0, Math.ceil(ms) - plan.phases.warmUpMs) }
})

/** As early an end of it all as can be. */
const earlier: Pass = async (search) => {
  const { chaosMs, warmUpMs } = search.best.phases
  if (chaosMs === 0) return
  const ends = [0.1, 0.3, 0.5, 0.7, 0.85].map((part) => until(search.best, part * (warmUpMs + chaosMs)))
  if ((await search.first(ends)) >= 0) await earlier(search)
}

const fewerClients: Pass = (search) =>
  search.fewest(
    ({ clients }) => clients,
    (plan, clients) => ({
      ...plan,
      clients,
      faults: plan.faults.filter(
        ({ target }) => !plan.clients.some(({ name }) => name === target) || clients.some(({ name }) => name === target)
      )
    })
  )

/** All of a kind at once. */
const fewerKinds: Pass = async (search) => {
  await search.fewest(
    ({ faults }) => [...new Set(faults.map(({ kind }) => kind))],
    (plan, kinds) =>
      withFaults(
        plan,
        plan.faults.filter(({ kind }) => kinds.includes(kind))
      )
  )
  await search.fewest(
    (plan) => [...new Set(opsOf(plan).map(({ kind }) => kind))],
    (plan, kinds) => withOps(plan, ({ kind }) => kinds.includes(kind))
  )
  await search.fewest(
    (plan) => [...new Set(opsOf(plan).map(({ collection }) => collection))],
    (plan, names) => withOps(plan, ({ collection }) => names.includes(collection))
  )
}

const fewerFaults: Pass = (search) => search.fewest(({ faults }) => faults, withFaults)

const fewerOps: Pass = (search) =>
  search.fewest(opsOf, (plan, kept) => {
    const ids = new Set(kept.map(({ id }) => id))
    return withOps(plan, ({ id }) => ids.has(id))
  })

/** Without nodes that are not needed: one of each kind stays, or those that stay play all roles. */
const fewerNodes: Pass = async (search) => {
  const { best } = search
  const { nodes } = best.topology
  if (nodes.length > 1) await search.first(nodes.map(({ name }) => withNodes(best, [{ name, roles }])))
  await search.fewest(({ topology }) => topology.nodes, withNodes)
  await search.fewest(
    ({ topology }) => topology.nodes,
    (plan, kept) =>
      withNodes(
        plan,
        kept.map(({ name }) => ({ name, roles }))
      )
  )
}

const withNodes = (plan: Plan, nodes: Plan["topology"]["nodes"]): Plan => {
  const gone = plan.topology.nodes.filter(({ name }) => !nodes.some((node) => node.name === name))
  const core = new Set(plan.topology.core.filter((name) => nodes.some((node) => node.name === name)))
  for (const role of roles) {
    const able = nodes.filter((node) => node.roles.includes(role))
    if (able.length > 0 && !able.some(({ name }) => core.has(name))) core.add(able[0]!.name)
  }
  return {
    ...plan,
    topology: { ...plan.topology, nodes, core: nodes.map(({ name }) => name).filter((name) => core.has(name)) },
    faults: plan.faults.filter(({ target }) => !gone.some(({ name }) => name === target))
  }
}

/** Shorter faults, fewer keys, less of everything that has a size. */
const less: Pass = async (search) => {
  for (const { id } of search.best.faults) {
    const change = (part: number) => ({
      ...search.best,
      faults: search.best.faults.map((each) =>
        each.id === id ? { ...each, lengthMs: Math.round(each.lengthMs * part) } : each
      )
    })
    const fault = search.best.faults.find((each) => each.id === id)
    if (fault !== undefined && fault.lengthMs > 100) await search.first([change(0), change(0.1), change(0.5)])
  }
  for (const { id } of opsOf(search.best)) {
    await search.fewest(
      (plan) => {
        const op = opsOf(plan).find((each) => each.id === id)
        return op !== undefined && "keys" in op ? op.keys.slice(1) : []
      },
      (plan, kept) => ({
        ...plan,
        clients: plan.clients.map((client) => ({
          ...client,
          ops: client.ops.map((op) => (op.id === id && "keys" in op ? { ...op, keys: [op.keys[0]!, ...kept] } : op))
        }))
      })
    )
  }
}

/** The same in less time: nothing waits for longer than it must. */
const closer: Pass = async (search) => {
  const { best } = search
  const { warmUpMs } = best.phases
  const moved = (part: number): Plan => {
    const at = (ms: number) => Math.round(ms <= warmUpMs ? ms : warmUpMs + (ms - warmUpMs) * part)
    return {
      ...best,
      clients: best.clients.map((client) => ({ ...client, ops: client.ops.map((op) => ({ ...op, at: at(op.at) })) })),
      faults: best.faults.map((fault) => ({
        ...fault,
        at: at(fault.at),
        lengthMs: Math.round(fault.lengthMs * part)
      })),
      phases: { ...best.phases, chaosMs: Math.ceil(best.phases.chaosMs * part) }
    }
  }
  if (best.phases.chaosMs > 1_000) await search.first([moved(0.25), moved(0.5), moved(0.75)])
}

/** As plain as a world can be: a broker of one server, fibers that keep their turn, nothing that only looks odd. */
const plainer: Pass = async (search) => {
  const { topology, world } = search.best
  if (topology.replicas > 1)
    await search.first([{ ...search.best, topology: { ...search.best.topology, replicas: 1 } }])
  if (world.preempt > 0) await search.first([{ ...search.best, world: { ...search.best.world, preempt: 0 } }])
  if (world.buggify) await search.first([{ ...search.best, world: { ...search.best.world, buggify: false } }])
}

const passes: ReadonlyArray<Pass> = [
  earlier,
  fewerClients,
  fewerKinds,
  fewerFaults,
  fewerOps,
  fewerNodes,
  less,
  closer,
  plainer
]

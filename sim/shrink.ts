/**
 * A plan that fails, made smaller while it still fails in the same way. Time is short, and a run takes the longer the more
 * there is in its plan. So first it is cut down in large parts, those first that make runs short: stretches of time,
 * kinds of faults, whole parts of what is left, with more seeds whenever nothing came of it. Only when a person can read
 * it everything is left out that can be, one by one.
 */
import { roles } from "../protocols/metadata.ts"
import {
  closer,
  ends,
  moreKeysOf,
  onlyClients,
  onlyCollections,
  onlyFaultKinds,
  onlyFaults,
  onlyNodes,
  onlyOpKinds,
  onlyOps,
  opsOf,
  plainer,
  shorter,
  windows,
  withMoreKeys
} from "./cuts.ts"
import type { Plan } from "./plan.ts"
import { type Failure } from "./summary.ts"
import { type Effort, type Pass, Search, type SearchOptions, type Shown } from "./search.ts"

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

/** What a person can read. */
const FAULTS_FEW = 5
const OPERATIONS_FEW = 30

const isFaulty = ({ best }: Search) => sizeOf(best).faults > FAULTS_FEW
const isLong = ({ best }: Search) => sizeOf(best).operations > OPERATIONS_FEW
const isLarge = (search: Search) => isFaulty(search) || isLong(search)

/** Each is tried until nothing comes of it. */
const coarsely: ReadonlyArray<Effort> = [1, 2, 4, 8, 16].map((chances) => ({ chances, parts: 8 }))
const finely: ReadonlyArray<Effort> = [1, 2].map((chances) => ({ chances, parts: Infinity }))

/** `shown`: what shows that it fails. */
export const shrink = async (plan: Plan, shown: Shown, options: SearchOptions): Promise<Plan> => {
  const search = new Search(plan, shown, options)
  await rounds(search, coarse, coarsely, isLarge)
  await rounds(search, fine, finely, () => true)
  return search.best
}

const rounds = async (
  search: Search,
  passes: ReadonlyArray<Pass>,
  efforts: ReadonlyArray<Effort>,
  goesOn: (search: Search) => boolean
): Promise<void> => {
  for (const effort of efforts) {
    let before: Plan | undefined
    search.effort = effort
    while (search.best !== before && goesOn(search) && !search.isOver) {
      before = search.best
      for (const pass of passes) await pass(search)
    }
  }
}

// ---- whether it is the same failure

/** Operations, and collections that the simulator makes itself: a smaller plan may show it of another one. */
const WORDS = "audit_core|audit_all|Create|Drop|Flush|List|Stats|Upsert|Delete|Get|Count|Search|Describe|Status"

/** What a detail says of any operation, row, node or time. */
const shapeOf = (plan: Plan, { detail, fault }: Failure): string => {
  // Where two runs part is chance.
  if (fault === "determinism") return fault
  const names = [...new Set(opsOf(plan).map(({ collection }) => collection))]
  const line = detail.split("\n", 1)[0]!
  const shape = line
    .replaceAll(/"[^"]*"/g, "_")
    .replaceAll(new RegExp(`\\b(${[WORDS, ...names].join("|")})\\b`, "gi"), "_")
    .replaceAll(/[\w.~-]*\d[\w.~-]*/g, "#")
  return `${fault}: ${shape}`
}

/**
 * Which failures of a smaller plan are those of the whole: of the same property, with the same words. One that took too
 * long is none of them: it shows how fast the machine is, and plans that go round in a circle are no use to anybody.
 */
export const sameAs = (plan: Plan, failures: ReadonlyArray<Failure>) => {
  const [first] = failures
  const known = new Set(failures.filter(({ fault }) => fault === first?.fault).map((each) => shapeOf(plan, each)))
  return (each: Failure): boolean => each.fault !== "late" && known.has(shapeOf(plan, each))
}

// ---- what is tried

const clients: Pass = (search) => search.fewest((plan) => plan.clients, onlyClients)

const faultKinds: Pass = (search) =>
  search.fewest(({ faults }) => [...new Set(faults.map(({ kind }) => kind))], onlyFaultKinds)

const faults: Pass = (search) => search.fewest((plan) => plan.faults, onlyFaults)

const opKinds: Pass = (search) =>
  search.fewest((plan) => [...new Set(opsOf(plan).map(({ kind }) => kind))], onlyOpKinds)

const collections: Pass = (search) =>
  search.fewest((plan) => [...new Set(opsOf(plan).map(({ collection }) => collection))], onlyCollections)

const ops: Pass = (search) => search.fewest(opsOf, onlyOps)

/** A stretch of time, and of that another one. Their runs are short: there is time for more of them. */
const stretch: Pass = async (search) => {
  while ((await search.take(windows(search.best, search.shown), 2 * search.effort.chances)) >= 0);
}

/** With its own seed alone: an end that is too early for it is as early for another. */
const earlier: Pass = async (search) => {
  while ((await search.take(ends(search.best), 1)) >= 0);
}

/** Without nodes that are not needed: those that stay play all roles, or what they played. */
const nodes: Pass = async (search) => {
  const { best } = search
  const { nodes: all } = best.topology
  if (all.length > 1) await search.take(all.map(({ name }) => onlyNodes(best, [{ name, roles }])))
  await search.fewest(({ topology }) => topology.nodes, onlyNodes)
  await search.fewest(
    ({ topology }) => topology.nodes,
    (plan, kept) =>
      onlyNodes(
        plan,
        kept.map(({ name }) => ({ name, roles }))
      )
  )
}

/** Shorter faults, fewer keys, less of everything that has a size. */
const less: Pass = async (search) => {
  for (const { id } of search.best.faults) await search.take(shorter(search.best, id))
  for (const { id } of opsOf(search.best)) {
    await search.fewest(
      (plan) => moreKeysOf(plan, id),
      (plan, more) => withMoreKeys(plan, id, more)
    )
  }
}

const inLessTime: Pass = (search) => search.take(closer(search.best))

const plain: Pass = async (search) => {
  while ((await search.take(plainer(search.best))) >= 0);
}

const coarse: ReadonlyArray<Pass> = [
  stretch,
  earlier,
  async (search) => isFaulty(search) && faultKinds(search),
  async (search) => isFaulty(search) && faults(search),
  async (search) => isLong(search) && collections(search),
  async (search) => isLong(search) && ops(search),
  async (search) => isLong(search) && clients(search)
]

const fine: ReadonlyArray<Pass> = [
  stretch,
  earlier,
  inLessTime,
  nodes,
  clients,
  faultKinds,
  opKinds,
  collections,
  faults,
  ops,
  less,
  plain
]

/** Plans: drawn from a seed alone, the same each time; read back as they were written; and refused if no run can be made of them. */
import { assert, describe, it } from "vitest"
import { planOf } from "../../sim/draw.ts"
import { decodePlan, encodePlan, type Fault, faultKinds, type OpKind, type Plan, planProblem } from "../../sim/plan.ts"
import { forSeeds } from "../support/seeds.ts"

const opsOf = ({ clients }: Plan) => clients.flatMap(({ ops }) => ops)

describe("a plan", () => {
  it("is drawn from its seed alone, can be run, and is read back as it was written", () => {
    forSeeds(200, (seed) => {
      const plan = planOf(seed)
      assert.isUndefined(planProblem(plan))
      const text = encodePlan(plan)
      assert.strictEqual(encodePlan(planOf(seed)), text)
      assert.deepStrictEqual(decodePlan(text), plan)
    })
  })

  it("says what a run does in a form that a person can edit: an operation or a fault in a line", () => {
    const lines = encodePlan(planOf(3)).split("\n")
    const shown = lines.filter((line) => /^\s*\{"kind":"\w+","id":\d+,.*\},?$/.test(line))
    assert.isAbove(shown.length, opsOf(planOf(3)).length / 2)
    assert.isAbove(lines.filter((line) => /^\s*\{"id":\d+,"kind":"\w+",.*\},?$/.test(line)).length, 0)
  })

  it("of many seeds has every kind of operation and of fault, and every one of them is left out of many", () => {
    const plans = Array.from({ length: 400 }, (_, seed) => planOf(seed))
    const kinds: ReadonlyArray<OpKind> = [
      "insert",
      "upsert",
      "delete",
      "flush",
      "search",
      "get",
      "count",
      "drop",
      "list",
      "stats"
    ]
    for (const kind of kinds) {
      const having = plans.filter((plan) => opsOf(plan).some((op) => op.kind === kind)).length
      assert.isAbove(having, 100, kind)
      assert.isBelow(having, 380, kind)
    }
    for (const kind of Object.keys(faultKinds)) {
      const having = plans.filter(({ faults }) => faults.some((fault) => fault.kind === kind)).length
      assert.isAbove(having, kind === "powerLoss" || kind === "logRot" || kind === "objectRot" ? 40 : 60, kind)
      assert.isBelow(having, 300, kind)
    }
    assert.isAbove(plans.filter(({ faults }) => faults.length === 0).length, 5)
    for (const shards of [1, 2, 3, 4]) {
      assert.isTrue(plans.some((plan) => opsOf(plan).some((op) => op.kind === "create" && op.shards === shards)))
    }
    for (const consistency of ["Strong", "Session", "Bounded", "Eventually"]) {
      assert.isAbove(
        plans.filter((plan) => opsOf(plan).some((op) => "level" in op && op.level.consistency === consistency)).length,
        100
      )
    }
  })

  it("has a core that can do alone, and faults that are over when the core is healed", () => {
    forSeeds(200, (seed) => {
      const { faults, phases } = planOf(seed)
      for (const { at, lengthMs } of faults) {
        assert.isAtLeast(at, phases.warmUpMs)
        assert.isAtMost(at + lengthMs, phases.warmUpMs + phases.chaosMs)
      }
    })
  })

  it("has what rare mistakes need: clients that only read, owners that are cut off with a proxy, flushes before a loss, readers of what rots", () => {
    const reads: ReadonlySet<OpKind> = new Set<OpKind>(["search", "get", "count"])
    const plans = Array.from({ length: 200 }, (_, seed) => planOf(seed))
    const many = (has: (plan: Plan) => boolean) => assert.isAbove(plans.filter(has).length, 20)
    many(({ clients }) => clients.some(({ ops }) => ops.length > 10 && ops.every(({ kind }) => reads.has(kind))))
    many(({ faults }) => {
      const cuts = faults.filter(({ kind }) => kind === "streamCut")
      return cuts.some((one) => cuts.some(({ at, target }) => at === one.at && target !== one.target))
    })
    const rotten = plans.filter(({ faults }) => faults.some(({ kind }) => kind === "logRot"))
    const isRead = ({ faults, topology }: Plan) => {
      const owner = topology.nodes.find(({ roles }) => roles.includes("streaming-node"))!.name
      const isSoon = (one: Fault) =>
        faults.some(
          ({ at, kind, target }) => kind === "crash" && target === owner && at > one.at && at < one.at + 3_100
        )
      return faults.some((one) => one.kind === "logRot" && isSoon(one))
    }
    assert.isAbove(rotten.filter(isRead).length, rotten.length / 2)
    for (const { clients, faults, world } of plans) {
      const all = clients.flatMap(({ ops }) => ops)
      for (const { at, kind } of faults) {
        const isBefore = (op: (typeof all)[number]) => op.kind === "flush" && op.at < at && op.at >= at - 5_000
        if (kind === "powerLoss") assert.isTrue(all.some(isBefore))
      }
      for (const { ops } of clients)
        assert.deepStrictEqual(
          ops,
          ops.toSorted((a, b) => a.at - b.at)
        )
      if (faults.length === 0) assert.isFalse(world.buggify)
    }
  })

  it("is refused if no run can be made of it, with what is wrong", () => {
    const plan = planOf(1)
    const specified: Plan = { ...plan, topology: { ...plan.topology, profile: "as specified" } }
    const [client] = plan.clients
    const [node] = plan.topology.nodes
    const refused: ReadonlyArray<readonly [Plan, RegExp]> = [
      [{ ...plan, topology: { ...plan.topology, nodes: [...plan.topology.nodes, node!] } }, /one name/],
      [{ ...plan, topology: { ...plan.topology, core: [] } }, /the core has no/],
      [{ ...plan, topology: { ...plan.topology, core: ["nobody"] } }, /not there/],
      [{ ...plan, clients: [{ ...client!, ops: [client!.ops[0]!, client!.ops[0]!] }] }, /one id/],
      [{ ...plan, clients: [{ ...client!, ops: [{ ...client!.ops[0]!, collection: "a b" }] }] }, /must begin/],
      [{ ...plan, faults: [{ id: 0, kind: "crash", target: "nobody", at: 1, lengthMs: 1 }] }, /cannot strike/],
      [{ ...plan, faults: [{ id: 0, kind: "election", target: "objects", at: 1, lengthMs: 1 }] }, /cannot strike/],
      [{ ...specified, faults: [{ id: 0, kind: "powerLoss", target: "broker", at: 1, lengthMs: 1 }] }, /as specified/],
      [{ ...specified, faults: [{ id: 0, kind: "objectRot", target: "objects", at: 1, lengthMs: 1 }] }, /as specified/]
    ]
    for (const [wrong, why] of refused) assert.match(planProblem(wrong) ?? "", why)
    assert.throws(() => decodePlan(encodePlan(refused[0]![0])), /one name/)
    assert.throws(() => decodePlan(encodePlan(plan).replace('"format": 1', '"format": 2')))
    assert.throws(() => decodePlan("{}"))
  })
})

/**
 * Five role processes on a real nats-server, clients that never pause, and every process killed in turn: nothing is
 * lost, nothing doubled, every count exact, through at least twenty hand-offs from growing to sealed.
 */
import { afterAll, expect, it } from "vitest"
import type { Role } from "../../protocols/metadata.ts"
import { connect, type Elanus } from "../../runtime/elanus.ts"
import { type Cluster, type RoleProcess, startCluster } from "../support/cluster.ts"
import { makeWorkload } from "../support/workload.ts"

const ROLES: ReadonlyArray<Role> = ["coordinator", "streaming-node", "query-node", "data-node", "proxy"]
const HANDOFFS = 20
const ROUNDS = 2
const TEST_MS = 240_000

let cluster: Cluster | undefined
let db: Elanus | undefined
afterAll(async () => {
  await db?.close()
  await cluster?.stop()
})

it(
  "survives the death of each of its processes, again and again",
  async () => {
    // Small segments, so that they are sealed, indexed and handed over all the time; a short memory for the dead.
    cluster = await startCluster({
      settings: { segmentBytesMax: 12 * 1024, indexRowsMin: 200, leaseTtlMs: 5_000, evidenceMs: 500 }
    })
    const processes = await Promise.all(ROLES.map((role) => cluster!.add([role])))
    db = await connect({ servers: cluster.url })
    const timeoutMs = 60_000
    const loads = await Promise.all([
      makeWorkload(db, { name: "ints", seed: 1, shards: 1, dimension: 8, idType: "Int64", timeoutMs }),
      makeWorkload(db, { name: "texts", seed: 2, shards: 3, dimension: 16, idType: "VarChar", timeoutMs })
    ])

    let over = false
    let failed: unknown
    const running = Promise.all(loads.map((load) => load.run(() => over))).catch((cause: unknown) => {
      failed = cause
      over = true
    })

    const handoffs = async () => {
      let total = 0
      for (const name of ["ints", "texts"]) {
        const { shards } = await db!.collection(name).stats({ timeoutMs })
        for (const shard of shards) total += shard["adoptedVersion"] as number
      }
      return total
    }
    const killed = new Map<RoleProcess, number>()
    const began = performance.now()
    for (let round = 0; failed === undefined; round++) {
      for (const victim of processes) {
        await new Promise((resolve) => setTimeout(resolve, 1_500))
        await victim.kill()
        await victim.start()
        killed.set(victim, (killed.get(victim) ?? 0) + 1)
        if (failed !== undefined) break
      }
      if (round + 1 >= ROUNDS && (await handoffs()) >= HANDOFFS) break
      if (performance.now() - began > TEST_MS / 2) break
    }
    over = true
    await running
    if (failed !== undefined) {
      const said = processes.map(({ output, roles }) => `--- ${roles.join()}\n${output().slice(-2_000)}`).join("\n")
      throw new Error(`${String(failed)}\n${said}`, { cause: failed })
    }

    for (const load of loads) await load.audit()
    expect(await handoffs()).toBeGreaterThanOrEqual(HANDOFFS)
    expect(Math.min(...killed.values())).toBeGreaterThanOrEqual(ROUNDS)
    for (const { counts } of loads) expect(counts.writes).toBeGreaterThan(20)
    console.info(
      `kills ${[...killed.values()].join()}, hand-offs ${await handoffs()}, ${JSON.stringify(loads.map(({ counts }) => counts))}`
    )
  },
  TEST_MS
)

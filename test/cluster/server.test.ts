/**
 * The nats-server itself dies and comes back, and sleeps and goes on, under a running cluster: requests wait within
 * their deadline, and everything goes on by itself with nothing lost. Sealed data is on a real
 * S3 server.
 */
import { afterAll, expect, it } from "vitest"
import { connect, type Elanus, ElanusError } from "../../runtime/elanus.ts"
import { type Cluster, startCluster } from "../support/cluster.ts"
import { type S3Server, startS3 } from "../support/s3.ts"
import { makeWorkload } from "../support/workload.ts"

const TEST_MS = 180_000

let s3: S3Server | undefined
let cluster: Cluster | undefined
let db: Elanus | undefined
afterAll(async () => {
  await db?.close()
  await cluster?.stop()
  await s3?.stop()
})

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

it(
  "goes on after its nats-server was killed or asleep",
  async () => {
    s3 = await startS3()
    s3.useCredentials()
    cluster = await startCluster({
      objects: `s3://${s3.bucket}/data?endpoint=${encodeURIComponent(s3.endpoint)}&region=us-east-1`,
      settings: { segmentBytesMax: 16 * 1024, indexRowsMin: 200, leaseTtlMs: 5_000, evidenceMs: 500 }
    })
    const { nats } = cluster
    const all = await cluster.add(["coordinator", "streaming-node", "query-node", "data-node", "proxy"])
    db = await connect({ servers: cluster.url })
    const load = await makeWorkload(db, {
      name: "rows",
      seed: 7,
      shards: 2,
      dimension: 8,
      idType: "Int64",
      timeoutMs: 60_000
    })
    let over = false
    let failed: unknown
    const running = load.run(() => over).catch((cause: unknown) => (failed = cause))

    for (let round = 0; round < 3 && failed === undefined; round++) {
      await pause(1_500)
      const before = load.counts.writes
      await nats.kill(0)
      // A request waits within its deadline, and then says that another may help.
      const error = await db
        .collection("rows")
        .count({ timeoutMs: 500 })
        .catch((cause: unknown) => cause)
      if (!(error instanceof ElanusError && error.retry)) throw new Error(`without a server: ${String(error)}`)
      await nats.restart(0)
      await pause(1_500)
      nats.pause(0)
      await pause(2_000)
      nats.continue(0)
      const deadline = performance.now() + 60_000
      while (load.counts.writes === before && failed === undefined) {
        expect(performance.now()).toBeLessThan(deadline)
        await pause(100)
      }
    }
    over = true
    await running
    if (failed !== undefined) throw new Error(`${String(failed)}\n${all.output()}`, { cause: failed })
    await load.audit()
  },
  TEST_MS
)

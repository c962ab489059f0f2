/**
 * Processes that were only asleep: they wake up believing that they still own a channel, or still coordinate, and
 * must find out before anybody is told anything wrong.
 */
import { connect as connectNats } from "nats"
import { afterEach, expect, it } from "vitest"
import { keyColumn } from "../../protocols/keys.ts"
import { decodeAnswer, roleSubject } from "../../protocols/protocol.ts"
import { StreamingNodeProtocol } from "../../protocols/streaming-node.ts"
import { ElanusError, connect, type Elanus } from "../../runtime/elanus.ts"
import { type Cluster, type RoleProcess, startCluster } from "../support/cluster.ts"

const TEST_MS = 120_000
const settings = { leaseTtlMs: 2_000, evidenceMs: 500 }
const patience = { timeoutMs: 60_000 }

let cluster: Cluster
let db: Elanus
afterEach(async () => {
  await db.close()
  await cluster.stop()
})

const until = async <A>(what: string, look: () => Promise<A | undefined>): Promise<A> => {
  const deadline = performance.now() + patience.timeoutMs
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

it(
  "a channel's owner that was stopped while another took over is refused when it goes on, and has acknowledged nothing",
  async () => {
    cluster = await startCluster({ settings })
    await cluster.add(["coordinator", "query-node", "data-node", "proxy"])
    const streaming = [await cluster.add(["streaming-node"])]
    db = await connect({ servers: cluster.url })
    const books = await db.createCollection("books", { dimension: 2, metric: "L2", ...patience })
    await books.insert([{ id: 1, vector: [1, 1] }], patience)

    const { channels } = await books.describe(patience)
    const [channel] = channels as [number]
    const owner = async () => (await db.status(patience)).channels.find((each) => each.channel === channel)!
    const first = await owner()
    const sleeper: RoleProcess = streaming[0]!
    streaming.push(await cluster.add(["streaming-node"]))
    const { collectionID } = (await books.describe(patience)) as { collectionID: string }

    sleeper.pause()
    // Sent to it while it sleeps: it finds them when it wakes, with everything that its memory says of itself.
    const raw = await connectNats({ servers: cluster.url })
    const ask = (id: number) =>
      raw.request(
        roleSubject("main", first.node, StreamingNodeProtocol.name, "Write"),
        StreamingNodeProtocol.calls.Write.payload.encode({
          route: {
            channel,
            epoch: BigInt(first.epoch),
            knownEpoch: 0n,
            knownLsn: 0,
            collection: collectionID,
            schema: 0,
            shard: 0
          },
          request: { issued: db.timestamp(), unique: BigInt(id) },
          body: {
            _tag: "Upsert",
            rows: { keys: keyColumn("Int64", [id]), dimension: 2, vectors: new Float32Array(2), fields: undefined }
          }
        }),
        { timeout: patience.timeoutMs }
      )
    const answers = [1001, 1002, 1003].map((id) =>
      ask(id).then(
        (message) => decodeAnswer(message.data),
        () => "no answer"
      )
    )

    await books.insert([{ id: 2, vector: [2, 2] }], patience)
    const second = await owner()
    expect(second.node).not.toBe(first.node)
    expect(BigInt(second.epoch)).toBeGreaterThan(BigInt(first.epoch))

    sleeper.resume()
    for (const answer of await Promise.all(answers)) {
      if (answer === "no answer") continue
      expect(answer).toBeInstanceOf(ElanusError)
    }
    await books.insert([{ id: 3, vector: [3, 3] }], patience)
    expect((await books.get([1, 2, 3, 1001, 1002, 1003], patience)).map(({ id }) => id)).toEqual([1, 2, 3])
    expect(await books.count(patience)).toBe(3)
    await raw.close()
  },
  TEST_MS
)

it(
  "a second coordinator stands by, takes over from one that sleeps, and the sleeper has no effect afterwards",
  async () => {
    cluster = await startCluster({ settings })
    const first = await cluster.add(["coordinator"])
    await cluster.add(["streaming-node", "query-node", "data-node", "proxy"])
    db = await connect({ servers: cluster.url })
    const before = await db.status(patience)
    await cluster.add(["coordinator"])
    await db.createCollection("one", { dimension: 2, ...patience })
    for (let i = 0; i < 20; i++) expect((await db.status(patience)).epoch).toBe(before.epoch)

    first.pause()
    const after = await until("the standby is active", async () => {
      const status = await db.status({ timeoutMs: 1_000 }).catch(() => undefined)
      return status !== undefined && status.coordinator !== before.coordinator ? status : undefined
    })
    expect(after.epoch).toBeGreaterThan(before.epoch)
    const two = await db.createCollection("two", { dimension: 2, ...patience })
    await two.insert([{ id: 1, vector: [1, 1] }], patience)

    first.resume()
    await db.createCollection("three", { dimension: 2, ...patience })
    const later = await until("the sleeper has stepped down", async () => {
      const seen = new Set<number>()
      for (let i = 0; i < 20; i++) seen.add((await db.status(patience)).epoch)
      return seen.size === 1 && [...seen][0]! >= after.epoch ? [...seen][0]! : undefined
    })
    expect(later).toBeGreaterThanOrEqual(after.epoch)
    expect(await db.listCollections(patience)).toEqual(["one", "three", "two"])
    await two.insert([{ id: 2, vector: [1, 2] }], patience)
    expect(await two.count(patience)).toBe(2)
  },
  TEST_MS
)

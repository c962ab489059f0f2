/** The tasks give the same bytes wherever they run; threads that die, lines that are full and damaged input are told apart. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { keyColumn, hashAt, keysOf } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import { simCompute } from "../../sim/compute.ts"
import { World } from "../../sim/world.ts"
import { fieldColumn } from "../../protocols/rows.ts"
import { Compute } from "../../storage/compute.ts"
import { layerComputeWorker } from "../../storage/compute-worker.ts"
import { noRequests } from "../../storage/delete-file.ts"
import { joined } from "../../storage/framed-file.ts"
import { hnswBuilder } from "../../storage/index-hnsw.ts"
import { decodeKeyFilter, mayHold } from "../../storage/key-filter.ts"
import { randomOf } from "./random.ts"

const rowsOf = (rows: number) => {
  const random = randomOf("compute")
  const rowsPerBlock = 100
  const dimension = 8
  return {
    keys: keyColumn("Int64", Array.from({ length: rows }, random.int64)),
    timestamps: BigUint64Array.from({ length: rows }, (_, row) => BigInt(1000 + row)),
    dimension,
    rowsPerBlock,
    vectorBlocks: Array.from({ length: Math.ceil(rows / rowsPerBlock) }, () => {
      const block = new Float32Array(new SharedArrayBuffer(rowsPerBlock * dimension * 4))
      for (let i = 0; i < block.length; i++) block[i] = random.gaussian()
      return block
    }),
    fields: fieldColumn(Array.from({ length: rows }, (_, row) => ({ row })))
  }
}

/** Seals, builds and opens, as a node would. */
const everything = Effect.gen(function* () {
  const compute = yield* Compute
  const input = rowsOf(1_234)
  const hashes = Array.from({ length: 1_234 }, (_, row) => hashAt(input.keys, row))
  const sealed = yield* compute.run("seal-segment", input)
  assert.deepStrictEqual([sealed.rows, sealed.minTimestamp, sealed.maxTimestamp], [1_234, 1000n, 2233n])
  const filter = decodeKeyFilter(sealed.filter)
  for (const hash of hashes) assert.isTrue(mayHold(filter, hash))
  const object = () => ({ bytes: joined(sealed.parts), length: sealed.bytes, crc32: sealed.crc32 })
  const built = yield* compute.run("build-index", { segment: object(), metric: "L2", M: 8, efConstruction: 50 })
  assert.strictEqual(built.count, 1_234)
  const moved = object()
  const opened = yield* compute.run("open-segment", moved)
  const deletes = yield* compute.run("seal-deletes", {
    keys: keyColumn("VarChar", ["a", "b"]),
    timestamps: BigUint64Array.of(1n, 2n),
    requests: noRequests
  })
  const reopened = yield* compute.run("open-deletes", {
    bytes: joined(deletes.parts),
    length: deletes.bytes,
    crc32: deletes.crc32
  })
  assert.deepStrictEqual(keysOf(reopened.keys), ["a", "b"])
  return {
    segment: joined(sealed.parts),
    index: joined(built.parts),
    filter: sealed.filter,
    opened,
    moved: moved.bytes.length === 0
  }
})

const faultOf = <A>(
  effect: Effect.Effect<A, { readonly fault: string; readonly reason?: string | undefined }, Compute>
) =>
  Effect.match(effect, {
    onFailure: ({ fault, reason }) => `${fault} ${reason ?? ""}`.trim(),
    onSuccess: () => "success"
  })

/** In a thread, and in a simulated world: there the effect may wait for nothing else. */
const places = {
  worker: <A, E>(effect: Effect.Effect<A, E, Compute>) => effect.pipe(Effect.provide(layerComputeWorker())),
  simulated: <A, E>(effect: Effect.Effect<A, E, Compute>) =>
    Effect.sync(() => {
      const world = new World("compute")
      const compute = simCompute(
        world,
        undefined,
        hnswBuilder(() => false)
      ).of(world.node("node"))
      return world.run(Effect.provideService(effect, Compute, compute))
    })
}

/** A thread of another kind: dies of "open-segment", keeps "seal-segment" waiting for good, answers the rest. */
const oddThread = new URL(
  `data:text/javascript,${encodeURIComponent(`
    import { parentPort } from "node:worker_threads"
    parentPort.on("message", ({ task }) => {
      if (task === "open-segment") process.exit(3)
      if (task === "open-deletes") throw new Error("not caught")
      if (task !== "seal-segment") parentPort.postMessage({ output: task })
    })`)}`
)

describe("compute", () => {
  it.live("gives the same bytes in a worker and simulated, and moves instead of copying", () =>
    Effect.gen(function* () {
      const simulated = yield* places.simulated(everything)
      const worker = yield* places.worker(everything)
      assert.isTrue(Buffer.from(simulated.segment).equals(worker.segment))
      assert.isTrue(Buffer.from(simulated.index).equals(worker.index))
      assert.isTrue(Buffer.from(simulated.filter).equals(worker.filter))
      assert.deepStrictEqual(worker.opened, simulated.opened)
      assert.isTrue(worker.moved)
      assert.isTrue(simulated.moved)
    })
  )

  for (const [name, place] of Object.entries(places)) {
    it.live(`says what stored bytes are to blame for: ${name}`, () =>
      place(
        Effect.gen(function* () {
          const compute = yield* Compute
          const { parts, bytes, crc32 } = yield* compute.run("seal-segment", rowsOf(10))
          const whole = joined(parts)
          const open = (length: number, crc: number) =>
            compute.run("open-segment", { bytes: whole.slice(), length, crc32: crc })
          assert.strictEqual(yield* faultOf(open(bytes, crc32)), "success")
          assert.strictEqual(yield* faultOf(open(bytes, crc32 + 1)), "task damaged")
          assert.strictEqual(yield* faultOf(open(bytes + 1, crc32)), "task damaged")
          const wrong = { ...rowsOf(10), timestamps: new BigUint64Array(3) }
          assert.strictEqual(yield* faultOf(compute.run("seal-segment", wrong)), "task")
          assert.strictEqual(yield* faultOf(open(bytes, crc32)), "success")
        })
      )
    )
  }

  // The engine aborts the process if its thread is ended inside of it, which this would find out the hard way.
  it.live("ends in the middle of a build, again and again", () =>
    Effect.gen(function* () {
      for (let run = 0; run < 10; run++) {
        const built = yield* Effect.gen(function* () {
          const compute = yield* Compute
          const { bytes, crc32, parts } = yield* compute.run("seal-segment", rowsOf(20_000))
          const segment = { bytes: joined(parts), length: bytes, crc32 }
          const build = compute.run("build-index", { segment, metric: "L2", M: 16, efConstruction: 200 })
          const fiber = yield* Effect.forkDetach(faultOf(build))
          yield* Effect.sleep(20 + 30 * run)
          return fiber
        }).pipe(Effect.provide(layerComputeWorker()))
        // "worker": the thread had not even begun when it was ended.
        assert.include(["task", "worker"], yield* Fiber.join(built))
      }
    })
  )

  it.live("replaces a thread that died, and fails only its task", () =>
    Effect.gen(function* () {
      const compute = yield* Compute
      const object = { bytes: new Uint8Array(1), length: 1, crc32: 0 }
      const deletes = { keys: keyColumn("Int64", []), timestamps: new BigUint64Array(0), requests: noRequests }
      for (let run = 0; run < 3; run++) {
        const faults = yield* Effect.all(
          [
            faultOf(compute.run("open-segment", { ...object, bytes: new Uint8Array(1) })),
            faultOf(compute.run("seal-deletes", deletes)),
            faultOf(compute.run("open-deletes", { ...object, bytes: new Uint8Array(1) })),
            faultOf(
              compute.run("seal-deletes", {
                ...deletes,
                timestamps: new BigUint64Array(0),
                keys: keyColumn("Int64", [])
              })
            )
          ],
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(faults, ["worker", "success", "worker", "success"])
      }
    }).pipe(Effect.provide(layerComputeWorker({ entry: oddThread })))
  )

  it.live("has a line with an end, forgets who gave up, and fails all when it closes", () =>
    Effect.gen(function* () {
      const waiting = yield* Effect.gen(function* () {
        const compute = yield* Compute
        const stuck = Effect.suspend(() => compute.run("seal-segment", rowsOf(1)))
        const fibers = yield* Effect.forEach(Array.from({ length: limits.computeQueueMax + 1 }), () =>
          Effect.forkDetach(faultOf(stuck), { startImmediately: true })
        )
        assert.strictEqual(yield* faultOf(stuck), "worker")
        yield* Fiber.interrupt(fibers.pop()!)
        const last = yield* Effect.forkDetach(faultOf(stuck), { startImmediately: true })
        assert.strictEqual(yield* faultOf(stuck), "worker")
        return [...fibers, last]
      }).pipe(Effect.provide(layerComputeWorker({ entry: oddThread })))
      for (const fiber of waiting) assert.strictEqual(yield* Fiber.join(fiber), "worker")
    })
  )
})

/** What shares a commit: as much as one takes, and nothing is refused for what another one asked. */
import { Effect, Option, Stream } from "effect"
import { assert, describe, it } from "vitest"
import { makeTruth, removeAll, type Truth } from "../../actors/coordinator/truth.ts"
import { type Job, metaKey } from "../../protocols/metadata.ts"
import { type Change, Meta } from "../../storage/meta.ts"
import { refusalOfChanges } from "../../storage/meta-rules.ts"
import { done } from "../../storage/outcome.ts"
import { inWorlds } from "../support/simulated.ts"

/** A program on a truth whose metadata takes what every adapter takes; `commits` are those that it took. */
const onTruth = (
  program: (truth: Truth, commits: ReadonlyArray<ReadonlyArray<Change>>) => Effect.Effect<void, unknown>
) =>
  inWorlds(() => {
    const commits: Array<ReadonlyArray<Change>> = []
    const meta = Meta.of({
      get: () => Effect.succeed(Option.none()),
      snapshot: Effect.succeed({ head: 0, entries: [] }),
      commit: (changes) =>
        Effect.delay(
          Effect.sync(() => refusalOfChanges(changes) ?? done(commits.push(changes))),
          1
        ),
      watch: () => Stream.empty
    })
    return Effect.scoped(
      Effect.flatMap(Effect.provideService(makeTruth(1, 0, []), Meta, meta), (truth) => program(truth, commits))
    )
  })

const jobOf = (id: string): Job => ({
  id,
  collection: "1",
  shard: 0,
  segment: id,
  state: "queued",
  attempt: null,
  node: null,
  tries: 0
})
const put = (truth: Truth, key: string, job: Job) => truth.commit((draft) => draft.put("job", key, job))
const together = <A, E>(all: ReadonlyArray<Effect.Effect<A, E>>) =>
  Effect.forEach(all, Effect.result, { concurrency: "unbounded" })

describe("changes that wait together", () => {
  it("are committed, however many bytes and keys they are", () => {
    onTruth((truth, commits) =>
      Effect.gen(function* () {
        for (const [count, bytes] of [
          [20, 500_000],
          [3_000, 10]
        ] as const) {
          const jobs = Array.from({ length: count }, (_, i) => ({
            ...jobOf(`${count}-${i}`),
            segment: "x".repeat(bytes)
          }))
          const answers = yield* together(jobs.map((job) => put(truth, metaKey.job(job.id), job)))
          assert.isTrue(answers.every(({ _tag }) => _tag === "Success"))
        }
        assert.strictEqual([...truth.all("job")].length, 3_020)
        assert.isBelow(commits.length, 20)
      })
    )
  })

  it("are not refused for one among them that can never be stored", () => {
    onTruth((truth) =>
      Effect.gen(function* () {
        const answers = yield* together([
          put(truth, "job.a", jobOf("a")),
          truth.commit((draft) => draft.get("job", "job.a")?.id),
          put(truth, `job.${"x".repeat(2_000)}`, jobOf("x")),
          put(truth, "job.b", jobOf("b")),
          put(truth, "job.c", { ...jobOf("c"), segment: "x".repeat(5_000_000) })
        ])
        assert.deepStrictEqual(
          answers.map((each) => (each._tag === "Success" ? "done" : each.failure.code)),
          ["done", "done", "overloaded", "done", "overloaded"]
        )
        assert.deepStrictEqual(Array.from(truth.all("job"), ({ id }) => id).sort(), ["a", "b"])
        // The next ones share a commit again.
        assert.isTrue((yield* together([put(truth, "job.d", jobOf("d"))])).every(({ _tag }) => _tag === "Success"))
      })
    )
  })
})

describe("the end of many", () => {
  it("is more than one commit", () => {
    onTruth((truth) =>
      Effect.gen(function* () {
        const keys = Array.from({ length: 2_500 }, (_, i) => `job.${i}`)
        yield* together(keys.map((key) => put(truth, key, jobOf(key))))
        yield* removeAll(truth, keys.slice(1))
        assert.strictEqual([...truth.all("job")].length, 1)
        yield* removeAll(truth, [])
      })
    )
  })
})

/** What only a directory of our own can meet: other versions, other owners, and a disk that fails. */
import { ClassicLevel } from "classic-level"
import { Context, Effect, Exit, Layer, type Scope } from "effect"
import { existsSync } from "node:fs"
import { chmod, mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { LocalStore } from "../../storage/local-store.ts"
import { Log } from "../../storage/log.ts"
import * as LogLocal from "../../storage/log-local.ts"
import { Meta } from "../../storage/meta.ts"
import * as MetaLocal from "../../storage/meta-local.ts"
import { bytesOf, collect, eventually, run, tagOf, textOf, valueOf } from "../support/storage.ts"

let folder = ""
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "elanus-local-store-"))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const open = (directory: string) =>
  Layer.build(
    Layer.fresh(Layer.mergeAll(LogLocal.layer(), MetaLocal.layer).pipe(Layer.provide(LocalStore.layer({ directory }))))
  )
const opened = (directory: string) => Effect.scoped(Effect.exit(open(directory)))
const test = (title: string, program: () => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it(title, () => run(program()))
const reasonOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit) ? "success" : JSON.stringify(exit.cause.reasons)

/** Writes into a database as somebody else. */
const write = (directory: string, key: string, value: string) =>
  Effect.promise(async () => {
    const database = new ClassicLevel<string, string>(directory)
    await database.put(key, value)
    await database.close()
  })

test("a directory is made, but not the folder that it is in", () =>
  Effect.gen(function* () {
    expect(reasonOf(yield* opened(join(folder, "new")))).toBe("success")
    expect(reasonOf(yield* opened(join(folder, "not", "there")))).toMatch(/missing.*folder is not there/)
  }))

test("what is not a directory, or may not be written, is unfit", () =>
  Effect.gen(function* () {
    const file = join(folder, "file")
    yield* Effect.promise(() => writeFile(file, "x"))
    expect(reasonOf(yield* opened(file))).toMatch(/unfit.*cannot be used/)
    // Root may write everywhere.
    if (process.getuid?.() === 0) return
    const closed = join(folder, "closed")
    yield* opened(closed)
    yield* Effect.promise(() => chmod(closed, 0o500))
    expect(reasonOf(yield* opened(closed))).toMatch(/unfit.*cannot be used/)
    yield* Effect.promise(() => chmod(closed, 0o700))
  }))

test("a newer format and a database of something else are not touched", () =>
  Effect.gen(function* () {
    const newer = join(folder, "newer")
    yield* opened(newer)
    yield* write(newer, "format", "2")
    expect(reasonOf(yield* opened(newer))).toMatch(/unfit.*format 2/)
    const other = join(folder, "other")
    yield* write(other, "somebody's", "x")
    expect(reasonOf(yield* opened(other))).toMatch(/unfit.*something else/)
  }))

test("a write that failed is ambiguous, and what is there is read again when the disk is back", () =>
  Effect.gen(function* () {
    const directory = join(folder, "fails")
    const context = yield* open(directory)
    const log = Context.get(context, Log)
    const meta = Context.get(context, Meta)
    yield* log.create(0)
    valueOf(yield* Effect.flatten(log.append(0, bytesOf("a"), 0)))
    let head = valueOf(yield* meta.commit([{ key: "k", value: bytesOf("1") }], 0))

    // LevelDB makes a new file every few MiB, and now it cannot.
    yield* Effect.promise(() => rename(directory, `${directory}-away`))
    let acknowledged = 1
    let inDoubt = 0
    for (;;) {
      const handed = []
      for (let index = 0; index < 4; index++) {
        handed.push(yield* log.append(0, new Uint8Array(400_000).fill(index), acknowledged + index))
      }
      const [appended, committed] = yield* Effect.all(
        [
          Effect.all(handed, { concurrency: "unbounded" }),
          meta.commit([{ key: "counter", value: bytesOf(`${acknowledged}`) }], head)
        ],
        { concurrency: 2 }
      )
      const outcomes = appended.map(tagOf)
      if (committed._tag === "Done") head = committed.value
      acknowledged += outcomes.filter((tag) => tag === "Done").length
      inDoubt = outcomes.filter((tag) => tag === "Ambiguous").length
      if (outcomes.some((tag) => tag !== "Done")) break
    }
    expect(inDoubt).toBeGreaterThan(0)
    expect(tagOf(yield* Effect.flatten(log.append(0, bytesOf("x"), acknowledged)))).toBe("Unavailable")
    expect(tagOf(yield* meta.commit([{ key: "k", value: bytesOf("2") }], head))).toBe("Unavailable")
    expect(reasonOf(yield* Effect.exit(log.open(0)))).toContain("unavailable")
    expect(reasonOf(yield* Effect.exit(meta.snapshot))).toContain("unavailable")

    // It is tried again, and never begun anew in the place of what is away.
    for (let attempt = 0; attempt < 5; attempt++) {
      yield* Effect.sleep(10)
      expect(tagOf(yield* meta.commit([{ key: "k", value: bytesOf("2") }], 0))).toBe("Unavailable")
    }
    expect(existsSync(directory)).toBe(false)

    yield* Effect.promise(() => rename(`${directory}-away`, directory))
    const state = yield* eventually(log.open(0))
    expect(state.last).toBeGreaterThanOrEqual(acknowledged)
    expect(state.last).toBeLessThanOrEqual(acknowledged + inDoubt)
    // A fence decides what was in doubt, and then it goes on.
    const fence = valueOf(yield* log.appendBatch(0, Array(65).fill(bytesOf("fence")), state.last))
    expect(fence).toBe(state.last + 65)
    const entries = yield* collect(log.read(0, 1, fence))
    expect(entries.map(({ sequence }) => sequence)).toEqual(entries.map((_, index) => index + 1))
    expect([textOf(entries[0]!.data), entries.length]).toEqual(["a", fence])
    const found = (yield* meta.snapshot).head
    expect([head, head + 1]).toContain(found)
    expect(valueOf(yield* meta.commit([{ key: "k", value: bytesOf("2") }], found))).toBe(found + 1)
  }))

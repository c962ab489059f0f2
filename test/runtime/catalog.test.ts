/** Who waits for the catalog to change hears of every change, and of each commit once. */
import { Effect, Stream } from "effect"
import { assert, describe, it } from "vitest"
import { metadata, metaKey, leaseKey } from "../../protocols/metadata.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { World } from "../../sim/world.ts"
import { Leases } from "../../storage/leases.ts"
import { Meta, type WatchEvent } from "../../storage/meta.ts"
import { StorageError } from "../../storage/outcome.ts"
import { collectionOf } from "../support/collection.ts"

const put = (key: string, value: Uint8Array, revision: number): WatchEvent => ({
  _tag: "Put",
  entry: { key, value, revision }
})
const collection = (id: string, revision: number) =>
  put(metaKey.collection(id), metadata.collection.encode(collectionOf(id)), revision)
const commit = (revision: number) =>
  put(metaKey.commit, metadata.commit.encode({ epoch: 1, number: revision }), revision)
const lease = (id: string, revision: number) =>
  put(leaseKey.node(id), metadata.node.encode({ id, roles: [], version: "" }), revision)
const caughtUp: WatchEvent = { _tag: "CaughtUp", revision: Infinity }
const broken = new StorageError({ reason: "unavailable", detail: "broken" })

const LATER_MS = 1_000

/** Once somebody waits, these come; how often the waiter looked until `test` held, or undefined if it never did. */
const looks = (
  {
    leases = [],
    meta,
    thenBreak = false
  }: {
    readonly meta: ReadonlyArray<WatchEvent>
    readonly leases?: ReadonlyArray<WatchEvent>
    readonly thenBreak?: boolean
  },
  test: (catalog: Catalog["Service"]) => boolean,
  signal: "changed" | "leased" = "changed"
) => {
  /** A picture without keys; then either the events as changes of it, or it breaks and the next picture has them. */
  const watch = (events: ReadonlyArray<WatchEvent>) => {
    let times = 0
    const coming = Stream.fromIterable(events)
    const later = <A, E>(stream: Stream.Stream<A, E>) => Stream.unwrap(Effect.as(Effect.sleep(LATER_MS), stream))
    return () =>
      Stream.suspend(() => {
        const isFirst = times++ === 0
        if (!thenBreak) return Stream.concat(Stream.succeed(caughtUp), Stream.concat(later(coming), Stream.never))
        return isFirst
          ? Stream.concat(Stream.succeed(caughtUp), later(Stream.fail(broken)))
          : Stream.concat(coming, Stream.concat(Stream.succeed(caughtUp), Stream.never))
      })
  }
  let count = 0
  const program = Effect.gen(function* () {
    const catalog = yield* Catalog
    const waited = yield* catalog[signal].within(10 * LATER_MS, () => {
      count++
      return test(catalog)
    })
    return waited ? count : undefined
  })
  return new World("catalog").run(
    program.pipe(
      Effect.provide(Catalog.layer),
      Effect.provideService(Meta, { watch: watch(meta) } as unknown as Meta["Service"]),
      Effect.provideService(Leases, { watch: watch(leases) } as unknown as Leases["Service"]),
      Effect.scoped
    )
  )
}

/** Looks of who waits before anything has come: before and after it is on the list. */
const BEFORE = 2

describe("who waits for the catalog", () => {
  it("looks once for a commit of many keys", () => {
    const meta = [collection("1", 1), collection("2", 2), collection("3", 3), commit(4)]
    assert.strictEqual(
      looks({ meta }, (catalog) => catalog.head() === 4),
      BEFORE + 1
    )
  })

  it("hears of what a picture has behind the key commit", () => {
    const meta = [commit(4), collection("1", 1)]
    assert.isDefined(looks({ meta, thenBreak: true }, (catalog) => catalog.collection("1") !== undefined))
  })

  it("hears of a node that comes, and not of every renewal; and who waits for metadata hears of neither", () => {
    const leases = [lease("a", 1), lease("a", 2), lease("a", 3), lease("b", 4)]
    const isThere = (catalog: Catalog["Service"]) => catalog.node("b") !== undefined
    assert.strictEqual(looks({ meta: [], leases }, isThere, "leased"), BEFORE + 2)
    assert.isUndefined(looks({ meta: [], leases }, isThere))
  })

  it("hears of a lease that this version cannot read", () => {
    const leases = [put(leaseKey.node("a"), new TextEncoder().encode('{"v":99}'), 1)]
    assert.isDefined(looks({ meta: [], leases }, (catalog) => catalog.unreadable() !== undefined))
  })
})

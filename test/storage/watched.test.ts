/** What follows a watch never goes back: not when a watch breaks, and not when the next one is told by a server that is behind. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { utf8 } from "../../protocols/wire.ts"
import type { WatchEvent } from "../../storage/meta.ts"
import { StorageError } from "../../storage/outcome.ts"
import { follow } from "../../storage/watched.ts"

const put = (key: string, revision: number): WatchEvent => ({
  _tag: "Put",
  entry: { key, revision, value: utf8.encode(key) }
})
const gone = (key: string, revision: number): WatchEvent => ({ _tag: "Deleted", key, revision })
const caughtUp = (revision: number): WatchEvent => ({ _tag: "CaughtUp", revision })

const broken = Stream.fail(new StorageError({ reason: "unavailable", detail: "broken" }))

/** Follows one watch after the other, each broken but the last; what was told of changes, and what stands in the end. */
const followed = (...watches: ReadonlyArray<ReadonlyArray<WatchEvent>>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const told: Array<string> = []
      let next = 0
      const watch = () => {
        const events = Stream.fromIterable(watches[next++] ?? [])
        return Stream.concat(events, next < watches.length ? broken : Stream.never)
      }
      const { keys } = yield* follow(watch, (key, entry) =>
        told.push(entry === undefined ? `-${key}` : `${key}${entry.revision}`)
      )
      while (next < watches.length) yield* Effect.sleep(5)
      yield* Effect.sleep(5)
      return { told, keys: [...keys()].toSorted() }
    })
  )

const FIRST = [put("a", 1), put("b", 2), caughtUp(2), put("c", 5)]

describe("what follows a watch", () => {
  it.live("forgets what the next picture lacks", () =>
    Effect.gen(function* () {
      const { keys, told } = yield* followed(FIRST, [put("a", 1), put("c", 6), caughtUp(6)])
      assert.deepStrictEqual(keys, ["a", "c"])
      assert.deepStrictEqual(told, ["a1", "b2", "c5", "c6", "-b"])
    })
  )

  it.live("keeps what is newer than a picture that is behind", () =>
    Effect.gen(function* () {
      const { keys, told } = yield* followed(FIRST, [put("a", 1), caughtUp(1)])
      assert.deepStrictEqual(keys, ["a", "b", "c"])
      assert.deepStrictEqual(told, ["a1", "b2", "c5"])
    })
  )

  it.live("forgets it when the watch has come past it", () =>
    Effect.gen(function* () {
      const { keys, told } = yield* followed(FIRST, [put("a", 1), caughtUp(1), put("b", 2), put("d", 6), put("e", 7)])
      assert.deepStrictEqual(keys, ["a", "b", "d", "e"])
      assert.deepStrictEqual(told, ["a1", "b2", "c5", "d6", "-c", "e7"])
    })
  )

  it.live("is not told by an old marker that a newer value is gone", () =>
    Effect.gen(function* () {
      const { keys, told } = yield* followed(
        [put("b", 1), put("a", 2), caughtUp(2), gone("a", 3), put("a", 4)],
        [put("b", 1), gone("a", 3), caughtUp(3), put("a", 4), gone("b", 5)]
      )
      assert.deepStrictEqual(keys, ["a"])
      assert.deepStrictEqual(told, ["b1", "a2", "-a", "a4", "-b"])
    })
  )

  it.live("is not told by an old picture of what is gone", () =>
    Effect.gen(function* () {
      const { keys, told } = yield* followed(
        [put("a", 1), put("b", 2), caughtUp(2), gone("b", 3)],
        [put("a", 1), put("b", 2), caughtUp(2), gone("b", 3), put("b", 4)]
      )
      assert.deepStrictEqual(keys, ["a", "b"])
      assert.deepStrictEqual(told, ["a1", "b2", "-b", "b4"])
    })
  )
})

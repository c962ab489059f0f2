/** The heap and the merge against a plain sort. */
import { assert, describe, it } from "@effect/vitest"
import { compareKeys, type Key, keyColumn } from "../../protocols/keys.ts"
import { mergeTopK, TopK } from "../../storage/top-k.ts"
import { randomOf } from "./random.ts"

describe("top k", () => {
  it("keeps what a sort would put first, equal ranks by row", () => {
    const random = randomOf("top k")
    for (let run = 0; run < 500; run++) {
      const candidates = Array.from({ length: random.below(100) }, (_, row) => [random.below(8) - 4, row] as const)
      const k = random.below(30)
      const shuffled = [...candidates].sort(() => random.next() - 0.5)
      const top = new TopK(k)
      for (const [rank, row] of shuffled) top.offer(rank, row)
      const expected = [...candidates].sort(([x, i], [y, j]) => x - y || i - j).slice(0, k)
      const found = top.finish()
      assert.deepStrictEqual(
        [...found.rows],
        expected.map(([, row]) => row),
        random.seed
      )
      assert.deepStrictEqual(
        [...found.ranks],
        expected.map(([rank]) => rank),
        random.seed
      )
    }
  })

  it("takes no NaN, and infinity only if there is room", () => {
    const top = new TopK(2)
    top.offer(NaN, 1)
    top.offer(Infinity, 2)
    top.offer(3, 3)
    top.offer(NaN, 4)
    top.offer(Infinity, 5)
    assert.deepStrictEqual([...top.finish().rows], [3, 2])
    const none = new TopK(0)
    none.offer(-Infinity, 1)
    assert.strictEqual(none.finish().rows.length, 0)
  })

  it("merges lists as one sort of all would, equal ranks by key", () => {
    const random = randomOf("merge")
    for (let run = 0; run < 300; run++) {
      const type = random.below(2) === 0 ? "Int64" : "VarChar"
      const draw = (): Key =>
        type === "Int64" ? random.below(50) - 25 : random.pick(["a", "b", "ä", "鍵", "\u{1f5dd}", "\uffff"])
      const lists = Array.from({ length: random.below(6) }, () =>
        Array.from({ length: random.below(20) }, () => ({ rank: random.below(4), key: draw() })).sort(
          (x, y) => x.rank - y.rank || compareKeys(x.key, y.key)
        )
      )
      const k = random.below(40)
      const merged = mergeTopK(
        lists.map((list) => ({
          ranks: list.map(({ rank }) => rank),
          keys: keyColumn(
            type,
            list.map(({ key }) => key)
          )
        })),
        k
      )
      const all = lists.flatMap((list, source) => list.map((hit, position) => ({ ...hit, source, position })))
      all.sort((x, y) => x.rank - y.rank || compareKeys(x.key, y.key) || x.source - y.source || x.position - y.position)
      const expected = all.slice(0, k)
      assert.deepStrictEqual(
        [...merged.lists],
        expected.map(({ source }) => source),
        random.seed
      )
      assert.deepStrictEqual(
        [...merged.positions],
        expected.map(({ position }) => position),
        random.seed
      )
      assert.deepStrictEqual(
        [...merged.ranks],
        expected.map(({ rank }) => rank),
        random.seed
      )
    }
  })
})

/** The key filter never denies a key that it was made of, and rarely claims another; also among keys of one shard. */
import { assert, describe, it } from "@effect/vitest"
import { hashAt, hashKey, type KeyColumn, keyColumn, shardOf } from "../../protocols/keys.ts"
import { decodeKeyFilter, encodeKeyFilter, makeKeyFilter, mayHold } from "../../storage/key-filter.ts"
import { StorageError } from "../../storage/outcome.ts"
import { randomOf } from "./random.ts"

const columnsOf = (): ReadonlyArray<readonly [string, KeyColumn, (i: number) => number]> => {
  const random = randomOf("key filter")
  const oneShard = Array.from({ length: 400_000 }, (_, i) => i).filter((i) => shardOf(hashKey(i), 16) === 3)
  const others = Array.from({ length: 400_000 }, (_, i) => 1_000_000 + i).filter((i) => shardOf(hashKey(i), 16) === 3)
  return [
    [
      "numbers in a row",
      keyColumn(
        "Int64",
        Array.from({ length: 20_000 }, (_, i) => i)
      ),
      (i) => hashKey(1_000_000 + i)
    ],
    ["any numbers", keyColumn("Int64", Array.from({ length: 20_000 }, random.int64)), (i) => hashKey(i)],
    [
      "texts",
      keyColumn(
        "VarChar",
        Array.from({ length: 20_000 }, (_, i) => `key-${i}`)
      ),
      (i) => hashKey(`other-${i}`)
    ],
    ["one shard's", keyColumn("Int64", oneShard), (i) => hashKey(others[i % others.length]!)]
  ]
}

describe("key filter", () => {
  for (const [name, keys, other] of columnsOf()) {
    it(`of ${name} says yes to all of its own, and to fewer than 2 % of others`, () => {
      const filter = decodeKeyFilter(encodeKeyFilter(makeKeyFilter(keys)))
      assert.strictEqual(filter.keys, keys.count)
      for (let row = 0; row < keys.count; row++) assert.isTrue(mayHold(filter, hashAt(keys, row)))
      let wrong = 0
      for (let i = 0; i < 20_000; i++) if (mayHold(filter, other(i))) wrong++
      assert.isBelow(wrong / 20_000, 0.02)
      assert.isAtMost(filter.words.byteLength * 8, keys.count * 10 + 512)
    })
  }

  it("of nothing holds nothing", () => {
    const filter = decodeKeyFilter(encodeKeyFilter(makeKeyFilter(keyColumn("Int64", []))))
    for (let i = 0; i < 100; i++) assert.isFalse(mayHold(filter, hashKey(i)))
  })

  it("never changes: these bits are stored", () => {
    const filter = makeKeyFilter(keyColumn("VarChar", ["a", "b", "鍵"]))
    assert.strictEqual(Buffer.from(encodeKeyFilter(filter)).toString("hex"), GOLDEN)
  })

  it("is damaged by any bit, and by a cut", () => {
    const bytes = encodeKeyFilter(makeKeyFilter(keyColumn("Int64", [1, 2, 3])))
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const wrong = bytes.slice()
      wrong[bit >> 3]! ^= 1 << (bit & 7)
      assert.throws(() => decodeKeyFilter(wrong), StorageError)
    }
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => decodeKeyFilter(bytes.subarray(0, length)), StorageError)
    }
  })
})

const GOLDEN =
  "454c414e55534b460100000069fcc244000000000000544000000000000000000000000000000840400000000000000020001000" +
  "000000000000000004010000000000100000000400020090001004c00000000000000100000000000000000000000000000000" +
  "000200000000002044"

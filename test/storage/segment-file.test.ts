/** Segments, delete files and checksums as bytes: what was written comes back, and what was changed does not. */
import { assert, describe, it } from "@effect/vitest"
import { chainHash, crc32, crc32OfParts } from "../../protocols/checksum.ts"
import { compareKeys, type Key, keyAt, keyColumn, keysOf } from "../../protocols/keys.ts"
import { fieldBytesAt, fieldColumn, type Fields } from "../../protocols/rows.ts"
import { decodeDeletes, type DeleteColumns, encodeDeletes, noRequests } from "../../storage/delete-file.ts"
import { joined } from "../../storage/framed-file.ts"
import { StorageError } from "../../storage/outcome.ts"
import {
  decodeSegment,
  encodeSegment,
  type SegmentColumns,
  sortBlocks,
  sortSegment
} from "../../storage/segment-file.ts"
import { type Random, randomOf } from "./random.ts"

const extremes = [
  0n,
  1n,
  -1n,
  2n ** 63n - 1n,
  -(2n ** 63n),
  2n ** 53n,
  -(2n ** 53n),
  2n ** 32n,
  -(2n ** 32n),
  4294967295n
]
const texts = ["", "a", "ab", "b", "ключ", "鍵", "\u{1f5dd}", "\uffff", "with\0zero", "x".repeat(300)]

const drawKey = (random: Random, type: "Int64" | "VarChar"): Key => {
  if (type === "VarChar") return random.below(2) === 0 ? random.pick(texts) : `k${random.below(50)}`
  return random.below(2) === 0 ? random.pick(extremes) : random.int64()
}

const drawFields = (random: Random): Fields | undefined =>
  random.pick([undefined, {}, { a: 1 }, { ü: ["鍵", null, { deep: true }] }, { text: "x".repeat(random.below(200)) }])

const drawColumns = (random: Random, rows: number): SegmentColumns => {
  const type = random.below(2) === 0 ? "Int64" : "VarChar"
  const dimension = 1 + random.below(9)
  return {
    keys: keyColumn(
      type,
      Array.from({ length: rows }, () => drawKey(random, type))
    ),
    timestamps: BigUint64Array.from({ length: rows }, () => BigInt.asUintN(64, random.pick([random.int64(), 5n, 6n]))),
    dimension,
    vectors: Float32Array.from({ length: rows * dimension }, () =>
      random.pick([0, -0, 1e-40, 3.4e38, random.gaussian()])
    ),
    fields: random.below(3) === 0 ? undefined : fieldColumn(Array.from({ length: rows }, () => drawFields(random)))
  }
}

/** A row as one text, so that rows can be compared and sorted as a whole. */
const rowAt = (columns: SegmentColumns, row: number): string => {
  const { dimension, vectors } = columns
  const bits = new Uint8Array(vectors.slice(row * dimension, (row + 1) * dimension).buffer)
  const fields = Buffer.from(fieldBytesAt(columns.fields, row)).toString()
  return [keyAt(columns.keys, row), columns.timestamps[row], Buffer.from(bits).toString("hex"), fields].join("|")
}
const rowsOf = (columns: SegmentColumns) => Array.from({ length: columns.keys.count }, (_, row) => rowAt(columns, row))

const reasonOf = (run: () => unknown): string => {
  try {
    run()
    return "success"
  } catch (error) {
    assert.instanceOf(error, StorageError, String(error))
    return (error as StorageError).reason
  }
}

describe("segment file", () => {
  it("gives back what was written, from any alignment", () => {
    const random = randomOf("segment file")
    for (let run = 0; run < 200; run++) {
      const columns = drawColumns(random, random.pick([0, 1, 2, 7, 8, 9, random.below(100)]))
      const file = joined(encodeSegment(columns))
      const found = decodeSegment(file)
      assert.deepStrictEqual(rowsOf(found), rowsOf(columns), random.seed)
      assert.deepStrictEqual(keysOf(found.keys), keysOf(columns.keys), random.seed)
      assert.strictEqual(found.dimension, columns.dimension)
      if (columns.fields === undefined) assert.isUndefined(found.fields)
      if (columns.keys.count > 0) assert.strictEqual(found.vectors.buffer, file.buffer, "a view, not a copy")
      const shifted = new Uint8Array(file.length + 3)
      shifted.set(file, 3)
      assert.deepStrictEqual(rowsOf(decodeSegment(shifted.subarray(3))), rowsOf(columns), random.seed)
    }
  })

  it("sorts by key and timestamp, keeps equal ones in order, and keeps rows together", () => {
    const random = randomOf("sort segment")
    for (let run = 0; run < 200; run++) {
      const columns = drawColumns(random, random.below(60))
      const sorted = sortSegment(columns)
      const order = Array.from({ length: columns.keys.count }, (_, row) => row).sort((a, b) => {
        const byKey = compareKeys(keyAt(columns.keys, a), keyAt(columns.keys, b))
        const [x, y] = [columns.timestamps[a]!, columns.timestamps[b]!]
        return byKey || (x < y ? -1 : x > y ? 1 : a - b)
      })
      const expected = order.map((row) => rowAt(columns, row))
      assert.deepStrictEqual(rowsOf(sorted), expected, random.seed)
      assert.deepStrictEqual(rowsOf(sortSegment(sorted)), expected, random.seed)

      const rowsPerBlock = 1 + random.below(10)
      const vectorBlocks: Array<Float32Array> = []
      for (let row = 0; row < columns.keys.count; row += rowsPerBlock) {
        const block = new Float32Array(new SharedArrayBuffer(rowsPerBlock * columns.dimension * 4))
        block.set(columns.vectors.subarray(row * columns.dimension, (row + rowsPerBlock) * columns.dimension))
        vectorBlocks.push(block)
      }
      assert.deepStrictEqual(rowsOf(sortBlocks({ ...columns, vectorBlocks, rowsPerBlock })), expected, random.seed)
    }
  })

  it("notices every bit that changed, and every cut", () => {
    const random = randomOf("segment damage")
    for (const rows of [0, 3]) {
      const file = joined(encodeSegment(drawColumns(random, rows)))
      for (let bit = 0; bit < file.length * 8; bit++) {
        file[bit >> 3]! ^= 1 << (bit & 7)
        assert.strictEqual(
          reasonOf(() => decodeSegment(file)),
          "damaged",
          `bit ${bit} ${random.seed}`
        )
        file[bit >> 3]! ^= 1 << (bit & 7)
      }
      for (let length = 0; length < file.length; length++) {
        assert.strictEqual(
          reasonOf(() => decodeSegment(file.subarray(0, length))),
          "damaged",
          `cut at ${length}`
        )
      }
      assert.strictEqual(
        reasonOf(() => decodeSegment(joined([file, file]))),
        "damaged"
      )
      assert.strictEqual(
        reasonOf(() => decodeSegment(joined([file, new Uint8Array(1)]))),
        "damaged"
      )
      assert.strictEqual(
        reasonOf(() => decodeSegment(random.bytes(file.length))),
        "damaged"
      )
    }
  })

  it("of a newer version is unfit, not damaged", () => {
    const file = joined(encodeSegment(drawColumns(randomOf("newer"), 5)))
    const at = Buffer.from(file.buffer).lastIndexOf("ELANUSSG")
    const view = new DataView(file.buffer)
    view.setUint32(at + 8, 2, true)
    assert.strictEqual(
      reasonOf(() => decodeSegment(file)),
      "damaged"
    )
    view.setUint32(at + 20, crc32(file.subarray(at, at + 20)), true)
    assert.strictEqual(
      reasonOf(() => decodeSegment(file)),
      "unfit"
    )
  })

  it("holds 120,000 rows", () => {
    const rows = 120_000
    const columns: SegmentColumns = {
      keys: keyColumn(
        "VarChar",
        Array.from({ length: rows }, (_, row) => `key-${(row * 7919) % rows}`)
      ),
      timestamps: new BigUint64Array(rows).fill(7n),
      dimension: 4,
      vectors: Float32Array.from({ length: rows * 4 }, (_, i) => i),
      fields: fieldColumn(Array.from({ length: rows }, (_, row) => (row % 2 === 0 ? { row } : undefined)))
    }
    const found = decodeSegment(joined(encodeSegment(sortSegment(columns))))
    assert.strictEqual(found.keys.count, rows)
    for (let row = 1; row < rows; row += 997) {
      assert.isBelow(compareKeys(keyAt(found.keys, row - 1), keyAt(found.keys, row)), 0)
      const original = found.vectors[row * 4]! / 4
      assert.strictEqual(keyAt(found.keys, row), `key-${(original * 7919) % rows}`)
    }
  })
})

describe("delete file", () => {
  const draw = (random: Random): DeleteColumns => {
    const type = random.below(2) === 0 ? "Int64" : "VarChar"
    const rows = random.below(20)
    const requests = random.below(10)
    const times = (count: number) => BigUint64Array.from({ length: count }, () => BigInt.asUintN(64, random.int64()))
    return {
      keys: keyColumn(
        type,
        Array.from({ length: rows }, () => drawKey(random, type))
      ),
      timestamps: times(rows),
      upTo: random.below(2) === 0 ? undefined : times(rows),
      requests: requests === 0 ? noRequests : { ids: random.bytes(requests * 16), timestamps: times(requests) }
    }
  }

  it("gives back what was written", () => {
    const random = randomOf("delete file")
    for (let run = 0; run < 200; run++) {
      const columns = draw(random)
      const found = decodeDeletes(joined(encodeDeletes(columns)))
      assert.deepStrictEqual(keysOf(found.keys), keysOf(columns.keys), random.seed)
      assert.deepStrictEqual([...found.timestamps], [...columns.timestamps], random.seed)
      assert.deepStrictEqual(found.upTo && [...found.upTo], columns.upTo && [...columns.upTo], random.seed)
      assert.deepStrictEqual([...found.requests.ids], [...columns.requests.ids], random.seed)
      assert.deepStrictEqual([...found.requests.timestamps], [...columns.requests.timestamps], random.seed)
    }
  })

  it("notices every bit that changed, and every cut; a newer one is unfit", () => {
    const file = joined(encodeDeletes(draw(randomOf("delete damage"))))
    for (let bit = 0; bit < file.length * 8; bit++) {
      file[bit >> 3]! ^= 1 << (bit & 7)
      assert.strictEqual(
        reasonOf(() => decodeDeletes(file)),
        "damaged",
        `bit ${bit}`
      )
      file[bit >> 3]! ^= 1 << (bit & 7)
    }
    for (let length = 0; length < file.length; length++) {
      assert.strictEqual(
        reasonOf(() => decodeDeletes(file.subarray(0, length))),
        "damaged",
        `cut at ${length}`
      )
    }
    const view = new DataView(file.buffer)
    view.setUint32(8, 2, true)
    view.setUint32(12, crc32(file.subarray(16), crc32(file.subarray(0, 12))), true)
    assert.strictEqual(
      reasonOf(() => decodeDeletes(file)),
      "unfit"
    )
  })
})

describe("checksums", () => {
  it("never change", () => {
    assert.strictEqual(crc32(new TextEncoder().encode("123456789")), 0xcbf43926) // the check value of CRC-32/ISO-HDLC
    assert.strictEqual(chainHash(0n), CHAIN[0])
    assert.strictEqual(chainHash(1n, 2, 3n), CHAIN[1])
    assert.strictEqual(chainHash(2n ** 64n - 1n, -1, 2 ** 53 - 1), CHAIN[2])
  })

  it("of parts is that of the whole; a chain feels order, count and every part", () => {
    const random = randomOf("checksums")
    const whole = random.bytes(1000)
    const cut = random.below(1000)
    assert.strictEqual(crc32OfParts([whole.subarray(0, cut), whole.subarray(cut)]), crc32(whole), random.seed)
    const seen = new Set([chainHash(0n), chainHash(0n, 0), chainHash(0n, 0, 0), chainHash(1n, 0), chainHash(0n, 1)])
    seen
      .add(chainHash(0n, 0, 1))
      .add(chainHash(0n, 1, 0))
      .add(chainHash(chainHash(0n, 1), 0))
    assert.strictEqual(seen.size, 8)
    assert.strictEqual(chainHash(5n, -1), chainHash(5n, 2n ** 64n - 1n))
    assert.throws(() => chainHash(0n, 0.5), RangeError)
  })
})

const CHAIN = [16294208416658607535n, 15133356677879861544n, 8998338022691178338n]

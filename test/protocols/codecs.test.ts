/**
 * Every message and record survives its way through bytes, whatever is in it and wherever in a buffer it lies; cut
 * short, it is refused; and a record of the log with any bit of it changed is known to be damaged.
 */
import { assert, describe, it } from "vitest"
import { binary, consistencies, formatRequestId, parseRequestId, type ReadLevel } from "../../protocols/client.ts"
import { type ErrorCode, errorKinds, ElanusError, failure } from "../../protocols/errors.ts"
import { type Key, type KeyColumn, keyColumn, keysOf } from "../../protocols/keys.ts"
import { decodeAnswer, encodeAnswer, encodeFailure } from "../../protocols/protocol.ts"
import { isJsonObject } from "../../protocols/json-text.ts"
import { limits } from "../../protocols/limits.ts"
import { CoordinatorProtocol, grantKinds } from "../../protocols/coordinator.ts"
import { NodeProtocol } from "../../protocols/node.ts"
import { noTail, QueryNodeProtocol, type SegmentRead } from "../../protocols/query-node.ts"
import {
  decodeRecord,
  encodeRecord,
  type Entry,
  entryBytes,
  recordBytes,
  RecordDamaged,
  type RecordHeader,
  type RecordKind
} from "../../protocols/record.ts"
import {
  concatFields,
  fieldBytesAt,
  type FieldColumn,
  fieldColumn,
  parseFields,
  pickRows,
  readRows,
  type RowBatch,
  writeRows
} from "../../protocols/rows.ts"
import { type ReadTime, type Route, StreamingNodeProtocol } from "../../protocols/streaming-node.ts"
import { type Codec, Reader, WireError, Writer } from "../../protocols/wire.ts"
import { randomFrom, type RandomSource } from "../support/random.ts"
import { forSeeds } from "../support/seeds.ts"

// ---- anything that may be said

const u64 = (random: RandomSource): bigint =>
  random.pick([
    () => BigInt(random.below(100)),
    () => (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32)),
    () => (1n << 64n) - 1n
  ])()
const int64 = (random: RandomSource): bigint => BigInt.asIntN(64, u64(random))
const count = (random: RandomSource): number =>
  random.pick([0, 1, random.below(1_000), 2 ** 32, Number.MAX_SAFE_INTEGER])
const text = (random: RandomSource, mostly = 10): string =>
  Array.from({ length: random.below(random.pick([1, mostly, 31, 33, 63, 65, 200])) }, () =>
    random.pick(["a", "Z", "_", "9", random.chance(0.1) ? "é" : "x", random.chance(0.1) ? "鍵" : "y", "😀", "\uFEFF"])
  ).join("")
const asciiText = (random: RandomSource): string =>
  Array.from({ length: random.below(100) }, () => String.fromCharCode(32 + random.below(95))).join("")

const keysLike = (random: RandomSource, rows: number, type = random.pick(["Int64", "VarChar"] as const)): KeyColumn => {
  const keys = Array.from({ length: rows }, (): Key => (type === "Int64" ? int64(random) : text(random)))
  return keyColumn(type, keys)
}
const floats = (random: RandomSource, length: number): Float32Array =>
  Float32Array.from({ length }, () =>
    random.pick([() => 0, () => -0, () => random.below(2_000) / 1_000 - 1, () => 1e-40, () => 3e38])()
  )
const doubles = (random: RandomSource, length: number): Float64Array =>
  Float64Array.from({ length }, () => random.below(2 ** 30) / 997 - 1e5)
const fieldsLike = (random: RandomSource, rows: number): FieldColumn | undefined =>
  fieldColumn(
    Array.from({ length: rows }, () =>
      random.pick([undefined, {}, { color: text(random), n: random.below(9) }, { deep: [1, { a: null }] }])
    )
  )
const rowsLike = (random: RandomSource, rows = random.below(8), dimension = 1 + random.below(9)): RowBatch => ({
  keys: keysLike(random, rows),
  dimension,
  vectors: floats(random, rows * dimension),
  fields: fieldsLike(random, rows)
})
const bodyLike = (random: RandomSource): Entry["body"] =>
  random.chance(0.5)
    ? { _tag: "Upsert", rows: rowsLike(random) }
    : { _tag: "Delete", keys: keysLike(random, random.below(6)) }
const idLike = (random: RandomSource) => ({ issued: u64(random), unique: u64(random) })
const entryLike = (random: RandomSource): Entry => ({
  collection: text(random),
  shard: random.below(65_536),
  schema: count(random),
  request: idLike(random),
  body: bodyLike(random)
})
const headerLike = (random: RandomSource): RecordHeader => ({
  kind: random.pick<RecordKind>(["rows", "tick", "fence", "padding"]),
  channel: random.below(65_536),
  epoch: u64(random),
  incarnation: random.below(2 ** 32),
  lsn: count(random),
  previous: u64(random),
  timestamp: u64(random),
  floor: u64(random),
  nonce: u64(random)
})
const routeLike = (random: RandomSource): Route => ({
  channel: random.below(65_536),
  shard: random.below(65_536),
  epoch: u64(random),
  knownEpoch: u64(random),
  knownLsn: count(random),
  schema: count(random),
  collection: text(random)
})
const timeLike = (random: RandomSource): ReadTime => ({
  _tag: random.pick(["At", "Fresh", "Latest"] as const),
  timestamp: u64(random)
})
const hitsLike = (random: RandomSource) => {
  const counts = Uint32Array.from({ length: random.below(4) }, () => random.below(4))
  const rows = counts.reduce((total, each) => total + each, 0)
  return { counts, keys: keysLike(random, rows), ranks: doubles(random, rows) }
}
const foundLike = (random: RandomSource) => {
  const rows = random.below(5)
  return {
    keys: keysLike(random, rows),
    fields: fieldsLike(random, rows),
    vectors: floats(random, random.chance(0.5) ? 0 : rows * 3)
  }
}
const readLike = (random: RandomSource): SegmentRead => {
  const keys = keysLike(random, 1 + random.below(4))
  return {
    knownEpoch: u64(random),
    knownLsn: count(random),
    collection: text(random),
    shard: random.below(65_536),
    segments: Array.from({ length: random.below(4) }, () => text(random)),
    timestamp: u64(random),
    tail: random.chance(0.3)
      ? noTail(count(random), count(random))
      : {
          after: count(random),
          upTo: count(random),
          keys,
          timestamps: BigUint64Array.from({ length: keys.count }, () => u64(random))
        }
  }
}
const levelLike = (random: RandomSource): ReadLevel => ({
  consistency: random.pick(consistencies),
  token: u64(random),
  at: random.chance(0.5) ? undefined : u64(random) | 1n
})
const textsLike = (random: RandomSource) => Array.from({ length: random.below(4) }, () => text(random))

const objectLike = (random: RandomSource) => ({
  key: asciiText(random),
  bytes: random.below(1e9),
  crc32: random.below(2 ** 32)
})
const bool = (random: RandomSource) => random.chance(0.5)

interface Spoken<A> {
  readonly name: string
  readonly codec: Codec<A>
  readonly like: (random: RandomSource) => A
}
const spoken = <A>(name: string, codec: Codec<A>, like: (random: RandomSource) => A): Spoken<any> => ({
  name,
  codec,
  like
})

const streaming = StreamingNodeProtocol.calls
const query = QueryNodeProtocol.calls
const coordinator = CoordinatorProtocol.calls

/** By hand: little-endian bytes behind each other. */
const hot: ReadonlyArray<Spoken<any>> = [
  spoken("Write", streaming.Write.payload, (random) => ({
    route: routeLike(random),
    request: idLike(random),
    body: bodyLike(random)
  })),
  spoken("Written", streaming.Write.success, (random) => ({ timestamp: u64(random), lsn: count(random) })),
  spoken("ShardSearch", streaming.Search.payload, (random) => ({
    route: routeLike(random),
    time: timeLike(random),
    timeoutMs: random.below(2 ** 32),
    limit: random.below(2 ** 32),
    ef: random.below(2 ** 32),
    queries: floats(random, random.below(20))
  })),
  spoken("ShardHits", streaming.Search.success, (random) => ({
    timestamp: u64(random),
    lsn: count(random),
    hits: hitsLike(random)
  })),
  spoken("ShardGet", streaming.Get.payload, (random) => ({
    route: routeLike(random),
    time: timeLike(random),
    timeoutMs: random.below(2 ** 32),
    keys: keysLike(random, random.below(5)),
    vectors: random.chance(0.5)
  })),
  spoken("ShardRows", streaming.Get.success, (random) => ({
    timestamp: u64(random),
    lsn: count(random),
    found: foundLike(random)
  })),
  spoken("ShardCount", streaming.Count.payload, (random) => ({
    route: routeLike(random),
    time: timeLike(random),
    timeoutMs: random.below(2 ** 32)
  })),
  spoken("counted", streaming.Count.success, (random) => ({
    timestamp: u64(random),
    lsn: count(random),
    rows: count(random)
  })),
  spoken("SegmentSearch", query.Search.payload, (random) => ({
    read: readLike(random),
    limit: random.below(2 ** 32),
    ef: random.below(2 ** 32),
    queries: floats(random, random.below(20))
  })),
  spoken("Hits", query.Search.success, hitsLike),
  spoken("SegmentGet", query.Get.payload, (random) => ({
    read: readLike(random),
    keys: keysLike(random, random.below(5)),
    vectors: random.chance(0.5)
  })),
  spoken("FoundRows", query.Get.success, foundLike),
  spoken("SegmentRead", query.Count.payload, readLike),
  spoken("Load", query.Load.payload, (random) => ({
    epoch: u64(random),
    collection: text(random),
    metric: random.pick(["L2", "IP", "COSINE"] as const),
    segments: [
      {
        id: text(random),
        rows: count(random),
        minTimestamp: u64(random),
        maxTimestamp: u64(random),
        data: objectLike(random),
        filter: objectLike(random),
        deletesThrough: count(random),
        index: bool(random) ? null : objectLike(random)
      }
    ],
    deletes: [
      { id: text(random), object: objectLike(random), keys: 3, from: 1, to: count(random), newestRequest: u64(random) }
    ],
    flushedTo: count(random)
  })),
  spoken("Loaded", query.Load.success, (random) => ({
    segments: [
      {
        id: text(random),
        state: random.pick(["loading", "loaded", "no-memory", "failed"] as const),
        applied: count(random),
        knownEpoch: u64(random),
        knownLsn: count(random),
        indexed: bool(random),
        detail: text(random)
      }
    ]
  })),
  spoken("Pinged", NodeProtocol.calls.Ping.success, (random) => ({ id: text(random) })),
  spoken("Grant", coordinator.Grant.payload, (random) => ({
    kind: random.pick(grantKinds),
    count: random.below(2 ** 32)
  })),
  spoken("Granted", coordinator.Grant.success, (random) => ({
    first: u64(random),
    last: u64(random),
    floor: u64(random)
  })),
  spoken("segment rows", query.Count.success, (random) => ({ rows: count(random) })),
  spoken("client write", binary.write, rowsLike),
  spoken("client written", binary.written, (random) => ({ timestamp: u64(random), count: count(random) })),
  spoken("client keys", binary.keys, (random) => keysLike(random, random.below(6))),
  spoken("client search", binary.search, (random) => ({
    dimension: random.below(2 ** 32),
    queries: floats(random, random.below(9)),
    limit: random.below(2 ** 32),
    offset: random.below(2 ** 32),
    ef: random.below(2 ** 32),
    outputFields: textsLike(random),
    level: levelLike(random)
  })),
  spoken("client hits", binary.hits, (random) => {
    const { counts, keys, ranks } = hitsLike(random)
    return {
      timestamp: u64(random),
      counts,
      keys,
      distances: ranks,
      fields: fieldsLike(random, keys.count),
      vectors: floats(random, random.below(6))
    }
  }),
  spoken("client get", binary.get, (random) => ({
    keys: keysLike(random, random.below(6)),
    outputFields: textsLike(random),
    level: levelLike(random)
  })),
  spoken("client found", binary.found, (random) => ({ timestamp: u64(random), ...foundLike(random) }))
]

/** By a Schema. */
const described: ReadonlyArray<Spoken<any>> = [
  spoken("Flush", streaming.Flush.payload, (random) => ({ route: routeLike(random), timeoutMs: random.below(1e6) })),
  spoken("Flushed", streaming.Flush.success, (random) => ({ flushedTo: count(random) })),
  spoken("Stats", streaming.Stats.payload, (random) => ({ route: routeLike(random) })),
  spoken("ShardStats", streaming.Stats.success, (random) => ({
    node: text(random),
    epoch: u64(random),
    lsn: count(random),
    flushedTo: count(random),
    manifestVersion: count(random),
    adoptedVersion: -1,
    growingRows: count(random),
    growingBytes: count(random),
    segments: [{ id: text(random), rows: 1, bytes: count(random), indexed: bool(random), node: "" }],
    waiting: text(random)
  })),
  spoken("Release", query.Release.payload, (random) => ({ collection: text(random) })),
  spoken("Released", query.Release.success, () => ({}))
]

/** Of all codecs, those that answer calls: they leave room in front for the byte that says so. */
const answers = [...Object.values(streaming), ...Object.values(query), coordinator.Grant, NodeProtocol.calls.Ping].map(
  ({ success }): unknown => success
)

/** The same bytes, beginning anywhere in a larger buffer. */
const moved = (bytes: Uint8Array, by: number): Uint8Array => {
  const larger = new Uint8Array(bytes.length + by + 3).fill(0xee)
  larger.set(bytes, by)
  return larger.subarray(by, by + bytes.length)
}

describe("a message", () => {
  for (const { codec, like, name } of [...hot, ...described]) {
    it(`${name} comes back as it was`, () => {
      forSeeds(40, (seed) => {
        const random = randomFrom(seed)
        const value = like(random)
        const bytes = codec.encode(value)
        assert.deepStrictEqual(codec.decode(bytes), value)
        assert.deepStrictEqual(codec.decode(moved(bytes, 1 + random.below(8))), value)
        assert.deepStrictEqual([...codec.encode(codec.decode(bytes))], [...bytes])
      })
    })
  }

  for (const { codec, like, name } of hot) {
    it(`${name} cut short is refused`, () => {
      forSeeds(8, (seed) => {
        const bytes = codec.encode(like(randomFrom(seed)))
        for (let length = 0; length < bytes.length; length++) {
          assert.throws(() => codec.decode(bytes.subarray(0, length)), WireError)
        }
      })
    })
  }
})

/** What is in a log for ever: a change here is a new format version. */
const PINNED_RECORD = [
  "454c5201151249a7000003000200000005000000000000002900000000000000f0debc9a785634126300000000000000",
  "07000000000000000b000000000000000100000000000000020001000800000000000000060000000000000000000000",
  "00002240020000006331010c000000000000000001000000040000000400000061e98db5"
].join("")
const PINNED_HASH = 3672590343069770666n

describe("a record of the log", () => {
  it("comes back as it was, and says its hash", () => {
    forSeeds(200, (seed) => {
      const random = randomFrom(seed)
      const header = headerLike(random)
      const entries = Array.from({ length: random.below(5) }, () => entryLike(random))
      const { bytes, hash } = encodeRecord(header, entries)
      assert.deepStrictEqual(decodeRecord(bytes), { header, entries, hash })
      assert.deepStrictEqual(decodeRecord(moved(bytes, 1 + random.below(8))), { header, entries, hash })
      // What is put into a record is measured before: it must not turn out larger. (Text is measured as ASCII.)
      if (entries.every(({ collection }) => /^[ -~]*$/.test(collection))) {
        assert.isAtMost(bytes.length, recordBytes(entries) + 8)
      }
      assert.isAtLeast(
        recordBytes(entries),
        entries.reduce((total, entry) => total + entryBytes(entry), 0)
      )
    })
  })

  it("has a hash that hangs on all of it, and on the record before", () => {
    const random = randomFrom(7)
    const header = headerLike(random)
    const hashes = new Set<bigint>()
    const change: ReadonlyArray<Partial<RecordHeader>> = [
      {},
      { previous: header.previous ^ 1n },
      { lsn: 77 },
      { timestamp: header.timestamp ^ 1n },
      { epoch: header.epoch ^ 1n },
      { nonce: header.nonce ^ 1n }
    ]
    for (const each of change) hashes.add(encodeRecord({ ...header, ...each }, []).hash)
    assert.strictEqual(hashes.size, change.length)
  })

  it("has a layout that is pinned", () => {
    const header: RecordHeader = {
      kind: "rows",
      channel: 3,
      epoch: 5n,
      incarnation: 2,
      lsn: 41,
      previous: 0x1234_5678_9abc_def0n,
      timestamp: 99n,
      floor: 7n,
      nonce: 11n
    }
    const entry: Entry = {
      collection: "c1",
      shard: 1,
      schema: 9,
      request: { issued: 8n, unique: 6n },
      body: { _tag: "Delete", keys: keyColumn("VarChar", ["a", "鍵"]) }
    }
    const { bytes, hash } = encodeRecord(header, [entry])
    assert.strictEqual(Buffer.from(bytes).toString("hex"), PINNED_RECORD)
    assert.strictEqual(hash, PINNED_HASH)
  })

  it("with any bit changed is damaged, and nothing else", () => {
    forSeeds(10, (seed) => {
      const random = randomFrom(seed)
      const { bytes } = encodeRecord(
        headerLike(random),
        Array.from({ length: random.below(3) }, () => entryLike(random))
      )
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        const changed = bytes.slice()
        changed[bit >> 3]! ^= 1 << (bit & 7)
        assert.throws(() => decodeRecord(changed), RecordDamaged)
      }
    })
  })

  it("cut short, or longer, or anything at all, is damaged, and nothing else", () => {
    forSeeds(10, (seed) => {
      const random = randomFrom(seed)
      const { bytes } = encodeRecord(headerLike(random), [entryLike(random)])
      for (let length = 0; length < bytes.length; length++) {
        assert.throws(() => decodeRecord(bytes.subarray(0, length)), RecordDamaged)
      }
      assert.throws(() => decodeRecord(moved(bytes, 0).buffer as never), Error)
      assert.throws(() => decodeRecord(Uint8Array.from([...bytes, 0])), RecordDamaged)
      assert.throws(() => decodeRecord(random.bytes(random.below(200))), RecordDamaged)
      // Several bytes at once.
      const changed = bytes.slice()
      for (let i = 0; i < 5; i++) changed[random.below(changed.length)] = random.below(256)
      if (Buffer.compare(changed, bytes) !== 0) assert.throws(() => decodeRecord(changed), RecordDamaged)
    })
  })

  it("of a later format says so", () => {
    const { bytes } = encodeRecord(headerLike(randomFrom(1)), [])
    bytes[3] = 2
    assert.throws(() => decodeRecord(bytes), /format 2/)
  })
})

describe("rows", () => {
  it("picked are the rows that they were", () => {
    forSeeds(50, (seed) => {
      const random = randomFrom(seed)
      const batch = rowsLike(random, 1 + random.below(8))
      const rows = Array.from({ length: random.below(10) }, () => random.below(batch.keys.count))
      const picked = pickRows(batch, rows)
      rows.forEach((row, index) => {
        assert.deepStrictEqual([...fieldBytesAt(picked.fields, index)], [...fieldBytesAt(batch.fields, row)])
        assert.deepStrictEqual(
          picked.vectors.slice(index * batch.dimension, (index + 1) * batch.dimension),
          batch.vectors.slice(row * batch.dimension, (row + 1) * batch.dimension)
        )
      })
      const twice = concatFields([batch.fields, picked.fields], [batch.keys.count, rows.length])
      rows.forEach((row, index) => {
        const there = fieldBytesAt(twice, batch.keys.count + index)
        assert.deepStrictEqual(parseFields(there), parseFields(fieldBytesAt(batch.fields, row)))
      })
    })
  })

  it("whose columns do not fit each other are refused", () => {
    const fine = rowsLike(randomFrom(2), 3, 2)
    const written = (batch: RowBatch) => writeRows(new Writer(), batch).finish()
    const refused = (batch: RowBatch) => assert.throws(() => readRows(new Reader(written(batch))), WireError)
    refused({ ...fine, vectors: new Float32Array(5) })
    refused({ ...fine, fields: { offsets: Uint32Array.from([0, 1]), bytes: new Uint8Array(1) } })
    refused({ ...fine, fields: { offsets: Uint32Array.from([0, 2, 1, 3]), bytes: new Uint8Array(3) } })
    refused({ ...fine, fields: { offsets: Uint32Array.from([0, 0, 0, 4]), bytes: new Uint8Array(3) } })
    const text = { type: "VarChar", count: 3, bytes: new Uint8Array(3) } as const
    refused({ ...fine, keys: { ...text, offsets: Uint32Array.from([0, 2, 1, 3]) } })
    refused({ ...fine, keys: { ...text, offsets: Uint32Array.from([0, 1, 2, 4]) } })
    refused({ ...fine, keys: { ...text, offsets: Uint32Array.from([1, 1, 2, 3]) } })
  })

  it("whose fields are no object have none", () => {
    for (const bad of ["null", "[1]", "7", '"a"', "{", '{"a":1}}', "\u0000"]) {
      assert.deepStrictEqual(parseFields(Buffer.from(bad)), {}, bad)
    }
    assert.deepStrictEqual(parseFields(Uint8Array.of(...Buffer.from('{"a":"'), 0xff, ...Buffer.from('"}'))), {})
  })

  it("whose keys are not text each are refused", () => {
    const read = (parts: ReadonlyArray<ReadonlyArray<number>>) => {
      const offsets = new Uint32Array(parts.length + 1)
      parts.forEach((part, i) => (offsets[i + 1] = offsets[i]! + part.length))
      const keys: KeyColumn = { type: "VarChar", count: parts.length, offsets, bytes: Uint8Array.from(parts.flat()) }
      return keysOf(binary.keys.decode(binary.keys.encode(keys)))
    }
    const [first, second, ...rest] = Buffer.from("鍵é")
    assert.deepStrictEqual(read([[], [first!, second!, ...rest], [0x61], []]), ["", "鍵é", "a", ""])
    for (const bad of [
      [[0xff, 0xfe]],
      [[0x61], [0x80], [0x62]],
      [[0xed, 0xa0, 0x80]],
      [[0x61], [0xc3]],
      // Text as a whole, and neither of them by itself.
      [[first!], [second!, ...rest]],
      [[first!, second!], rest]
    ]) {
      const code = (cause: unknown) => (cause instanceof ElanusError ? cause.code : cause)
      try {
        assert.fail(JSON.stringify(read(bad)))
      } catch (cause) {
        assert.strictEqual(code(cause), "bad-key")
      }
    }
  })
})

describe("a JSON object", () => {
  const value = (random: RandomSource, depth: number): unknown =>
    random.pick([
      () => null,
      () => random.chance(0.5),
      () => random.pick([0, -0, 7, -1.5, 1e300, 5e-324, -1e-7, 2 ** 63]),
      () => text(random),
      () => random.pick(['"', "\\", "\b\f\n\r\t", "\u0001", "/", "\ud800"]),
      () => (depth === 0 ? [] : Array.from({ length: random.below(4) }, () => value(random, depth - 1))),
      () => (depth === 0 ? {} : object(random, depth - 1))
    ])()
  const object = (random: RandomSource, depth: number): object =>
    Object.fromEntries(Array.from({ length: random.below(4) }, () => [text(random, 3), value(random, depth)]))
  const isObject = (json: string): boolean => {
    try {
      const parsed: unknown = JSON.parse(json)
      return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)
    } catch {
      return false
    }
  }
  /** Among others, which may go on where it ends. */
  const found = (json: string, before = "", behind = ""): boolean => {
    const from = Buffer.byteLength(before)
    const to = from + Buffer.byteLength(json)
    return isJsonObject(Buffer.from(before + json + behind), from, to, limits.fieldsDepthMax)
  }

  it("is told from all else as JSON.parse would", () => {
    const marks = [
      ...Array.from('{}[]",: \\\n\t0129-+.eEtfnu/ab\u0000'),
      "true",
      "null",
      "\\u00",
      "1e5",
      "01",
      "{}",
      ""
    ]
    const counts = { yes: 0, no: 0 }
    for (let seed = 0; seed < 2_000; seed++) {
      const random = randomFrom(seed)
      const made = random.chance(0.9) ? object(random, 3) : value(random, 2)
      const json = JSON.stringify(made, null, random.pick([0, 0, 2]))
      const tried = [json, ` ${json}\n`]
      for (let i = 0; i < 8; i++) {
        const at = random.below(json.length + 1)
        // Well-formed, for a half of a pair is another character as bytes.
        tried.push((json.slice(0, at) + random.pick(marks) + json.slice(at + random.below(3))).toWellFormed())
      }
      for (const each of tried) {
        const is = isObject(each)
        counts[is ? "yes" : "no"]++
        assert.strictEqual(found(each), is, each)
        assert.strictEqual(found(each, '{"a":', random.pick(['"}', "}", "]}", " {}", "1}", "{", " "])), is, each)
      }
    }
    assert.isAbove(Math.min(counts.yes, counts.no), 2_000)
  })

  it("is none from some depth on, however deep", () => {
    const deep = (levels: number) => `${'{"a":['.repeat(levels / 2)}${"]}".repeat(levels / 2)}`
    assert.isTrue(found(deep(limits.fieldsDepthMax)))
    assert.isFalse(found(deep(limits.fieldsDepthMax + 2)))
    assert.isFalse(found(deep(60_000)))
    assert.isFalse(found(deep(60_000).slice(0, 60_000)))
  })
})

describe("an answer", () => {
  it("is the value or the error", () => {
    forSeeds(50, (seed) => {
      const random = randomFrom(seed)
      const known = [...hot, ...described].filter(({ codec }) => answers.includes(codec))
      assert.strictEqual(known.length, new Set(answers).size)
      for (const { codec, like, name } of [...hot, ...described].filter(({ codec }) => answers.includes(codec))) {
        const value = like(random)
        const bytes = decodeAnswer(encodeAnswer(codec, value))
        assert.isTrue(bytes instanceof Uint8Array, name)
        assert.deepStrictEqual(codec.decode(bytes as Uint8Array), value, name)
      }
      const error = failure(random.pick(Object.keys(errorKinds) as Array<ErrorCode>), text(random))
      const back = decodeAnswer(encodeFailure(error))
      assert.isTrue(back instanceof ElanusError)
      assert.deepStrictEqual([(back as ElanusError).code, (back as ElanusError).reason], [error.code, error.reason])
    })
  })

  it("cut short, or with an error that nobody knows, is an error", () => {
    assert.strictEqual((decodeAnswer(new Uint8Array(7)) as ElanusError).code, "internal")
    const strange = new Writer().u8(1).align().text("from-the-future").text("why").finish()
    const back = decodeAnswer(strange) as ElanusError
    assert.deepStrictEqual([back.code, back.reason], ["internal", "why"])
  })
})

describe("a request id", () => {
  it("survives its header", () => {
    forSeeds(50, (seed) => {
      const { issued, unique } = idLike(randomFrom(seed))
      const id = { issued: BigInt.asUintN(63, issued), unique }
      assert.deepStrictEqual(parseRequestId(formatRequestId(id)), id)
    })
    for (const bad of ["", "1", "1-", "1-00", "x-0000000000000000", "1-000000000000000g", "1-00000000000000000"]) {
      assert.isUndefined(parseRequestId(bad), bad)
    }
  })
})

describe("bytes", () => {
  it("are read as they were written, whatever lies between", () => {
    forSeeds(100, (seed) => {
      const random = randomFrom(seed)
      const writer = new Writer(random.below(64))
      const reads: Array<(reader: Reader) => void> = []
      const add = <A>(write: (value: A) => void, value: A, read: (reader: Reader) => A) => {
        write(value)
        reads.push((reader) => assert.deepStrictEqual(read(reader), value))
      }
      for (let i = 0; i < 30; i++) {
        random.pick([
          () =>
            add(
              (value) => writer.u8(value),
              random.below(256),
              (reader) => reader.u8()
            ),
          () =>
            add(
              (value) => writer.u16(value),
              random.below(65_536),
              (reader) => reader.u16()
            ),
          () =>
            add(
              (value) => writer.u32(value),
              random.below(2 ** 32),
              (reader) => reader.u32()
            ),
          () =>
            add(
              (value) => writer.u64(value),
              u64(random),
              (reader) => reader.u64()
            ),
          () =>
            add(
              (value) => writer.i64(value),
              int64(random),
              (reader) => reader.i64()
            ),
          () =>
            add(
              (value) => writer.count(value),
              count(random),
              (reader) => reader.count()
            ),
          () =>
            add(
              (value) => writer.text(value),
              text(random),
              (reader) => reader.text()
            ),
          () =>
            add(
              (value) => writer.block(value),
              floats(random, random.below(9)),
              (reader) => reader.f32s()
            ),
          () =>
            add(
              (value) => writer.block(value),
              doubles(random, random.below(9)),
              (reader) => reader.f64s()
            ),
          () => {
            writer.align()
            reads.push((reader) => reader.align())
          }
        ])()
      }
      const bytes = writer.finish()
      for (const by of [0, 1, 4]) {
        const reader = new Reader(moved(bytes, by))
        for (const read of reads) read(reader)
        assert.strictEqual(reader.left, 0)
      }
    })
  })

  it("that are no count are refused", () => {
    for (const bad of [-1, 0.5, Number.NaN, Infinity, 2 ** 53]) {
      assert.throws(() => new Reader(new Writer().f64(bad).finish()).count(), WireError)
    }
  })
})

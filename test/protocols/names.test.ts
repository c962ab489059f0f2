/** Keys, timestamps, subjects and metadata: what is decided by them, or stored, and so may never change. */
import { assert, describe, it } from "vitest"
import {
  canonical,
  compareKeys,
  concatKeys,
  hashAt,
  hashKey,
  type Key,
  keyColumn,
  keysOf,
  pickKeys,
  shardOf
} from "../../protocols/keys.ts"
import { checkpointZero, emptyManifest, metadata, MetadataUnreadable, orderAbove } from "../../protocols/metadata.ts"
import { fieldColumn, parseFields } from "../../protocols/rows.ts"
import {
  collectionSubject,
  collectionVerbs,
  databaseSubject,
  databaseVerbs,
  nameProblem,
  parseSubject
} from "../../protocols/subjects.ts"
import { fromMillis, later, parseTimestamp, TIMESTAMP_MAX, toMillis } from "../../protocols/timestamp.ts"
import { Reader, utf8, Writer } from "../../protocols/wire.ts"
import { randomFrom, type RandomSource } from "../support/random.ts"
import { forSeeds } from "../support/seeds.ts"

const int64 = (random: RandomSource): bigint =>
  BigInt.asIntN(64, (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32))) >>
  BigInt(random.pick([0, 8, 11, 32, 60]))
/** From every part of Unicode where an order by code units would differ. */
const text = (random: RandomSource): string =>
  Array.from({ length: random.below(6) }, () =>
    String.fromCodePoint(
      random.pick([
        0x00, 0x61, 0x62, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xfeff, 0xfffd, 0xffff, 0x10000, 0x10ffff
      ])
    )
  ).join("")

/** [key, hash]. Shards of everything that is stored hang on these: they may never change. */
const pinned: ReadonlyArray<readonly [Key, number]> = [
  [0, 2856213345],
  [1, 1863002342],
  [-1, 836817700],
  [42, 2695453446],
  [2147483648, 295973983],
  [4294967296, 1895220952],
  [9007199254740991, 418548600],
  [-9007199254740991, 871203664],
  [9223372036854775807n, 3689988818],
  [-9223372036854775808n, 1873757636],
  [1234567890123456789n, 2475809163],
  ["", 2872998923],
  ["a", 444641715],
  ["b", 2193908274],
  ["key-1", 1675941015],
  ["ключ", 2594288994],
  ["鍵", 1820736666],
  ["😀", 855877642],
  ["x".repeat(1_000), 1841099346]
]

describe("the hash of a key", () => {
  it("is what it always was", () => {
    for (const [key, hash] of pinned) assert.strictEqual(hashKey(key), hash, String(key).slice(0, 30))
  })

  it("is the same for a key alone and in a column, however it is laid out", () => {
    forSeeds(100, (seed) => {
      const random = randomFrom(seed)
      for (const type of ["Int64", "VarChar"] as const) {
        const keys = Array.from({ length: 20 }, (): Key => (type === "Int64" ? canonical(int64(random)) : text(random)))
        const column = keyColumn(type, keys)
        const rows = Array.from({ length: 10 }, () => random.below(keys.length))
        const picked = pickKeys(column, rows)
        const both = concatKeys(type, [column, picked])
        keys.forEach((key, row) => assert.strictEqual(hashAt(column, row), hashKey(key)))
        rows.forEach((row, index) => assert.strictEqual(hashAt(both, keys.length + index), hashKey(keys[row]!)))
        assert.deepStrictEqual(keysOf(both), [...keys, ...rows.map((row) => keys[row]!)])
      }
      const value = int64(random)
      assert.strictEqual(hashKey(value), hashKey(canonical(value)))
    })
  })

  it("spreads keys evenly over shards", () => {
    for (const make of [(n: number): Key => n, (n: number): Key => `user-${n}`, (n: number): Key => n * 1_024]) {
      for (const shards of [2, 3, 7, 16]) {
        const counts = new Array<number>(shards).fill(0)
        for (let n = 0; n < 8_000; n++) counts[shardOf(hashKey(make(n)), shards)]!++
        for (const each of counts) assert.isBelow(Math.abs(each / (8_000 / shards) - 1), 0.2)
      }
    }
  })
})

describe("text", () => {
  it("comes back as it was, alone, in a message and in a column, also behind what looks like a byte order mark", () => {
    forSeeds(100, (seed) => {
      const random = randomFrom(seed)
      const long = "x".repeat(random.pick([0, 40, 80]))
      const texts = ["\uFEFF", "\uFEFF\uFEFF", ""].map((mark) => `${mark}${text(random)}${long}`)
      for (const each of texts) {
        assert.strictEqual(utf8.decode(utf8.encode(each)), each)
        assert.strictEqual(new Reader(new Writer().text(each).finish()).text(), each)
        assert.deepStrictEqual(parseFields(fieldColumn([{ [each]: each }])!.bytes), { [each]: each })
      }
      assert.deepStrictEqual(keysOf(keyColumn("VarChar", texts)), texts)
      assert.strictEqual(utf8.decodeDocument(utf8.encode("\uFEFF{}")), "{}")
    })
  })
})

describe("the order of keys", () => {
  it("is that of their UTF-8 bytes", () => {
    forSeeds(300, (seed) => {
      const random = randomFrom(seed)
      const prefix = random.chance(0.5) ? text(random) : ""
      for (let i = 0; i < 20; i++) {
        const [a, b] = [prefix + text(random), prefix + text(random)]
        const expected = Math.sign(Buffer.compare(utf8.encode(a), utf8.encode(b)))
        assert.strictEqual(Math.sign(compareKeys(a, b)), expected, JSON.stringify([a, b]))
      }
    })
  })

  it("is that of numbers, exact or not", () => {
    forSeeds(100, (seed) => {
      const random = randomFrom(seed)
      const [a, b] = [int64(random), int64(random)]
      const expected = a < b ? -1 : a > b ? 1 : 0
      assert.strictEqual(compareKeys(canonical(a), canonical(b)), expected)
      assert.strictEqual(compareKeys(canonical(b), canonical(a)), 0 - expected)
    })
  })

  it("makes equal keys equal in a Map", () => {
    for (const value of [0n, 1n, -1n, 2n ** 53n - 1n, -(2n ** 53n) + 1n]) assert.isNumber(canonical(value))
    for (const value of [2n ** 53n, -(2n ** 53n), 2n ** 63n - 1n]) assert.isTrue(typeof canonical(value) === "bigint")
    assert.deepStrictEqual(keysOf(keyColumn("Int64", [2n ** 53n, 5, 5n])), [2n ** 53n, 5, 5])
  })
})

describe("a timestamp", () => {
  it("holds milliseconds, and is text outside", () => {
    assert.strictEqual(fromMillis(1_700_000_000_123), 1_700_000_000_123n << 18n)
    assert.strictEqual(toMillis(fromMillis(1_700_000_000_123) + 262_143n), 1_700_000_000_123)
    assert.strictEqual(later(3n, 4n), 4n)
    assert.strictEqual(parseTimestamp(`${TIMESTAMP_MAX}`), TIMESTAMP_MAX)
    assert.strictEqual(parseTimestamp("0"), 0n)
    assert.strictEqual(parseTimestamp(77), 77n)
    for (const bad of [
      "",
      "-1",
      "1.5",
      "1e3",
      " 1",
      "0x1",
      `${TIMESTAMP_MAX + 1n}`,
      "99999999999999999999",
      -1,
      0.5,
      NaN
    ]) {
      assert.isUndefined(parseTimestamp(bad), String(bad))
    }
  })
})

describe("a subject", () => {
  it("says who is asked for what", () => {
    for (const verb of collectionVerbs) {
      const target = { _tag: "Collection", database: "d", collection: "c_1", verb } as const
      assert.deepStrictEqual(parseSubject(collectionSubject("d", "c_1", verb)), target)
    }
    for (const verb of databaseVerbs) {
      assert.deepStrictEqual(parseSubject(databaseSubject("d", verb)), { _tag: "Database", database: "d", verb })
    }
  })

  it("that says nothing is refused with a reason", () => {
    const codeOf = (subject: string) => {
      const target = parseSubject(subject)
      return target._tag === "ElanusError" ? target.code : "none"
    }
    assert.strictEqual(codeOf("elanus.v1"), "bad-request")
    assert.strictEqual(codeOf("elanus.v1.d"), "bad-request")
    assert.strictEqual(codeOf("elanus.v1.d.explode"), "bad-request")
    assert.strictEqual(codeOf("elanus.v1.d.c.explode"), "bad-request")
    assert.strictEqual(codeOf("elanus.v1.d.c.index.create"), "not-supported")
    assert.strictEqual(codeOf("elanus.v1.1d.c.search"), "bad-name")
    assert.strictEqual(codeOf("elanus.v1.d.c-1.search"), "bad-name")
    assert.strictEqual(codeOf("elanus.v1.d.a.b.search"), "bad-request")
    for (const bad of ["", "1a", "a b", "a.b", "a>", "*", "é", "x".repeat(256)]) assert.isDefined(nameProblem(bad), bad)
    for (const fine of ["a", "_", "A_9", "x".repeat(255)]) assert.isUndefined(nameProblem(fine), fine)
  })
})

type Values = { readonly [K in keyof typeof metadata]: Parameters<(typeof metadata)[K]["encode"]>[0] }

/** One of each kind: a kind that is missing here does not compile. */
const valuesLike = (random: RandomSource): Values => {
  const big = () => BigInt(random.below(2 ** 32)) * BigInt(random.below(2 ** 31))
  const number = () => random.pick([0, 1, random.below(1_000), Number.MAX_SAFE_INTEGER])
  const name = () => random.pick(["", "a", "größer", '😀 " \\ \n', "x".repeat(300)])
  const object = () => ({ key: name(), bytes: number(), crc32: random.below(2 ** 32) })
  const order = { epoch: number(), number: number() }
  const collection = () => ({
    id: name(),
    spec: {
      database: name(),
      name: name(),
      description: name(),
      keyField: name(),
      keyType: random.pick(["Int64", "VarChar"] as const),
      keyLengthMax: number(),
      vectorField: name(),
      dimension: number(),
      metric: random.pick(["L2", "IP", "COSINE"] as const),
      shards: number(),
      index: { m: number(), efConstruction: number() }
    },
    channels: [number(), number()],
    created: big(),
    request: name(),
    state: random.pick(["creating", "ready", "closing", "dropping", "dropped"] as const)
  })
  return {
    collection: collection(),
    gone: collection(),
    manifest: {
      ...emptyManifest(name(), number()),
      version: number(),
      flushedTo: number(),
      flushedEpoch: big(),
      segments: [
        {
          id: name(),
          rows: number(),
          minTimestamp: big(),
          maxTimestamp: big(),
          data: object(),
          filter: object(),
          deletesThrough: number(),
          index: random.chance(0.5) ? null : object()
        }
      ],
      deletes: [{ id: name(), object: object(), keys: number(), from: number(), to: number(), newestRequest: big() }],
      horizon: big()
    },
    assignment: { channel: number(), node: name(), order },
    placement: { collection: name(), shard: number(), nodes: { [`s${number()}`]: name() } },
    attempt: {
      id: name(),
      kind: random.pick(["flush", "index"] as const),
      collection: name(),
      shard: number(),
      segment: name(),
      node: name()
    },
    job: {
      id: name(),
      collection: name(),
      shard: number(),
      segment: name(),
      state: random.pick(["queued", "assigned", "done", "failed"] as const),
      attempt: random.chance(0.5) ? null : name(),
      node: random.chance(0.5) ? null : name(),
      tries: number()
    },
    oracle: { bound: big(), floor: big() },
    epoch: { node: name(), nonce: name() },
    commit: { epoch: number(), number: number() },
    format: { cluster: name(), channels: number() },
    channel: {
      order,
      node: name(),
      nonce: (1n << 64n) - 1n,
      epoch: random.chance(0.5) ? null : big(),
      checkpoint: { ...checkpointZero, sequence: number(), lsn: number(), hash: big(), timestamp: big() },
      log: name()
    },
    node: { id: name(), roles: ["proxy", "data-node"], version: name() }
  }
}

interface Stored {
  readonly encode: (value: never) => Uint8Array
  readonly decode: (bytes: Uint8Array) => unknown
}

/** The format of each kind; 1 where nothing is said. A field that comes or goes makes a new one. */
const versions: { readonly [kind: string]: number } = { channel: 2, manifest: 2 }

describe("metadata", () => {
  const each = (random: RandomSource) =>
    Object.entries(valuesLike(random)).map(([kind, value]) => {
      const codec = metadata[kind as keyof typeof metadata] as unknown as Stored
      return { kind, value, codec, bytes: codec.encode(value as never) }
    })

  it("comes back as it was, and is JSON that begins with its version", () => {
    forSeeds(40, (seed) => {
      for (const { bytes, codec, kind, value } of each(randomFrom(seed))) {
        assert.deepStrictEqual(codec.decode(bytes), value, kind)
        assert.isTrue(utf8.decode(bytes).startsWith(`{"v":${versions[kind] ?? 1},`), kind)
      }
    })
  })

  it("of a newer or an older version, of none, or cut short is refused, and not guessed at", () => {
    for (const { bytes, codec, kind } of each(randomFrom(1))) {
      const json = JSON.parse(utf8.decode(bytes)) as { [field: string]: unknown }
      const refused = (bytes: Uint8Array) =>
        assert.throws(() => codec.decode(bytes), MetadataUnreadable, undefined, kind)
      const { v, ...versionless } = json
      for (const other of [Number(v) + 1, Number(v) - 1, String(v)]) {
        refused(utf8.encode(JSON.stringify({ ...json, v: other })))
      }
      refused(utf8.encode(JSON.stringify(versionless)))
      for (const field of Object.keys(versionless)) {
        const { [field]: _, ...lacking } = json
        refused(utf8.encode(JSON.stringify(lacking)))
        refused(utf8.encode(JSON.stringify({ ...json, [field]: { not: ["this"] } })))
      }
      for (let length = 0; length < bytes.length; length += 1 + (length >> 4)) refused(bytes.subarray(0, length))
      for (const other of ["1", "[]", '"x"', "{}", "true"]) refused(utf8.encode(other))
      refused(Uint8Array.from([0xff, 0xfe]))
    }
  })

  it("of orders: the higher epoch counts, then the higher number, and equal is not above", () => {
    const order = (epoch: number, number: number) => ({ epoch, number })
    assert.isTrue(orderAbove(order(1, 1), undefined))
    assert.isTrue(orderAbove(order(2, 1), order(1, 9)))
    assert.isTrue(orderAbove(order(1, 2), order(1, 1)))
    assert.isFalse(orderAbove(order(1, 1), order(1, 1)))
    assert.isFalse(orderAbove(order(1, 9), order(2, 1)))
  })
})

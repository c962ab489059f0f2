/**
 * The checks of the twelve properties, on pasts that are made by hand: a right one passes them all, and one in which a
 * property is broken is rejected, by that property. A checker that lets everything pass would pass every run.
 */
import { assert, describe, it } from "vitest"
import { hashKey, keyColumn, shardOf } from "../../protocols/keys.ts"
import { limits } from "../../protocols/limits.ts"
import { metadata, metaKey } from "../../protocols/metadata.ts"
import { encodeRecord } from "../../protocols/record.ts"
import { fromMillis } from "../../protocols/timestamp.ts"
import { checks } from "../../sim/checks/all.ts"
import { properties, type Property } from "../../sim/checks/evidence.ts"
import { vacuous } from "../../sim/checks/vacuity.ts"
import type { AnswerHit } from "../../sim/history.ts"
import { BEGINNING } from "../../sim/world.ts"
import { type RandomSource, randomFrom } from "../support/random.ts"
import { forSeeds } from "../support/seeds.ts"
import { Past, shapeOne, shapeTwo } from "./past.ts"

const books = (): Past => {
  const past = new Past()
  past.create("books")
  return past
}
const two = (): Past => {
  const past = new Past()
  past.create("books", shapeTwo)
  return past
}
/** With some rows, of which some are sealed. */
const filled = (): Past => {
  const past = books()
  past.upsert("books", [1, 2, 3])
  past.delete("books", [2])
  past.flush("books")
  past.upsert("books", [3, 4])
  return past
}

/** All is over a while after whatever comes. */
const owing = (): Past => {
  const past = books()
  const later = { at: 1e9, event: 1e6 }
  past.observed = { phases: { healed: later, end: later } }
  return past
}
const unasked = (past: Past) => ({
  id: 7,
  collection: "books",
  code: "unavailable",
  reason: "nobody knows",
  moment: past.step()
})

type Bad = readonly [what: string, past: () => Past]

const bad: { readonly [P in Property]: ReadonlyArray<Bad> } = {
  acknowledged: [
    ["acknowledged, and not in the log", () => with_(books(), (past) => past.upsert("books", [1], { stored: 0 }))],
    [
      "acknowledged before it was in the log",
      () => with_(books(), (past) => past.upsert("books", [1], { late: true }))
    ],
    [
      "refused, and in the log",
      () => with_(books(), (past) => past.upsert("books", [1], { outcome: "refused", stored: 1 }))
    ],
    ["acknowledged once, and applied twice", () => with_(books(), (past) => past.upsert("books", [1], { stored: 2 }))],
    [
      "unknown, and applied twice",
      () => with_(books(), (past) => past.delete("books", [1], { outcome: "unknown", stored: 2 }))
    ],
    [
      "of another number of rows",
      () =>
        with_(books(), (past) => {
          const asked = { _tag: "Delete", request: past.request(), keys: [1, 2] } as const
          const operation = past.begin("books", asked)
          past.end(operation, "Ok", { _tag: "Written", count: 1 }, past.put("books", asked))
        })
    ],
    [
      "another row than was asked",
      () => with_(books(), (past) => past.upsert("books", [1], { storedRows: past.rows([1], 77) }))
    ],
    [
      "half of it",
      () =>
        with_(two(), (past) => {
          const rows = past.rows([1, 2, 3, 4], past.operations.length, shapeTwo)
          past.upsert("books", [1, 2, 3, 4], { storedRows: rows.slice(0, 1) })
        })
    ],
    [
      "a write that nobody asked for",
      () => with_(books(), (past) => past.put("books", { _tag: "Delete", request: past.request(), keys: [1] }))
    ],
    [
      "a row that grows is not in an answer",
      () => with_(filled(), (past) => past.get("books", [1, 4], {}, (rows) => rows.slice(0, 1)))
    ],
    [
      "a row that no log has",
      () =>
        with_(filled(), (past) =>
          past.get("books", [1], {}, (rows) => rows.map((row) => ({ ...row, vector: Float32Array.of(9, 9) })))
        )
    ],
    [
      "clients alone: a refused row comes",
      () =>
        with_(books(), (past) => {
          const refused = past.upsert("books", [1], { outcome: "refused", code: "overloaded" })
          past.get("books", [1], {}, () => [{ key: 1, fields: { op: refused.id, row: 0 }, vector: undefined }])
        })
    ],
    [
      "clients alone: an older row comes than the one that was acknowledged",
      () =>
        with_(books(), (past) => {
          const old = past.upsert("books", [1])
          past.upsert("books", [1])
          past.get("books", [1], {}, () => [{ key: 1, fields: { op: old.id, row: 0 }, vector: undefined }])
        })
    ],
    [
      "a collection that was acknowledged, and not made",
      () => with_(new Past(), (past) => past.create("books", shapeOne, false))
    ],
    [
      "a collection that was refused, and made",
      () => with_(new Past(), (past) => past.create("books", shapeOne, true, "Refused"))
    ],
    ["a collection that is not listed", () => with_(books(), (past) => past.list([]))],
    ["a collection is listed that nobody made", () => with_(books(), (past) => past.list(["books", "films"]))],
    ["a collection went, and nobody asked", () => with_(books(), (past) => past.drop("books", "Ok", false))],
    [
      "a collection went by a request that was over before it was made",
      () =>
        with_(books(), (past) => {
          past.drop("books")
          past.create("books")
          past.drop("books", "Ok", false)
        })
    ],
    [
      "a write that was over is in the next collection of that name",
      () =>
        with_(books(), (past) => {
          const request = past.request()
          past.delete("books", [1], { request })
          past.drop("books")
          past.create("books")
          past.put("books", { _tag: "Delete", request, keys: [1] })
        })
    ],
    ["a collection went by a request that was refused", () => with_(books(), (past) => past.drop("books", "Refused"))],
    [
      "acknowledged, and in no log, where a log lost something else",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          forget(past)
          past.upsert("books", [2], { stored: 0 })
        })
    ],
    [
      "a row is missing that another one was lost behind",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          past.upsert("books", [2])
          forget(past)
          past.get("books", [1, 2], {}, () => [])
        })
    ]
  ],

  deleted: [
    ["statistics count a row that is not there", () => with_(books(), (past) => past.stats("books", 1))],
    [
      "a deleted row comes",
      () =>
        with_(filled(), (past) =>
          past.get("books", [2], {}, () => [{ key: 2, fields: { op: 1, row: 1 }, vector: undefined }])
        )
    ],
    [
      "a deleted row is found",
      () =>
        with_(filled(), (past) =>
          past.search("books", 10, {}, (hits) => [
            ...hits,
            { key: 2, fields: { op: 1, row: 1 }, vector: undefined, distance: 1_000 }
          ])
        )
    ],
    [
      "an overwritten row comes",
      () =>
        with_(filled(), (past) =>
          past.get("books", [3], {}, () => [{ key: 3, fields: { op: 1, row: 2 }, vector: undefined }])
        )
    ],
    [
      "a deleted row is counted",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1, 2])
          past.delete("books", [1])
          past.count("books", {}, 1)
        })
    ],
    [
      "clients alone: a row comes whose deletion was acknowledged",
      () =>
        with_(books(), (past) => {
          const written = past.upsert("books", [1])
          past.delete("books", [1], { outcome: "ok" })
          past.get("books", [1], {}, () => [{ key: 1, fields: { op: written.id, row: 0 }, vector: undefined }])
        })
    ]
  ],

  fresh: [
    [
      "a strong read of before a write that was acknowledged",
      () =>
        with_(books(), (past) => {
          const before = past.now()
          past.upsert("books", [1], { client: "b" })
          past.count("books", { consistency: "Strong", at: before })
        })
    ],
    [
      "a read without a token, of before a write that was acknowledged",
      () =>
        with_(books(), (past) => {
          const before = past.now()
          past.upsert("books", [1], { client: "b" })
          past.get("books", [1], { at: before })
        })
    ],
    [
      "a session does not see its own write",
      () =>
        with_(books(), (past) => {
          const before = past.now()
          past.upsert("books", [1])
          past.get("books", [1], { consistency: "Eventually", at: before })
        })
    ],
    [
      "a session goes back behind what it has read",
      () =>
        with_(books(), (past) => {
          const before = past.now()
          past.count("books", { consistency: "Strong" })
          past.count("books", { consistency: "Eventually", at: before })
        })
    ],
    [
      "a read below its token",
      () => with_(books(), (past) => past.count("books", { client: "b", token: past.now(), at: past.now() - 1n }))
    ],
    [
      "a strong read of before what somebody has seen",
      () =>
        with_(books(), (past) => {
          const before = past.now()
          past.upsert("books", [1], { client: "b", outcome: "unknown" })
          past.get("books", [1], { client: "b" })
          past.count("books", { client: "c", consistency: "Strong", at: before })
        })
    ],
    [
      "a bounded read of too long ago",
      () =>
        with_(books(), (past) => {
          const before = past.now()
          for (let i = 0; i < 600; i++) past.step()
          past.count("books", { consistency: "Bounded", at: before })
        })
    ],
    [
      "another time than was asked for",
      () => with_(books(), (past) => past.count("books", { travel: past.now(), at: past.now() - 1n }))
    ]
  ],

  "one-timestamp": [
    [
      "one shard is read later than the other",
      () =>
        with_(two(), (past) => {
          past.upsert("books", [1, 2, 3, 4])
          const at = past.now()
          const later = past.upsert("books", [1, 2, 3, 4], { client: "b" })
          past.get("books", [1, 2, 3, 4], { at }, (rows) =>
            rows.map((row, i) =>
              i === 0 ? { key: row.key, fields: { op: later.id, row: 0 }, vector: undefined } : row
            )
          )
        })
    ],
    [
      "a row of after the time of the search is found",
      () =>
        with_(two(), (past) => {
          past.upsert("books", [1, 2])
          const at = past.now()
          past.upsert("books", [3], { client: "b" })
          const [hit] = past.seen("books", past.now()).slice(-1)
          past.search("books", 10, { at }, (hits) => [...hits, { ...hit!, vector: undefined, distance: 99 }])
        })
    ],
    [
      "a row that was inserted again after the time of the read",
      () =>
        with_(two(), (past) => {
          past.upsert("books", [1])
          past.delete("books", [1])
          const at = past.now()
          const again = past.upsert("books", [1], { client: "b" })
          past.get("books", [1], { at }, () => [{ key: 1, fields: { op: again.id, row: 0 }, vector: undefined }])
        })
    ]
  ],

  answers: [
    ["a key twice", () => with_(filled(), (past) => past.get("books", [1, 3], {}, (rows) => [...rows, rows[0]!]))],
    ["a hit twice", () => with_(filled(), (past) => past.search("books", 10, {}, (hits) => [hits[0]!, ...hits]))],
    [
      "in another order than asked",
      () => with_(filled(), (past) => past.get("books", [1, 3], {}, (rows) => rows.toReversed()))
    ],
    ["not by distance", () => with_(filled(), (past) => past.search("books", 10, {}, (hits) => hits.toReversed()))],
    [
      "a wrong distance",
      () =>
        with_(filled(), (past) =>
          past.search("books", 10, {}, (hits) => hits.map((hit) => ({ ...hit, distance: hit.distance + 0.5 })))
        )
    ],
    [
      "a distance that is a little wrong, in COSINE",
      () => {
        const past = new Past()
        past.create("books", { ...shapeOne, metric: "COSINE" })
        past.upsert("books", [1, 2, 3])
        past.search("books", 10, {}, (hits) => hits.map((hit) => ({ ...hit, distance: hit.distance * (1 - 1e-6) })))
        return past
      }
    ],
    [
      "fewer hits than there are rows",
      () => with_(filled(), (past) => past.search("books", 10, {}, (hits) => hits.slice(1)))
    ],
    ["more than were asked for", () => with_(filled(), (past) => past.search("books", 2, {}, () => all(past)))],
    ["not the nearest", () => with_(filled(), (past) => past.search("books", 2, {}, () => all(past).slice(1)))]
  ],

  timestamps: [
    [
      "a write that a log lost was answered with another time than it had",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1], { timestamp: past.now() - 1n })
          lose(past)
        })
    ],
    [
      "the oracle's bound goes back",
      () => with_(books(), (past) => past.oracle(fromMillis(BEGINNING + 9_000_000), 0n))
    ],
    [
      "a term begins below the one before",
      () => with_(books(), (past) => past.coordinate(fromMillis(BEGINNING + 20_000_000), fromMillis(BEGINNING)))
    ],
    [
      "a record above what the oracle has persisted",
      () => with_(books(), (past) => past.upsert("books", [1], { recordTimestamp: fromMillis(BEGINNING + 11_000_000) }))
    ],
    [
      "an answer above what the oracle has persisted",
      () => with_(books(), (past) => past.count("books", { at: fromMillis(BEGINNING + 11_000_000) }))
    ],
    [
      "time goes back in a channel",
      () =>
        with_(books(), (past) => {
          const before = past.now()
          past.upsert("books", [1])
          past.upsert("books", [2], { client: "b", recordTimestamp: before })
        })
    ],
    [
      "two records with rows at one time",
      () =>
        with_(books(), (past) => {
          const at = past.now() + 1_000_000n
          past.upsert("books", [1], { recordTimestamp: at })
          past.upsert("books", [2], { recordTimestamp: at })
        })
    ],
    [
      "a write is answered with another time than its record has",
      () => with_(books(), (past) => past.upsert("books", [1], { timestamp: past.now() + 1n }))
    ],
    [
      "a record at a time at which somebody was answered",
      () =>
        with_(books(), (past) => {
          past.count("books", { client: "b", at: past.now() + fromMillis(1_000) })
          past.upsert("books", [1])
        })
    ],
    [
      "a record below the floor of its oracle",
      () =>
        with_(books(), (past) => {
          past.record(0, "tick", [], past.now(), { floor: past.now() - 1n })
          past.record(0, "tick", [], past.now(), { floor: past.now() + 1n })
        })
    ]
  ],

  "one-writer": [
    [
      "a record of an old owner behind the fence of the next",
      () =>
        with_(books(), (past) => {
          const { epoch, nonce } = past.owners.get(0)!
          past.take(0)
          past.record(0, "tick", [], past.now(), { epoch, nonce })
        })
    ],
    [
      "a record of an older fence of one owner",
      () =>
        with_(books(), (past) => {
          const owner = past.owners.get(0)!
          owner.incarnation = 2
          past.record(0, "fence", [], owner.timestamp)
          for (let i = 0; i < limits.pipelineDepth; i++) {
            past.store(0, encodeRecord({ ...past.header(0, "padding", owner.timestamp), lsn: owner.lsn }, []).bytes)
          }
          past.record(0, "padding", [], owner.timestamp, { lsn: owner.lsn })
          const { hash, lsn, timestamp } = owner
          past.record(0, "tick", [], past.now(), { incarnation: 1 })
          Object.assign(owner, { hash, lsn, timestamp })
        })
    ],
    [
      "an epoch that nobody took",
      () =>
        with_(books(), (past) => {
          past.owners.get(0)!.epoch = 900n
          past.record(0, "fence", [], 0n)
        })
    ],
    [
      "another activation in the same epoch",
      () => with_(books(), (past) => past.record(0, "tick", [], past.now(), { nonce: 12345n }))
    ],
    [
      "a channel is taken by a lower order",
      () => with_(books(), (past) => past.take(0, { epoch: past.epoch - 1, number: 9 }))
    ],
    [
      "the key of a channel is written by one who is not its owner",
      () => with_(books(), (past) => past.checkpoint(0, {}, { nonce: 12345n }))
    ],
    [
      "a coordinator commits after another has taken over",
      () =>
        with_(books(), (past) => {
          const old = { epoch: past.epoch, number: past.commits + 1 }
          past.coordinate()
          past.commit([], old)
        })
    ],
    ["one commit twice", () => with_(books(), (past) => past.commit([], { epoch: past.epoch, number: past.commits }))]
  ],

  "kept-rows": [
    [
      "an owner goes on, and its log lost what was flushed",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          past.flush("books")
          lose(past)
          past.take(0)
          past.tick(0)
          past.checkpoint(0, { metadata: 1_000 })
        })
    ],
    [
      "a flush is answered, and nothing is flushed",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          past.end(past.begin("books", { _tag: "Flush" }), "Ok", { _tag: "Done" })
        })
    ],
    [
      "a flush loses a row that no log lost",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          past.upsert("books", [2])
          forget(past)
          past.flush("books", 0, { keeps: ({ key }) => key !== 1 })
        })
    ],
    [
      "a flush loses a row",
      () =>
        with_(
          books(),
          (past) => (past.upsert("books", [1, 2]), past.flush("books", 0, { keeps: ({ key }) => key !== 1 }))
        )
    ],
    [
      "an object is damaged, and its rows are answered as if they had never been",
      () =>
        with_(filled(), (past) => {
          past.ledger.add({ _tag: "Damaged", what: "segments/c1/0/1-1.arrow" })
          past.count("books", {}, -2)
        })
    ],
    [
      "a flush forgets the deletes of its range",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1, 2])
          past.flush("books")
          past.delete("books", [1])
          past.flush("books", 0, { deletes: false })
        })
    ],
    [
      "a flush loses an older version, which a read at an older time sees",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          past.upsert("books", [1])
          past.flush("books", 0, { keeps: ({ lsn }) => lsn !== 2 })
        })
    ],
    ["a manifest goes back", () => with_(filled(), (past) => past.flush("books", 0, { manifest: { flushedTo: 1 } }))],
    [
      "a manifest skips a version",
      () => with_(filled(), (past) => past.flush("books", 0, { manifest: { version: 9 } }))
    ],
    [
      "a segment is left out of the next manifest",
      () => with_(filled(), (past) => past.flush("books", 0, { manifest: { segments: [] } }))
    ],
    [
      "a sealed row is not in an answer",
      () => with_(filled(), (past) => past.get("books", [1, 4], {}, (rows) => rows.slice(1)))
    ],
    ["sealed rows are counted twice", () => with_(filled(), (past) => past.count("books", {}, 2))]
  ],

  needed: [
    [
      "a checkpoint names a record that never was, where the log lost another",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          forget(past)
          past.checkpoint(0, { hash: 5n })
        })
    ],
    [
      "the log is purged above the checkpoint",
      () =>
        with_(filled(), (past) => past.ledger.add({ _tag: "Purged", channel: 0, before: past.owners.get(0)!.sequence }))
    ],
    ["a checkpoint above a record that is in no manifest", () => with_(filled(), (past) => past.checkpoint(0))],
    [
      "the log is purged of a record that is in no manifest",
      () =>
        with_(filled(), (past) => {
          past.checkpoint(0)
          past.ledger.add({ _tag: "Purged", channel: 0, before: past.owners.get(0)!.sequence })
        })
    ],
    [
      "a checkpoint goes back",
      () =>
        with_(books(), (past) => {
          past.tick(0)
          past.checkpoint(0)
          past.checkpoint(0, { lsn: 1, sequence: 1 })
        })
    ],
    [
      "a checkpoint of another record",
      () =>
        with_(books(), (past) => {
          past.tick(0)
          past.checkpoint(0, { hash: 77n })
        })
    ],
    [
      "an object that a manifest names is removed",
      () =>
        with_(filled(), (past) => {
          const { key } = past.collections.get("books")!.manifests[0]!.segments[0]!.data
          past.ledger.add({ _tag: "Removed", key })
        })
    ],
    [
      "a manifest names an object that is not there",
      () => with_(filled(), (past) => past.flush("books", 0, { put: false }))
    ],
    [
      "a manifest names an object by another checksum",
      () => with_(filled(), (past) => past.flush("books", 0, { crc: 1 }))
    ],
    [
      "an object of an attempt that lives is removed",
      () =>
        with_(filled(), (past) => {
          const attempt = { id: "9-9", kind: "flush" as const, collection: "c1", shard: 0, segment: "", node: "n" }
          past.commit([[metaKey.attempt("9-9"), metadata.attempt.encode(attempt)]])
          past.ledger.add({ _tag: "Removed", key: "segments/c1/0/9-9.arrow" })
        })
    ]
  ],

  damage: [
    [
      "an owner reads past a record that rotted",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          past.ledger.add({ _tag: "Rotten", channel: 0, sequence: past.owners.get(0)!.sequence })
          past.take(0)
          past.upsert("books", [2])
          past.checkpoint(0)
        })
    ],
    [
      "a hole in the log",
      () =>
        with_(books(), (past) => {
          past.owners.get(0)!.sequence++
          past.tick(0)
        })
    ],
    [
      "a record that follows another one than the one before",
      () => with_(books(), (past) => past.record(0, "tick", [], past.now(), { previous: 5n }))
    ],
    ["bytes that are no record", () => with_(books(), (past) => past.store(0, new Uint8Array(100)))],
    [
      "somebody says damaged, and nothing is",
      () => with_(books(), (past) => past.upsert("books", [1], { outcome: "refused", code: "damaged" }))
    ],
    [
      "a bug of ours",
      () => with_(books(), (past) => past.delete("books", [1], { outcome: "unknown", code: "internal" }))
    ],
    [
      "a log lost what was acknowledged, and goes on",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          lose(past)
          past.upsert("books", [2], { client: "b" })
        })
    ],
    [
      "a log lost what nobody had been told, and later what was acknowledged, and goes on",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1], { outcome: "unknown" })
          lose(past)
          past.upsert("books", [2])
          lose(past)
          past.upsert("books", [3], { client: "b" })
        })
    ],
    [
      "a log lost what was acknowledged, and answers as if it had never been",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          lose(past)
          past.get("books", [1], { client: "b" }, () => [])
        })
    ],
    [
      "a log lost what was acknowledged by the one proxy, and another owner goes on",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          lose(past)
          past.take(0)
          past.upsert("books", [2])
        })
    ],
    [
      "a log lost what was acknowledged by the one proxy, its owner dies, and another one goes on",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          lose(past)
          past.crashes.push({ ...past.step(), isProxy: false })
          past.take(0)
          past.upsert("books", [2])
        })
    ],
    [
      "a log lost what was acknowledged by the one proxy, and another owner answers",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          lose(past)
          past.take(0)
          past.get("books", [1], {}, () => [])
        })
    ],
    [
      "a node says in its log that a channel is damaged, and another one is",
      () =>
        with_(books(), (past) => {
          lose(past, 2)
          past.alarms.push({ moment: past.step(), channel: 0, detail: "by hand" })
        })
    ],
    [
      "a sealed row comes back with another bit",
      () =>
        with_(filled(), (past) =>
          past.get("books", [1], {}, (rows) => rows.map((row) => ({ ...row, fields: { ...row.fields, op: 999 } })))
        )
    ],
    [
      "somebody says damaged, and another log is",
      () =>
        with_(books(), (past) => {
          lose(past, 2)
          past.upsert("books", [1], { outcome: "refused", code: "damaged" })
        })
    ]
  ],

  convergence: [
    ["an operation never ends", () => with_(books(), (past) => past.upsert("books", [1], { outcome: "never" }))],
    [
      "an operation of the time of the faults ends too late",
      () =>
        with_(books(), (past) => {
          const operation = past.begin("books", { _tag: "Flush" })
          const core = past.step()
          past.observed = { phases: { core, deadline: past.step(), end: past.step() } }
          past.end(operation, "Ok", { _tag: "Done" })
        })
    ],
    [
      "who asks after the faults is refused",
      () =>
        with_(books(), (past) => {
          const probe = past.end(past.begin("books", { _tag: "Flush" }), "Refused", { _tag: "Done" }, 0n, "unavailable")
          past.probes.push(...past.operations.splice(past.operations.indexOf(probe), 1))
        })
    ],
    [
      "who asks after the faults hears nothing",
      () =>
        with_(books(), (past) => {
          past.begin("books", { _tag: "Flush" })
          past.probes.push(...past.operations.splice(-1))
        })
    ],
    [
      "who asks after the faults hears damaged, and another log is",
      () =>
        with_(books(), (past) => {
          lose(past, 2)
          const probe = past.end(past.begin("books", { _tag: "Flush" }), "Refused", { _tag: "Done" }, 0n, "damaged")
          past.probes.push(...past.operations.splice(past.operations.indexOf(probe), 1))
        })
    ],
    [
      "who asks after the faults hears unavailable, and an object of another collection is damaged",
      () =>
        with_(books(), (past) => {
          past.ledger.add({ _tag: "Damaged", what: "segments/c9/0/1-1.arrow" })
          const probe = past.end(past.begin("books", { _tag: "Flush" }), "Refused", { _tag: "Done" }, 0n, "unavailable")
          past.probes.push(...past.operations.splice(past.operations.indexOf(probe), 1))
        })
    ],
    [
      "who writes after the faults hears ambiguous, and the collection is there",
      () =>
        with_(books(), (past) => {
          const probe = past.upsert("books", [1], { outcome: "unknown", code: "ambiguous" })
          past.probes.push(...past.operations.splice(past.operations.indexOf(probe), 1))
        })
    ],
    [
      "who writes after the faults is told that he was forgotten, and all clocks were right",
      () => with_(books(), (past) => ahead(past, true))
    ],
    [
      "who writes after the faults is told that he was forgotten, and the log is of his time",
      () =>
        with_(books(), (past) => {
          past.observed = { clocksAgree: false }
          forgotten(past)
        })
    ],
    [
      "who asks after the faults hears nothing, and a log lost something",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          lose(past)
          past.begin("books", { _tag: "Flush" })
          past.probes.push(...past.operations.splice(-1))
        })
    ],
    [
      "a collection is still being made when all is over",
      () =>
        with_(books(), (past) => {
          past.create("films", shapeOne, true, "Unknown", "creating")
          past.observed = { phases: { healed: past.step(), end: past.step() } }
        })
    ],
    [
      "a collection is still being closed when all is over",
      () => with_(owing(), (past) => past.create("films", shapeOne, true, "Unknown", "closing"))
    ],
    [
      "a collection that was dropped is still there when all is over",
      () => with_(owing(), (past) => past.drop("books"))
    ],
    [
      "an index is not built when all is over",
      () =>
        with_(owing(), (past) => {
          const job = {
            id: "1-1",
            collection: "c1",
            shard: 0,
            segment: "1-2",
            state: "assigned",
            attempt: "1-3",
            node: "n",
            tries: 0
          } as const
          past.commit([[metaKey.job(job.id), metadata.job.encode(job)]])
        })
    ],
    [
      "a log is not purged up to its checkpoint when all is over",
      () =>
        with_(owing(), (past) => {
          past.upsert("books", [1])
          past.flush("books")
          past.checkpoint(0)
        })
    ],
    [
      "a node of the core is not there again",
      () => with_(books(), (past) => (past.observed = { owned: { core: false, all: true } }))
    ],
    [
      "a node is not there again",
      () => with_(books(), (past) => (past.observed = { owned: { core: true, all: false } }))
    ],
    [
      "nobody says what a collection is like",
      () => with_(books(), (past) => (past.observed = { unasked: [unasked(past)] }))
    ],
    [
      "it is not found, and is there",
      () =>
        with_(books(), (past) => {
          past.observed = { unasked: [{ ...unasked(past), code: "collection-not-found" }] }
        })
    ],
    [
      "a write is refused, and nothing failed",
      () =>
        with_(books(), (past) => {
          past.observed = { isCalm: true }
          past.upsert("books", [1], { outcome: "refused", code: "overloaded" })
        })
    ],
    [
      "nobody says what a collection is like, and nothing failed",
      () => with_(books(), (past) => (past.observed = { isCalm: true, skipped: [unasked(past)] }))
    ],
    [
      "nobody rests",
      () =>
        with_(
          books(),
          (past) =>
            (past.observed = {
              quiet: [
                [9, 9, 9],
                [300, 9, 300]
              ]
            })
        )
    ]
  ],

  limits: [
    ["a record that is too large", () => with_(books(), (past) => past.store(0, encodeLarge(past)))],
    ["a fence that is too short", () => with_(books(), (past) => past.take(0, undefined, limits.pipelineDepth - 1))],
    [
      "a fence that is too short, where the log lost something else",
      () =>
        with_(books(), (past) => {
          past.upsert("books", [1])
          lose(past)
          past.take(0, undefined, limits.pipelineDepth - 1)
        })
    ],
    [
      "a commit of too many keys",
      () =>
        with_(books(), (past) =>
          past.commit(
            Array.from({ length: limits.commitKeysMax }, (_, i) => [`placement.x.${i}`, Uint8Array.of(1)] as const)
          )
        )
    ],
    [
      "a request that takes longer than it may",
      () =>
        with_(books(), (past) => {
          const operation = past.begin("books", { _tag: "Flush" })
          for (let i = 0; i < 1_200; i++) past.step()
          past.end(operation, "Refused", { _tag: "Done" }, 0n, "unavailable")
        })
    ],
    [
      "a word that is for the parts among themselves",
      () => with_(books(), (past) => past.upsert("books", [1], { outcome: "refused", code: "moved" }))
    ]
  ]
}

function with_(past: Past, change: (past: Past) => unknown): Past {
  change(past)
  return past
}

/** A server loses its power, and a channel what it had last. */
function lose(past: Past, channel = 0): void {
  const owner = past.owners.get(channel)!
  past.ledger.add({ _tag: "Lost", channel, from: owner.sequence })
  owner.sequence--
}

/** Then another owner comes, and of the proxies another asks, who know of nothing. */
function forget(past: Past): void {
  lose(past)
  past.take(0)
  past.observed = { proxies: 2 }
}

/** After the faults somebody writes, and hears that nobody can tell whether he did before. */
function forgotten(past: Past, meanwhile: () => void = () => {}): void {
  const { asked } = past.upsert("books", [1], { request: { issued: past.now(), unique: 7n } })
  const probe = past.begin("books", asked)
  meanwhile()
  past.end(probe, "Unknown", { _tag: "Written", count: 0 }, 0n, "outcome-unknown")
  past.probes.push(...past.operations.splice(past.operations.indexOf(probe), 1))
}

/** Meanwhile the time of the log went on by more than requests are remembered for. */
function ahead(past: Past, clocksAgree: boolean): void {
  past.observed = { clocksAgree }
  forgotten(past, () => {
    past.record(0, "tick", [], past.now() + fromMillis(limits.dedupeAgeMs + 60_000))
  })
}

function encodeLarge(past: Past): Uint8Array {
  const keys = keyColumn(
    "VarChar",
    Array.from({ length: 10 }, (_, i) => `${i}`.repeat(60_000))
  )
  const entry = {
    collection: "c1",
    shard: 0,
    schema: 1,
    request: past.request(),
    body: { _tag: "Delete" as const, keys }
  }
  return encodeRecord(past.header(0, "rows", past.now()), [entry]).bytes
}

function all(past: Past): ReadonlyArray<AnswerHit> {
  const { outcome } = past.search("books", 10, { client: "z" })
  return outcome?._tag === "Ok" && outcome.answer._tag === "Hits" ? outcome.answer.lists[0]! : []
}

describe("every property", () => {
  it("has a check, in the order of the design", () => {
    assert.deepStrictEqual(
      checks.map(({ property }) => property),
      Object.keys(properties)
    )
  })

  for (const { property } of checks) {
    describe(`${property}: ${properties[property]}`, () => {
      it("has at least three bad pasts", () => assert.isAtLeast(bad[property].length, 3))
      for (const [what, past] of bad[property]) {
        it(`rejects: ${what}`, () => assert.include(past().broken(), property))
      }
    })
  }
})

// ---- right ones

/** A past of any length in which everybody is told the truth. */
const draw = (random: RandomSource): Past => {
  const past = new Past()
  const names = ["books", "films"]
  for (const name of names) past.create(name, { ...shapeOne, shards: 1 + random.below(3) })
  const key = () => random.below(6)
  const keys = () => Array.from({ length: 1 + random.below(4) }, key)
  const timestamps: Array<bigint> = []
  let token = 0n
  for (let i = 0; i < 40; i++) {
    const name = random.pick(names)
    const dice = random.below(100)
    const { channels } = past.collections.get(name)!
    if (dice < 30) past.upsert(name, keys(), { outcome: random.pick(["ok", "ok", "ok", "unknown", "refused"]) })
    else if (dice < 45) past.delete(name, keys(), { outcome: random.pick(["ok", "ok", "unknown"]), stored: 1 })
    else if (dice < 50) past.upsert(name, keys(), { outcome: "unknown", stored: 0 })
    else if (dice < 58) past.flush(name, random.below(channels.length))
    else if (dice < 62) past.take(random.below(3))
    else if (dice < 64) past.coordinate()
    else if (dice < 68) past.tick(random.below(3))
    else {
      const travel = timestamps.length > 0 && random.chance(0.3) ? random.pick(timestamps) : undefined
      const options = {
        token,
        consistency: random.pick(["Strong", "Session", "Bounded", "Eventually"] as const),
        ...(travel === undefined ? {} : { travel, at: travel })
      }
      const read = random.pick([
        () => past.get(name, keys(), options),
        () => past.count(name, options),
        () => past.search(name, 1 + random.below(5), options)
      ])()
      if (read.outcome?._tag === "Ok") {
        timestamps.push(read.outcome.timestamp)
        if (travel === undefined) token = read.outcome.timestamp
      }
    }
    for (const operation of past.operations.slice(-1)) {
      const { asked, outcome } = operation
      const isWrite = asked._tag === "Upsert" || asked._tag === "Delete"
      if (isWrite && outcome?._tag === "Ok" && outcome.timestamp > token) token = outcome.timestamp
    }
  }
  past.list(names.toSorted())
  return past
}

describe("a past in which everything is right", () => {
  it("passes every check", () => {
    forSeeds(150, (seed) => assert.deepStrictEqual(draw(randomFrom(seed)).broken(), []))
  })

  it("passes when a write of which nobody knew comes later than all else", () => {
    const past = books()
    const unknown = past.upsert("books", [1], { outcome: "unknown", stored: 0 })
    past.upsert("books", [1])
    if (unknown.asked._tag === "Upsert") past.put("books", unknown.asked)
    past.get("books", [1])
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when a part of one delete without an id could be of another one", () => {
    const past = two()
    past.upsert("books", [1, 2, 3, 4])
    const of = (shard: number) => [1, 2, 3, 4].filter((key) => shardOf(hashKey(key), 2) === shard)
    const [[x, z], [y]] = [of(0), of(1)] as [[number, number], [number]]
    const ask = (keys: ReadonlyArray<number>) => past.begin("books", { _tag: "Delete", request: undefined, keys })
    const both = [ask([x, y]), ask([z, y])]
    // First a part of the second one, then all of the first.
    for (const keys of [[y], [x, y]]) past.put("books", { _tag: "Delete", request: past.request(), keys })
    for (const each of both) past.end(each, "Unknown", { _tag: "Written", count: 0 })
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when a collection is dropped and made again", () => {
    const past = filled()
    past.drop("books")
    past.list([])
    past.create("books")
    past.upsert("books", [1])
    past.get("books", [1, 2, 3])
    past.list(["books"])
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when a part of a write was left in a collection that was dropped", () => {
    const past = books()
    const old = past.collections.get("books")!
    past.drop("books")
    past.create("books")
    const { asked } = past.upsert("books", [1])
    const made = past.collections.get("books")!
    past.collections.set("books", old)
    if (asked._tag === "Upsert") past.put("books", asked)
    past.collections.set("books", made)
    past.get("books", [1])
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when a log that lost something stops", () => {
    const past = books()
    past.upsert("books", [1])
    lose(past)
    past.alarms.push({ moment: past.step(), channel: 0, detail: "by hand" })
    past.upsert("books", [2], { outcome: "refused", code: "damaged" })
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when an owner's checkpoint is past what its log lost, and its proxy knows better", () => {
    const past = books()
    past.upsert("books", [1])
    lose(past)
    past.take(0)
    past.tick(0)
    past.checkpoint(0)
    past.upsert("books", [2])
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when nobody is left who knew what a log lost", () => {
    const past = books()
    past.upsert("books", [1])
    lose(past)
    past.crashes.push({ ...past.step(), isProxy: true })
    past.take(0)
    past.upsert("books", [2])
    past.get("books", [1], {}, () => [])
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when an object is damaged, and whoever needs it says so", () => {
    const past = filled()
    past.ledger.add({ _tag: "Damaged", what: "segments/c1/0/1-1.arrow" })
    past.upsert("books", [5], { outcome: "refused", code: "damaged" })
    const probe = past.end(past.begin("books", { _tag: "Flush" }), "Refused", { _tag: "Done" }, 0n, "unavailable")
    past.probes.push(...past.operations.splice(past.operations.indexOf(probe), 1))
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when a collection is dropped while somebody asks again for a write of it", () => {
    const past = books()
    const { asked } = past.upsert("books", [1])
    const probe = past.begin("books", asked)
    past.drop("books")
    past.end(probe, "Unknown", { _tag: "Written", count: 0 }, 0n, "ambiguous")
    past.probes.push(...past.operations.splice(past.operations.indexOf(probe), 1))
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when a clock takes a log past a write that somebody asks again", () => {
    const past = books()
    ahead(past, false)
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when all channels of a node move to it in one of the seconds of quiet", () => {
    const past = books()
    past.observed = { quiet: [[9, 600, 9, 9, 9]] }
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when who knew what a log lost was not asked", () => {
    const past = books()
    past.upsert("books", [1])
    forget(past)
    past.upsert("books", [2])
    past.get("books", [1], {}, () => [])
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when a log loses half of a write, or half of a fence", () => {
    const past = two()
    past.upsert("books", [1, 2, 3, 4])
    lose(past, 1)
    past.take(2)
    lose(past, 2)
    assert.deepStrictEqual(past.broken(), [])
  })

  it("passes when who knew what a log lost flushes it, and saves where it is", () => {
    const past = books()
    past.upsert("books", [1])
    past.upsert("books", [2])
    const { sequence } = past.owners.get(0)!
    lose(past)
    past.flush("books")
    past.checkpoint(0, { sequence })
    assert.deepStrictEqual(past.broken(), [])
  })
})

// ---- one lie in a right one

describe("one lie in a past that is right", () => {
  type Lie = (past: Past, random: RandomSource) => ReadonlyArray<Property> | undefined
  const okay = (past: Past, tag: string) =>
    past.operations.filter(({ asked, outcome }) => asked._tag === tag && outcome?._tag === "Ok")
  const change = <A extends object>(target: A, values: { readonly [K in keyof A]?: unknown }) =>
    Object.assign(target, values)

  const lies: { readonly [name: string]: Lie } = {
    "a row is left out of an answer": (past, random) => {
      const reads = okay(past, "Get").filter(
        ({ outcome }) => outcome?._tag === "Ok" && outcome.answer._tag === "Rows" && outcome.answer.rows.length > 0
      )
      if (reads.length === 0) return undefined
      const { outcome } = random.pick(reads)
      if (outcome?._tag === "Ok" && outcome.answer._tag === "Rows") {
        change(outcome.answer, { rows: outcome.answer.rows.slice(1) })
      }
      return ["acknowledged", "kept-rows"]
    },
    "a count is one too many": (past, random) => {
      const counts = okay(past, "Count")
      if (counts.length === 0) return undefined
      const { outcome } = random.pick(counts)
      if (outcome?._tag === "Ok" && outcome.answer._tag === "Counted")
        change(outcome.answer, { rows: outcome.answer.rows + 1 })
      return ["deleted", "kept-rows"]
    },
    "the nearest hit is left out": (past, random) => {
      const searches = okay(past, "Search").filter(
        ({ outcome }) => outcome?._tag === "Ok" && outcome.answer._tag === "Hits" && outcome.answer.lists[0]!.length > 0
      )
      if (searches.length === 0) return undefined
      const { outcome } = random.pick(searches)
      if (outcome?._tag === "Ok" && outcome.answer._tag === "Hits") {
        change(outcome.answer, { lists: [outcome.answer.lists[0]!.slice(1)] })
      }
      return ["answers"]
    },
    "a write is said to have been refused": (past, random) => {
      const writes = [...okay(past, "Upsert"), ...okay(past, "Delete")]
      if (writes.length === 0) return undefined
      change(random.pick(writes), { outcome: { _tag: "Refused", code: "overloaded", reason: "a lie" } })
      return ["acknowledged"]
    },
    "a write is said to be later than it is": (past, random) => {
      const writes = [...okay(past, "Upsert"), ...okay(past, "Delete")]
      if (writes.length === 0) return undefined
      const { outcome } = random.pick(writes)
      if (outcome?._tag === "Ok") change(outcome, { timestamp: outcome.timestamp + 1n })
      return ["timestamps"]
    },
    "a read is said to be of another time": (past, random) => {
      const reads = okay(past, "Get").filter(({ asked }) => asked._tag === "Get" && asked.level.token > 0n)
      if (reads.length === 0) return undefined
      const { outcome } = random.pick(reads)
      if (outcome?._tag === "Ok") change(outcome, { timestamp: 1n })
      return ["fresh"]
    },
    "a record is taken out of the ledger": (past, random) => {
      const stored = past.ledger.facts.filter((fact) => fact._tag === "Stored")
      // What nothing follows leaves no hole.
      const written = stored.filter(
        (fact, i) => fact.data[8] === 0 && stored.slice(i + 1).some(({ channel }) => channel === fact.channel)
      )
      if (written.length === 0) return undefined
      past.ledger.facts.splice(past.ledger.facts.indexOf(random.pick(written)), 1)
      return ["damage"]
    },
    "a record is there twice": (past, random) => {
      const written = past.ledger.facts.filter((fact) => fact._tag === "Stored" && fact.data[8] === 0)
      if (written.length === 0) return undefined
      const fact = random.pick(written)
      past.ledger.facts.push(fact)
      return ["damage", "acknowledged"]
    },
    "a bit of an object is another one": (past, random) => {
      const objects = past.ledger.facts.filter((fact) => fact._tag === "Put")
      if (objects.length === 0) return undefined
      const fact = random.pick(objects)
      if (fact._tag === "Put") fact.data[random.below(fact.data.length)]! ^= 1 << random.below(8)
      return ["needed"]
    }
  }

  for (const [name, lie] of Object.entries(lies)) {
    it(`is found: ${name}`, () => {
      let told = 0
      forSeeds(60, (seed) => {
        const past = draw(randomFrom(seed))
        const broken = lie(past, randomFrom(seed + 1_000))
        if (broken === undefined) return
        told++
        const found = past.broken()
        assert.isTrue(
          broken.some((property) => found.includes(property)),
          `${found.join()} instead of one of ${broken.join()}`
        )
      })
      assert.isAbove(told, 20)
    })
  }
})

describe("a run that shows nothing", () => {
  it("is told from one that does", () => {
    const empty = new Past()
    const why = vacuous(empty.evidence()).join()
    for (const reason of ["operations", "writes", "flushed", "row"]) assert.include(why, reason)

    const full = filled()
    for (let i = 0; i < 20; i++) {
      full.upsert("books", [i])
      full.get("books", [i])
    }
    assert.deepStrictEqual(vacuous(full.evidence()), [])

    for (let i = 0; i < 40; i++) full.upsert("books", [i], { outcome: "refused", code: "unavailable" })
    assert.include(vacuous(full.evidence()).join(), "writes")
    const shows = vacuous(full.evidence()).length
    const bereft = filled()
    for (let i = 0; i < 20; i++) {
      bereft.upsert("books", [i])
      bereft.get("books", [i])
    }
    lose(bereft)
    for (let i = 0; i < 40; i++) bereft.upsert("books", [i], { outcome: "refused", code: "damaged" })
    assert.isAbove(shows, vacuous(bereft.evidence()).length, "a log that lost something takes nothing more")
  })
})

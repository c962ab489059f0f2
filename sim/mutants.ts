/**
 * Planted bugs: mistakes that somebody could make in the database, at least two for each property, most of them a rule of
 * protocols/README.md left out. A simulator that does not find one of them is blind there. Each is one edit of one file,
 * lets a cluster without faults do its work, and should be found by the property that it breaks.
 */
import type { Property } from "./checks/evidence.ts"
import type { Edit } from "./mutate.ts"

export interface Mutant extends Edit {
  readonly breaks: Property
  /** What was forgotten, and what comes of it. */
  readonly why: string
}

/*
 * Not planted, and why:
 *
 * - compaction that forgets newer deletes, or commits without a look at the manifest; objects removed while a reader
 *   holds them; a file of deletes that misses what came beside it: nothing is compacted or collected yet
 * - deletes by filter with one timestamp, an import, a schema that changes: there is no such call yet
 * - a log purged by the fastest of its readers: it has one, its owner
 * - ties left out of a top-k: any order of equal scores is right, and each number of hits is checked
 * - a record of a collection that is not known yet, skipped: who takes a channel waits first for all metadata that is
 *   committed, so that it takes a collection made, written by the owner before, and late in the watch, all between that
 *   and the stopper; no run of a hundred came there
 * - an owner that was replaced says that all is flushed, of what it knows: one run in two hundred comes there, and plan 126 does
 * - a query node that does not say what it was told of by records that the log lost, which go on hiding rows: its owner and the
 *   proxies say so before it, and of 308 runs with losses of power none came by all three (plan 117 did, before they spoke up)
 */

const streaming = (file: string) => `actors/streaming-node/${file}.ts`

const acknowledged: ReadonlyArray<Mutant> = [
  {
    name: "ack-before-log",
    breaks: "acknowledged",
    file: streaming("writer"),
    find: "inFlight.push({ sequence, record: { header, entries, hash }, pending, outcome })",
    replace:
      "inFlight.push({ sequence, record: { header, entries, hash }, pending, outcome })\n    answer(pending, header)",
    why: "A write is acknowledged when it is sent: what the log refuses then is lost."
  },
  {
    name: "doubt-is-success",
    breaks: "acknowledged",
    file: streaming("channel"),
    find: "if (place !== undefined && place.hash === record.hash) return answer(pending, record.header)",
    replace: "if (true) return answer(pending, record.header)",
    why: "What was in flight when an append timed out is taken for stored."
  },
  {
    name: "doubt-is-failure",
    breaks: "acknowledged",
    file: streaming("channel"),
    find: "if (place !== undefined && place.hash === record.hash) return answer(pending, record.header)",
    replace: "if (false) return answer(pending, record.header)",
    why: "What was in flight when an append timed out is taken for not stored, and written once more."
  },
  {
    name: "late-write-means-the-namesake",
    breaks: "acknowledged",
    file: "actors/proxy/proxy.ts",
    find: "request === undefined || request.issued >= created",
    replace: "true",
    why: "A write that was long on its way is written to a later collection of that name."
  },
  {
    name: "late-drop-means-the-namesake",
    breaks: "acknowledged",
    file: "actors/proxy/proxy.ts",
    find: 'if (found.state === "ready") yield* meant(found, request)',
    replace: "",
    why: "A drop that was long on its way drops a later collection of that name."
  },
  {
    name: "no-dedupe",
    breaks: "acknowledged",
    file: streaming("channel"),
    find: "if (known !== undefined) return { ...known, lsn: mine.proven }\n      const asked",
    replace: "const asked",
    why: "A request that is asked again after its answer was lost is applied again."
  },
  {
    name: "no-dedupe-in-queue",
    breaks: "acknowledged",
    file: streaming("channel"),
    find: "if (before !== undefined) return yield* outcomeOf(before)",
    replace: "",
    why: "A request that is asked again while the first try still waits for the log is written twice."
  },
  {
    name: "requests-not-loaded",
    breaks: "acknowledged",
    file: streaming("channel"),
    find: "if (!shard.requestsLoaded) yield* loadRequests(mine, shard)",
    replace: "",
    why: "A new owner does not know the requests whose records are flushed and purged."
  },
  {
    name: "ids-not-flushed",
    breaks: "acknowledged",
    file: streaming("flushing"),
    find: "const requests = owner.requests.of(shard.key, unit.from, unit.to)",
    replace: "const requests = owner.requests.of(shard.key, unit.to, unit.from)",
    why: "A flush does not carry the young request ids of its range, so they go with the log."
  },
  {
    name: "refused-after-doubt",
    breaks: "acknowledged",
    file: "protocols/errors.ts",
    find: "const settled = unknown === undefined ||",
    replace: "const settled = true || unknown === undefined ||",
    why: "A write that may have been done is said to be refused, because a later try was."
  },
  {
    name: "partly-stored-is-refused",
    breaks: "acknowledged",
    file: "actors/proxy/requests.ts",
    find: "afterParts(failed, failed.length < parts.length)",
    replace: "afterParts(failed, false)",
    why: "A write that one shard has and another refused is said to be refused."
  },
  {
    name: "moved-while-in-doubt",
    breaks: "acknowledged",
    file: streaming("channel"),
    find: 'const unknown = failure("ambiguous", detail)',
    replace: 'const unknown = failure("overloaded", detail)',
    why: "An owner that finds itself replaced says of what it had in flight that it was not stored."
  }
]

const deleted: ReadonlyArray<Mutant> = [
  {
    name: "statistics-count-twice",
    breaks: "deleted",
    file: "actors/proxy/proxy.ts",
    find: "rowCount: rows,",
    replace: "rowCount: rows + shards.reduce((total, shard) => total + shard.growingRows, 0),",
    why: "Rows that grow are counted once more in the statistics."
  },
  {
    name: "delete-misses-sealed-unit",
    breaks: "deleted",
    file: streaming("growing"),
    find: "newest?.segment.hide(newest.row, lsn)",
    replace: "if (newest?.segment === this.active) newest.segment.hide(newest.row, lsn)",
    why: "A delete does not reach rows that are sealed in memory and not flushed yet."
  },
  {
    name: "flush-without-deletes",
    breaks: "deleted",
    file: streaming("flushing"),
    find: 'batch.kind === "Delete" || inOlder(hash)',
    replace: 'batch.kind === "Upsert" && inOlder(hash)',
    why: "A flush writes its rows and not the deletes of its range."
  },
  {
    name: "deletes-counted-before-read",
    breaks: "deleted",
    file: "actors/query-node/query-node.ts",
    find: "if (to <= segment.applied) continue",
    replace: "if (to <= segment.applied) continue\n      segment.applied = to",
    why: "A node that could not read a delete file takes it for applied at the next try."
  },
  {
    name: "hidden-rows-in-index",
    breaks: "deleted",
    file: "actors/query-node/segment.ts",
    find: "for (const row of this.hidden.keys()) index.hide(row)",
    replace: "",
    why: "An index that comes later does not know which rows were hidden before."
  },
  {
    name: "missing-filter-says-no",
    breaks: "deleted",
    file: streaming("flushing"),
    find: "each === undefined || mayHold(each, hash)",
    replace: "each !== undefined && mayHold(each, hash)",
    why: "Keys that were overwritten are not in the delete file if a segment's key filter is not loaded."
  },
  {
    name: "filters-of-the-old-view",
    breaks: "deleted",
    file: streaming("flushing"),
    find: "const older = owner.manifest(shard).segments.map",
    replace: "const older = (shard.view?.manifest ?? owner.manifest(shard)).segments.map",
    why: "A delete file is computed against the view, and misses the keys of the segment that was flushed just before."
  },
  {
    name: "position-guessed-over",
    breaks: "deleted",
    file: "actors/query-node/query-node.ts",
    find: "if (segment.applied < read.tail.after) {",
    replace: "if (false) {",
    why: "A node that lost its place answers instead of saying so."
  }
]

const fresh: ReadonlyArray<Mutant> = [
  {
    name: "strong-at-last-closed",
    breaks: "fresh",
    file: "actors/proxy/requests.ts",
    find: '(consistency === "Eventually" && closed > 0n)',
    replace: '(consistency !== "Bounded" && closed > 0n)',
    why: "A strong read takes the newest time that its proxy happens to know."
  },
  {
    name: "token-forgotten",
    breaks: "fresh",
    file: "actors/proxy/requests.ts",
    find: 'return { _tag: "At", timestamp: later(closed, token) }',
    replace: 'return { _tag: "At", timestamp: closed > 0n ? closed : token }',
    why: "A session that comes to another proxy goes back in time."
  },
  {
    name: "latest-without-proof",
    breaks: "fresh",
    file: streaming("reading"),
    find: "queue.proveAbove = Math.max(queue.proveAbove, issued)\n    changed.notify()\n    yield* until(() => owner.proven > issued && owner.closed >= at)",
    replace: "",
    why: "An owner answers from memory, without a record that proves that it still is the owner."
  },
  {
    name: "strong-behind-doubt",
    breaks: "fresh",
    file: streaming("reading"),
    find: "const at = owner.chain.timestamp",
    replace: "const at = owner.closed",
    why: "A strong read misses what an owner in doubt has read back, and acknowledged to who asked again."
  },
  {
    name: "deposed-time-is-fresh",
    breaks: "fresh",
    file: streaming("reading"),
    find: 'if (time._tag === "Fresh" && at < stamps.floor) {',
    replace: "if (false) {",
    why: "A time that a deposed coordinator gave out is taken for now."
  },
  {
    name: "deposed-behind-token",
    breaks: "fresh",
    file: "actors/proxy/requests.ts",
    find: "if (now < token && oracle === anyOracle) return",
    replace: "if (false) return",
    why: "A time that a deposed coordinator gave out is lifted to the session's token, and so taken for now."
  },
  {
    name: "oracle-without-gap",
    breaks: "fresh",
    file: "actors/coordinator/oracle.ts",
    find: "BigInt(limits.readerGap) + 1n",
    replace: "1n",
    why: "The values behind a reader's time are given out twice: to the owner that closes it, and to the next reader."
  },
  {
    name: "shared-call-joined-late",
    breaks: "fresh",
    file: "actors/shared-call.ts",
    find: "const mine = Deferred.makeUnsafe<A, E>()",
    replace: "const mine = (next = Deferred.makeUnsafe<A, E>())",
    why: "Who asks for a time gets that of a call which was on its way before it asked."
  },
  {
    name: "bounded-is-eventual",
    breaks: "fresh",
    file: "actors/proxy/requests.ts",
    find: "closed >= fromMillis(clock.currentTimeMillisUnsafe() - BOUNDED_MS)",
    replace: "closed > 0n",
    why: "A bounded read may be of any age."
  }
]

const oneTimestamp: ReadonlyArray<Mutant> = [
  {
    name: "each-shard-its-own-time",
    breaks: "one-timestamp",
    file: "actors/proxy/requests.ts",
    find: 'consistency !== "Bounded" && collection.channels.length === 1',
    replace: 'consistency !== "Bounded"',
    why: "Every shard of a strong read takes its own newest time."
  },
  {
    name: "fields-of-another-time",
    breaks: "one-timestamp",
    file: "actors/proxy/requests.ts",
    find: "const at: ReadLevel = { ...level, at: timestamp }",
    replace: "const at: ReadLevel = level",
    why: "The fields of the hits are fetched at another time than the hits."
  },
  {
    name: "growing-as-it-is-now",
    breaks: "one-timestamp",
    file: streaming("reading"),
    find: "plan(pin, owner.lsnAt(at))",
    replace: "plan(pin, owner.lsn)",
    why: "Rows that grow are read as they are now, and sealed ones at T."
  },
  {
    name: "sealed-as-it-is-now",
    breaks: "one-timestamp",
    file: "actors/query-node/segment.ts",
    find: "if (at >= this.maxTimestamp) return undefined",
    replace: "if (true) return undefined",
    why: "A search of a sealed segment at an old T finds rows that came later."
  }
]

const answers: ReadonlyArray<Mutant> = [
  {
    name: "grows-on-after-handoff",
    breaks: "answers",
    file: streaming("shard"),
    find: "this.growing.drop(view.manifest.flushedTo)",
    replace: "",
    why: "Rows that a query node serves are still served from growing: twice."
  },
  {
    name: "tail-of-deletes-alone",
    breaks: "answers",
    file: streaming("tail"),
    find: "collect(type, batches, mayHold)",
    replace: 'collect(type, batches, (hash, batch) => batch.kind === "Delete" && mayHold(hash))',
    why: "Query nodes are not told of keys that were written anew: both versions come."
  },
  {
    name: "hidden-filtered-afterwards",
    breaks: "answers",
    file: "storage/index-flat.ts",
    find: "const top = new TopK(Math.min(k, count))\n      scanBlock(metric, query, block, 0, count, top, 0, visible(allowed))\n      return top.finish()",
    replace:
      "const top = new TopK(Math.min(k, count))\n      scanBlock(metric, query, block, 0, count, top, 0, allowed)\n      const { ranks, rows } = top.finish()\n      const kept = [...rows.keys()].filter((i) => visible(undefined)?.(rows[i]!) ?? true)\n      return { rows: kept.map((i) => rows[i]!), ranks: kept.map((i) => ranks[i]!) }",
    why: "Hidden rows are left out after the search: each costs a hit."
  },
  {
    name: "hidden-later-left-out",
    breaks: "answers",
    file: "actors/query-node/segment.ts",
    find: "if (later.length === 0) return hits",
    replace: "if (later.length >= 0) return hits",
    why: "A search at an old T lacks the rows that were hidden since."
  },
  {
    name: "replay-ignores-flushed",
    breaks: "answers",
    file: streaming("owner"),
    find: "if (shard === undefined || header.lsn <= shard.growing.segments[0]!.from) continue",
    replace: "if (shard === undefined) continue",
    why: "An owner that reads the log again takes rows for growing that are in a manifest."
  },
  {
    name: "lost-node-left-out",
    breaks: "answers",
    file: streaming("reading"),
    find: 'return Effect.forEach(subs, one, { concurrency: "unbounded" })',
    replace:
      'return Effect.map(Effect.forEach(subs, (sub) => Effect.option(one(sub)), { concurrency: "unbounded" }), (all) =>\n    all.flatMap((each) => (each._tag === "Some" ? [each.value] : []))\n  )',
    why: "Segments on a node that does not answer are left out."
  }
]

const timestamps: ReadonlyArray<Mutant> = [
  {
    name: "oracle-from-the-clock",
    breaks: "timestamps",
    file: "actors/coordinator/oracle.ts",
    find: "const floor = before?.bound ?? 0n",
    replace: "const floor = 0n",
    why: "A new coordinator begins at its clock instead of where the one before ended."
  },
  {
    name: "bound-not-persisted",
    breaks: "timestamps",
    file: "actors/coordinator/oracle.ts",
    find: "while (next + taken >= bound) {",
    replace: "while (false) {",
    why: "Timestamps are given out above the bound that is stored."
  },
  {
    name: "bound-before-commit",
    breaks: "timestamps",
    file: "actors/coordinator/oracle.ts",
    find: "const to = later(next, physical()) + AHEAD",
    replace: "const to = (bound = later(next, physical()) + AHEAD)",
    why: "The bound counts before its commit is known."
  },
  {
    name: "floor-forgotten",
    breaks: "timestamps",
    file: streaming("channel"),
    find: "self.stamps.learnFloor(self.chain.floor)",
    replace: "",
    why: "A new owner forgets the oracle's floor that the log knows."
  },
  {
    name: "deposed-grant-accepted",
    breaks: "timestamps",
    file: streaming("stamps"),
    find: "if (grant.first < this.floor || grant.floor < this.floor) return false",
    replace: "if (grant.floor < this.floor) this.last = grant.first - 1n",
    why: "An owner goes over to the time of whoever grants it some, also of an oracle whose term is over."
  },
  {
    name: "writes-below-closed",
    breaks: "timestamps",
    file: streaming("stamps"),
    find: "const granted = later(this.next, this.last + 1n)",
    replace: "const granted = this.next++",
    why: "A record gets the next value of the grant, though a read above it was answered."
  }
]

const oneWriter: ReadonlyArray<Mutant> = [
  {
    name: "fence-without-padding",
    breaks: "one-writer",
    file: streaming("fence"),
    find: 'import { limits } from "../../protocols/limits.ts"',
    replace: "const limits = { pipelineDepth: 0 }",
    why: "A single record does not fence a pipeline: the old owner's next append fits again."
  },
  {
    name: "stale-owner-goes-on",
    breaks: "one-writer",
    file: streaming("fence"),
    find: "if (met.later !== undefined) return stale(met.later)",
    replace: "",
    why: "An owner that reads of a later one fences and writes on."
  },
  {
    name: "late-order-counts",
    breaks: "one-writer",
    file: streaming("channel-key"),
    find: "if (!orderAbove(order, held.order) && !ours) return",
    replace: "if (false) return",
    why: "A node that was paused takes the channel back by an order from before."
  },
  {
    name: "take-known-by-node",
    breaks: "one-writer",
    file: streaming("channel-key"),
    find: "metadata.channel.decode(now.value.value).nonce !== nonce) return undefined",
    replace: "metadata.channel.decode(now.value.value).node !== node) return undefined",
    why: "An activation takes the key for its own that an earlier one of its node took."
  },
  {
    name: "coordinator-fetches-the-head",
    breaks: "one-writer",
    file: "actors/coordinator/truth.ts",
    find: 'return (yield* landed(number)) ? "done" : "deposed"',
    replace:
      'if (yield* landed(number)) return "done"\n          const newest = yield* Effect.result(meta.get(metaKey.commit))\n          if (newest._tag === "Success" && newest.success._tag === "Some") head = newest.success.value.revision\n          break',
    why: "A coordinator that is refused commits again on whatever the head is: a deposed one writes on."
  }
]

const keptRows: ReadonlyArray<Mutant> = [
  {
    name: "flush-asks-nobody",
    breaks: "kept-rows",
    file: "actors/proxy/proxy.ts",
    find: "yield* requests.flush(collection, deadline)",
    replace: "",
    why: "A flush is answered at once."
  },
  {
    name: "stopper-in-its-place",
    breaks: "kept-rows",
    file: streaming("fence"),
    find: "if (other !== undefined) return other",
    replace: "",
    why: "Where a log lost its checkpoint a stopper is now, and its new owner reads on behind it."
  },
  {
    name: "flushed-beyond-the-log",
    breaks: "kept-rows",
    file: streaming("owner"),
    find: 'return this.missing(flushedTo, flushedEpoch, "flushed")',
    replace: "return undefined",
    why: "What takes the place of lost records that were flushed counts as flushed, and is nowhere."
  },
  {
    name: "growing-dropped-at-flush",
    breaks: "kept-rows",
    file: streaming("flushing"),
    find: "() => owner.manifest(shard).version >= version)",
    replace: "() => owner.manifest(shard).version >= version)\n  shard.growing.drop(unit.to)",
    why: "Growing rows go when they are flushed, and not when a query node serves them."
  },
  {
    name: "flush-with-overwritten-rows",
    breaks: "kept-rows",
    file: streaming("growing"),
    find: "if (hidden[at]! > lsn[at]!) visible.push(row)",
    replace: "visible.push(row)",
    why: "A row that was deleted within its own record comes back with its flush."
  },
  {
    name: "flush-from-anywhere",
    breaks: "kept-rows",
    file: "actors/coordinator/commits.ts",
    find: "if (now.flushedTo !== from) {",
    replace: "if (false) {",
    why: "A flush of a replaced owner is committed over that of its successor."
  },
  {
    name: "index-over-flush",
    breaks: "kept-rows",
    file: "actors/coordinator/commits.ts",
    find: `yield* flushBefore(truth, attempt)
    return yield* truth.commit((draft) => {
      const alive = draft.get("attempt", metaKey.attempt(attempt))
      if (alive === undefined) {
        for (const { segments } of draft.all("manifest")) {
          if (segments.some((segment) => segment.index?.key === index.key)) return {} // asked again
        }
        throw failure("stale", \`attempt \${attempt} is over\`)
      }
      const now = manifestOf(draft, alive.collection, alive.shard)`,
    replace: `const then = [...truth.all("manifest")]
    yield* flushBefore(truth, attempt)
    return yield* truth.commit((draft) => {
      const alive = draft.get("attempt", metaKey.attempt(attempt))
      if (alive === undefined) throw failure("stale", \`attempt \${attempt} is over\`)
      const now = then.find((each) => each.collection === alive.collection && each.shard === alive.shard)!`,
    why: "An index is committed on the manifest as it was when it was handed in, and undoes the flush since."
  },
  {
    name: "seals-within-a-record",
    breaks: "kept-rows",
    file: streaming("owner"),
    find: "grown.add(shard)\n",
    replace: "if (shard.growing.active.bytes >= this.settings.segmentBytesMax) shard.seal(header.lsn)\n",
    why: "A unit is sealed between two entries of one record, and the second one is in no unit."
  },
  {
    name: "unit-does-not-fit",
    breaks: "kept-rows",
    file: streaming("growing"),
    find: "return flushedTo <= this.segments[0]!.from || this.segments.some(({ from }) => from === flushedTo)",
    replace: "return true",
    why: "An owner goes on though an earlier one flushed half of what it holds as one unit."
  },
  {
    name: "hides-without-time",
    breaks: "kept-rows",
    file: "actors/query-node/segment.ts",
    find: "return hidden === undefined || hidden > at",
    replace: "return hidden === undefined",
    why: "A sealed row that is hidden now is hidden from reads at an older T too."
  }
]

const needed: ReadonlyArray<Mutant> = [
  {
    name: "checkpoint-over-flush",
    breaks: "needed",
    file: streaming("owner"),
    find: "if (oldest !== undefined) lowest = Math.min(lowest, oldest)",
    replace: "if (oldest !== undefined && !shard.flushing) lowest = Math.min(lowest, oldest)",
    why: "The checkpoint goes past what is being flushed, before the flush is committed."
  },
  {
    name: "purge-to-the-end",
    breaks: "needed",
    file: streaming("channel"),
    find: "yield* log.purge(channel, sequence)",
    replace: "yield* log.purge(channel, self.chain.sequence)",
    why: "The log is purged up to what is written, and not up to the checkpoint."
  },
  {
    name: "purge-before-checkpoint",
    breaks: "needed",
    file: streaming("channel"),
    find: "const saved = yield* saveCheckpoint(",
    replace:
      "if (next.sequence > state.first) yield* log.purge(channel, next.sequence)\n        const saved = yield* saveCheckpoint(",
    why: "The log is purged before the checkpoint that allows it is stored."
  },
  {
    name: "attempts-outlive-drop",
    breaks: "needed",
    file: "actors/coordinator/collections.ts",
    find: 'yield* removeAll(truth, keysOf("attempt"))',
    replace: "",
    why: "The objects of a dropped collection are removed while attempts on them live."
  },
  {
    name: "sweeps-by-prefix",
    breaks: "needed",
    file: "protocols/metadata.ts",
    find: "[`segments/${collection}/`, `deletes/${collection}/`]",
    replace: "[`segments/${collection}`, `deletes/${collection}`]",
    why: "With a collection go the objects of those whose ids begin like its own."
  }
]

const damage: ReadonlyArray<Mutant> = [
  {
    name: "records-not-verified",
    breaks: "damage",
    file: "protocols/record.ts",
    find: "if (crc32(bytes.subarray(8)) !== crc)",
    replace: "if (false)",
    why: "A record of the log that is not any more what was stored is read as it is."
  },
  {
    name: "objects-not-verified",
    breaks: "damage",
    file: "storage/compute-tasks.ts",
    find: "const openSegment = (object: ObjectBytes): SegmentColumns => {\n  verify(object)",
    replace: "const openSegment = (object: ObjectBytes): SegmentColumns => {",
    why: "A segment is served as it was read, whatever its checksum says."
  },
  {
    name: "regression-not-told",
    breaks: "damage",
    file: streaming("channel"),
    find: "if (lost === undefined) return Effect.succeed(mine)",
    replace: "if (true) return Effect.succeed(mine)",
    why: "An owner whose log lost what it had acknowledged to a proxy goes on."
  },
  {
    name: "regression-not-seen",
    breaks: "damage",
    file: streaming("fence"),
    find: `if (++met.short < SHORT_MAX) return undefined
    return damaged(\`the log ends at \${state.last}, and \${chain.sequence} was acknowledged\`)
  }
  const gone = purged(state, chain)
  if (gone !== undefined) return gone
  const other = yield* replaced(log, who, chain)
  if (other !== undefined) return other`,
    replace: `chain.sequence = state.last
  } else {
    const gone = purged(state, chain)
    if (gone !== undefined) return gone
    const other = yield* replaced(log, who, chain)
    if (other !== undefined) return other
  }`,
    why: "An owner whose log ends before what it has read takes that for the end, fences there, and goes on."
  },
  {
    name: "purged-is-damaged",
    breaks: "damage",
    file: streaming("fence"),
    find: "? stale(`the log was purged",
    replace: "? damaged(`the log was purged",
    why: "An owner that a later one purged behind calls a log damaged in which nothing is."
  },
  {
    name: "old-leader-is-damage",
    breaks: "damage",
    file: streaming("fence"),
    find: "const SHORT_MAX = 30",
    replace: "const SHORT_MAX = 1",
    why: "The word of a leader that is none any more condemns a log in which nothing is lost."
  }
]

const convergence: ReadonlyArray<Mutant> = [
  {
    name: "watch-not-renewed",
    breaks: "convergence",
    file: "storage/watched.ts",
    find: "Effect.forever,\n",
    replace: "",
    why: "A watch that breaks stays broken: its node never hears of anything again."
  },
  {
    name: "stale-owner-stays",
    breaks: "convergence",
    file: streaming("streaming-node"),
    find: "yield* Effect.forkIn(released, outer)",
    replace: "",
    why: "An owner that stepped back is never begun again, though the channel is still assigned to its node."
  },
  {
    name: "failed-flush-stays",
    breaks: "convergence",
    file: streaming("upkeep"),
    find: 'if (done._tag === "Failure") yield* Effect.sleep(FLUSH_AGAIN_MS)',
    replace: 'if (done._tag === "Failure") return',
    why: "A shard whose flush failed once is never flushed again."
  },
  {
    name: "lost-lease-stays-lost",
    breaks: "convergence",
    file: "runtime/membership.ts",
    find: 'if (found._tag === "Success") revision = found.success._tag === "Some" ? found.success.value.revision : 0',
    replace: 'if (found._tag === "Success" && found.success._tag === "Some") revision = found.success.value.revision',
    why: "A node whose lease has expired never gets another."
  },
  {
    name: "doubt-not-settled",
    breaks: "convergence",
    file: streaming("channel"),
    find: "self.queue.putBack(again)",
    replace: "",
    why: "What was in flight and is not stored is never written, and who asks again joins it and waits."
  },
  {
    name: "handoff-without-end",
    breaks: "convergence",
    file: streaming("handoff"),
    find: "shard.viewStale = owner.manifest(shard).version > manifest.version",
    replace: "shard.viewStale = owner.manifest(shard).version >= manifest.version",
    why: "A view that is the newest is handed over again, for ever."
  },
  {
    name: "unheard-of-is-gone",
    breaks: "convergence",
    file: streaming("channel"),
    find: "Effect.fail(isBehind() ? notHeardOf(route) : notThere(route))",
    replace: "Effect.fail(notThere(route))",
    why: "An owner that has not heard yet of a collection that was just made says that there is none."
  },
  {
    name: "drop-does-not-end",
    breaks: "convergence",
    file: "actors/coordinator/collections.ts",
    find: 'catalog.collection(id)?.state === "closing" &&',
    replace: 'catalog.head() === since && catalog.collection(id)?.state === "closing" &&',
    why: "Whether all owners know of a drop is looked at once, when it is decided: what is decided meanwhile hides it."
  },
  {
    name: "dropped-is-not-swept",
    breaks: "convergence",
    file: "actors/coordinator/collections.ts",
    find: 'state === "creating" || state === "closing" || state === "dropping"',
    replace: 'state === "creating" || state === "closing"',
    why: "A collection whose keeper ends while it is given back gets no other."
  },
  {
    name: "index-for-one-look",
    breaks: "convergence",
    file: "actors/data-node/data-node.ts",
    find: "const put = yield* objects.put(key, built.parts)",
    replace: "const put = yield* Effect.never",
    why: "A node takes every build, and says of none that it has ended."
  },
  {
    name: "log-not-purged",
    breaks: "convergence",
    file: streaming("channel"),
    find: "if (sequence > self.logFirst) {",
    replace: "if (false) {",
    why: "Checkpoints move, and the log below them stays until it is full."
  },
  {
    name: "status-knows-no-life",
    breaks: "convergence",
    file: "actors/coordinator/coordinator.ts",
    find: "alive: liveness.alive(id)",
    replace: "alive: id === ''",
    why: "The status shows every node as dead, whatever it does."
  },
  {
    name: "reads-of-the-past-are-refused",
    breaks: "convergence",
    file: streaming("reading"),
    find: "? Effect.succeed(time.timestamp)",
    replace:
      '? time.timestamp + (10_000n << 18n) > owner.closed ? Effect.succeed(time.timestamp) : Effect.fail(failure("overloaded", "it was long ago"))',
    why: "Where nothing fails, reads of ten seconds ago are refused."
  }
]

const limits: ReadonlyArray<Mutant> = [
  {
    name: "moved-reaches-clients",
    breaks: "limits",
    file: "actors/proxy/routing.ts",
    find: 'error.code === "moved" ? failure("unavailable", error.reason) : error',
    replace: "error",
    why: "A client is told a word that only the parts of a cluster understand."
  },
  {
    name: "stale-reaches-clients",
    breaks: "limits",
    file: "actors/proxy/requests.ts",
    find: "Effect.catchIf(isStale, () => again)",
    replace: "Effect.tapError(() => Effect.succeed(again))",
    why: "A client is told that the time of its read is over, instead of being given another."
  },
  {
    name: "deposed-reaches-clients",
    breaks: "limits",
    file: "actors/coordinator/truth.ts",
    find: 'failure("deposed", "another',
    replace: 'failure("stale", "another',
    why: "A coordinator that was replaced says so in a word for which nobody asks its successor."
  }
]

export const mutants: ReadonlyArray<Mutant> = [
  ...acknowledged,
  ...deleted,
  ...fresh,
  ...oneTimestamp,
  ...answers,
  ...timestamps,
  ...oneWriter,
  ...keptRows,
  ...needed,
  ...damage,
  ...convergence,
  ...limits
]

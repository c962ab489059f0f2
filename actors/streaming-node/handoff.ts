/**
 * From the manifest to the view: has the query nodes load what the newest manifest lists, with every delete that is
 * in its files, and only then adopts it, in one step. Until then queries stand on the old view, and rows that grow
 * stay where they are; so a row is at no timestamp missing and at none twice.
 */
import { Effect } from "effect"
import { limits } from "../../protocols/limits.ts"
import { buggify, stall } from "../../runtime/buggify.ts"
import type { Owner } from "./owner.ts"
import type { QueryNodes } from "./reading.ts"
import type { Holder, Shard } from "./shard.ts"

/** One try; says why it is not there yet, or that the view is new. */
export const handOff = Effect.fnUntraced(function* (
  queryNodes: QueryNodes,
  owner: Owner,
  shard: Shard
): Effect.fn.Return<"adopted" | string> {
  const manifest = owner.manifest(shard)
  const gone = owner.lostFlush(manifest)
  if (gone !== undefined) return (owner.behind = gone)
  // Half of a unit would be there twice. Whoever keeps the shard begins anew.
  if (!shard.growing.fits(manifest.flushedTo)) return shard.misfit
  const placement = owner.catalog.placement(shard.collection.id, shard.shard)
  const holders = new Map<string, Holder>()
  const byNode = new Map<string, Array<(typeof manifest.segments)[number]>>()
  for (const segment of manifest.segments) {
    const node = placement?.nodes[segment.id]
    if (node === undefined) return `segment ${segment.id} has no query node yet`
    byNode.set(node, [...(byNode.get(node) ?? []), segment])
  }
  const { collection } = shard
  const { deletes, flushedTo } = manifest
  const request = {
    epoch: owner.who.epoch,
    collection: collection.id,
    metric: collection.spec.metric,
    deletes,
    flushedTo
  }
  const answers = yield* Effect.forEach(
    byNode,
    ([node, segments]) =>
      Effect.map(
        Effect.result(queryNodes.call(node, "Load", { ...request, segments }, limits.requestTimeoutMs)),
        (asked) => ({ node, asked })
      ),
    { concurrency: "unbounded" }
  )
  for (const { asked, node } of answers) {
    if (asked._tag === "Failure") return `query node ${node}: ${asked.failure.reason}`
    for (const { applied, detail, id, indexed, knownEpoch, knownLsn, state } of asked.success.segments) {
      // A node has keys of acknowledged records alone: our log lost one, or a later owner wrote it.
      const lost = owner.lost({ knownEpoch, knownLsn })
      if (lost !== undefined) return (owner.behind = `query node ${node}: ${lost}`)
      if (applied > owner.lsn) {
        return (owner.behind = `query node ${node} has keys up to record ${applied}, and the log ends at ${owner.lsn}`)
      }
      if (state !== "loaded") return `segment ${id} on query node ${node}: ${state} ${detail}`
      holders.set(id, { node, applied, indexed })
    }
  }
  if (yield* buggify("a view that is loaded is not adopted")) return "not adopted yet"
  yield* stall("between a load and the view", 15_000)
  // While the nodes loaded, an even newer manifest may have come: this one is still a right view, and the next try takes that.
  shard.adopt({ manifest, holders })
  shard.viewStale = owner.manifest(shard).version > manifest.version
  owner.forget()
  return "adopted"
})

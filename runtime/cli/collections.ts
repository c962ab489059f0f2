/** Collections: making, looking at, flushing and dropping them. */
import { Command, Flag } from "effect/cli"
import type { KeyType } from "../../protocols/keys.ts"
import type { Metric } from "../../protocols/metadata.ts"
import { specOf } from "../client/spec.ts"
import type { Collection } from "../elanus.ts"
import { type ClientFlags, clientFlags, collectionArgument, integer, maybe, text } from "./flags.ts"
import { bytesText, count, facts, printJson, printText, secondsSince } from "./output.ts"
import { talk, within } from "./talk.ts"

const create = Command.make(
  "create",
  {
    name: collectionArgument,
    dimension: Flag.Int("dimension").pipe(Flag.withDescription("Numbers in a vector, 1 to 32768")),
    metric: maybe(Flag.Literals("metric", ["L2", "IP", "COSINE"]).pipe(Flag.withDescription("COSINE if not given"))),
    idType: maybe(Flag.Literals("id-type", ["Int64", "VarChar"]).pipe(Flag.withDescription("Int64 if not given"))),
    idField: text("id-field", "NAME", "Name of the primary key; id if not given"),
    vectorField: text("vector-field", "NAME", "Name of the vector; vector if not given"),
    shards: integer("shards", "1 to 16; 1 if not given"),
    description: text("description", "TEXT", "What it is for"),
    m: integer("m", "Neighbours in the index; 16 if not given"),
    efConstruction: integer("ef-construction", "Candidates while the index is built; 200 if not given"),
    ...clientFlags
  },
  (flags) =>
    talk(
      flags,
      async (elanus) => {
        const { description, dimension, efConstruction, idField, idType, m, metric, name, shards, vectorField } = flags
        const collection = await elanus.createCollection(name, {
          dimension,
          ...(metric === undefined ? {} : { metric: metric as Metric }),
          ...(idType === undefined ? {} : { idType: idType as KeyType }),
          ...(idField === undefined ? {} : { idField }),
          ...(vectorField === undefined ? {} : { vectorField }),
          ...(shards === undefined ? {} : { shards }),
          ...(description === undefined ? {} : { description }),
          index: { ...(m === undefined ? {} : { m }), ...(efConstruction === undefined ? {} : { efConstruction }) },
          ...within(flags)
        })
        if (flags.json) return printJson(await collection.describe(within(flags)))
        printText(`created ${name}`)
      },
      true
    )
).pipe(
  Command.withDescription("Create a collection"),
  Command.withExamples([{ command: "elanus collection create books --dimension 512", description: "Of 512 numbers" }])
)

interface Description {
  readonly description: string
  readonly indexes: ReadonlyArray<{
    readonly indexType: string
    readonly metricType: string
    readonly params: { readonly M: number; readonly efConstruction: number }
  }>
  readonly shardsNum: number
}

/** A collection as it describes itself, and what of that says how its rows look. */
export const describeOf = async (collection: Collection, flags: ClientFlags) => {
  const description = await collection.describe(within(flags))
  return { description: description as unknown as Description, ...specOf(description) }
}

const describe = Command.make("describe", { name: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    const { description, dimension, keyField, keyType, vectorField } = await describeOf(
      elanus.collection(flags.name),
      flags
    )
    if (flags.json) return printJson(description)
    const index = description.indexes[0]!
    printText(
      facts([
        ["collection", flags.name],
        ...(description.description === "" ? [] : [["description", description.description] as const]),
        ["key", `${keyField}: ${keyType}`],
        ["vector", `${vectorField}: ${dimension} floats, ${index.metricType}`],
        ["index", `${index.indexType}, M ${index.params.M}, efConstruction ${index.params.efConstruction}`],
        ["shards", description.shardsNum]
      ])
    )
  })
).pipe(Command.withDescription("Show what a collection is made of"))

const list = Command.make("list", clientFlags, (flags) =>
  talk(flags, async (elanus) => {
    const names = await elanus.listCollections(within(flags))
    if (flags.json) return printJson(names)
    if (names.length > 0) printText(names.join("\n"))
  })
).pipe(Command.withDescription("List the collections of a database"))

const drop = Command.make("drop", { name: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    await elanus.collection(flags.name).drop(within(flags))
    if (flags.json) return printJson({ dropped: flags.name })
    printText(`dropped ${flags.name}`)
  })
).pipe(Command.withDescription("Drop a collection with all of its rows, at once and for good"))

const stats = Command.make("stats", { name: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    const found = await elanus.collection(flags.name).stats(within(flags))
    if (flags.json) return printJson(found)
    printText(
      facts([
        ["rows", count(found.rowCount)],
        ["growing", `${count(found.growingRows)} rows, ${bytesText(found.growingBytes)}`],
        ["segments", `${found.segments}, ${found.indexedSegments} with an index, ${bytesText(found.sealedBytes)}`],
        ["shards", found.shards.length]
      ])
    )
  })
).pipe(Command.withDescription("Count the rows of a collection, and show where they are"))

export const collections = Command.make("collection").pipe(
  Command.withDescription("Create, look at and drop collections"),
  Command.withSubcommands([create, describe, list, drop, stats])
)

const FLUSH_TIMEOUT_MS = 120_000
export const flush = Command.make("flush", { collection: collectionArgument, ...clientFlags }, (flags) =>
  talk(flags, async (elanus) => {
    const started = performance.now()
    await elanus.collection(flags.collection).flush(within(flags, FLUSH_TIMEOUT_MS))
    const took = performance.now() - started
    if (flags.json) return printJson({ flushed: flags.collection, milliseconds: Math.round(took) })
    printText(`flushed ${flags.collection} in ${secondsSince(started)}`)
  })
).pipe(Command.withDescription("Seal and store what is in memory, and wait until query nodes serve it"))

/** What a proxy knows by itself, where its watch is behind. */
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { parseBody } from "../../actors/proxy/json.ts"
import { proxy } from "../../actors/proxy/proxy.ts"
import { formatRequestId, headers } from "../../protocols/client.ts"
import { CoordinatorProtocol } from "../../protocols/coordinator.ts"
import { keyColumn } from "../../protocols/keys.ts"
import { encodeAnswer } from "../../protocols/protocol.ts"
import { StreamingNodeProtocol } from "../../protocols/streaming-node.ts"
import { collectionSubject } from "../../protocols/subjects.ts"
import { utf8 } from "../../protocols/wire.ts"
import { Bus, BusError, type Message, type Reply } from "../../runtime/bus.ts"
import { Catalog } from "../../runtime/catalog.ts"
import { Node } from "../../runtime/node.ts"
import { makeSignal } from "../../runtime/signal.ts"
import { World } from "../../sim/world.ts"
import { collectionOf, specOf } from "../support/collection.ts"

const { calls } = CoordinatorProtocol
const old = collectionOf("1")

describe("a proxy", () => {
  it("writes no more to a collection that was dropped through it, however far its watch is behind", () => {
    let isDropped = false
    const { answers, writes } = ask(
      [
        ["drop", {}],
        ["insert", { data: [{ id: 1, vector: [1, 2] }] }]
      ],
      {
        DropCollection: () => {
          isDropped = true
          return encodeAnswer(calls.DropCollection.success, {})
        },
        ListCollections: () => encodeAnswer(calls.ListCollections.success, { collections: isDropped ? [] : [old] })
      }
    )
    assert.isTrue(isDropped)
    assert.strictEqual(writes, 0)
    assert.include(answers[1], "collection-not-found")
  })

  it("refuses nothing by a collection whose name is another's by now", () => {
    const now = collectionOf("2", { spec: specOf({ dimension: 3 }) })
    let list = () => encodeAnswer(calls.ListCollections.success, { collections: [now] })
    const asked = [
      ["insert", { data: [{ id: 1, vector: [1, 2, 3] }] }],
      ["insert", { data: [{ id: 1, vector: [1, 2, 3, 4] }] }]
    ] as const
    const { answers, writes } = ask(asked, { ListCollections: () => list() })
    assert.strictEqual(writes, 1)
    assert.include(answers[1], "the collection has 3")
    // It still is the one that is known, or nobody is there who could say: then it is told as it seems.
    list = () => encodeAnswer(calls.ListCollections.success, { collections: [old] })
    assert.include(ask(asked, { ListCollections: () => list() }).answers[0], "the collection has 2")
    assert.include(ask(asked, {}).answers[0], "the collection has 2")
  })
})

describe("a description", () => {
  it("is of the collection that has the name now, and without a coordinator of the one that is known", () => {
    const now = collectionOf("2", { spec: specOf({ dimension: 3 }) })
    const list = (collections: ReadonlyArray<typeof now>) => ({
      ListCollections: () => encodeAnswer(calls.ListCollections.success, { collections })
    })
    const told = (coordinator: Parameters<typeof ask>[1]) => ask([["describe", {}]], coordinator).answers[0]!
    assert.include(told(list([now])), '"dim":3')
    assert.include(told(list([])), "collection-not-found")
    assert.include(told({}), '"dim":2')
    // Dated also where the proxy does not know it yet, and by no oracle that was deposed before it was made.
    assert.include(told(list([now])), '"timestamp":"1"')
    assert.include(told(list([{ ...now, created: 9n }])), '"timestamp":"9"')
    assert.include(told({}), '"timestamp":"0"')
  })
})

describe("a JSON body", () => {
  it("may begin with a byte order mark", () => {
    assert.deepStrictEqual(parseBody(utf8.encode('\uFEFF{"id":"\uFEFFa"}')), { id: "\uFEFFa" })
  })
})

describe("rows whose fields are not what a proxy would take", () => {
  /** What a client is answered that asks for rows of which one has such fields, stored by an earlier version. */
  const answered = (fields: string) => {
    const all = [Buffer.from(fields), Buffer.from('{"title":"Emma"}')]
    const found = {
      keys: keyColumn("Int64", [1, 2]),
      fields: {
        offsets: Uint32Array.of(0, all[0]!.length, all[0]!.length + all[1]!.length),
        bytes: Buffer.concat(all)
      },
      vectors: new Float32Array(0)
    }
    const { success } = StreamingNodeProtocol.calls.Get
    const asked = [["get", { id: [1, 2], outputFields: ["title"] }]] as const
    return ask(asked, { Get: () => encodeAnswer(success, { timestamp: 1n, lsn: 1, found }) }).answers[0]!
  }

  it("cost no other row, and nobody its answer", () => {
    for (const fields of ["null", "7", "{", "[1]"]) {
      assert.deepStrictEqual(JSON.parse(answered(fields)).data, [{ id: "1" }, { id: "2", title: "Emma" }], fields)
    }
    const deep = answered(`{"title":${"[".repeat(30_000)}${"]".repeat(30_000)}}`)
    assert.strictEqual(JSON.parse(deep).error.code, "internal")
  })
})

describe("a request that was long on its way", () => {
  const insert = ["insert", { data: [{ id: 1, vector: [1, 2] }] }] as const
  const remove = ["delete", { id: [1] }] as const
  const drop = ["drop", {}] as const
  const dated = (issued: bigint) => formatRequestId({ issued, unique: 7n })

  it("is not for a collection that was made since", () => {
    let drops = 0
    const coordinator = (state: "ready" | "closing") => ({
      DropCollection: () => {
        drops++
        return encodeAnswer(calls.DropCollection.success, {})
      },
      ListCollections: () => encodeAnswer(calls.ListCollections.success, { collections: [{ ...old, state }] })
    })
    const late = ask([insert, remove, drop], coordinator("ready"), dated(old.created - 1n))
    for (const answer of late.answers) assert.include(answer, "was made after what dates this request")
    assert.deepStrictEqual([late.writes, drops], [0, 0])
    assert.strictEqual(ask([insert, remove, drop], coordinator("ready"), dated(old.created)).writes, 2)
    assert.strictEqual(drops, 1)
    // Who asks again for a drop that is on its way waits for it.
    ask([drop], coordinator("closing"), dated(old.created - 1n))
    assert.strictEqual(drops, 2)
  })
})

/** What a proxy that knows the collection `old` answers to one request after the other; what else answers is on the bus. */
const ask = (
  requests: ReadonlyArray<readonly [verb: string, body: object]>,
  others: { readonly [call: string]: () => Uint8Array },
  id?: string
): { readonly answers: ReadonlyArray<string>; readonly writes: number } => {
  let writes = 0
  let handle: (message: Message) => Effect.Effect<Reply> = () => Effect.die("nobody serves")
  const bus = {
    payloadMax: 1_000_000,
    serve: (_: string, _options: object, handler: typeof handle) =>
      Effect.sync(() => {
        handle = handler
      }),
    request: (subject: string) =>
      Effect.suspend(() => {
        if (subject.endsWith(".Grant")) {
          return Effect.succeed({ data: encodeAnswer(calls.Grant.success, { first: 1n, last: 1n, floor: 0n }) })
        }
        const answer = others[subject.slice(subject.lastIndexOf(".") + 1)]
        if (answer !== undefined) return Effect.succeed({ data: answer() })
        if (subject.includes(".coordinator.")) return Effect.fail(new BusError({ reason: "nobody", detail: subject }))
        writes++
        return Effect.succeed({ data: new Uint8Array(0) })
      })
  }
  const catalog = {
    changed: makeSignal(),
    leased: makeSignal(),
    collection: (id: string) => (id === old.id ? old : undefined),
    schema: () => 1,
    collectionNamed: () => old,
    owner: () => ({ node: "n", epoch: 1n, revision: 1, key: { log: "" } })
  }
  const program = Effect.gen(function* () {
    yield* proxy
    return yield* Effect.forEach(requests, ([verb, body]) => {
      const message = {
        subject: collectionSubject("default", "books", verb as "get"),
        data: utf8.encode(JSON.stringify(body)),
        ...(id === undefined ? {} : { headers: { [headers.request]: id } })
      }
      return Effect.map(handle(message as Message), ({ data }) => utf8.decode(data))
    })
  })
  const answers = new World("behind").run(
    Effect.scoped(program).pipe(
      Effect.provideService(Bus, bus as unknown as Bus["Service"]),
      Effect.provideService(Catalog, catalog as unknown as Catalog["Service"]),
      Effect.provide(Node.layer("0.0.0", {}))
    )
  )
  return { answers, writes }
}

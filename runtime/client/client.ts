/** A client of one database, over whatever can send. */
import type { ClusterStatus } from "../../protocols/coordinator.ts"
import { failure } from "../../protocols/errors.ts"
import { collectionSubject, databaseSubject, nameProblem } from "../../protocols/subjects.ts"
import { makeAsk, type Send } from "./ask.ts"
import { makeJsonAsks } from "./ask-json.ts"
import { makeCollection } from "./collection.ts"
import type { Collection, Elanus } from "./interface.ts"
import { makeSession } from "./session.ts"

export interface ClientOptions {
  readonly send: Send
  /** The largest message, bytes. */
  readonly payloadMax: number
  readonly database: string
  readonly close: () => Promise<void>
}

export const makeClient = ({ close, database, payloadMax, send }: ClientOptions): Elanus => {
  const session = makeSession()
  const ask = makeAsk(send)
  const { askAbout, askRows } = makeJsonAsks(ask, session)
  const shared = { ask, askAbout, askRows, session, database, payloadMax }
  const collection = (name: string): Collection => makeCollection(shared, name)

  return {
    createCollection: async (name, options) => {
      const { description, dimension, idField, idType, index, metric, shards, timeoutMs, vectorField } = options
      const wrong = nameProblem(name)
      if (wrong !== undefined) throw failure("bad-name", wrong)
      const body = {
        dimension,
        metricType: metric,
        idType,
        primaryFieldName: idField,
        vectorFieldName: vectorField,
        description,
        params: { shardsNum: shards, M: index?.m, efConstruction: index?.efConstruction }
      }
      await askAbout(collectionSubject(database, name, "create"), body, timeoutMs === undefined ? {} : { timeoutMs })
      return collection(name)
    },
    collection,
    listCollections: (options) => askAbout(databaseSubject(database, "list"), {}, options) as Promise<Array<string>>,
    status: (options) => askAbout(databaseSubject(database, "status"), {}, options) as Promise<ClusterStatus>,
    timestamp: session.token,
    request: async (name, verb, body, options) => {
      const wrong = nameProblem(name)
      if (wrong !== undefined) throw failure("bad-name", wrong)
      return askRows(collectionSubject(database, name, verb), body, options)
    },
    close
  }
}

/** Asking in JSON: what is asked seldom, and what has no binary form. */
import { formatRequestId, headers as headerNames } from "../../protocols/client.ts"
import { parseTimestamp } from "../../protocols/timestamp.ts"
import { utf8 } from "../../protocols/wire.ts"
import type { Ask } from "./ask.ts"
import type { RequestOptions } from "./interface.ts"
import type { Session } from "./session.ts"

type AskJson = (subject: string, body: object, options?: RequestOptions) => Promise<unknown>

export interface JsonAsks {
  /** Of rows: the session goes on from there. */
  readonly askRows: AskJson
  /**
   * Of collections and nodes: that is no part of the session. The first read after it has no token then, and so sees
   * all that anybody has written; with one it would be free to be as old as the answer.
   */
  readonly askAbout: AskJson
}

export const makeJsonAsks = (ask: Ask, session: Session): JsonAsks => {
  const askJson = async (subject: string, body: object, options: RequestOptions = {}) => {
    // An id in every request: those that make something are then made once, however often they are sent.
    const headers = { [headerNames.request]: formatRequestId(session.requestId()) }
    const reply = await ask(subject, utf8.encode(JSON.stringify(body)), headers, options.timeoutMs)
    const answer = JSON.parse(utf8.decodeDocument(reply.data)) as { readonly data: unknown; readonly timestamp: string }
    return { data: answer.data, timestamp: parseTimestamp(answer.timestamp) ?? 0n }
  }
  return {
    askRows: async (subject, body, options) => {
      const { data, timestamp } = await askJson(subject, body, options)
      session.saw(timestamp)
      return data
    },
    askAbout: async (subject, body, options) => {
      const { data, timestamp } = await askJson(subject, body, options)
      session.learn(timestamp)
      return data
    }
  }
}

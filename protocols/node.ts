/** What every process answers, at its own id: so that others see that it is there. */
import { hotCall, protocol } from "./protocol.ts"
import { type Codec, Reader, Writer } from "./wire.ts"

// By hand: every node is asked every second, and nothing else is said while nothing happens.

const question: Codec<object> = { encode: () => new Uint8Array(0), decode: () => ({}) }

const answer: Codec<{ readonly id: string }> = {
  encode: ({ id }, room) => new Writer(32, room).text(id).finish(),
  decode: (bytes) => ({ id: new Reader(bytes).text() })
}

export const NodeProtocol = protocol("node", { Ping: hotCall(question, answer) })

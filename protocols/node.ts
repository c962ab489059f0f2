/** What every process answers, at its own id: so that others see that it is there. */
import { Schema } from "effect"
import { call, protocol } from "./protocol.ts"

export const NodeProtocol = protocol("node", {
  Ping: call(Schema.Struct({}), Schema.Struct({ id: Schema.String }))
})

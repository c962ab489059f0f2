/**
 * From a role's name to the actors that play it. The only file below the roots that knows all actors; it knows no
 * adapter, so what runs here runs in a simulated world as it is.
 */
import { Effect } from "effect"
import { coordinator } from "../actors/coordinator/coordinator.ts"
import { dataNode } from "../actors/data-node/data-node.ts"
import { proxy } from "../actors/proxy/proxy.ts"
import { queryNode } from "../actors/query-node/query-node.ts"
import { streamingNode } from "../actors/streaming-node/streaming-node.ts"
import type { Role } from "../protocols/metadata.ts"
import { CLIENT_SUBJECTS } from "../protocols/subjects.ts"
import { join } from "./membership.ts"
import { Node } from "./node.ts"
import { announce } from "./services.ts"

export { VERSION } from "./version.ts"
export const allRoles: ReadonlyArray<Role> = ["coordinator", "streaming-node", "query-node", "data-node", "proxy"]

const descriptions: { readonly [R in Role]: string } = {
  proxy: "answers clients",
  coordinator: "decides, and gives out time",
  "streaming-node": "owns channels of the log",
  "query-node": "serves sealed segments",
  "data-node": "builds indexes"
}

/** Plays the roles in the present scope, until it closes. Returns when all of them answer. */
export const play = Effect.fnUntraced(function* (roles: ReadonlyArray<Role>) {
  const node = yield* Node
  const wants = (role: Role) => roles.includes(role)
  // Whoever is assigned something is there before whoever assigns; the door opens last.
  if (wants("query-node")) yield* queryNode
  if (wants("data-node")) yield* dataNode
  if (wants("streaming-node")) yield* streamingNode
  yield* join(roles)
  const health = wants("coordinator") ? yield* coordinator : undefined
  const door = wants("proxy") ? yield* proxy : undefined
  for (const role of roles) {
    const served = role === "proxy" ? door : undefined
    yield* announce({
      name: `elanus-${role}`,
      id: node.id,
      version: node.version,
      description: `Elanus ${role}: ${descriptions[role]}`,
      metadata: { cluster: node.cluster, node: node.id },
      endpoints:
        served === undefined ? [] : [{ name: "requests", subject: CLIENT_SUBJECTS, queue_group: served.queue }],
      stats: () => (served === undefined ? {} : { requests: { ...served.counts, handlingMs: 0 } })
    })
  }
  return { health }
})

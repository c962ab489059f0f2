/** Showing a cluster: its nodes, and what is not as it should be. */
import { Command } from "effect/cli"
import { type ClientFlags, clientFlags, natsOf } from "./flags.ts"
import { natsOptions } from "./nats-options.ts"
import type { NatsReport } from "./nats-report.ts"
import { count, facts, printJson, printText, table } from "./output.ts"
import { talk, within } from "./talk.ts"

/** What the server itself says is an extra: a status without it is one too. */
const natsReport = async (flags: ClientFlags, cluster: string): Promise<NatsReport | undefined> => {
  const { reportNats } = await import("./nats-report.ts")
  return reportNats(await natsOptions(natsOf(flags), flags), cluster).catch(() => undefined)
}

export const status = Command.make("status", clientFlags, (flags) =>
  talk(flags, async (elanus) => {
    const found = await elanus.status(within(flags))
    const nats = flags.directory === undefined ? await natsReport(flags, found.cluster) : undefined
    if (flags.json) return printJson({ ...found, ...(nats === undefined ? {} : { nats }) })
    const channelsOf = (node: string) => found.channels.filter((channel) => channel.node === node).length
    printText(
      facts([
        ["cluster", found.cluster],
        ["coordinator", `${found.coordinator} (epoch ${found.epoch})`],
        ["collections", count(found.collections)],
        ["jobs", count(found.jobs)],
        ...(nats === undefined ? [] : [["nats-server", `${nats.server}, version ${nats.version}`] as const])
      ])
    )
    printText("")
    printText(
      table(
        ["node", "alive", "version", "channels", "roles"],
        found.nodes.map(({ alive, id, roles, version }) => [
          id,
          alive ? "yes" : "no",
          version,
          channelsOf(id),
          roles.join(" ")
        ])
      )
    )
    const said = [
      ...found.warnings.map((line) => `warning: ${line}`),
      ...(nats?.notes ?? []).map((line) => `note: ${line}`)
    ]
    if (said.length > 0) printText(`\n${said.join("\n")}`)
  })
).pipe(Command.withDescription("Show the nodes of a cluster, and what is not as it should be"))

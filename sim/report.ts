/**
 * A run for people, as one page that needs nothing else: what was violated, what everybody saw of the rows concerned and
 * what the log has of them, and the whole run on a time axis.
 */
import { type Evidence, keyText, properties, type Violation } from "./checks/evidence.ts"
import type { Operation } from "./history.ts"
import { encodePlan, type Plan } from "./plan.ts"
import type { Result } from "./run.ts"
import { sizeOf } from "./shrink.ts"
import { type Drawn, escaped, outcomeText, seconds, timeline } from "./timeline.ts"

const WIDTH_PX = 3_600
const CLOSE_PX = 2_400
const CLOSE_MARGIN_MS = 500
const CLOSE_MAX_MS = 30_000
const MESSAGES_MAX = 800
const VIOLATIONS_MAX = 20
const KEYS_MAX = 10
const OPERATIONS_MAX = 60

const STYLE = `
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1c1c; --dim: #767676; --line: #ddd; --lane: #f4f4f2; --life: #dfe9f2; --fault: #f2b8a0; --ok: #a9d5a9; --refused: #e6d28c; --unknown: #cdb4e6; --open: #e69aa8; --bad: #c3001f }
@media (prefers-color-scheme: dark) { :root { --ground: #171717; --ink: #e8e8e8; --dim: #9a9a9a; --line: #383838; --lane: #202020; --life: #24313d; --fault: #7a3f28; --ok: #2f5d33; --refused: #665618; --unknown: #4d3768; --open: #77303f; --bad: #ff6b7d } }
body { margin: 1.5rem; background: var(--ground); color: var(--ink); font: 15px/1.45 system-ui, sans-serif }
h1 { font-size: 1.35rem } h2 { font-size: 1.1rem; margin-top: 2rem } h3 { font-size: 1rem }
code, pre, td, svg { font-family: ui-monospace, monospace; font-size: 12px }
pre { overflow: auto; padding: .6rem; background: var(--lane) }
table { border-collapse: collapse } td, th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
.bad { color: var(--bad) } .note { color: var(--dim) } tr.concerned td { font-weight: bold }
.chart { display: flex; border: 1px solid var(--line) } .chart > svg { flex: none } .scroll { overflow-x: auto }
svg text { fill: var(--ink); font-size: 11px } svg text.axis, svg text.phase { fill: var(--dim) } svg text.label { pointer-events: none }
.tick { stroke: var(--line) } line.phase { stroke: var(--dim); stroke-dasharray: 4 3 } .lane { fill: var(--lane) } .life { fill: var(--life) }
.fault { fill: var(--fault) } .ok { fill: var(--ok) } .refused { fill: var(--refused) } .unknown { fill: var(--unknown) } .open { fill: var(--open) }
.concerned { stroke: var(--bad); stroke-width: 2 } .message { stroke: var(--ink); stroke-opacity: .28 } .message:hover { stroke-opacity: 1 }
.key { display: inline-block; width: 1em; height: 1em; margin: 0 .3em 0 1em; vertical-align: -2px }
`

const tableOf = (
  titles: ReadonlyArray<string>,
  rows: ReadonlyArray<readonly [kind: string, ...ReadonlyArray<string>]>
) =>
  `<table><tr>${titles.map((title) => `<th>${escaped(title)}</th>`).join("")}</tr>${rows
    .map(([kind, ...cells]) => `<tr class="${kind}">${cells.map((cell) => `<td>${escaped(cell)}</td>`).join("")}</tr>`)
    .join("")}</table>`

// ---- the rows concerned

/** What an operation says of a key; undefined if nothing. */
const saysOf = ({ asked, outcome }: Operation, key: string): string | undefined => {
  const is = (other: Parameters<typeof keyText>[0]) => keyText(other) === key
  const answer = outcome?._tag === "Ok" ? outcome.answer : undefined
  switch (asked._tag) {
    case "Upsert": {
      const rows = asked.rows.flatMap((row, index) => (is(row.key) ? [index] : []))
      return rows.length === 0 ? undefined : `${asked.verb} row ${rows.join(", ")}`
    }
    case "Delete":
      return asked.keys.some(is) ? "delete" : undefined
    case "Get":
    case "Search": {
      const rows = answer?._tag === "Rows" ? answer.rows : answer?._tag === "Hits" ? answer.lists.flat() : undefined
      const row = rows?.find((each) => is(each.key))
      if (row !== undefined) return `${levelText(asked.level)}: ${JSON.stringify(row.fields ?? "there")}`
      if (asked._tag === "Search" || !asked.keys.some(is)) return undefined
      return rows === undefined ? levelText(asked.level) : `${levelText(asked.level)}: not there`
    }
    default:
      return undefined
  }
}

const levelText = ({ at, consistency }: { readonly consistency: string; readonly at?: bigint | undefined }) =>
  at === undefined ? consistency : `${consistency} at ${at}`

const timestampText = ({ outcome }: Operation) => (outcome?._tag === "Ok" ? String(outcome.timestamp) : "")

const operationCells = (operation: Operation): ReadonlyArray<string> => [
  String(operation.id),
  operation.client,
  operation.asked._tag,
  operation.collection,
  seconds(operation.invoked.at),
  operation.completed === undefined ? "" : seconds(operation.completed.at),
  outcomeText(operation),
  timestampText(operation)
]
const OPERATION_TITLES = ["id", "client", "asked", "collection", "from", "to", "told", "timestamp"]

const rowsConcerned = (evidence: Evidence, key: string, concerned: ReadonlySet<number>): string => {
  const seen = evidence.operations.flatMap((operation) => {
    const says = saysOf(operation, key)
    const kind = concerned.has(operation.id) ? "concerned" : ""
    return says === undefined ? [] : [[kind, ...operationCells(operation), says] as const]
  })
  const stored = evidence.lives.flatMap(({ id, name }) =>
    [...evidence.model.keys(id)]
      .filter((each) => keyText(each) === key)
      .flatMap((each) => evidence.model.versions(id, each))
      .map(
        ({ channel, lsn, message, row, shard, timestamp }) =>
          [
            "",
            `${name} ${id}`,
            String(shard),
            `${channel}`,
            String(lsn),
            seconds(message.stored.at),
            String(timestamp),
            row === undefined ? "deleted" : JSON.stringify(row.fields)
          ] as const
      )
  )
  return [
    `<h3>Key <code>${escaped(key)}</code></h3>`,
    tableOf([...OPERATION_TITLES, "of this key"], seen.slice(0, OPERATIONS_MAX)),
    seen.length > OPERATIONS_MAX ? `<p class="note">${seen.length - OPERATIONS_MAX} more.</p>` : "",
    `<p>What the log has of it:</p>`,
    tableOf(["collection", "shard", "channel", "lsn", "stored", "timestamp", "row"], stored)
  ].join("\n")
}

// ---- the page

const legend = ["ok", "refused", "unknown", "open", "fault", "life"]
  .map((kind) => `<svg class="key" viewBox="0 0 10 10"><rect width="10" height="10" class="${kind}"/></svg>${kind}`)
  .join("")

const violationText = ({ detail, keys, operations, property }: Violation): string => {
  const where = [
    operations.length === 0 ? "" : `operations ${operations.slice(0, KEYS_MAX).join(", ")}`,
    keys.length === 0 ? "" : `keys ${keys.slice(0, KEYS_MAX).join(", ")}`
  ].filter((each) => each !== "")
  return `<li><b class="bad">${property}</b>: ${escaped(detail)}${where.length === 0 ? "" : ` <span class="note">(${escaped(where.join("; "))})</span>`}</li>`
}

/** `result` must have kept the whole trace. */
export const report = (plan: Plan, result: Result, replay: string): string => {
  const { died, evidence, hash, kept, violations } = result
  const concerned = new Set(violations.flatMap(({ operations }) => operations))
  const keys = [...new Set(violations.flatMap((each) => each.keys))]
  const some = evidence.operations.filter(({ id }) => concerned.has(id))
  const begun = evidence.phases.chaos === undefined ? 0 : evidence.phases.chaos.at - plan.phases.warmUpMs
  const drawn: Drawn = { plan, begun, operations: evidence.operations, events: kept, end: result.ms }
  const broken = [...new Set(violations.map(({ property }) => property))]
  const size = sizeOf(plan)
  const title = `Seed ${plan.seed}: ${died === undefined ? broken.join(", ") || "nothing is wrong" : "died"}`

  const close = (): string => {
    if (some.length === 0) return ""
    const from = Math.max(0, Math.min(...some.map(({ invoked }) => invoked.at)) - CLOSE_MARGIN_MS)
    const to = Math.min(
      from + CLOSE_MAX_MS,
      Math.max(...some.map(({ completed, invoked }) => (completed ?? invoked).at)) + CLOSE_MARGIN_MS
    )
    const options = { from, to, pixelsPerMs: CLOSE_PX / (to - from), messagesMax: MESSAGES_MAX, concerned }
    return `<h2>Around the violation</h2>${timeline(drawn, options)}`
  }

  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escaped(title)}</title><style>${STYLE}</style></head><body>
<h1>${escaped(title)}</h1>
<p>${size.nodes} nodes, ${size.clients} clients, ${size.operations} operations, ${size.faults} faults, ${seconds(result.ms, 0)} of virtual time, ${result.events} events; broker "${escaped(plan.topology.profile)}", ${plan.topology.replicas} replicas. Trace <code>${hash}</code>.</p>
<p>Again: <code>${escaped(replay)}</code></p>
${died === undefined ? "" : `<pre class="bad">${escaped(died)}</pre>`}
${broken.map((each) => `<p><b class="bad">${each}</b> must hold: ${escaped(properties[each])}.</p>`).join("\n")}
<ul>${violations.slice(0, VIOLATIONS_MAX).map(violationText).join("\n")}</ul>
${violations.length > VIOLATIONS_MAX ? `<p class="note">${violations.length - VIOLATIONS_MAX} more violations.</p>` : ""}
${
  some.length === 0
    ? ""
    : `<h2>The operations concerned</h2>${tableOf(
        OPERATION_TITLES,
        some.slice(0, OPERATIONS_MAX).map((each) => ["", ...operationCells(each)] as const)
      )}`
}
${
  keys.length === 0
    ? ""
    : `<h2>The rows concerned</h2>${keys
        .slice(0, KEYS_MAX)
        .map((key) => rowsConcerned(evidence, key, concerned))
        .join("\n")}`
}
${close()}
<h2>The whole run</h2>
<p>${legend}</p>
${timeline(drawn, { from: 0, to: result.ms, pixelsPerMs: WIDTH_PX / result.ms, messagesMax: MESSAGES_MAX, concerned })}
<h2>The plan</h2>
<details><summary>JSON</summary><pre>${escaped(encodePlan(plan))}</pre></details>
</body></html>
`
}

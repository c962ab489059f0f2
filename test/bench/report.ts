/** What the benchmark found, and how it is printed: each figure beside the raw engine's, and beside what we aim at. */
import type { Searched } from "./client.ts"
import type { Timed } from "./measure.ts"

export interface SetReport {
  readonly dataset: string
  readonly title: string
  readonly metric: string
  readonly rows: number
  readonly dimension: number
  /** Searches in this process, then over NATS with all roles in one process, then with a process for each. */
  readonly embedded: Searched
  readonly together: Searched
  readonly apart: Searched
  /** Rows acknowledged a second. */
  readonly insert: {
    readonly embeddedPerSecond: number
    readonly natsPerSecond: number
    readonly natsRounds: ReadonlyArray<number>
  }
  readonly buildSeconds: { readonly embedded: number; readonly nats: number }
  /** The longest that the event loop of the process with all roles did not turn, over build, load and searches. */
  readonly stalledMs: number
  readonly insertStalledMs: number
  readonly bytesPerVector: number
  readonly firstAnswerMs: number
}

export interface Report {
  readonly date: string
  readonly node: string
  readonly machine: string
  readonly quick: boolean
  readonly sets: ReadonlyArray<SetReport>
}

const whole = (value: number) => Math.round(value).toLocaleString("en-US")
const fixed = (digits: number) => (value: number) => value.toFixed(digits)
const [one, two, three, four] = [fixed(1), fixed(2), fixed(3), fixed(4)]

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: ReadonlyArray<string>) =>
    `  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")}`.trimEnd()
  return rows.map(line).join("\n")
}

const searchTable = (set: SetReport): string => {
  const { apart, embedded, together } = set
  const row = (name: string, recall: number, single: Timed, many: Timed | undefined, ratio: string) => [
    name,
    four(recall),
    whole(single.perSecond),
    three(single.p50Ms),
    three(single.p99Ms),
    many === undefined ? "" : whole(many.perSecond),
    many === undefined ? "" : two(many.p50Ms),
    many === undefined ? "" : two(many.p99Ms),
    ratio
  ]
  const ours = (name: string, found: Searched) =>
    row(name, found.recall, found.one, found.many, `${two(found.ratioOne)} / ${two(found.ratioMany)}`)
  return table([
    ["", "recall@10", "1: /s", "p50 ms", "p99 ms", "16: /s", "p50 ms", "p99 ms", "of raw, 1 / 16"],
    row("raw hnswlib-node", embedded.rawRecall, embedded.raw, undefined, "1"),
    ours("embedded", embedded),
    ours("NATS, roles in one process", together),
    ours("NATS, a process for each", apart)
  ])
}

/** What the figures are meant to be at least, or at most. */
const goals = (set: SetReport): ReadonlyArray<ReadonlyArray<string>> => {
  const { apart, dimension, embedded, insert, stalledMs, together } = set
  const least = (what: string, is: number, goal: number, text: (value: number) => string) => [
    what,
    text(is),
    `>= ${text(goal)}`,
    is >= goal ? "met" : "missed"
  ]
  const most = (what: string, is: number, goal: number, text: (value: number) => string) => [
    what,
    text(is),
    `<= ${text(goal)}`,
    is <= goal ? "met" : "missed"
  ]
  const large = dimension >= 512
  return [
    least("recall@10", embedded.recall, 0.99, four),
    least("embedded, of raw", embedded.ratioOne, 0.8, two),
    least("embedded, of raw, by time of the processor", embedded.ratioCpu, 0.8, two),
    least("NATS, 16 in flight, roles in one process, of raw", together.ratioMany, large ? 0.6 : 0.4, two),
    least("NATS, 16 in flight, a process for each, of raw", apart.ratioMany, large ? 0.5 : 0.2, two),
    most("NATS, p50 of one above the engine's own, ms", together.aboveMs, 0.6, three),
    ...(dimension === 128 ? [least("NATS, rows acknowledged a second", insert.natsPerSecond, 100_000, whole)] : []),
    most("longest stop of the event loop in build, load and search, ms", stalledMs, 50, one)
  ]
}

const printSet = (set: SetReport): string => {
  const { buildSeconds, bytesPerVector, dataset, dimension, embedded, firstAnswerMs, insert, metric, rows, title } = set
  const { insertStalledMs } = set
  return [
    `${dataset}: ${title}, ${whole(rows)} x ${dimension}, ${metric}, ef ${embedded.ef}`,
    "",
    searchTable(set),
    "",
    table([
      ["rows acknowledged a second, embedded", whole(insert.embeddedPerSecond)],
      ["rows acknowledged a second, NATS, every record synced", whole(insert.natsPerSecond)],
      [
        "seconds from there to a served index, embedded / NATS",
        `${one(buildSeconds.embedded)} / ${one(buildSeconds.nats)}`
      ],
      ["bytes of memory for a vector (its numbers alone)", `${whole(bytesPerVector)} (${dimension * 4})`],
      ["from process start to first answer, ms", whole(firstAnswerMs)],
      ["longest stop of the event loop while rows come in, ms", one(insertStalledMs)]
    ]),
    "",
    table(goals(set)),
    ""
  ].join("\n")
}

export const print = ({ date, machine, node, quick, sets }: Report): string =>
  [
    `Elanus beside raw hnswlib-node   ${date}, Node ${node.slice(1)}, ${machine}${quick ? ", QUICK: small sets" : ""}`,
    "",
    "Both search the very same graph: M 16, efConstruction 200, all rows in one segment (segmentBytesMax is",
    "512 MiB here, and 64 MiB by default). Medians of rounds in which raw and ours took turns in one process.",
    "",
    ...sets.map(printSet),
    ""
  ].join("\n")

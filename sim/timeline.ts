/**
 * A run, or a part of it, drawn on a time axis: a lane for each node, each client and whatever else a fault can strike,
 * as one SVG that needs nothing else. Words on things are their titles: a browser shows them under the pointer.
 */
import type { Operation } from "./history.ts"
import type { Fault, Plan } from "./plan.ts"
import type { TraceEvent } from "./trace.ts"

export interface TimelineOptions {
  /** Virtual milliseconds. */
  readonly from: number
  readonly to: number
  readonly pixelsPerMs: number
  /** Of the messages that were sent, so many at most are drawn. */
  readonly messagesMax: number
  /** Operations to point out. */
  readonly concerned: ReadonlySet<number>
}

export interface Drawn {
  readonly plan: Plan
  /** When the plan's warm-up began: its times count from there. */
  readonly begun: number
  readonly operations: ReadonlyArray<Operation>
  /** The whole trace. */
  readonly events: ReadonlyArray<TraceEvent>
  readonly end: number
}

export const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;")

export const seconds = (ms: number, digits = 3): string => `${(ms / 1_000).toFixed(digits)} s`

// ---- layout

interface Bar {
  readonly from: number
  readonly to: number
  readonly kind: string
  readonly label: string
  readonly title: string
}

interface Lane {
  readonly name: string
  readonly bars: ReadonlyArray<Bar & { readonly row: number }>
  readonly rows: number
  /** When there was a process, and which life of it. */
  readonly lives: ReadonlyArray<{ readonly from: number; readonly to: number; readonly life: number }>
  readonly top: number
}

const ROW = 16
const GAP = 10
const NAMES = 150
const AXIS = 24
/** A bar is wide enough to be seen and pointed at. */
const WIDTH_MIN = 4

/** Past so many rows of a lane bars have no words, so that they fit into less room. */
const WORDY_ROWS = 6
/** What came all at once lies over one another. */
const ROWS_MAX = 12

/** Bars that overlap are put into rows of their own. */
const inRows = (bars: ReadonlyArray<Bar>, pixelsPerMs: number): Lane["bars"] => {
  const rows: Array<{ words: number; bar: number }> = []
  return bars
    .toSorted((a, b) => a.from - b.from)
    .map((bar) => {
      const barEnd = Math.max(bar.to, bar.from + WIDTH_MIN / pixelsPerMs)
      let at = rows.findIndex(({ words }) => words <= bar.from)
      const isWordy = at >= 0 || rows.length < WORDY_ROWS
      if (!isWordy) at = rows.findIndex((row) => row.bar <= bar.from)
      if (at < 0) at = rows.length < ROWS_MAX ? rows.length : bar.label.length % ROWS_MAX
      const words = isWordy ? Math.max(barEnd, bar.from + (bar.label.length * 6.5 + 6) / pixelsPerMs) : barEnd
      rows[at] = { words: Math.max(words, rows[at]?.words ?? 0), bar: barEnd }
      return { ...bar, label: isWordy ? bar.label : "", row: at }
    })
}

const faultBar = (fault: Fault, begun: number): Bar => {
  const { at, id, kind, lengthMs, strength, target, ways } = fault
  const more = [strength === undefined ? "" : `strength ${strength}`, ways ?? ""].filter((text) => text !== "")
  return {
    from: begun + at,
    to: begun + at + lengthMs,
    kind: "fault",
    label: kind,
    title: `fault ${id}: ${kind} of ${target}, from ${seconds(begun + at)} on for ${seconds(lengthMs)}${more.map((text) => `, ${text}`).join("")}`
  }
}

export const outcomeText = ({ completed, outcome }: Operation): string => {
  if (outcome === undefined || completed === undefined) return "never ended"
  return outcome._tag === "Ok" ? "ok" : `${outcome._tag.toLowerCase()}: ${outcome.code}`
}

const operationBar = (operation: Operation, end: number, concerned: boolean): Bar => {
  const { asked, collection, completed, id, invoked, outcome } = operation
  return {
    from: invoked.at,
    to: completed?.at ?? end,
    kind: `${outcome?._tag.toLowerCase() ?? "open"}${concerned ? " concerned" : ""}`,
    label: `${id} ${asked._tag.toLowerCase()}`,
    title: `operation ${id}: ${asked._tag} of ${collection}, ${seconds(invoked.at)} to ${completed === undefined ? "-" : seconds(completed.at)}, ${outcomeText(operation)}`
  }
}

const livesOf = (events: ReadonlyArray<TraceEvent>) => {
  const lives = new Map<string, Array<{ from: number; to: number; life: number }>>()
  for (const { at, life, node } of events) {
    if (node === "") continue
    let mine = lives.get(node)
    if (mine === undefined) lives.set(node, (mine = []))
    const last = mine.at(-1)
    if (last?.life === life) last.to = at
    else mine.push({ from: at, to: at, life })
  }
  return lives
}

const lanesOf = ({ begun, end, events, operations, plan }: Drawn, options: TimelineOptions): ReadonlyArray<Lane> => {
  const { concerned, from, pixelsPerMs, to } = options
  const lives = livesOf(events)
  const nodes = plan.topology.nodes.map(({ name }) => name)
  const clients = [...new Set([...plan.clients.map(({ name }) => name), ...operations.map(({ client }) => client)])]
  const others = [...new Set(plan.faults.map(({ target }) => target))].filter(
    (name) => !nodes.includes(name) && !clients.includes(name)
  )
  const lanes: Array<Lane> = []
  let top = AXIS
  for (const name of new Set([...others, BROKER, ...nodes, ...clients])) {
    const all = [
      ...plan.faults.filter(({ target }) => target === name).map((fault) => faultBar(fault, begun)),
      ...operations
        .filter(({ client }) => client === name)
        .map((each) => operationBar(each, end, concerned.has(each.id)))
    ].filter((bar) => bar.to >= from && bar.from <= to)
    const bars = inRows(all, pixelsPerMs)
    const rows = Math.max(1, ...bars.map(({ row }) => row + 1))
    lanes.push({ name, bars, rows, lives: lives.get(name) ?? [], top })
    top += rows * ROW + GAP
  }
  return lanes
}

// ---- messages

const BROKER = "broker"

interface Hop {
  readonly from: string
  readonly to: string
  readonly sent: number
  readonly arrived: number
  readonly label: string
}

/** As far as it has come. */
interface Exchange {
  readonly asked: number
  to?: string
  arrived?: number
  answered?: number
}

const ANSWERED_MS = 10_000

/**
 * Who told whom what, of a trace that has only arrivals: what is asked arrives at the broker and then at whom it is
 * for, "> subject"; its answer at the broker, "< subject", and then at who asked, "subject answer". Two alike that
 * overtake each other may be taken for one another.
 */
const hopsOf = (events: ReadonlyArray<TraceEvent>): ReadonlyArray<Hop> => {
  const hops: Array<Hop> = []
  const open = new Map<string, Array<Exchange>>()
  for (const { at, label, node } of events) {
    if (label.startsWith("> ")) {
      const found = open.get(label.slice(2))?.find(({ to }) => to === undefined)
      if (found !== undefined) Object.assign(found, { to: node, arrived: at })
    } else if (label.startsWith("< ")) {
      const found = open.get(label.slice(2))?.find((each) => each.to !== undefined && each.answered === undefined)
      if (found !== undefined) found.answered = at
    } else if (label.endsWith(" answer") && node !== "") {
      const name = label.slice(0, -" answer".length)
      const all = open.get(name) ?? []
      // What was asked long before was never answered.
      while (all.length > 0 && at - all[0]!.asked > ANSWERED_MS) all.shift()
      const found = all.shift()
      if (found === undefined) continue
      const { answered = found.asked, arrived = found.asked, asked, to = BROKER } = found
      hops.push({ from: node, to, sent: asked, arrived, label: name })
      hops.push({ from: to, to: node, sent: answered, arrived: at, label })
    } else if (node === "" && (label.startsWith("write ") || label.startsWith("elanus."))) {
      const all = open.get(label)
      if (all === undefined) open.set(label, [{ asked: at }])
      else all.push({ asked: at })
    }
  }
  return hops
}

/** Evenly, so that what is drawn looks like all of it. */
const sample = <A>(all: ReadonlyArray<A>, most: number): ReadonlyArray<A> =>
  all.length <= most ? all : Array.from({ length: most }, (_, i) => all[Math.floor((i * all.length) / most)]!)

// ---- drawing

const ticksOf = (from: number, to: number): ReadonlyArray<number> => {
  const wanted = (to - from) / 20
  const power = 10 ** Math.floor(Math.log10(wanted))
  const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= wanted)!
  const ticks: Array<number> = []
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) ticks.push(at)
  return ticks
}

const text = (x: number, y: number, what: string, kind = ""): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${kind}">${escaped(what)}</text>`

const phaseLines = ({ phases }: Plan, begun: number): ReadonlyArray<readonly [at: number, name: string]> => [
  [begun, "warm-up"],
  [begun + phases.warmUpMs, "faults"],
  [begun + phases.warmUpMs + phases.chaosMs, "the core alone"]
]

/** SVG: the names of the lanes, and beside them what can be scrolled. */
export const timeline = (drawn: Drawn, options: TimelineOptions): string => {
  const { from, messagesMax, pixelsPerMs, to } = options
  const lanes = lanesOf(drawn, options)
  const width = (to - from) * pixelsPerMs + 20
  const last = lanes.at(-1)
  const height = last === undefined ? AXIS : last.top + last.rows * ROW + GAP
  const x = (at: number) => (Math.min(Math.max(at, from), to) - from) * pixelsPerMs
  const middle = new Map(lanes.map(({ name, rows, top }) => [name, top + (rows * ROW) / 2]))
  const isInside = (at: number) => at >= from && at <= to

  const axis = ticksOf(from, to).map(
    (at) =>
      `<line x1="${x(at).toFixed(1)}" y1="${AXIS - 6}" x2="${x(at).toFixed(1)}" y2="${height}" class="tick"/>${text(x(at) + 2, 12, seconds(at, to - from < 20_000 ? 3 : 0), "axis")}`
  )
  const phases = phaseLines(drawn.plan, drawn.begun)
    .filter(([at]) => isInside(at))
    .map(
      ([at, name]) =>
        `<line x1="${x(at).toFixed(1)}" y1="0" x2="${x(at).toFixed(1)}" y2="${height}" class="phase"/>${text(x(at) + 2, AXIS, name, "phase")}`
    )
  const hops = hopsOf(drawn.events).filter(({ arrived, from, sent, to }) => {
    return isInside(sent) && isInside(arrived) && middle.has(from) && middle.has(to)
  })
  const shown = sample(hops, messagesMax)
  const messages = shown.map(
    ({ arrived, from, label, sent, to }) =>
      `<line x1="${x(sent).toFixed(1)}" y1="${middle.get(from)!}" x2="${x(arrived).toFixed(1)}" y2="${middle.get(to)!}" class="message"><title>${escaped(`${label}: ${from} to ${to}, ${seconds(sent)} to ${seconds(arrived)}`)}</title></line>`
  )
  const rows = lanes.flatMap(({ bars, lives, name, rows, top }) => [
    `<rect x="0" y="${top}" width="${width.toFixed(1)}" height="${rows * ROW}" class="lane"/>`,
    ...lives
      .filter((life) => life.to >= from && life.from <= to)
      .map(
        (life) =>
          `<rect x="${x(life.from).toFixed(1)}" y="${top}" width="${Math.max(1, x(life.to) - x(life.from)).toFixed(1)}" height="${rows * ROW}" class="life"><title>${escaped(`${name}, life ${life.life}: ${seconds(life.from)} to ${seconds(life.to)}`)}</title></rect>`
      ),
    ...bars.map(({ from, kind, label, row, title, to }) => {
      const wide = Math.max(WIDTH_MIN, x(to) - x(from))
      const y = top + row * ROW
      return `<g><title>${escaped(title)}</title><rect x="${x(from).toFixed(1)}" y="${y + 1}" width="${wide.toFixed(1)}" height="${ROW - 2}" class="${kind}"/>${text(x(from) + 3, y + 12, label, "label")}</g>`
    })
  ])
  const note =
    shown.length < hops.length ? `<p class="note">${shown.length} of ${hops.length} messages are drawn.</p>` : ""
  const names = lanes.map(({ name, top }) => text(4, top + 12, name))
  return [
    `<div class="chart">${svg(NAMES, height, names)}<div class="scroll">${svg(width, height, [...axis, ...phases, ...rows, ...messages])}</div></div>`,
    note
  ].join("\n")
}

const svg = (width: number, height: number, parts: ReadonlyArray<string>): string =>
  `<svg width="${width.toFixed(0)}" height="${height}" viewBox="0 0 ${width.toFixed(0)} ${height}">${parts.join("\n")}</svg>`

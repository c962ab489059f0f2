/**
 * Every table of the actors, printed: a change of what an actor may do shows as a change of text, and must be meant.
 * ELANUS_GOLDEN=write writes the texts anew. Checks also that no state is unreachable or without a way out.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import { collectionLifecycle, coordinatorLifecycle, jobLifecycle } from "../../actors/coordinator/lifecycle.ts"
import { channelLifecycle } from "../../actors/streaming-node/lifecycle.ts"
import { lifecycleOf } from "../../runtime/lifecycle.ts"

const machines = [channelLifecycle, coordinatorLifecycle, collectionLifecycle, jobLifecycle]

interface State {
  readonly tags: ReadonlyArray<string>
  readonly final: boolean
  /** Event to target; a target may be the state itself. */
  readonly moves: ReadonlyMap<string, string>
}

interface Table {
  readonly id: string
  readonly initial: string
  readonly states: ReadonlyMap<string, State>
}

interface Config {
  readonly initial?: unknown
  readonly states?: {
    readonly [name: string]: {
      readonly type?: string
      readonly tags?: unknown
      readonly on?: { readonly [event: string]: unknown }
    }
  }
}

const targetOf = (transition: unknown, from: string): string => {
  if (typeof transition === "string") return transition
  const { guard, target } = transition as { readonly guard?: unknown; readonly target?: string }
  assert.isUndefined(guard, "a guard has to be printed too: teach this test to")
  return target ?? from
}

const tableOf = (machine: (typeof machines)[number]): Table => {
  const config = machine.config as Config
  const states = Object.entries(config.states!).map(([name, { on = {}, tags = [], type }]): [string, State] => [
    name,
    {
      tags: tags as ReadonlyArray<string>,
      final: type === "final",
      moves: new Map(Object.entries(on).map(([event, transition]) => [event, targetOf(transition, name)]))
    }
  ])
  return { id: machine.id, initial: String(config.initial), states: new Map(states) }
}

const print = ({ id, initial, states }: Table): string => {
  const lines = [id]
  for (const [name, { final, moves, tags }] of states) {
    lines.push("", `${name}${name === initial ? " (initial)" : ""}${final ? " (final)" : ""}`)
    if (tags.length > 0) lines.push(`  owes ${tags.join(", ")}`)
    for (const [event, target] of moves) lines.push(`  ${event} -> ${target}`)
  }
  return `${lines.join("\n")}\n`
}

const reachableFrom = ({ states }: Table, from: string): ReadonlySet<string> => {
  const found = new Set<string>()
  const visit = (name: string) => {
    for (const target of states.get(name)!.moves.values()) {
      if (found.has(target)) continue
      found.add(target)
      visit(target)
    }
  }
  visit(from)
  return found
}

describe("the table of every actor", () => {
  for (const machine of machines) {
    const table = tableOf(machine)
    const { id, initial, states } = table
    const file = join(import.meta.dirname, "../golden", `${id}.txt`)

    it(`${id} is the one that was meant`, () => {
      if (process.env["ELANUS_GOLDEN"] === "write") writeFileSync(file, print(table))
      assert.strictEqual(existsSync(file) ? readFileSync(file, "utf8") : "", print(table))
    })

    it(`${id} reaches every state`, () => {
      const reached = reachableFrom(table, initial)
      assert.deepStrictEqual(
        [...states.keys()].filter((name) => name !== initial && !reached.has(name)),
        []
      )
    })

    it(`${id} has a way on from every state`, () => {
      for (const [name, { final, moves }] of states) {
        if (final) {
          assert.strictEqual(moves.size, 0, name)
          continue
        }
        const reached = reachableFrom(table, name)
        // A coordinator is never over, except by a person: it comes back to wherever it was.
        const wanted =
          id === "coordinator"
            ? [...states.keys()].filter((other) => other !== name)
            : [[...states].find(([other, { final }]) => final && reached.has(other))?.[0] ?? "a final state"]
        assert.deepStrictEqual(
          wanted.filter((other) => !reached.has(other)),
          [],
          `from ${name}`
        )
      }
    })

    it(`${id} stands as the kernel sees it`, () => {
      // What xstate makes of the table is what is printed: duties, moves, and ends.
      const lifecycle = lifecycleOf(machine)
      const { context, value } = lifecycle.initial()
      assert.strictEqual(value, initial)
      for (const [name, { final, moves, tags }] of states) {
        const standing = { value: name, context } as never
        assert.deepStrictEqual([...lifecycle.duties(standing)], [...tags], name)
        assert.strictEqual(lifecycle.final(standing), final, name)
        const events = new Set([...states.values()].flatMap(({ moves }) => [...moves.keys()]))
        for (const type of events) {
          assert.strictEqual(lifecycle.step(standing, { type } as never)?.value, moves.get(type), `${type} in ${name}`)
        }
      }
    })
  }
})

/** A small seeded generator for property tests of bytes. ELANUS_SEED repeats a run; every failure names its seed. */
import { hashKey } from "../../protocols/keys.ts"

export interface Random {
  /** For the message of an assertion. */
  readonly seed: string
  readonly next: () => number
  readonly below: (count: number) => number
  readonly pick: <A>(items: ReadonlyArray<A>) => A
  readonly bytes: (length: number) => Uint8Array
  readonly gaussian: () => number
  readonly int64: () => bigint
}

const START = process.env["ELANUS_SEED"] ?? String(process.pid)

/** Mulberry32 (public domain), begun from the run's seed and the test's own name. */
export const randomOf = (name: string): Random => {
  let state = hashKey(`${START} ${name}`)
  const word = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
  const next = () => word() / 0x1_0000_0000
  const below = (count: number) => Math.floor(next() * count)
  return {
    seed: `ELANUS_SEED=${START}`,
    next,
    below,
    pick: (items) => items[below(items.length)]!,
    bytes: (length) => {
      const bytes = new Uint8Array(length)
      for (let i = 0; i < length; i++) bytes[i] = word()
      return bytes
    },
    gaussian: () => Math.sqrt(-2 * Math.log(next() + 1e-300)) * Math.cos(2 * Math.PI * next()),
    int64: () => BigInt.asIntN(64, (BigInt(word()) << 32n) | BigInt(word()))
  }
}

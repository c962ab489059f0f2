/** Seeded randomness for tests: a seed that failed is printed, and fails again. */

export interface RandomSource {
  /** From 0 up to and without `end`. */
  readonly below: (end: number) => number
  readonly chance: (probability: number) => boolean
  readonly pick: <A>(from: ReadonlyArray<A>) => A
  readonly bytes: (length: number) => Uint8Array
}

export const randomFrom = (seed: number): RandomSource => {
  let state = seed >>> 0
  // mulberry32
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (end: number) => Math.floor(next() * end)
  return {
    below,
    chance: (probability) => next() < probability,
    pick: (from) => from[below(from.length)]!,
    bytes: (length) => Uint8Array.from({ length }, () => below(256))
  }
}

/** Those of the environment variable SEEDS, or fixed ones: a test that fails only sometimes helps nobody. */
export const seeds: ReadonlyArray<number> = (process.env["SEEDS"] ?? "1,2,3").split(",").map(Number)

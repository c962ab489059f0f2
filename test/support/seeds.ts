/**
 * Many seeds, one after the other; what fails always names its seed. ELANUS_SEED runs a single one again, and
 * ELANUS_SEEDS_TIMES=20 runs twenty times as many.
 */

const only = process.env["ELANUS_SEED"]
const times = Number(process.env["ELANUS_SEEDS_TIMES"] ?? 1)

export const forSeeds = (count: number, run: (seed: number) => void): void => {
  const seeds = only === undefined ? Array.from({ length: count * times }, (_, index) => index + 1) : [Number(only)]
  for (const seed of seeds) {
    try {
      run(seed)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Error(`ELANUS_SEED=${seed}: ${why}`, { cause })
    }
  }
}

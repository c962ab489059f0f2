/** Many seeds, one after the other. ELANUS_SEED runs a single one again; what fails always names its seed. */

const only = process.env["ELANUS_SEED"]

export const forSeeds = (count: number, run: (seed: number) => void): void => {
  const seeds = only === undefined ? Array.from({ length: count }, (_, index) => index + 1) : [Number(only)]
  for (const seed of seeds) {
    try {
      run(seed)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Error(`ELANUS_SEED=${seed}: ${why}`, { cause })
    }
  }
}

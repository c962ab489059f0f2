/** Runs a test inside of simulated worlds, of a few seeds: what fails names its seed. */
import type { Effect } from "effect"
import { World } from "../../sim/world.ts"
import { forSeeds } from "./seeds.ts"

/** From fibers that keep their turn to such that lose it all the time. */
const PREEMPT = [0, 0.05, 0.3]

export const inWorlds = <A, E>(program: () => Effect.Effect<A, E>): void =>
  forSeeds(PREEMPT.length, (seed) => {
    new World(seed, { preempt: PREEMPT[seed % PREEMPT.length]! }).run(program())
  })

/**
 * The nemesis: carries out a plan's faults, each from its time on for its length. A kind that has no way to strike here
 * yet does nothing.
 */
import type { Cluster } from "./cluster.ts"
import type { Fault, FaultName } from "./plan.ts"

/** Begins a fault; what comes back ends it. */
type Strike = (cluster: Cluster, fault: Fault) => (() => void) | void

const strikes: { readonly [K in FaultName]?: Strike } = {
  crash: (cluster, { target }) => {
    const process = cluster.process(target)
    process.crash()
    return () => process.start()
  },
  restarts: (cluster, { lengthMs, strength = 1_000, target }) => {
    const process = cluster.process(target)
    const { world } = cluster
    const until = world.now + lengthMs
    const again = () => {
      process.crash()
      process.start()
      if (world.now + strength < until) world.after(strength, again, undefined, 0, "restarts")
    }
    again()
  },
  pause: (cluster, { lengthMs, target }) => cluster.process(target).pause(lengthMs),
  slow: (cluster, { strength = 1, target }) => {
    const { node } = cluster.process(target)
    node.slowMs = strength
    return () => {
      node.slowMs = 0
    }
  },
  clockStep: (cluster, { strength = 0, target }) => {
    const { node } = cluster.process(target)
    node.skewMs += strength
    return () => {
      node.skewMs -= strength
    }
  },
  clockDrift: (cluster, { strength = 0, target }) => {
    const { node } = cluster.process(target)
    node.drift(strength)
    return () => node.drift(0)
  }
}

/** Lets the faults happen, at their times from now on. */
export const strike = (cluster: Cluster, faults: ReadonlyArray<Fault>): void => {
  const { world } = cluster
  for (const fault of faults) {
    const begin = () => {
      const end = strikes[fault.kind]?.(cluster, fault)
      if (end !== undefined) world.after(fault.lengthMs, end, undefined, 0, `${fault.kind} ends`)
    }
    world.after(fault.at, begin, undefined, 0, fault.kind)
  }
}

/**
 * Sites in the code at which something happens that the protocols allow and that seldom happens by itself: a batch of
 * one, a flush before its time, an answer that is not believed, a pause between two steps. The name of a site says what
 * happens there, and no two have the same.
 *
 * In production none ever fires, and there is no switch for it. The simulated world provides `Sites` that do: some of
 * them in each run, a different few for each seed (sim/world.ts). Never on a path that a search goes ten thousand times
 * a second, and never what a rule forbids: a site that makes a property fail has found a bug, or is wrong itself.
 */
import { Context, Effect } from "effect"

export interface Sites {
  /** Whether the site fires at this pass. */
  readonly fires: (site: string) => boolean
  /** A time up to `most`, a short one as likely as a long one. */
  readonly time: (most: number) => number
}

export const Sites = Context.Reference<Sites>("elanus/runtime/Sites", {
  defaultValue: () => ({ fires: () => false, time: () => 0 })
})

/** Whether the site fires at this pass. */
export const buggify = (site: string): Effect.Effect<boolean> =>
  Effect.withFiberSucceed((fiber) => fiber.getRef(Sites).fires(site))

/** Stands still for as long as `msOf` says, if the site fires. */
const sleepAt = (site: string, msOf: (sites: Sites) => number): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const sites = fiber.getRef(Sites)
    return sites.fires(site) ? Effect.sleep(msOf(sites)) : Effect.void
  })

/** Stands still for up to `mostMs`, if the site fires. */
export const stall = (site: string, mostMs: number): Effect.Effect<void> => sleepAt(site, (sites) => sites.time(mostMs))

/** Stands still for `ms`, if the site fires: where only much makes a difference. */
export const late = (site: string, ms: number): Effect.Effect<void> => sleepAt(site, () => ms)

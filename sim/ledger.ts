/**
 * What the stores of a simulated world accepted, in the order in which they did, as nobody in the world can see it:
 * the truth that answers are held against. Stores write into it; nothing in the world may read it, and nothing is
 * ever taken out, so what was purged, removed or lost is still here.
 */
import type { Change } from "../storage/meta.ts"
import type { World } from "./world.ts"

/** A point of a run. Of two with the same time, the one with the lower event came first. */
export interface Moment {
  /** Virtual milliseconds since the beginning. */
  readonly at: number
  readonly event: number
}

export const momentOf = ({ events, now }: World): Moment => ({ at: now, event: events })

/** Whether `a` was over when `b` began. */
export const notAfter = (a: Moment, b: Moment): boolean => a.event <= b.event

export type Fact = { readonly moment: Moment } & (
  | { readonly _tag: "Stored"; readonly channel: number; readonly sequence: number; readonly data: Uint8Array }
  | { readonly _tag: "Purged"; readonly channel: number; readonly before: number }
  /** A server lost what it had not synced: sequences from `from` on are free again. */
  | { readonly _tag: "Lost"; readonly channel: number; readonly from: number }
  /** Of the metadata; `head` is its revision. */
  | { readonly _tag: "Committed"; readonly head: number; readonly changes: ReadonlyArray<Change> }
  /** A key of the leases; without a value it was removed or has expired. */
  | {
      readonly _tag: "Leased"
      readonly key: string
      readonly value: Uint8Array | undefined
      readonly revision: number
    }
  | { readonly _tag: "Put"; readonly key: string; readonly data: Uint8Array }
  | { readonly _tag: "Removed"; readonly key: string }
  /** A message of a channel is not any more what was stored. */
  | { readonly _tag: "Rotten"; readonly channel: number; readonly sequence: number }
  /** The same of an object. */
  | { readonly _tag: "Damaged"; readonly what: string }
)

type Without<F> = F extends unknown ? Omit<F, "moment"> : never

export class Ledger {
  readonly facts: Array<Fact> = []
  private readonly now: () => Moment

  constructor(now: () => Moment) {
    this.now = now
  }

  /** Bytes that are given must not be changed afterwards. */
  add(fact: Without<Fact>): void {
    this.facts.push({ ...fact, moment: this.now() } as Fact)
  }
}

export const ledgerOf = (world: World): Ledger => new Ledger(() => momentOf(world))

/**
 * The life of one activation of a channel's owner. Fresh: a restarted node takes the channel anew, and so has an
 * epoch of its own. Every state is one that we can crash in; its tags are what we then owe.
 */
import { setup } from "xstate"

export const channelLifecycle = setup({
  types: {} as {
    context: Record<string, never>
    events:
      | { type: "Taken" }
      | { type: "Recovered" }
      | { type: "InDoubt" }
      | { type: "Settled" }
      | { type: "Stale" }
      | { type: "Damaged" }
      | { type: "Restart" }
    tags: "take" | "recover" | "write" | "settle" | "maintain" | "checkpoint"
  }
}).createMachine({
  id: "channel",
  context: {},
  initial: "taking",
  states: {
    /** The channel's key is to be ours: its revision becomes the epoch. */
    taking: { tags: ["take"], on: { Taken: "recovering", Stale: "stale", Damaged: "damaged" } },
    /** Earlier owners are shut out, and the log is read from the checkpoint to our fence. */
    recovering: { tags: ["recover"], on: { Recovered: "serving", Stale: "stale", Damaged: "damaged" } },
    serving: {
      tags: ["write", "maintain", "checkpoint"],
      on: { InDoubt: "doubtful", Stale: "stale", Damaged: "damaged", Restart: "stale" }
    },
    /** An append's outcome is unknown: nothing is written or closed until a fence has shown what is stored. */
    doubtful: {
      tags: ["settle", "maintain"],
      on: { Settled: "serving", Stale: "stale", Damaged: "damaged", Restart: "stale" }
    },
    /** Somebody else owns the channel, or we are to begin again: nothing is answered any more. */
    stale: { type: "final" },
    /** The log is not what was written: nothing is answered until a person has looked. */
    damaged: { type: "final" }
  }
})

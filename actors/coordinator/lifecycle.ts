/** The coordinator and what it keeps a life of. Every state is one that we can crash in; its tags are what we then owe. */
import { assign, setup } from "xstate"

/** Of one process that may be the coordinator. Fresh: a restarted one believes nothing. */
export const coordinatorLifecycle = setup({
  types: {} as {
    context: Record<string, never>
    events: { type: "Elected" } | { type: "TookOver" } | { type: "Deposed" } | { type: "Unfit" }
    tags: "campaign" | "takeOver" | "lead" | "renew" | "keepTime" | "look"
  }
}).createMachine({
  id: "coordinator",
  context: {},
  initial: "standby",
  states: {
    /** Another is active, or none yet: we want its lease. */
    standby: { tags: ["campaign"], on: { Elected: "takingOver" } },
    /** The lease is ours, which proves nothing: writing the epoch key does. */
    takingOver: {
      tags: ["takeOver", "renew"],
      on: { TookOver: "active", Deposed: "standby", Unfit: "unfit" }
    },
    active: { tags: ["lead", "renew", "keepTime", "look"], on: { Deposed: "standby" } },
    /** The metadata is not for this version: a person has to look. */
    unfit: { type: "final" }
  }
})

/** Of a collection that exists. Kept: its standing is in the metadata before anybody hears of it. */
export const collectionLifecycle = setup({
  types: {} as {
    context: Record<string, never>
    events: { type: "Provisioned" } | { type: "Drop" } | { type: "Closed" } | { type: "Swept" }
    tags: "provision" | "close" | "sweep"
  }
}).createMachine({
  id: "collection",
  context: {},
  initial: "creating",
  states: {
    /** Its shards get their first manifests. */
    creating: { tags: ["provision"], on: { Provisioned: "ready", Drop: "dropping" } },
    ready: { on: { Drop: "closing" } },
    /** It will go. Owners that know take no write for it any more; here are those that do not know yet. */
    closing: { tags: ["close"], on: { Closed: "dropping" } },
    /** Nobody can see it any more; what it stored is given back. */
    dropping: { tags: ["sweep"], on: { Swept: "dropped" } },
    dropped: { type: "final" }
  }
})

interface JobContext {
  readonly attempt: string | null
  readonly node: string | null
  /** That failed. */
  readonly tries: number
}

const failedOnce = {
  attempt: null,
  node: null,
  tries: ({ context }: { readonly context: JobContext }) => context.tries + 1
}

/** Of an index that is to be built. Kept. */
export const jobLifecycle = setup({
  types: {} as {
    context: JobContext
    events:
      | { type: "Assigned"; attempt: string; node: string }
      | { type: "Lost" }
      | { type: "Failed" }
      | { type: "Done" }
      | { type: "GaveUp" }
      | { type: "Again" }
    tags: "place" | "supervise"
  }
}).createMachine({
  id: "job",
  context: { attempt: null, node: null, tries: 0 },
  initial: "queued",
  states: {
    /** No node has it. */
    queued: {
      tags: ["place"],
      on: {
        Assigned: {
          target: "assigned",
          actions: assign({ attempt: ({ event }) => event.attempt, node: ({ event }) => event.node })
        },
        Done: "done"
      }
    },
    /** A node works on it, as one attempt; if the node is lost, so is the attempt. Only what the job is to blame for counts. */
    assigned: {
      tags: ["supervise"],
      on: {
        Lost: { target: "queued", actions: assign({ attempt: null, node: null }) },
        Failed: { target: "queued", actions: assign(failedOnce) },
        Done: "done",
        GaveUp: { target: "failed", actions: assign(failedOnce) }
      }
    },
    done: { type: "final" },
    /** Nobody works on it. The next coordinator tries again: what was to blame may have been mended. */
    failed: { on: { Again: { target: "queued", actions: assign({ tries: 0 }) } } }
  }
})

/**
 * The pure side of an actor: an xstate machine used as a table, and nothing else of xstate.
 * This is the only file that runs it; no machine ever starts, waits or acts by itself.
 */
import {
  type AnyStateMachine,
  type ContextFrom,
  type EventFrom,
  initialTransition,
  type SnapshotFrom,
  transition
} from "xstate"

/** Where an actor stands: all that must be remembered of its table. */
export interface Standing<M extends AnyStateMachine> {
  readonly value: SnapshotFrom<M>["value"]
  readonly context: ContextFrom<M>
}

/** The names of the work that a state of the table can owe. */
export type DutyName<M extends AnyStateMachine> = SnapshotFrom<M>["tags"] extends Set<infer T> ? T & string : never

/** A lifecycle with its generics at rest: what the kernel needs to know of a table. */
export interface Lifecycle<M extends AnyStateMachine> {
  readonly initial: () => Standing<M>
  /** Where the event leads; undefined if the table has no such move from here. */
  readonly step: (standing: Standing<M>, event: EventFrom<M>) => Standing<M> | undefined
  readonly duties: (standing: Standing<M>) => ReadonlySet<DutyName<M>>
  readonly final: (standing: Standing<M>) => boolean
}

export const lifecycleOf = <M extends AnyStateMachine>(typed: M): Lifecycle<M> => {
  // xstate's own generics do not survive being generic over them: inside this function the machine is untyped.
  const machine = typed as AnyStateMachine
  // A standing never changes; what it is to xstate is asked again and again.
  const resolved = new WeakMap<Standing<M>, SnapshotFrom<AnyStateMachine>>()
  const resolve = (standing: Standing<M>) => {
    let snapshot = resolved.get(standing)
    if (snapshot === undefined) {
      snapshot = machine.resolveState({ value: standing.value as never, context: standing.context as never })
      resolved.set(standing, snapshot)
    }
    return snapshot
  }
  return {
    initial: () => {
      const [snapshot] = initialTransition(machine, undefined)
      return { value: snapshot.value, context: snapshot.context } as Standing<M>
    },
    step: (standing, event) => {
      const before = resolve(standing)
      if (!before.can(event)) return undefined
      const [after] = transition(machine, before as never, event as never)
      return { value: after.value, context: after.context } as Standing<M>
    },
    duties: (standing) => resolve(standing).tags as ReadonlySet<string> as ReadonlySet<DutyName<M>>,
    final: (standing) => resolve(standing).status === "done"
  }
}

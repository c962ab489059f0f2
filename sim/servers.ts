/**
 * The NATS servers of a simulated world: one, or a cluster of three. Each can crash and come back with what it had,
 * stand still, or lose touch with the others while its own clients still reach it.
 */
import type { Chance, Scheduled, World } from "./world.ts"

export class Machine {
  readonly index: number
  isUp = true
  isPaused = false
  /** Since when it reaches no other server; undefined: it reaches all that are up. */
  cutOffSince: number | undefined
  /** What reached it while it stood still. */
  readonly held: Array<() => void> = []

  constructor(index: number) {
    this.index = index
  }

  /** It can take part in an election. */
  get isAble(): boolean {
    return this.isUp && !this.isPaused && this.cutOffSince === undefined
  }
}

/** What happened to a machine. */
export type Turn = "crash" | "restart" | "pause" | "continue" | "cut off" | "join"

export class Servers {
  readonly world: World
  readonly all: ReadonlyArray<Machine>
  readonly chance: Chance
  private readonly struck: (what: string) => void
  private readonly listeners = new Set<(machine: Machine, turn: Turn) => void>()
  /** When what goes on at a machine will be over. */
  private readonly ends = new Map<string, Scheduled>()

  constructor(world: World, count: number, struck: (what: string) => void) {
    this.world = world
    this.all = Array.from({ length: count }, (_, index) => new Machine(index))
    this.chance = world.chance("servers")
    this.struck = struck
  }

  /** Calls back when something happened to a machine, in the order of these calls, until the answer is called. */
  onTurn(listener: (machine: Machine, turn: Turn) => void): () => void {
    this.listeners.add(listener)
    return () => {
      this.listeners.delete(listener)
    }
  }

  /** Those that can elect a leader; fewer than half cannot. */
  able(): ReadonlyArray<Machine> {
    const able = this.all.filter(({ isAble }) => isAble)
    return able.length * 2 > this.all.length ? able : []
  }

  /** Whether what one says arrives at the other. */
  reaches(from: Machine, to: Machine): boolean {
    return from === to || (from.cutOffSince === undefined && to.cutOffSince === undefined && to.isUp)
  }

  /** Its process is killed, and begun again after so long (Infinity: by `restart`). Connections to it break. */
  crash(machine: Machine, forMs: number): void {
    if (!machine.isUp) return
    this.struck("server crash")
    machine.isUp = false
    machine.isPaused = false
    machine.held.length = 0
    this.turn(machine, "crash")
    this.later("down", machine, forMs, () => this.restart(machine))
  }

  /** It stands still for so long. */
  pause(machine: Machine, forMs: number): void {
    if (!machine.isUp || machine.isPaused) return
    this.struck("server pause")
    machine.isPaused = true
    this.turn(machine, "pause")
    this.later("paused", machine, forMs, () => this.continue(machine))
  }

  /** It and the others do not reach each other for so long. */
  cutOff(machine: Machine, forMs: number): void {
    if (!machine.isUp || machine.cutOffSince !== undefined || this.all.length === 1) return
    this.struck("server cut off")
    machine.cutOffSince = this.world.now
    this.turn(machine, "cut off")
    this.later("cut off", machine, forMs, () => this.join(machine))
  }

  /** All are up and reach each other. */
  heal(): void {
    for (const machine of this.all) {
      this.restart(machine)
      this.continue(machine)
      this.join(machine)
    }
  }

  restart(machine: Machine): void {
    if (machine.isUp) return
    machine.isUp = true
    this.turn(machine, "restart")
  }

  continue(machine: Machine): void {
    if (!machine.isPaused) return
    machine.isPaused = false
    this.turn(machine, "continue")
    for (const arrive of machine.held.splice(0)) arrive()
  }

  join(machine: Machine): void {
    if (machine.cutOffSince === undefined) return
    machine.cutOffSince = undefined
    this.turn(machine, "join")
  }

  private turn(machine: Machine, turn: Turn): void {
    for (const listener of [...this.listeners]) listener(machine, turn)
  }

  private later(what: string, machine: Machine, forMs: number, end: () => void): void {
    const key = `${what} ${machine.index}`
    this.ends.get(key)?.cancel()
    if (forMs < Infinity) this.ends.set(key, this.world.after(forMs, end, undefined, 0, key))
  }
}

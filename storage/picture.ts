/**
 * What a watch of a bucket tells of the messages that come: first every key that there is, then "CaughtUp" once, then each
 * change. The picture is told as a whole: a server that is behind begins with a key that is gone, and brings its marker
 * before the picture is complete; told by then, the key would stay with whoever watches, as nothing says again that it went.
 */
import type { Entry, WatchEvent } from "./meta.ts"

/** One message of a bucket: what lies at a key since, or the marker of its end. */
export interface KeyMessage extends Entry {
  readonly isMarker: boolean
}

export class Picture {
  /** Until it is complete. */
  private entries: Map<string, Entry> | undefined = new Map()
  private seen = 0
  private readonly newest: number

  /** `newest`: the highest revision there is below the watched prefix, as the leader tells; 0: there is none. */
  constructor(newest: number) {
    this.newest = newest
  }

  get isComplete(): boolean {
    return this.entries === undefined
  }

  /** What is to be told of these, in order. None: there is nothing more at present, and the newest may have gone since. */
  learn(messages: ReadonlyArray<KeyMessage>): ReadonlyArray<WatchEvent> {
    const events: Array<WatchEvent> = []
    for (const { isMarker, ...entry } of messages) {
      const { key, revision } = entry
      if (this.entries === undefined) {
        events.push(isMarker ? { _tag: "Deleted", key, revision } : { _tag: "Put", entry })
      } else {
        // In the order of revisions.
        this.entries.delete(key)
        if (!isMarker) this.entries.set(key, entry)
      }
      this.seen = revision
      if (revision >= this.newest) this.complete(events)
    }
    if (messages.length === 0) this.complete(events)
    return events
  }

  private complete(events: Array<WatchEvent>): void {
    if (this.entries === undefined) return
    for (const entry of this.entries.values()) events.push({ _tag: "Put", entry })
    events.push({ _tag: "CaughtUp", revision: this.seen })
    this.entries = undefined
  }
}

/**
 * Whose the records of a log are: of the newest owners, the first record of each. The checkpoint keeps it, so that an owner
 * can tell of a record that is purged, too, whether the log had the one that somebody knows. Pure data.
 */
import type { EpochStart } from "../../protocols/metadata.ts"
import type { RecordHeader } from "../../protocols/record.ts"

/** What was known before so many takeovers is compared with nothing. */
const KEPT = 32

export class Epochs {
  private starts: ReadonlyArray<EpochStart>

  constructor(starts: ReadonlyArray<EpochStart>) {
    this.starts = starts
  }

  /** The next record of the log. */
  add({ epoch, lsn }: RecordHeader): void {
    if (epoch === this.starts.at(-1)?.epoch) return
    this.starts = [...this.starts, { epoch, from: lsn }].slice(-KEPT)
  }

  /** Whose the record is; undefined if that was too long ago. */
  at(lsn: number): bigint | undefined {
    return this.starts.findLast(({ from }) => from <= lsn)?.epoch
  }

  /** What a checkpoint at this record says: above it, the next owner reads for itself. */
  upTo(lsn: number): ReadonlyArray<EpochStart> {
    return this.starts.filter(({ from }) => from <= lsn)
  }
}

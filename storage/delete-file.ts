/**
 * The deletes of a flush as an object: which keys, at which timestamps, and the request ids still young enough to
 * be asked again. It covers one range of a shard's log and never says which rows are hidden: that is the reader's sum.
 */
import { type KeyColumn, readKeys, writeKeys } from "../protocols/keys.ts"
import { Reader, WireError, Writer } from "../protocols/wire.ts"
import { decoding, type FrameKind, frame, unframe } from "./framed-file.ts"

export interface DeleteColumns {
  readonly keys: KeyColumn
  /** When each delete happened: it hides nothing from a read before it. */
  readonly timestamps: BigUint64Array
  /**
   * Each hides versions up to and with this timestamp (protocols/README.md, 4.3). Absent if all are plain, which hide what is
   * older than themselves: timestamp - 1. Only a delete by filter differs.
   */
  readonly upTo?: BigUint64Array | undefined
  readonly requests: RequestColumns
}

export interface RequestColumns {
  /** 16 bytes each. */
  readonly ids: Uint8Array
  /** The timestamp of each one's outcome. */
  readonly timestamps: BigUint64Array
}

const REQUEST_ID_BYTES = 16
const kind: FrameKind = { magic: "ELANUSDL", version: 1, name: "delete file" }

export const noRequests: RequestColumns = { ids: new Uint8Array(0), timestamps: new BigUint64Array(0) }

export const encodeDeletes = (columns: DeleteColumns): Array<Uint8Array> => {
  const { keys, timestamps, upTo, requests } = columns
  if (timestamps.length !== keys.count || (upTo !== undefined && upTo.length !== keys.count)) {
    throw new RangeError("the columns of a delete file have different lengths")
  }
  if (requests.ids.length !== requests.timestamps.length * REQUEST_ID_BYTES) {
    throw new RangeError("a request id has 16 bytes")
  }
  const writer = new Writer(1024 + keys.count * 32 + requests.ids.length * 2)
  writeKeys(writer, keys).block(timestamps)
  if (upTo === undefined) writer.u8(0)
  else writer.u8(1).block(upTo)
  writer.block(requests.ids).block(requests.timestamps)
  return frame(kind, [writer.finish()])
}

/** Throws StorageError: "damaged", or "unfit" for a newer version. The columns are views of `bytes` where they can be. */
export const decodeDeletes = (bytes: Uint8Array): DeleteColumns => {
  const { body } = unframe(kind, bytes)
  return decoding(kind, () => {
    const reader = new Reader(body)
    const keys = readKeys(reader)
    const timestamps = reader.u64s()
    const upTo = reader.u8() === 0 ? undefined : reader.u64s()
    const requests = { ids: reader.block(), timestamps: reader.u64s() }
    if (timestamps.length !== keys.count || (upTo !== undefined && upTo.length !== keys.count)) {
      throw new WireError("columns of different lengths")
    }
    if (requests.ids.length !== requests.timestamps.length * REQUEST_ID_BYTES) throw new WireError("request ids")
    return { keys, timestamps, upTo, requests }
  })
}

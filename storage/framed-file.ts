/**
 * The frame of the small binary objects: what they are, which version, how long, and a checksum over every bit.
 * The frame itself may never change, so that also a newer object can be told from a damaged one.
 *
 *   8 bytes magic | u32 version | u32 crc of all else | f64 length of the body | 8 bytes of 0 | body
 */
import { crc32 } from "../protocols/checksum.ts"
import { limits } from "../protocols/limits.ts"
import { utf8 } from "../protocols/wire.ts"
import { StorageError } from "./outcome.ts"

export interface FrameKind {
  /** Exactly 8 ASCII characters. */
  readonly magic: string
  /** The newest version that this code reads, and the one that it writes. */
  readonly version: number
  /** For messages. */
  readonly name: string
}

export const FRAME_BYTES = 32

/** The object in parts laid end to end: the frame, then the body's parts as they are. */
export const frame = (kind: FrameKind, body: ReadonlyArray<Uint8Array>): Array<Uint8Array> => {
  const header = new Uint8Array(FRAME_BYTES)
  const view = new DataView(header.buffer)
  let length = 0
  for (const part of body) length += part.length
  header.set(utf8.encode(kind.magic))
  view.setUint32(8, kind.version, true)
  view.setFloat64(16, length, true)
  let crc = headerCrc(header)
  for (const part of body) crc = crc32(part, crc)
  view.setUint32(12, crc, true)
  return [header, ...body]
}

export interface Unframed {
  readonly version: number
  readonly body: Uint8Array
}

/** The body, as a view. Throws StorageError: "damaged", or "unfit" if the version is newer than `kind.version`. */
export const unframe = (kind: FrameKind, bytes: Uint8Array): Unframed => toTheEnd(unframeSliced(kind, bytes))

/** The same in slices of at most `limits.sliceBytes`: the caller lets the event loop turn at every yield. */
export function* unframeSliced(kind: FrameKind, bytes: Uint8Array): Generator<void, Unframed, void> {
  const damaged = (detail: string) => new StorageError({ reason: "damaged", detail: `${kind.name}: ${detail}` })
  if (bytes.length < FRAME_BYTES) throw damaged(`${bytes.length} bytes are too few`)
  const header = bytes.subarray(0, FRAME_BYTES)
  const body = bytes.subarray(FRAME_BYTES)
  if (utf8.encode(kind.magic).some((byte, i) => header[i] !== byte)) throw damaged("it is something else")
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getFloat64(16, true) !== body.length) throw damaged(`${body.length} bytes behind its frame`)
  let crc = headerCrc(header)
  for (let at = 0; at < body.length; at += limits.sliceBytes) {
    if (at > 0) yield
    crc = crc32(body.subarray(at, at + limits.sliceBytes), crc)
  }
  if (view.getUint32(12, true) !== crc) throw damaged("its checksum is wrong")
  const version = view.getUint32(8, true)
  if (version > kind.version) {
    throw new StorageError({ reason: "unfit", detail: `${kind.name} of version ${version}; this is ${kind.version}` })
  }
  return { version, body }
}

export const toTheEnd = <A>(slices: Generator<void, A, void>): A => {
  let next = slices.next()
  while (next.done !== true) next = slices.next()
  return next.value
}

/** Of the frame without the place where the checksum itself is. */
const headerCrc = (header: Uint8Array): number => crc32(header.subarray(16), crc32(header.subarray(0, 12)))

/** Runs a decoder over a body whose checksum was right; what it throws is then damage from before that. */
export const decoding = <A>(kind: FrameKind, decode: () => A): A => {
  try {
    return decode()
  } catch (cause) {
    if (cause instanceof StorageError) throw cause
    throw new StorageError({ reason: "damaged", detail: `${kind.name}: ${String(cause)}` })
  }
}

export const joined = (parts: ReadonlyArray<Uint8Array>): Uint8Array<ArrayBuffer> => {
  let length = 0
  for (const part of parts) length += part.length
  const whole = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

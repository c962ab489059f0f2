/**
 * Bytes of the messages and records that are too hot for a general codec: little-endian, long arrays on
 * multiples of 8 from the start, so that a reader can look at vectors where they lie.
 */
import { isUtf8 } from "node:buffer"
import { SchemaBinary } from "effect/encoding"
import { Schema } from "effect"
import { allocate } from "./memory.ts"

/**
 * How a message becomes bytes and comes back. `decode` throws on bytes that are not such a message. `encode` leaves
 * `room` bytes of zero in front, a multiple of 8, so that who sends it needs no copy to say more.
 */
export interface Codec<A> {
  readonly encode: (value: A, room?: number) => Uint8Array
  readonly decode: (bytes: Uint8Array) => A
}

/** The codec of anything that a Schema describes: evolution by field, 3 us for a small message. For all but the hottest. */
export const schemaCodec = <A, I>(schema: Schema.Codec<A, I>): Codec<A> => {
  const codec = SchemaBinary.toCodec(schema)
  const encode = Schema.encodeSync(codec)
  return {
    encode: (value, room = 0) => {
      const bytes = encode(value) // in the encoder's own arena, which is used again
      const mine = new Uint8Array(room + bytes.length)
      mine.set(bytes, room)
      return mine
    },
    decode: Schema.decodeSync(codec) as (bytes: Uint8Array) => A
  }
}

const utf8Encoder = new TextEncoder()
// U+FEFF is a character like any other, also in front: what is hashed and sorted by its bytes must be equal by its text too.
const utf8Decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const documentDecoder = new TextDecoder("utf-8", { fatal: true })

export const utf8 = {
  encode: (text: string) => utf8Encoder.encode(text),
  /** Throws on bytes that are not UTF-8. */
  decode: (bytes: Uint8Array) => utf8Decoder.decode(bytes),
  /** As `decode`, of a whole document, JSON for one: a byte order mark in front is no part of it. */
  decodeDocument: (bytes: Uint8Array) => documentDecoder.decode(bytes),
  /** Whether `decode` takes them; costs a tenth of it. */
  isValid: (bytes: Uint8Array): boolean => isUtf8(bytes)
}

const NOTHING = new Uint8Array(0)

/** Grows as it is written to. `finish` gives the bytes, which are the caller's own. */
export class Writer {
  private bytes: Uint8Array
  private view: DataView
  private at: number

  constructor(sizeGuess = 256, room = 0) {
    const bytes = allocate(sizeGuess + room)
    for (let i = 0; i < room; i++) bytes[i] = 0
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.at = room
  }

  get length(): number {
    return this.at
  }

  private room(count: number): number {
    const at = this.at
    const end = at + count
    if (end > this.bytes.length) {
      const grown = allocate(Math.max(end, this.bytes.length * 2))
      grown.set(this.bytes.subarray(0, at))
      this.bytes = grown
      this.view = new DataView(grown.buffer, grown.byteOffset, grown.length)
    }
    this.at = end
    return at
  }

  u8(value: number): this {
    const at = this.room(1)
    this.bytes[at] = value
    return this
  }
  u16(value: number): this {
    const at = this.room(2)
    this.view.setUint16(at, value, true)
    return this
  }
  u32(value: number): this {
    const at = this.room(4)
    this.view.setUint32(at, value, true)
    return this
  }
  u64(value: bigint): this {
    const at = this.room(8)
    this.view.setBigUint64(at, value, true)
    return this
  }
  i64(value: bigint): this {
    const at = this.room(8)
    this.view.setBigInt64(at, value, true)
    return this
  }
  f64(value: number): this {
    const at = this.room(8)
    this.view.setFloat64(at, value, true)
    return this
  }
  /** A count of at most 2^53, as a float. */
  count(value: number): this {
    return this.f64(value)
  }
  text(value: string): this {
    // Most texts here are short and ASCII; an encoder call costs more than the loop.
    const length = value.length
    if (length < 64) {
      const at = this.room(4 + length)
      let i = 0
      for (; i < length; i++) {
        const code = value.charCodeAt(i)
        if (code > 127) break
        this.bytes[at + 4 + i] = code
      }
      if (i === length) {
        this.view.setUint32(at, length, true)
        return this
      }
      this.at = at
    }
    const encoded = utf8Encoder.encode(value)
    return this.u32(encoded.length).raw(encoded)
  }
  align(to = 8): this {
    const over = this.at % to
    if (over !== 0) {
      const at = this.room(to - over)
      this.bytes.fill(0, at, this.at)
    }
    return this
  }
  raw(value: Uint8Array): this {
    const at = this.room(value.length)
    this.bytes.set(value, at)
    return this
  }
  /** Length, padding to 8, bytes. */
  block(value: ArrayBufferView): this {
    const { byteLength } = value
    this.u32(byteLength).align()
    // Even to look at the buffer of an empty array costs.
    return byteLength === 0 ? this : this.raw(new Uint8Array(value.buffer, value.byteOffset, byteLength))
  }
  patchU32(at: number, value: number): this {
    this.view.setUint32(at, value, true)
    return this
  }
  finish(): Uint8Array {
    return new Uint8Array(this.bytes.buffer, this.bytes.byteOffset, this.at)
  }
}

/** The bytes ended, or say something that they cannot say. */
export class WireError extends Error {
  override readonly name = "WireError"
}

/** One of a few, by its place among them. */
export const among = <A>(all: ReadonlyArray<A>, index: number): A => {
  if (index >= all.length) throw new WireError(`${index} is none of ${all.length}`)
  return all[index]!
}

/** Reads what a Writer wrote, and throws WireError on anything cut short. Arrays are views where alignment allows. */
export class Reader {
  private readonly bytes: Uint8Array
  private readonly view: DataView
  private at = 0

  constructor(bytes: Uint8Array) {
    // Node's Buffer is a Uint8Array whose `slice` does not copy: what is cut from here must be the plain kind.
    this.bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get position(): number {
    return this.at
  }
  get left(): number {
    return this.bytes.length - this.at
  }

  private take(count: number): number {
    const at = this.at
    if (count > this.bytes.length - at) throw new WireError(`${count} bytes wanted at ${at} of ${this.bytes.length}`)
    this.at = at + count
    return at
  }

  u8(): number {
    return this.bytes[this.take(1)]!
  }
  u16(): number {
    return this.view.getUint16(this.take(2), true)
  }
  u32(): number {
    return this.view.getUint32(this.take(4), true)
  }
  u64(): bigint {
    return this.view.getBigUint64(this.take(8), true)
  }
  i64(): bigint {
    return this.view.getBigInt64(this.take(8), true)
  }
  f64(): number {
    return this.view.getFloat64(this.take(8), true)
  }
  count(): number {
    const value = this.f64()
    if (!Number.isSafeInteger(value) || value < 0) throw new WireError(`not a count: ${value}`)
    return value
  }
  text(): string {
    const length = this.u32()
    const at = this.take(length)
    if (length < 32) {
      let text = ""
      let i = 0
      for (; i < length; i++) {
        const code = this.bytes[at + i]!
        if (code > 127) break
        text += String.fromCharCode(code)
      }
      if (i === length) return text
    }
    return utf8Decoder.decode(this.bytes.subarray(at, at + length))
  }
  align(to = 8): this {
    const over = this.at % to
    if (over !== 0) this.take(to - over)
    return this
  }
  raw(count: number): Uint8Array {
    const at = this.take(count)
    return new Uint8Array(this.bytes.buffer, this.bytes.byteOffset + at, count)
  }
  block(): Uint8Array {
    const length = this.u32()
    this.align()
    return length === 0 ? NOTHING : this.raw(length)
  }
  /** A block as numbers of `size` bytes: where it lies, or a copy if it does not lie right. */
  private array<A>(size: number, view: new (buffer: ArrayBuffer, byteOffset: number, length: number) => A): A {
    const length = this.u32()
    if (length % size !== 0) throw new WireError(`${length} bytes are no array of ${size}`)
    const at = this.align().take(length)
    const { buffer, byteOffset } = this.bytes
    return (byteOffset + at) % size === 0
      ? new view(buffer as ArrayBuffer, byteOffset + at, length / size)
      : new view(this.bytes.slice(at, at + length).buffer, 0, length / size)
  }
  f32s(): Float32Array {
    return this.array(4, Float32Array)
  }
  u32s(): Uint32Array {
    return this.array(4, Uint32Array)
  }
  f64s(): Float64Array {
    return this.array(8, Float64Array)
  }
  i64s(): BigInt64Array {
    return this.array(8, BigInt64Array)
  }
  u64s(): BigUint64Array {
    return this.array(8, BigUint64Array)
  }
}

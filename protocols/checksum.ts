/**
 * Checksums of bytes and the hash that chains records. Both are part of what is stored: neither may ever change.
 * They find damage, not malice; neither may be used as a proof of who wrote something.
 */
import * as zlib from "node:zlib"

/**
 * CRC-32 (ISO-HDLC, that of gzip and of `x-amz-checksum-crc32`), by zlib's own machine code. With `seed`, the
 * checksum of the bytes behind those that gave the seed: crc32(b, crc32(a)) is that of a and b laid end to end.
 */
export const crc32 = (bytes: NodeJS.ArrayBufferView, seed = 0): number => zlib.crc32(bytes, seed)

/** Of parts laid end to end. */
export const crc32OfParts = (parts: ReadonlyArray<Uint8Array>): number => {
  let crc = 0
  for (const part of parts) crc = crc32(part, crc)
  return crc
}

const GOLDEN = 0x9e3779b97f4a7c15n

/** The finaliser of SplitMix64 (Steele, Lea, Flood 2014; variant 13 of Stafford's mixers): a bijection of 64 bits. */
const mix64 = (value: bigint): bigint => {
  let z = BigInt.asUintN(64, value)
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n)
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn)
  return z ^ (z >> 31n)
}

/**
 * The next value of a chain of 64 bits: depends on `previous`, on every part, on their order and on how many there
 * are. A part is an integer taken modulo 2^64; a number that is not exact is a bug and throws. About 1 us for four parts.
 */
export const chainHash = (previous: bigint, ...parts: ReadonlyArray<number | bigint>): bigint => {
  let hash = mix64(previous + GOLDEN * BigInt(parts.length + 1))
  for (const part of parts) {
    if (typeof part === "number" && !Number.isSafeInteger(part)) throw new RangeError(`not an exact integer: ${part}`)
    hash = mix64((hash ^ BigInt.asUintN(64, BigInt(part))) + GOLDEN)
  }
  return hash
}

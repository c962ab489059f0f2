/**
 * Which keys a segment may hold: a blocked Bloom filter (Putze, Sanders, Singler 2007), one block of 64 bytes per
 * question, so one cache miss. It may say yes for a key that is not there (about 1 in 80); it never says no for one that is.
 *
 * About 10 bits and 6 hashes a key. All comes from the key's 32-bit hash, which its shard was chosen by too
 * (hash modulo shards), so the hash is mixed again before a block is chosen.
 */
import { hashAt, type KeyColumn } from "../protocols/keys.ts"
import { Reader, Writer } from "../protocols/wire.ts"
import { decoding, type FrameKind, frame, joined, unframe } from "./framed-file.ts"

export interface KeyFilter {
  /** How many keys it was made of. */
  readonly keys: number
  /** 16 words of 32 bits a block; none if there are no keys. */
  readonly words: Uint32Array
}

const BITS_PER_KEY = 10
const BLOCK_BITS = 512
const BLOCK_WORDS = BLOCK_BITS / 32
const kind: FrameKind = { magic: "ELANUSKF", version: 1, name: "key filter" }

export const makeKeyFilter = (keys: KeyColumn): KeyFilter => {
  const words = new Uint32Array(Math.ceil((keys.count * BITS_PER_KEY) / BLOCK_BITS) * BLOCK_WORDS)
  for (let row = 0; row < keys.count; row++) {
    const hash = hashAt(keys, row)
    const block = blockOf(words, hash)
    let bits = mix(hash ^ 0x3c6ef372)
    words[block + ((bits >>> 5) & 15)]! |= 1 << (bits & 31)
    words[block + ((bits >>> 14) & 15)]! |= 1 << ((bits >>> 9) & 31)
    words[block + ((bits >>> 23) & 15)]! |= 1 << ((bits >>> 18) & 31)
    bits = mix(hash ^ 0xdaa66d2b)
    words[block + ((bits >>> 5) & 15)]! |= 1 << (bits & 31)
    words[block + ((bits >>> 14) & 15)]! |= 1 << ((bits >>> 9) & 31)
    words[block + ((bits >>> 23) & 15)]! |= 1 << ((bits >>> 18) & 31)
  }
  return { keys: keys.count, words }
}

/** False: the key is certainly not there. `hash` is that of protocols/keys.ts. */
export const mayHold = (filter: KeyFilter, hash: number): boolean => {
  const { words } = filter
  if (words.length === 0) return false
  const block = blockOf(words, hash)
  const a = mix(hash ^ 0x3c6ef372)
  if (((words[block + ((a >>> 5) & 15)]! >>> (a & 31)) & 1) === 0) return false
  if (((words[block + ((a >>> 14) & 15)]! >>> ((a >>> 9) & 31)) & 1) === 0) return false
  if (((words[block + ((a >>> 23) & 15)]! >>> ((a >>> 18) & 31)) & 1) === 0) return false
  const b = mix(hash ^ 0xdaa66d2b)
  if (((words[block + ((b >>> 5) & 15)]! >>> (b & 31)) & 1) === 0) return false
  if (((words[block + ((b >>> 14) & 15)]! >>> ((b >>> 9) & 31)) & 1) === 0) return false
  return ((words[block + ((b >>> 23) & 15)]! >>> ((b >>> 18) & 31)) & 1) === 1
}

/** The first word of the hash's block: multiply and shift instead of a division (exact in a float below 2^21 blocks). */
const blockOf = (words: Uint32Array, hash: number): number =>
  Math.floor((mix(hash ^ 0x9e3779b9) * (words.length / BLOCK_WORDS)) / 0x1_0000_0000) * BLOCK_WORDS

/** The finaliser "lowbias32" (Wellons 2018): not the one that made the hash, so that its structure is not undone. */
const mix = (value: number): number => {
  let h = value | 0
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d)
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b)
  return (h ^ (h >>> 16)) >>> 0
}

export const encodeKeyFilter = (filter: KeyFilter): Uint8Array<ArrayBuffer> =>
  joined(frame(kind, [new Writer(64 + filter.words.byteLength).count(filter.keys).block(filter.words).finish()]))

/** Throws StorageError: "damaged", or "unfit" for a newer version. */
export const decodeKeyFilter = (bytes: Uint8Array): KeyFilter => {
  const { body } = unframe(kind, bytes)
  return decoding(kind, () => {
    const reader = new Reader(body)
    const keys = reader.count()
    const words = reader.u32s()
    if (words.length % BLOCK_WORDS !== 0) throw new RangeError(`${words.length} words are no blocks`)
    return { keys, words }
  })
}

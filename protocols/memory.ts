/**
 * Memory for what lives as long as one message: from Node's pool, not cleared, which costs a tenth of an array of its
 * own. The only file of the protocols that names Buffer. Whoever takes from here writes every byte before it is read,
 * and keeps none of it for long: a small array holds on to a whole slab.
 */

/** Not cleared: a Writer writes every byte that it gives away. Small ones share Node's pool, which costs a tenth. */
export const allocate = (size: number): Uint8Array => {
  const { buffer, byteOffset } = Buffer.allocUnsafe(size)
  return new Uint8Array(buffer, byteOffset, size)
}

/**
 * Arrays for one answer. What they hold at first is anything. An array of its own memory costs ten times as much, and
 * a view of a tiny one even more.
 */
export const shortLived = {
  u32s: (length: number): Uint32Array => {
    const { buffer, byteOffset } = Buffer.allocUnsafe(length * 4)
    return new Uint32Array(buffer, byteOffset, length)
  },
  f64s: (length: number): Float64Array => {
    const { buffer, byteOffset } = Buffer.allocUnsafe(length * 8)
    return new Float64Array(buffer, byteOffset, length)
  },
  i64s: (length: number): BigInt64Array => {
    const { buffer, byteOffset } = Buffer.allocUnsafe(length * 8)
    return new BigInt64Array(buffer, byteOffset, length)
  }
}

/**
 * A point in the cluster's time: 64 bits, milliseconds since 1970 in the upper 46 and a counter in the lower 18.
 * Only the coordinator's oracle makes them (protocols/README.md, section 3). On the wire outside: a decimal string.
 */
export type Timestamp = bigint

export const COUNTER_BITS = 18n
export const TIMESTAMP_ZERO: Timestamp = 0n
/** Above every timestamp that there will be. */
export const TIMESTAMP_MAX: Timestamp = (1n << 63n) - 1n

export const fromMillis = (ms: number): Timestamp => BigInt(Math.floor(ms)) << COUNTER_BITS
export const toMillis = (ts: Timestamp): number => Number(ts >> COUNTER_BITS)

export const later = (a: Timestamp, b: Timestamp): Timestamp => (a > b ? a : b)

/** Reads what a client sent; undefined if it is not one. */
export const parseTimestamp = (text: string | number): Timestamp | undefined => {
  if (typeof text === "number") return Number.isSafeInteger(text) && text >= 0 ? BigInt(text) : undefined
  if (!/^\d{1,19}$/.test(text)) return undefined
  const value = BigInt(text)
  return value <= TIMESTAMP_MAX ? value : undefined
}

/** 64 bits of chance, from the port: an identity that nobody else has. */
import { Effect, Random } from "effect"

export const nonce = Effect.map(
  Effect.all([Random.nextIntBetween(0, 0xffff_ffff), Random.nextIntBetween(0, 0xffff_ffff)]),
  ([high, low]) => (BigInt(high) << 32n) | BigInt(low)
)

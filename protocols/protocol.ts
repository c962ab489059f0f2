/**
 * How anything that roles say to each other is declared and addressed: a protocol is a name and its calls, a call
 * is the codec of what is asked and of what is answered. Errors are always an ElanusError, of the table in errors.ts.
 */
import type { Schema } from "effect"
import type { ElanusError } from "./errors.ts"
import { type ErrorCode, errorKinds, failure } from "./errors.ts"
import { type Codec, Reader, schemaCodec, Writer } from "./wire.ts"

export interface Call<P, S> {
  readonly payload: Codec<P>
  readonly success: Codec<S>
}

export interface Protocol<C extends { readonly [name: string]: Call<any, any> }> {
  readonly name: string
  readonly calls: C
}

export type PayloadOf<K> = K extends Call<infer P, any> ? P : never
export type SuccessOf<K> = K extends Call<any, infer S> ? S : never

/** A call whose messages a Schema describes. */
export const call = <P, PI, S, SI>(payload: Schema.Codec<P, PI>, success: Schema.Codec<S, SI>): Call<P, S> => ({
  payload: schemaCodec(payload),
  success: schemaCodec(success)
})

/** A call on the hot path, with codecs of its own. */
export const hotCall = <P, S>(payload: Codec<P>, success: Codec<S>): Call<P, S> => ({ payload, success })

export const protocol = <const C extends { readonly [name: string]: Call<any, any> }>(
  name: string,
  calls: C
): Protocol<C> => ({ name, calls })

/** Roles talk below `elanus.<cluster>.i1`, clients below `elanus.v1`: so a cluster may not be called "v1". */
export const roleSubject = (cluster: string, address: string, protocolName: string, callName: string): string =>
  `elanus.${cluster}.i1.${address}.${protocolName}.${callName}`

const OK = 0
const FAILED = 1

/** An answer: one byte that says which, padding to 8, then the value or the error. OK is the zero that `room` is. */
export const encodeAnswer = <A>(codec: Codec<A>, value: A): Uint8Array => codec.encode(value, 8)

export const encodeFailure = (error: ElanusError): Uint8Array =>
  new Writer(64 + error.reason.length).u8(FAILED).align().text(error.code).text(error.reason).finish()

/** The value's bytes, or the error. */
export const decodeAnswer = (bytes: Uint8Array): Uint8Array | ElanusError => {
  if (bytes.length < 8) return failure("internal", "an answer cut short")
  if (bytes[0] === OK) return bytes.subarray(8)
  const reader = new Reader(bytes.subarray(8))
  const code = reader.text()
  const reason = reader.text()
  return failure(Object.hasOwn(errorKinds, code) ? (code as ErrorCode) : "internal", reason)
}

/**
 * Protocols over the bus: serving one, and calling one at an address. A call ends in its value or an ElanusError;
 * "ambiguous" where the request may have been carried out.
 */
import { Effect, Exit, type Scope } from "effect"
import { ElanusError, failure } from "../protocols/errors.ts"
import { limits } from "../protocols/limits.ts"
import {
  type Call,
  decodeAnswer,
  encodeAnswer,
  encodeFailure,
  type PayloadOf,
  type Protocol,
  roleSubject,
  type SuccessOf
} from "../protocols/protocol.ts"
import { Bus, type BusError } from "./bus.ts"
import { Node } from "./node.ts"

type Calls = { readonly [name: string]: Call<any, any> }

export type Handlers<C extends Calls> = {
  readonly [K in keyof C]: (payload: PayloadOf<C[K]>) => Effect.Effect<SuccessOf<C[K]>, ElanusError>
}

const OVERLOADED = { data: encodeFailure(failure("overloaded", "too many requests at once")) }

/** Answers every call of the protocol at `address`, until the scope closes. */
export const serve = Effect.fnUntraced(function* <C extends Calls>(
  protocol: Protocol<C>,
  address: string,
  handlers: Handlers<C>
): Effect.fn.Return<void, BusError, Bus | Node | Scope.Scope> {
  const bus = yield* Bus
  const { cluster } = yield* Node
  for (const name of Object.keys(protocol.calls)) {
    const { payload, success } = protocol.calls[name]!
    const handler = handlers[name]!
    const fail = (error: ElanusError) => Effect.succeed({ data: encodeFailure(error) })
    yield* bus.serve(roleSubject(cluster, address, protocol.name, name), { overloaded: OVERLOADED }, (message) => {
      let request: unknown
      try {
        request = payload.decode(message.data)
      } catch (cause) {
        return fail(failure("bad-request", `${protocol.name}.${name}: ${String(cause)}`))
      }
      const handling = handler(request as never)
      // What needs no wait needs no fiber either.
      if (Exit.isExit(handling) && handling._tag === "Success") {
        return Effect.succeed({ data: encodeAnswer(success, handling.value) })
      }
      return Effect.matchEffect(handling, {
        onSuccess: (value) => Effect.succeed({ data: encodeAnswer(success, value) }),
        onFailure: fail
      })
    })
  }
})

/** What a request without a reply means to who asked. */
export const ofBus = (error: BusError, what: string): ElanusError => {
  switch (error.reason) {
    case "nobody":
      return failure("unavailable", `nobody answers ${what}`)
    case "disconnected":
      return failure("disconnected", `no connection for ${what}: ${error.detail}`)
    case "timeout":
      return failure("ambiguous", `${what}: ${error.detail}`)
    case "too-large":
      return failure("too-large", `${what}: ${error.detail}`)
    case "denied":
      return failure("unfit", `${what}: ${error.detail}`)
  }
}

export interface Remote<C extends Calls> {
  readonly call: <K extends keyof C & string>(
    address: string,
    name: K,
    payload: PayloadOf<C[K]>,
    timeoutMs: number
  ) => Effect.Effect<SuccessOf<C[K]>, ElanusError>
}

/** The protocol's calls at any address. */
export const remote = Effect.fnUntraced(function* <C extends Calls>(
  protocol: Protocol<C>
): Effect.fn.Return<Remote<C>, never, Bus | Node> {
  const bus = yield* Bus
  const { cluster } = yield* Node
  /** By name and address: a subject that is put together anew is also hashed anew. */
  const subjects = new Map<string, Map<string, string>>()
  const subjectOf = (name: string, address: string): string => {
    let mine = subjects.get(name)
    if (mine === undefined) subjects.set(name, (mine = new Map()))
    let subject = mine.get(address)
    if (subject === undefined) {
      if (mine.size >= limits.addressesMax) mine.clear()
      mine.set(address, (subject = roleSubject(cluster, address, protocol.name, name)))
    }
    return subject
  }
  return {
    call: (address, name, payload, timeoutMs) => {
      const codec = protocol.calls[name]!
      return bus.request(subjectOf(name, address), codec.payload.encode(payload), { timeoutMs }).pipe(
        Effect.matchEffect({
          onFailure: (error) => Effect.fail(ofBus(error, `${protocol.name}.${name}`)),
          onSuccess: (reply) => {
            const answer = decodeAnswer(reply.data)
            return answer instanceof ElanusError ? Effect.fail(answer) : Effect.succeed(codec.success.decode(answer))
          }
        })
      )
    }
  }
})

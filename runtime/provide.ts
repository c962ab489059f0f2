/**
 * Gives later effects the services that are there now; but never the scope, or what they acquire would outlive
 * whoever runs them.
 */
import { Context, Effect, Scope } from "effect"

export const provider = <R>(): Effect.Effect<
  <A, E, S>(effect: Effect.Effect<A, E, S>) => Effect.Effect<A, E, Exclude<S, R>>,
  never,
  R
> =>
  Effect.map(Effect.context<R>(), (context) => {
    const services = Context.omit(Scope.Scope)(context as Context.Context<R | Scope.Scope>) as Context.Context<R>
    return (effect) => Effect.provideContext(effect, services)
  })

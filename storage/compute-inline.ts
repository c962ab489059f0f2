/**
 * Compute in the thread that asks: for simulators and tests, which want every step in their own order. It must never
 * serve a node, whose event loop would stand still meanwhile.
 */
import { Effect, Layer } from "effect"
import { Compute, ComputeError } from "./compute.ts"
import { computeTasks, type ComputeTasks, taskFault } from "./compute-tasks.ts"

export const layerComputeInline: Layer.Layer<Compute> = Layer.succeed(Compute)(
  Compute.of({
    run: <K extends keyof ComputeTasks>(task: K, input: ComputeTasks[K]["input"]) =>
      Effect.try({
        try: () => computeTasks[task](input),
        catch: (cause) => new ComputeError({ fault: "task", ...taskFault(cause) })
      })
  })
)

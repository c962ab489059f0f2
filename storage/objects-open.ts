/**
 * The object store that a URL names. A composition root's helper: nothing below the roots may care which store it is.
 */
import { Effect, Layer } from "effect"
import { Objects } from "./objects.ts"
import { layerObjectsDirectory } from "./objects-directory.ts"
import { layerObjectsS3 } from "./objects-s3.ts"
import { readObjectsUrl } from "./objects-url.ts"
import { StorageError } from "./outcome.ts"

export const openObjects = (url: string): Layer.Layer<Objects, StorageError> => {
  const place = readObjectsUrl(url)
  if (typeof place === "string") {
    return Layer.effect(Objects, Effect.fail(new StorageError({ reason: "unfit", detail: place })))
  }
  return place._tag === "Directory" ? layerObjectsDirectory(place.path) : layerObjectsS3(place)
}

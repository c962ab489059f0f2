/**
 * The object store that a URL names: `dir:PATH`, or `s3://BUCKET/prefix?endpoint=...&region=...`. A composition root's
 * helper: nothing below the roots may care which store it is.
 */
import { Effect, Layer } from "effect"
import { Objects } from "./objects.ts"
import { layerObjectsDirectory } from "./objects-directory.ts"
import { layerObjectsS3 } from "./objects-s3.ts"
import { StorageError } from "./outcome.ts"

export const openObjects = (url: string): Layer.Layer<Objects, StorageError> => {
  const unfit = (detail: string) => Layer.effect(Objects, Effect.fail(new StorageError({ reason: "unfit", detail })))
  if (url.startsWith("dir:")) {
    const path = url.slice("dir:".length)
    return path === "" ? unfit("dir: needs a path") : layerObjectsDirectory(path)
  }
  if (!url.startsWith("s3://") || !URL.canParse(url)) {
    return unfit(`objects are at dir:PATH or s3://BUCKET/prefix?endpoint=...&region=..., not at ${url}`)
  }
  const { host, pathname, searchParams } = new URL(url)
  if (host === "") return unfit(`no bucket in ${url}`)
  const unknown = [...searchParams.keys()].find((name) => name !== "endpoint" && name !== "region")
  if (unknown !== undefined) return unfit(`no option ${unknown} of an object store`)
  if (/%(?![0-9A-Fa-f]{2})/.test(pathname)) return unfit(`a lone % in the prefix of ${url}`)
  const prefix = decodeURIComponent(pathname.slice(1))
  return layerObjectsS3({
    bucket: host,
    endpoint: searchParams.get("endpoint") ?? undefined,
    region: searchParams.get("region") ?? undefined,
    // A prefix is a folder, whether or not it was written as one.
    prefix: prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`
  })
}

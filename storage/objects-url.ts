/** What a URL says of the place of an object store, read before any store is touched: its driver need not be loaded. */

/** As `dir:PATH`, or `s3://BUCKET/prefix?endpoint=...&region=...` name it. */
export type ObjectsPlace =
  | { readonly _tag: "Directory"; readonly path: string }
  | {
      readonly _tag: "S3"
      readonly bucket: string
      readonly endpoint: string | undefined
      readonly region: string | undefined
      /** A folder, or nothing. */
      readonly prefix: string
    }

/** The place, or what is wrong with the URL. */
export const readObjectsUrl = (url: string): ObjectsPlace | string => {
  if (url.startsWith("dir:")) {
    const path = url.slice("dir:".length)
    return path === "" ? "dir: needs a path" : { _tag: "Directory", path }
  }
  if (!url.startsWith("s3://") || !URL.canParse(url)) {
    return `objects are at dir:PATH or s3://BUCKET/prefix?endpoint=...&region=..., not at ${url}`
  }
  const { host, pathname, searchParams } = new URL(url)
  if (host === "") return `no bucket in ${url}`
  const unknown = [...searchParams.keys()].find((name) => name !== "endpoint" && name !== "region")
  if (unknown !== undefined) return `no option ${unknown} of an object store`
  if (/%(?![0-9A-Fa-f]{2})/.test(pathname)) return `a lone % in the prefix of ${url}`
  const prefix = decodeURIComponent(pathname.slice(1))
  return {
    _tag: "S3",
    bucket: host,
    endpoint: searchParams.get("endpoint") ?? undefined,
    region: searchParams.get("region") ?? undefined,
    // A prefix is a folder, whether or not it was written as one.
    prefix: prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`
  }
}

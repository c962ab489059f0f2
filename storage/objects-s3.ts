/**
 * Objects in a bucket of S3 or of anything that speaks it, conditional writes included: a store that ignores
 * `If-None-Match` would let a name be written twice, so opening one tries it, and refuses such a store.
 * It never retries (the SDK's own retries are off) and never calls a put done unless the store said so.
 *
 * Keys are stored as they are, but for what XML, file gateways or the SDK's URLs cannot carry: control characters and `%`
 * become `%xx`, a segment of nothing is `%`, and one of dots only has its first dot escaped. Keys with such are listed in
 * the order of the stored names, which for them alone may not be that of the keys.
 *
 * Credentials come from the environment, as the SDK finds them. One put is one request: 5 GiB at most.
 */
import { randomUUID } from "node:crypto"
import { Readable } from "node:stream"
import { setImmediate } from "node:timers/promises"
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client
} from "@aws-sdk/client-s3"
import { Effect, Layer, Option, Stream } from "effect"
import { crc32 } from "../protocols/checksum.ts"
import { limits } from "../protocols/limits.ts"
import { utf8 } from "../protocols/wire.ts"
import { type ObjectInfo, Objects } from "./objects.ts"
import { ambiguous, done, type Outcome, refused, StorageError, unavailable } from "./outcome.ts"

export interface S3Options {
  readonly bucket: string
  /** Absent: Amazon's own for the region. */
  readonly endpoint?: string | undefined
  /** Else AWS_REGION, else "us-east-1". */
  readonly region?: string | undefined
  /** Put in front of every key. */
  readonly prefix?: string | undefined
}

/** Names of the trial of conditional writes, removed at once; a crash may leave one, and no list shows it. */
const PROBE = ".elanus-probe-"

export const layerObjectsS3 = (options: S3Options): Layer.Layer<Objects, StorageError> =>
  Layer.effect(
    Objects,
    Effect.gen(function* () {
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => clientOf(options)),
        (held) => Effect.sync(() => held.destroy())
      )
      const store = new Bucket(client, options.bucket, options.prefix ?? "")
      yield* store.read((signal) => store.check(signal))
      return Objects.of({
        put: (key, parts) => store.write((signal) => store.put(key, parts, signal)),
        get: (key, range) => store.read((signal) => store.get(key, range, signal)),
        head: (key) => store.read((signal) => store.head(key, signal)),
        list: (prefix) => Stream.paginate(undefined as string | undefined, (token) => store.page(prefix, token)),
        remove: (key) => store.write((signal) => store.remove(key, signal))
      })
    })
  )

const clientOf = (options: S3Options): S3Client =>
  new S3Client({
    region: options.region ?? process.env["AWS_REGION"] ?? "us-east-1",
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint, forcePathStyle: true }),
    maxAttempts: 1,
    // Ours are computed natively and over the parts; the SDK's would be a second pass.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    // It would warn on the console of every put that was refused.
    logger: { trace: ignore, debug: ignore, info: ignore, warn: ignore, error: ignore }
  })

const ignore = () => {}

/** The requests themselves, as promises; `read` and `write` give each its deadline and its meaning. */
class Bucket {
  private readonly client: S3Client
  private readonly bucket: string
  private readonly prefix: string

  constructor(client: S3Client, bucket: string, prefix: string) {
    this.client = client
    this.bucket = bucket
    this.prefix = prefix
  }

  read<A>(run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, StorageError> {
    const late = new StorageError({ reason: "unavailable", detail: "the object store did not answer in time" })
    return Effect.tryPromise({ try: run, catch: (cause) => readFault(this.bucket, cause) }).pipe(
      Effect.timeoutOrElse({ duration: limits.objectTimeoutMs, orElse: () => Effect.fail(late) })
    )
  }

  write(run: (signal: AbortSignal) => Promise<Outcome<void>>): Effect.Effect<Outcome<void>> {
    const late = ambiguous("the object store did not answer in time")
    return Effect.tryPromise({ try: run, catch: (cause) => writeFault(this.bucket, cause) }).pipe(
      Effect.catch((outcome) => Effect.succeed(outcome)),
      Effect.timeoutOrElse({ duration: limits.objectTimeoutMs, orElse: () => Effect.succeed(late) })
    )
  }

  /** The bucket is there, and a name that is taken stays as it is. Without the right to write there is nothing to try. */
  async check(abortSignal: AbortSignal): Promise<void> {
    await this.client.send(new HeadBucketCommand({ Bucket: this.bucket }), { abortSignal })
    const Key = `${this.prefix}${PROBE}${randomUUID()}`
    const first = await this.putRaw(Key, [utf8.encode("1")], abortSignal).catch((cause) =>
      writeFault(this.bucket, cause)
    )
    if (first._tag === "Unavailable") return
    const second = await this.putRaw(Key, [utf8.encode("2")], abortSignal).catch((cause) =>
      writeFault(this.bucket, cause)
    )
    await this.client.send(new DeleteObjectCommand({ Bucket: this.bucket, Key }), { abortSignal })
    if (first._tag !== "Done" || second._tag !== "Refused" || second.reason !== "conflict") {
      const detail = `bucket ${this.bucket}: the store does not honour If-None-Match: ${first._tag}, then ${second._tag}`
      throw new StorageError({ reason: "unfit", detail })
    }
  }

  async put(key: string, parts: ReadonlyArray<Uint8Array>, abortSignal: AbortSignal): Promise<Outcome<void>> {
    const Key = this.nameOf(key)
    return Key === undefined ? refused("invalid", `no key of an object: ${key}`) : this.putRaw(Key, parts, abortSignal)
  }

  private async putRaw(
    Key: string,
    parts: ReadonlyArray<Uint8Array>,
    abortSignal: AbortSignal
  ): Promise<Outcome<void>> {
    const checksum = Buffer.alloc(4)
    checksum.writeUInt32BE(await checksumOf(parts))
    const command = new PutObjectCommand({
      Bucket: this.bucket,
      Key,
      // As a stream, so that nothing joins the parts and nothing hashes them with SHA-256 on the event loop.
      Body: Readable.from(parts.filter((part) => part.length > 0)),
      ContentLength: parts.reduce((sum, part) => sum + part.length, 0),
      ChecksumCRC32: checksum.toString("base64"),
      IfNoneMatch: "*"
    })
    await this.client.send(command, { abortSignal })
    return done(undefined)
  }

  async get(
    key: string,
    range: { readonly offset: number; readonly length: number } | undefined,
    abortSignal: AbortSignal
  ): Promise<Uint8Array> {
    if (range !== undefined && range.length <= 0) {
      if (Option.isSome(await this.head(key, abortSignal))) return new Uint8Array(0)
      throw new StorageError({ reason: "missing", detail: `no object ${key}` })
    }
    const Range = range === undefined ? undefined : `bytes=${range.offset}-${range.offset + range.length - 1}`
    const command = new GetObjectCommand({ Bucket: this.bucket, Key: this.existing(key), Range })
    try {
      const answer = await this.client.send(command, { abortSignal })
      return await collect(key, answer.Body as Readable | undefined, answer.ContentLength)
    } catch (cause) {
      if (statusOf(cause) === 416) return new Uint8Array(0) // the range begins at or past the end
      throw cause
    }
  }

  async head(key: string, abortSignal: AbortSignal): Promise<Option.Option<ObjectInfo>> {
    try {
      return Option.some({ key, bytes: await this.headRaw(key, abortSignal) })
    } catch (cause) {
      if (cause instanceof StorageError && cause.reason === "missing") return Option.none()
      if (statusOf(cause) !== 404) throw cause
      // A HEAD has no body to tell a missing object from a missing bucket.
      await this.client.send(new HeadBucketCommand({ Bucket: this.bucket }), { abortSignal })
      return Option.none()
    }
  }

  private async headRaw(key: string, abortSignal: AbortSignal): Promise<number> {
    const command = new HeadObjectCommand({ Bucket: this.bucket, Key: this.existing(key) })
    return (await this.client.send(command, { abortSignal })).ContentLength ?? 0
  }

  page(prefix: string, token: string | undefined) {
    return this.read(async (abortSignal) => {
      const Prefix = this.prefix + storedPrefix(prefix)
      const command = new ListObjectsV2Command({ Bucket: this.bucket, Prefix, ContinuationToken: token })
      const answer = await this.client.send(command, { abortSignal })
      const found: Array<ObjectInfo> = []
      for (const { Key, Size } of answer.Contents ?? []) {
        const stored = Key!.slice(this.prefix.length)
        const key = keyOf(stored)
        if (!stored.startsWith(PROBE) && key !== undefined && key.startsWith(prefix))
          found.push({ key, bytes: Size ?? 0 })
      }
      return [found, Option.fromNullishOr(answer.NextContinuationToken)] as const
    })
  }

  async remove(key: string, abortSignal: AbortSignal): Promise<Outcome<void>> {
    const Key = this.nameOf(key)
    if (Key !== undefined)
      await this.client.send(new DeleteObjectCommand({ Bucket: this.bucket, Key }), { abortSignal })
    return done(undefined)
  }

  private nameOf(key: string): string | undefined {
    const bytes = utf8.encode(key)
    // A lone surrogate has no UTF-8, so the key could not be read back.
    if (bytes.length === 0 || utf8.decode(bytes) !== key) return undefined
    const name = this.prefix + storedName(key)
    return utf8.encode(name).length > limits.objectKeyBytesMax ? undefined : name
  }

  private existing(key: string): string {
    const name = this.nameOf(key)
    if (name === undefined) throw new StorageError({ reason: "missing", detail: `no key of an object: ${key}` })
    return name
  }
}

/** With turns for the event loop: 64 MiB at once would stop it for 17 ms. */
const checksumOf = async (parts: ReadonlyArray<Uint8Array>): Promise<number> => {
  let crc = 0
  let since = 0
  for (const part of parts) {
    for (let at = 0; at < part.length; at += limits.sliceBytes) {
      const slice = part.subarray(at, at + limits.sliceBytes)
      if (since > 0 && since + slice.length > limits.sliceBytes) {
        await setImmediate()
        since = 0
      }
      crc = crc32(slice, crc)
      since += slice.length
    }
  }
  return crc
}

/** The answer's body in one buffer of its own, of the length that the store announced. */
const collect = async (key: string, body: Readable | undefined, length: number | undefined): Promise<Uint8Array> => {
  const bytes = new Uint8Array(Buffer.allocUnsafeSlow(length ?? 0).buffer) // not filled with zeros first
  let at = 0
  for await (const chunk of body ?? []) {
    const part = chunk as Uint8Array
    if (at + part.length > bytes.length) break
    bytes.set(part, at)
    at += part.length
  }
  if (length === undefined || at !== length) {
    throw new StorageError({ reason: "unavailable", detail: `object ${key} was cut off at ${at} of ${length} bytes` })
  }
  return bytes
}

const escapeCharacter = (character: string) => `%${character.charCodeAt(0).toString(16).padStart(2, "0")}`

const escapeText = (text: string) => text.replace(/[\u0000-\u001f\u007f%]/g, escapeCharacter)

const storedSegment = (segment: string): string => {
  if (segment === "") return "%"
  return /^\.+$/.test(segment) ? `%2e${segment.slice(1)}` : escapeText(segment)
}

const storedName = (key: string): string => key.split("/").map(storedSegment).join("/")

/** The longest stored text that every key of this prefix begins with: its last segment may go on, so dots alone say nothing. */
const storedPrefix = (prefix: string): string => {
  const segments = prefix.split("/")
  const last = segments.pop()!
  const above = segments.map((segment) => `${storedSegment(segment)}/`).join("")
  return /^\.*$/.test(last) ? above : above + escapeText(last)
}

/** Nothing for a name that none of our keys has: somebody else's object. */
const keyOf = (stored: string): string | undefined => {
  const segments = stored
    .split("/")
    .map((segment) =>
      segment === "%"
        ? ""
        : segment.replace(/%([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    )
  const key = segments.join("/")
  return storedName(key) === stored ? key : undefined
}

interface Failure {
  readonly name?: string
  readonly code?: string
  readonly message?: string
  readonly $metadata?: { readonly httpStatusCode?: number }
}

const statusOf = (cause: unknown): number | undefined => (cause as Failure | undefined)?.$metadata?.httpStatusCode

const describe = (cause: unknown): string => {
  const { name, code, message } = (cause ?? {}) as Failure
  const status = statusOf(cause)
  return [name ?? "Error", code, status, message].filter((part) => part !== undefined && part !== "").join(" ")
}

const readFault = (bucket: string, cause: unknown): StorageError => {
  if (cause instanceof StorageError) return cause
  const { name } = (cause ?? {}) as Failure
  const status = statusOf(cause)
  if (name === "NoSuchKey") return new StorageError({ reason: "missing", detail: describe(cause) })
  if (name === "NoSuchBucket" || status === 404) {
    return new StorageError({ reason: "unfit", detail: `there is no bucket ${bucket} (${describe(cause)})` })
  }
  if (status === 403 || status === 401) {
    return new StorageError({ reason: "unfit", detail: `bucket ${bucket} may not be used: ${describe(cause)}` })
  }
  return new StorageError({ reason: "unavailable", detail: describe(cause) })
}

/** Errors of a connection that never was. */
const NOT_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"])

/** What a failed write became. Without an answer, or with one of a store in trouble, nobody knows. */
const writeFault = (bucket: string, cause: unknown): Outcome<never> => {
  const failure = (cause ?? {}) as Failure
  const status = statusOf(cause)
  const detail = `bucket ${bucket}: ${describe(cause)}`
  if (status === 412) return refused("conflict", detail)
  if (failure.name === "QuotaExceeded" || failure.name === "XMinioStorageFull" || status === 507)
    return refused("full", detail)
  if (failure.name === "SlowDown") return unavailable(detail)
  // 409: two conditional puts at once, this one lost before it wrote. 4xx: the store looked and did not.
  if (status === 409 || status === 401 || status === 403 || status === 404 || status === 429) return unavailable(detail)
  if (status !== undefined && status >= 400 && status < 500 && status !== 408) return refused("invalid", detail)
  if (status === 501) return refused("invalid", detail)
  const notSent = NOT_SENT.has(failure.code ?? "") || failure.name === "CredentialsProviderError"
  return notSent ? unavailable(detail) : ambiguous(detail)
}

/** The flags of a process of a cluster, and what they amount to. */
import { type Command, Flag } from "effect/cli"
import { readObjectsUrl } from "../../storage/objects-url.ts"
import type { Settings } from "../node.ts"
import { UsageError } from "./exit.ts"
import { bytes, credentialFlags, DEFAULT_PORT, integerFrom, json, maybe, text } from "./flags.ts"

const DEFAULT_DATA = "elanus-data"
const roleNames = ["coordinator", "streaming-node", "query-node", "data-node", "proxy"] as const

export const startFlags = {
  role: Flag.Literals("role", roleNames).pipe(
    Flag.withDescription("Play this role; may be given again; all if not given"),
    Flag.atLeast(0)
  ),
  nats: text("nats", "URL", "Servers of NATS, with commas between; if not given, starts one of its own"),
  port: Flag.Int("port").pipe(
    Flag.withDescription(`Of its own nats-server; ${DEFAULT_PORT} if not given`),
    Flag.withDefault(DEFAULT_PORT)
  ),
  objects: text(
    "objects",
    "PLACE",
    "dir:PATH or s3://BUCKET/PREFIX?endpoint=...&region=...; dir:DATA/objects if not given"
  ),
  data: Flag.String("data").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription(`Where this process keeps what it keeps; ${DEFAULT_DATA} if not given`),
    Flag.withDefault(DEFAULT_DATA)
  ),
  cluster: Flag.String("cluster").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("Several clusters may share one NATS, but not their clients; main if not given"),
    Flag.withDefault("main")
  ),
  replicas: Flag.Int("replicas").pipe(
    Flag.withDescription("Of log and metadata, on as many servers of NATS; 1 if not given"),
    Flag.withDefault(1)
  ),
  channelBytes: bytes("16MiB", "channel-bytes", "What each of the 16 channels of the log may hold; 8GiB if not given"),
  segmentBytes: bytes("64KiB", "segment-bytes", "A segment is sealed at so many bytes of vectors; 64MiB if not given"),
  segmentAgeMs: maybe(
    integerFrom(100, "segment-age-ms", "A segment is sealed after this time, 100 or more; 600000 if not given")
  ),
  indexRowsMin: maybe(integerFrom(1, "index-rows-min", "A segment of fewer rows gets no index; 1024 if not given")),
  loadedBytes: bytes("1MiB", "loaded-bytes", "Most bytes of segments that a query node holds; 16GiB if not given"),
  growingBytes: bytes("1MiB", "growing-bytes", "Most bytes of rows that only memory and log hold; 1GiB if not given"),
  leaseTtlMs: maybe(
    // What expires in JetStream lives for a second at least.
    integerFrom(
      1_000,
      "lease-ttl-ms",
      "A node that was not heard of for so long is gone, 1000 or more; 30000 if not given"
    )
  ),
  evidenceMs: maybe(
    integerFrom(100, "evidence-ms", "A node that nobody reaches for so long is gone, 100 or more; 2000 if not given")
  ),
  ...credentialFlags,
  json
}
export type StartFlags = Command.Command.Config.Infer<typeof startFlags>

export const checkStart = ({ cluster, objects, port, replicas }: StartFlags): void => {
  if (cluster === "v1") throw new UsageError('a cluster may not be called "v1": clients talk below that name')
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(cluster)) {
    throw new UsageError("--cluster is a name of at most 64 letters, digits, _ and -")
  }
  if (![1, 3, 5].includes(replicas)) throw new UsageError("--replicas is 1, 3 or 5")
  const place = objects === undefined ? undefined : readObjectsUrl(objects)
  if (typeof place === "string") throw new UsageError(`--objects: ${place}`)
  if (port < 1 || port > 65_535) throw new UsageError("--port is a number from 1 to 65535")
}

export const settingsOf = (flags: StartFlags): Partial<Settings> => {
  const given = {
    segmentBytesMax: flags.segmentBytes,
    segmentAgeMaxMs: flags.segmentAgeMs,
    indexRowsMin: flags.indexRowsMin,
    loadedBytesMax: flags.loadedBytes,
    growingBytesMax: flags.growingBytes,
    leaseTtlMs: flags.leaseTtlMs,
    evidenceMs: flags.evidenceMs
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

/** Every maximum in the system. What is not here has none, and that is a bug. Bytes, milliseconds and counts. */
export const limits = {
  // What a collection may be (the numbers are Milvus')
  dimensionMax: 32_768,
  shardsMax: 16,
  nameLengthMax: 255,
  keyLengthMax: 65_535,
  /** Of one row's dynamic fields, as JSON. */
  fieldsBytesMax: 65_536,
  collectionsMax: 65_536,

  // What a request may be
  /** Of limit and of limit + offset. */
  topKMax: 16_384,
  queriesMax: 16_384,
  keysPerRequestMax: 16_384,
  requestTimeoutMs: 10_000,
  requestTimeoutMaxMs: 600_000,
  handlersMax: 4_096,

  // The log. `pipelineDepth` is a constant of the format: a fence is one record longer (protocols/README.md, 1.5).
  channels: 16,
  pipelineDepth: 64,
  recordBytesMax: 512 * 1024,
  /** Kept free below the server's max_payload for headers and framing. */
  payloadMargin: 16 * 1024,
  appendTimeoutMs: 5_000,
  channelBytesMax: 8 * 1024 * 1024 * 1024,
  /** Rows are refused past this part of `channelBytesMax`; the rest is for fences and ticks. */
  channelFullAt: 0.8,
  channelFlushAt: 0.5,
  /** Waiting in front of one channel's writer. */
  writeQueueBytesMax: 64 * 1024 * 1024,
  /** Log bytes that a channel may hold before the shards that hold the oldest are flushed. */
  channelHeldBytesMax: 1024 * 1024 * 1024,

  // Segments
  segmentBytesMax: 64 * 1024 * 1024,
  segmentAgeMaxMs: 10 * 60_000,
  /** Rows of all shards of a node that are only in its memory. Past it, writes are refused. */
  growingBytesMax: 1024 * 1024 * 1024,
  /** A segment with fewer rows is scanned: an index would not be faster (Milvus' number). */
  indexRowsMin: 1_024,

  // Requests remembered
  dedupeAgeMs: 5 * 60_000,
  dedupeIdsMax: 1_000_000,

  // Metadata
  commitKeysMax: 1_000,
  commitBytesMax: 4 * 1024 * 1024,
  commitTimeoutMs: 5_000,
  /** Of a shard's manifest: it is one value, and must fit into a message. */
  manifestBytesMax: 512 * 1024,
  attemptsMax: 10_000,

  // Time
  oracleAheadMs: 20_000,
  /** Values left unused behind every T that a reader gets, for the owners that close it. */
  readerGap: 1_023,
  ticksPerSecondMax: 100,
  tickDelayMs: 5,

  // Liveness
  leaseTtlMs: 30_000,
  evidenceMs: 2_000,

  // Work off the event loop
  computeQueueMax: 256,
  /** Bytes of vectors scanned before the event loop gets its turn: about 4 ms. */
  sliceBytes: 16 * 1024 * 1024,

  // Query nodes
  loadedBytesMax: 16 * 1024 * 1024 * 1024,
  /** Keys that wait for a query node before they are sent without a query. */
  tailBytesMax: 256 * 1024,

  // Objects
  objectTimeoutMs: 60_000
} as const

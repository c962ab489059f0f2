/**
 * Every maximum in the system: sizes, queues, caches, ages, patience. What is not here has none, and that is a bug.
 * Bytes, milliseconds and counts. Paces (how often something looks, or tries again) stand where they are kept.
 */
export const limits = {
  // What a collection may be (the numbers are Milvus')
  dimensionMax: 32_768,
  shardsMax: 16,
  nameLengthMax: 255,
  keyLengthMax: 65_535,
  /** Of one row's dynamic fields, as JSON. */
  fieldsBytesMax: 65_536,
  /** Objects and arrays in each other: what reads or writes JSON has only so much of a stack. */
  fieldsDepthMax: 1_000,
  collectionsMax: 65_536,
  /** Of a row in the index, `M`. */
  neighboursMax: 2_048,
  efConstructionMax: 100_000,

  // What a request may be
  /** Of limit and of limit + offset. */
  topKMax: 16_384,
  queriesMax: 16_384,
  keysPerRequestMax: 16_384,
  efMax: 1_000_000,
  requestTimeoutMs: 10_000,
  requestTimeoutMaxMs: 600_000,
  handlersMax: 4_096,
  /** Parts of one large insert that a client has on their way. */
  insertsAtOnce: 16,
  /** One line or vector of a file: longer than any row can be. */
  inputPieceBytesMax: 16 * 1024 * 1024,

  // Patience with one of several who could answer: the request may take longer
  /** A try of a client at a proxy, of a proxy at an owner. Who hangs or died says nothing: its successor is asked. */
  tryTimeoutMs: 5_000,
  /** The same at a coordinator: it must not take the whole deadline from its successor. */
  coordinatorTryTimeoutMs: 3_000,
  /** Of a read at a time of an oracle that was deposed since: each is at a new one. */
  staleTriesMax: 10,
  /** Of a proxy for a name that it does not know, once the coordinator has said that it exists. */
  learnTimeoutMs: 2_000,
  /** Of a description for a timestamp; then it is answered without one. */
  dateTimeoutMs: 1_000,

  // The bus
  /** Of a message where no server says so: NATS' default, so that embedded and remote agree. */
  payloadBytesMax: 1024 * 1024,
  connectTimeoutMs: 5_000,
  subscribeTimeoutMs: 10_000,
  /** Parts that wait to be fetched, of all replies of one bus; and for how long. */
  replyPartsBytesMax: 256 * 1024 * 1024,
  replyPartsAgeMs: 30_000,
  /** Parts that are fetched at once: below what the server holds back for a connection (`max_pending`, 64 MiB). */
  replyPartsAtOnce: 4,
  /** Subjects whose servers are remembered. Past it (and past the next two), all are forgotten and looked up again. */
  routesMax: 16_384,
  /** Nodes whose subjects are remembered, for each protocol. */
  addressesMax: 1_024,
  /** Subjects of clients that a proxy has read. */
  targetsMax: 4_096,

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
  /** What a reader of JetStream asks for at once. It must hold a server's usual largest message; two wait in memory. */
  readerWindowBytes: 8 * 1024 * 1024,
  readerWindowMessages: 4_096,
  /** A reader that hears nothing for so long, not even a heartbeat, begins anew. */
  readerSilenceMs: 4_000,
  /** A reader that asks for nothing for so long is removed by the server: it died without a word. */
  readerIdleMs: 5 * 60_000,

  // Segments
  segmentBytesMax: 64 * 1024 * 1024,
  segmentAgeMaxMs: 10 * 60_000,
  /** Of one channel. */
  flushesAtOnce: 4,
  /** Rows of all shards of a node that are only in its memory. Past it, writes are refused. */
  growingBytesMax: 1024 * 1024 * 1024,
  /** A segment with fewer rows is scanned: an index would not be faster (Milvus' number). */
  indexRowsMin: 1_024,

  // Requests remembered
  dedupeAgeMs: 5 * 60_000,
  dedupeIdsMax: 1_000_000,
  /** What dates a new request is at most so old: well below `dedupeAgeMs`, so that it is not forgotten while tried. */
  requestDateAgeMs: 60_000,

  // Metadata
  commitKeysMax: 1_000,
  commitBytesMax: 4 * 1024 * 1024,
  commitTimeoutMs: 5_000,
  /** Of a shard's manifest: it is one value, and must fit into a message. */
  manifestBytesMax: 512 * 1024,
  attemptsMax: 10_000,
  /** In UTF-8. Escaped, it still fits into the subject of a message. */
  metaKeyBytesMax: 1_000,
  /** Changes that wait for one local watch; past it, the watch is made anew. */
  watchWaitingMax: 65_536,
  /** The marker of a key that went is kept so long, for watches to see. */
  markerTtlMs: 60_000,

  // Time
  oracleAheadMs: 20_000,
  /** Of a grant for the oracle's next window. */
  oracleExtendTimeoutMs: 5_000,
  /** Values left unused behind every T that a reader gets, for the owners that close it. */
  readerGap: 1_023,
  ticksPerSecondMax: 100,
  tickDelayMs: 5,

  // Liveness
  leaseTtlMs: 30_000,
  evidenceMs: 2_000,

  // Work off the event loop
  computeQueueMax: 256,
  /** How long a slow task may take to hear that it is to stop: the longest step of an engine is to write its file. */
  computeStopTimeoutMs: 10_000,
  /** Bytes of vectors scanned before the event loop gets its turn: about 4 ms. */
  sliceBytes: 16 * 1024 * 1024,

  // Jobs
  /** Of one job that failed by itself, before the coordinator gives it up. That a store was away does not count. */
  jobTriesMax: 5,
  /** Jobs that failed and whose reasons a data node keeps. */
  jobsRememberedMax: 256,

  // Query nodes
  /** Of a query node with what it is to load, before it says how far it is: below `requestTimeoutMs`. */
  loadPatienceMs: 5_000,
  loadedBytesMax: 16 * 1024 * 1024 * 1024,
  /** Keys that wait for a query node before they are sent without a query. */
  tailBytesMax: 256 * 1024,

  // Objects
  objectTimeoutMs: 60_000,
  /** In UTF-8, with a bucket's prefix: S3's number. A directory has it too, so that no key works in one place only. */
  objectKeyBytesMax: 1_024,
  /** A file that was not finished for so long is what a crash left. */
  temporaryAgeMs: 24 * 60 * 60_000
} as const

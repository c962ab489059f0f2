/** The library's interface: the same for a directory and for a cluster. Whatever fails throws an ElanusError. */
import type { Consistency } from "../../protocols/client.ts"
import type { ClusterStatus } from "../../protocols/coordinator.ts"
import type { Key, KeyType } from "../../protocols/keys.ts"
import type { Metric } from "../../protocols/metadata.ts"
import type { Fields } from "../../protocols/rows.ts"
import type { Timestamp } from "../../protocols/timestamp.ts"

export interface CollectionOptions {
  readonly dimension: number
  /** "COSINE" if absent. */
  readonly metric?: Metric
  /** "Int64" if absent. */
  readonly idType?: KeyType
  readonly idField?: string
  readonly vectorField?: string
  /** 1 to 16; 1 if absent. */
  readonly shards?: number
  readonly description?: string
  readonly index?: { readonly m?: number; readonly efConstruction?: number }
}

/** Rows as columns: the fast way in. `vectors` holds ids.length x dimension numbers. */
export interface Columns {
  readonly ids: BigInt64Array | ReadonlyArray<Key>
  readonly vectors: Float32Array
  readonly fields?: ReadonlyArray<Fields | undefined>
}

export interface RequestOptions {
  /** Milliseconds, for all that has to be asked; 10,000 if absent. Each part of a large insert may take as long. */
  readonly timeoutMs?: number
}

export interface ReadOptions extends RequestOptions {
  /** "Session" if absent: reads see what this connection has written and read before. */
  readonly consistency?: Consistency
  /** Exactly at this earlier answer's timestamp. */
  readonly at?: Timestamp
}

export interface SearchOptions extends ReadOptions {
  /** 10 if absent. */
  readonly limit?: number
  readonly offset?: number
  /** Names of fields, the vector field, or "*". */
  readonly outputFields?: ReadonlyArray<string>
  /** Candidates that the index keeps; the larger, the better the recall. */
  readonly ef?: number
}

export interface Row {
  readonly id: Key
  readonly fields: Fields
  /** If the vector field was asked for. */
  readonly vector?: Float32Array
}

export interface Hit extends Row {
  /** L2 (squared): smaller is nearer. IP and COSINE: larger is nearer. */
  readonly distance: number
}

export interface Written {
  readonly count: number
  readonly timestamp: Timestamp
}

export interface CollectionStats {
  readonly rowCount: number
  readonly growingRows: number
  readonly growingBytes: number
  readonly segments: number
  readonly indexedSegments: number
  readonly sealedBytes: number
  readonly shards: ReadonlyArray<Record<string, unknown>>
}

export interface Collection {
  readonly name: string
  readonly describe: (options?: RequestOptions) => Promise<Record<string, unknown>>
  readonly stats: (options?: RequestOptions) => Promise<CollectionStats>
  readonly drop: (options?: RequestOptions) => Promise<void>
  /** Returns when everything acknowledged before it is sealed, stored and served by query nodes. */
  readonly flush: (options?: RequestOptions) => Promise<void>
  /** Writes rows; one whose key is there already replaces it. Large inserts are split; if one fails of which a part may be stored, that is "ambiguous". */
  readonly insert: (rows: ReadonlyArray<object> | Columns, options?: RequestOptions) => Promise<Written>
  readonly upsert: (rows: ReadonlyArray<object> | Columns, options?: RequestOptions) => Promise<Written>
  readonly delete: (ids: Key | ReadonlyArray<Key>, options?: RequestOptions) => Promise<Written>
  readonly get: (
    ids: Key | ReadonlyArray<Key>,
    options?: ReadOptions & { readonly outputFields?: ReadonlyArray<string> }
  ) => Promise<Array<Row>>
  readonly count: (options?: ReadOptions) => Promise<number>
  /** One list of hits, best first, for one vector; a list of lists for several. */
  readonly search: {
    (vector: Float32Array | ReadonlyArray<number>, options?: SearchOptions): Promise<Array<Hit>>
    (vectors: ReadonlyArray<Float32Array | ReadonlyArray<number>>, options?: SearchOptions): Promise<Array<Array<Hit>>>
  }
}

export interface Elanus {
  readonly createCollection: (name: string, options: CollectionOptions & RequestOptions) => Promise<Collection>
  /** A collection that exists, or will by the time it is asked. */
  readonly collection: (name: string) => Collection
  readonly listCollections: (options?: RequestOptions) => Promise<Array<string>>
  readonly status: (options?: RequestOptions) => Promise<ClusterStatus>
  /** The newest timestamp of any answer: what a session reads at, at least. */
  readonly timestamp: () => Timestamp
  /** Sends a JSON body to any verb of a collection, as a NATS client would; for what has no method here. */
  readonly request: (collection: string, verb: string, body: object, options?: RequestOptions) => Promise<unknown>
  readonly close: () => Promise<void>
}

/**
 * One LevelDB database in a directory, for the log, the metadata and the leases of a single process. Writes are
 * durable when they are done, in the order of the calls, and those that wait share one sync. It never tells that a
 * write failed after it was begun: that is ambiguous, and the database is then closed and opened anew.
 */
import { type BatchOperation, ClassicLevel } from "classic-level"
import { Context, Effect, Layer } from "effect"
import { access, mkdir } from "node:fs/promises"
import { join } from "node:path"
import { ambiguous, done, type Outcome, StorageError, unavailable } from "./outcome.ts"

export type Database = ClassicLevel<string, Uint8Array>
export type Write = BatchOperation<Database, string, Uint8Array>

export interface LocalStoreOptions {
  /** Made if there is none; the folder that it is in must be there. */
  readonly directory: string
}

export class LocalStore extends Context.Service<
  LocalStore,
  {
    /** False after a failed write until the database is open again: nothing can be written, and nothing in memory holds. */
    readonly isOpen: () => boolean

    /** Tells the database, or fails "unavailable" while it is closed. */
    readonly database: Effect.Effect<Database, StorageError>

    /**
     * Writes all of it or nothing. `settle` is called with the outcome, in the order of the calls of all writers;
     * it must not throw.
     */
    readonly write: (writes: ReadonlyArray<Write>, settle: (outcome: Outcome<void>) => void) => void

    /** Runs `load` now, and again whenever the database was opened anew: memory must then be what the database holds. */
    readonly attach: (load: (database: Database) => Promise<void>) => Effect.Effect<void, StorageError>
  }
>()("elanus/storage/LocalStore") {
  static readonly layer = (options: LocalStoreOptions): Layer.Layer<LocalStore, StorageError> =>
    Layer.effect(LocalStore, make(options))
}

/** Of what the keys and values mean. A directory of a newer one is not touched. */
const formatVersion = 1
const formatKey = "format"
/** What one sync takes along, at least one write. */
const batchBytesMax = 8 * 1024 * 1024

const text = new TextEncoder()
const encodings = { keyEncoding: "utf8", valueEncoding: "view" } as const

const codeOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : undefined
const detailOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  return cause.cause instanceof Error ? `${cause.message} (${cause.cause.message})` : cause.message
}

const errorOfOpening = (directory: string, cause: unknown): StorageError => {
  if (cause instanceof StorageError) return cause
  const inner = cause instanceof Error ? cause.cause : undefined
  const code = codeOf(inner) ?? codeOf(cause)
  if (code === "LEVEL_LOCKED") {
    return new StorageError({ reason: "unfit", detail: `${directory} is in use, and takes one process at a time` })
  }
  if (code === "ENOENT") {
    return new StorageError({ reason: "missing", detail: `${directory} cannot be made: its folder is not there` })
  }
  if (code === "LEVEL_CORRUPTION") {
    return new StorageError({
      reason: "damaged",
      detail: `${directory} does not hold what was written: ${detailOf(cause)}`
    })
  }
  return new StorageError({ reason: "unfit", detail: `${directory} cannot be used: ${detailOf(cause)}` })
}

/** `isNew`: there may be none yet. Opened again there must be one, or a lost store would come back as an empty one. */
const openDatabase = async (directory: string, isNew: boolean): Promise<Database> => {
  try {
    if (isNew) {
      await mkdir(directory).catch((cause: unknown) => {
        if (codeOf(cause) !== "EEXIST") throw cause
      })
    } else await access(join(directory, "CURRENT"))
    const database: Database = new ClassicLevel<string, Uint8Array>(directory, {
      ...encodings,
      createIfMissing: isNew
    })
    await database.open()
    try {
      await checkFormat(database, directory, isNew)
    } catch (cause) {
      await database.close()
      throw cause
    }
    return database
  } catch (cause) {
    throw errorOfOpening(directory, cause)
  }
}

const checkFormat = async (database: Database, directory: string, isNew: boolean): Promise<void> => {
  const found = await database.get(formatKey)
  if (found === undefined && isNew) {
    for await (const key of database.keys({ limit: 1 })) {
      throw new StorageError({ reason: "unfit", detail: `${directory} is a database of something else (${key})` })
    }
    await database.put(formatKey, text.encode(String(formatVersion)), { sync: true })
    return
  }
  const version = Number(new TextDecoder().decode(found) || NaN)
  if (version === formatVersion) return
  throw new StorageError({
    reason: "unfit",
    detail: `${directory} has format ${version}, and this version of Elanus knows ${formatVersion}`
  })
}

const make = Effect.fnUntraced(function* ({ directory }: LocalStoreOptions) {
  const loads: Array<(database: Database) => Promise<void>> = []
  let queue: Array<{ writes: ReadonlyArray<Write>; settle: (outcome: Outcome<void>) => void }> = []
  let isWriting = false
  let isClosed = false
  let reopening: Promise<void> | undefined

  let database: Database | undefined = yield* Effect.tryPromise({
    try: () => openDatabase(directory, true),
    catch: (cause) => errorOfOpening(directory, cause)
  })

  /** After a failed write LevelDB takes no other until it is opened anew, which reads what was really written. */
  const reopen = (broken?: Database) => {
    if (isClosed) return
    reopening ??= (async () => {
      await broken?.close().catch(() => undefined)
      let opened: Database | undefined
      try {
        opened = await openDatabase(directory, false)
        for (const load of loads) await load(opened)
        database = opened
      } catch {
        // Still no use (a full disk, perhaps): whoever asks for the database next tries again.
        await opened?.close().catch(() => undefined)
      }
    })().finally(() => {
      reopening = undefined
    })
  }

  const takeBatch = () => {
    let bytes = 0
    let count = 0
    while (count < queue.length && (count === 0 || bytes < batchBytesMax)) {
      for (const write of queue[count]!.writes) bytes += write.type === "put" ? write.value.length : 0
      count++
    }
    const batch = queue.slice(0, count)
    queue = queue.slice(count)
    return batch
  }

  const drain = async () => {
    if (isWriting) return
    isWriting = true
    // One turn of the event loop's microtasks, so that calls made together share the first sync too.
    await Promise.resolve()
    while (queue.length > 0 && database !== undefined) {
      const batch = takeBatch()
      let outcome: Outcome<void> = done(undefined)
      try {
        await database.batch(
          batch.flatMap(({ writes }) => writes),
          { sync: true }
        )
      } catch (cause) {
        outcome = ambiguous(`writing to ${directory} failed: ${detailOf(cause)}`)
        const broken = database
        database = undefined
        reopen(broken)
      }
      for (const { settle } of batch) settle(outcome)
    }
    const left = queue
    queue = []
    isWriting = false
    for (const { settle } of left) settle(unavailable(`${directory} is closed after a failed write`))
  }

  yield* Effect.addFinalizer(() =>
    Effect.promise(async () => {
      isClosed = true
      await reopening
      const open = database
      database = undefined
      await open?.close()
    })
  )

  return LocalStore.of({
    isOpen: () => {
      if (database === undefined) reopen()
      return database !== undefined
    },
    database: Effect.suspend(() => {
      if (database !== undefined) return Effect.succeed(database)
      reopen()
      return Effect.fail(new StorageError({ reason: "unavailable", detail: `${directory} is closed` }))
    }),
    write: (writes, settle) => {
      if (database === undefined) return settle(unavailable(`${directory} is closed`))
      queue.push({ writes, settle })
      void drain()
    },
    attach: (load) =>
      Effect.tryPromise({
        try: async () => {
          if (database === undefined) throw new Error(`${directory} is closed`)
          await load(database)
          loads.push(load)
        },
        catch: (cause) =>
          cause instanceof StorageError ? cause : new StorageError({ reason: "unavailable", detail: detailOf(cause) })
      })
  })
})

/** A read of the database, whose failure is the store's and not the caller's. */
export const readDatabase = <A>(
  store: LocalStore["Service"],
  read: (database: Database) => Promise<A>
): Effect.Effect<A, StorageError> =>
  Effect.flatMap(store.database, (database) =>
    Effect.tryPromise({
      try: () => read(database),
      catch: (cause) =>
        cause instanceof StorageError ? cause : new StorageError({ reason: "unavailable", detail: detailOf(cause) })
    })
  )

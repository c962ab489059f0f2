/**
 * Objects as files in a directory: a temporary file, fsync, link to its name (which fails if that is taken), fsync of
 * the folders. It must never leave the directory, whatever a key says, nor show an object that is half written.
 *
 * A key's segments become folders and one file. Lower-case letters, digits, `_`, `-` and dots (not in front) stand for
 * themselves, every other byte of UTF-8 is `%xx` (so also file systems that ignore case keep keys apart), an empty
 * segment is `%`. A folder's name ends in `+`, so that "a" and "a/b" can both be; one in `=` holds what continues a
 * segment of 80 bytes or more. `.tmp` holds what is being written: no key's name begins with a dot.
 */
import { randomUUID } from "node:crypto"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { Effect, Layer, Option, Stream } from "effect"
import { limits } from "../protocols/limits.ts"
import { utf8 } from "../protocols/wire.ts"
import { Objects, type ObjectInfo } from "./objects.ts"
import { ambiguous, done, type Outcome, refused, StorageError, unavailable } from "./outcome.ts"

const PIECE_BYTES = 80
const TEMPORARY = ".tmp"
const PAGE = 1000

export const layerObjectsDirectory = (path: string): Layer.Layer<Objects, StorageError> =>
  Layer.effect(
    Objects,
    Effect.gen(function* () {
      const root = resolve(path)
      yield* Effect.tryPromise({ try: () => prepare(root), catch: (cause) => unfit(root, cause) })
      const directory = new Directory(root)
      const reading = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: (cause) => readError(cause) })
      return Objects.of({
        put: (key, parts) => Effect.promise(() => directory.put(key, parts)),
        get: (key, range) => reading(() => directory.get(key, range)),
        head: (key) => reading(() => directory.head(key)),
        list: (prefix) => Stream.fromAsyncIterable(directory.list(prefix), readError).pipe(Stream.rechunk(PAGE)),
        remove: (key) => Effect.promise(() => directory.remove(key))
      })
    })
  )

const unfit = (root: string, cause: unknown) =>
  new StorageError({ reason: "unfit", detail: `cannot keep objects in ${root}: ${describe(cause)}` })

/** Makes the directory, sees that it can be written to, and clears what crashes left in `.tmp`. */
const prepare = async (root: string): Promise<void> => {
  const temporary = join(root, TEMPORARY)
  await fs.mkdir(temporary, { recursive: true })
  await fs.access(root, constants.R_OK | constants.W_OK)
  await fs.access(temporary, constants.R_OK | constants.W_OK)
  const oldest = Date.now() - limits.temporaryAgeMs
  for (const name of await fs.readdir(temporary)) {
    const left = join(temporary, name)
    // Somebody else may clear at the same time.
    const stat = await fs.stat(left).catch(() => undefined)
    if (stat !== undefined && stat.mtimeMs < oldest) await fs.rm(left, { force: true })
  }
}

class Directory {
  private readonly root: string
  /** Folders whose own entry is known to be on the disk. Only saves work, so it may be forgotten. */
  private synced = new Set<string>()

  constructor(root: string) {
    this.root = root
  }

  async put(key: string, parts: ReadonlyArray<Uint8Array>): Promise<Outcome<void>> {
    const path = this.pathOf(key)
    if (path === undefined) return refused("invalid", `no key of an object: ${JSON.stringify(key.slice(0, 100))}`)
    const temporary = join(this.root, TEMPORARY, randomUUID())
    let linked = false
    try {
      await writeDurably(temporary, parts)
      await this.makeFolder(dirname(path))
      await fs.link(temporary, path)
      linked = true
      await syncFolder(dirname(path))
      return done(undefined)
    } catch (cause) {
      const code = codeOf(cause)
      if (linked || code === "EIO") return ambiguous(describe(cause))
      if (code === "EEXIST") return refused("conflict", `there is an object ${key} already`)
      if (code === "ENOSPC" || code === "EDQUOT") return refused("full", describe(cause))
      if (code === "ENAMETOOLONG") return refused("invalid", describe(cause))
      return unavailable(describe(cause))
    } finally {
      await fs.rm(temporary, { force: true }).catch(() => undefined) // the next start clears it
    }
  }

  async get(key: string, range?: { readonly offset: number; readonly length: number }): Promise<Uint8Array> {
    const file = await fs.open(await this.existing(key), "r").catch((cause) => this.missing(key, cause))
    try {
      const { size } = await file.stat()
      const offset = Math.min(range?.offset ?? 0, size)
      // Its own buffer, and not filled with zeros first: for 64 MiB that alone would stop the event loop for 20 ms.
      const bytes = new Uint8Array(Buffer.allocUnsafeSlow(Math.min(range?.length ?? size, size - offset)).buffer)
      for (let at = 0; at < bytes.length;) {
        const { bytesRead } = await file.read(bytes, at, bytes.length - at, offset + at)
        if (bytesRead === 0) {
          throw new StorageError({ reason: "damaged", detail: `object ${key} ended at ${offset + at} of ${size}` })
        }
        at += bytesRead
      }
      return bytes
    } finally {
      await file.close()
    }
  }

  async head(key: string): Promise<Option.Option<ObjectInfo>> {
    try {
      const stat = await fs.stat(await this.existing(key)).catch((cause) => this.missing(key, cause))
      return Option.some({ key, bytes: stat.size })
    } catch (cause) {
      if (cause instanceof StorageError && cause.reason === "missing") return Option.none()
      throw cause
    }
  }

  async remove(key: string): Promise<Outcome<void>> {
    const path = this.pathOf(key)
    if (path === undefined) return done(undefined)
    try {
      await fs.unlink(path)
    } catch (cause) {
      if (isAbsent(cause)) {
        return (await this.isThere()) ? done(undefined) : unavailable(`the directory ${this.root} is gone`)
      }
      return codeOf(cause) === "EIO" ? ambiguous(describe(cause)) : unavailable(describe(cause))
    }
    try {
      await syncFolder(dirname(path))
      return done(undefined)
    } catch (cause) {
      return ambiguous(describe(cause))
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    if (!(await this.isThere())) throw unfit(this.root, "it is gone")
    yield* this.walk(this.root, new Uint8Array(0), utf8.encode(prefix))
  }

  /** Every object below a folder, in the order of keys: a folder sorts as its name and what follows it, "/" or nothing. */
  private async *walk(folder: string, above: Uint8Array, prefix: Uint8Array): AsyncGenerator<ObjectInfo> {
    const names = await fs.readdir(folder).catch((cause) => {
      if (isAbsent(cause)) return [] as Array<string>
      throw cause
    })
    const entries: Array<{ readonly name: string; readonly bytes: Uint8Array }> = []
    for (const name of names) {
      const bytes = name.startsWith(".") ? undefined : bytesOf(name)
      if (bytes !== undefined) entries.push({ name, bytes: concat(above, bytes) })
    }
    entries.sort((a, b) => Buffer.compare(a.bytes, b.bytes))
    for (const { name, bytes } of entries) {
      const isFolder = name.endsWith("+") || name.endsWith("=")
      if (!agrees(bytes, prefix, isFolder)) continue
      const path = join(folder, name)
      if (isFolder) {
        yield* this.walk(path, bytes, prefix)
        continue
      }
      const stat = await fs.stat(path).catch(() => undefined) // removed meanwhile
      if (stat !== undefined) yield { key: utf8.decode(bytes), bytes: stat.size }
    }
  }

  private pathOf(key: string): string | undefined {
    const bytes = utf8.encode(key)
    // A lone surrogate has no UTF-8, so the key could not be read back.
    if (bytes.length === 0 || bytes.length > limits.objectKeyBytesMax || utf8.decode(bytes) !== key) return undefined
    return join(this.root, ...namesOf(bytes))
  }

  private async existing(key: string): Promise<string> {
    const path = this.pathOf(key)
    if (path === undefined) throw new StorageError({ reason: "missing", detail: `no key of an object: ${key}` })
    return path
  }

  /** What is not there is missing only if the directory is: a disk that is not mounted has lost nothing. */
  private async missing(key: string, cause: unknown): Promise<never> {
    if (!isAbsent(cause)) throw cause
    if (await this.isThere()) throw new StorageError({ reason: "missing", detail: `no object ${key}` })
    throw new StorageError({ reason: "unavailable", detail: `the directory ${this.root} is gone` })
  }

  private async isThere(): Promise<boolean> {
    return fs.access(join(this.root, TEMPORARY)).then(
      () => true,
      () => false
    )
  }

  /** Makes a folder and those above it, each durably in the one above. Never makes the root again. */
  private async makeFolder(folder: string): Promise<void> {
    if (folder === this.root || this.synced.has(folder)) return
    await this.makeFolder(dirname(folder))
    await fs.mkdir(folder).catch((cause) => {
      if (codeOf(cause) !== "EEXIST") throw cause
    })
    await syncFolder(dirname(folder))
    if (this.synced.size >= limits.collectionsMax) this.synced.clear()
    this.synced.add(folder)
  }
}

const writeDurably = async (path: string, parts: ReadonlyArray<Uint8Array>): Promise<void> => {
  const file = await fs.open(path, "wx")
  try {
    for (const part of parts) {
      for (let at = 0; at < part.length;) at += (await file.write(part, at, part.length - at)).bytesWritten
    }
    await file.sync()
  } finally {
    await file.close()
  }
}

const syncFolder = async (folder: string): Promise<void> => {
  const handle = await fs.open(folder, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Names of the folders and the file of a key. */
const namesOf = (key: Uint8Array): Array<string> => {
  const names: Array<string> = []
  let from = 0
  for (let at = 0; at <= key.length; at++) {
    if (at < key.length && key[at] !== SLASH) continue
    for (; at - from >= PIECE_BYTES; from += PIECE_BYTES)
      names.push(`${nameOf(key.subarray(from, from + PIECE_BYTES))}=`)
    const name = nameOf(key.subarray(from, at))
    names.push(at < key.length ? `${name}+` : name)
    from = at + 1
  }
  return names
}

const SLASH = 0x2f
const DOT = 0x2e

const nameOf = (piece: Uint8Array): string => {
  if (piece.length === 0) return "%"
  let name = ""
  for (let i = 0; i < piece.length; i++) {
    const byte = piece[i]!
    const plain =
      (byte >= 0x61 && byte <= 0x7a) ||
      (byte >= 0x30 && byte <= 0x39) ||
      byte === 0x5f ||
      byte === 0x2d ||
      (byte === DOT && i > 0)
    name += plain ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, "0")}`
  }
  return name
}

/** The piece of a key that a name stands for, with the slash behind a folder; nothing if it is no name of ours. */
const bytesOf = (name: string): Uint8Array | undefined => {
  const plain = name.replace(/[+=]$/, "")
  const bytes: Array<number> = []
  if (plain !== "%") {
    for (let i = 0; i < plain.length; i++) {
      if (plain[i] !== "%") bytes.push(plain.charCodeAt(i))
      else {
        bytes.push(Number.parseInt(plain.slice(i + 1, i + 3), 16))
        i += 2
      }
    }
  }
  const piece = Uint8Array.from(bytes)
  if (nameOf(piece) !== plain) return undefined
  return name.endsWith("+") ? concat(piece, Uint8Array.of(SLASH)) : piece
}

const concat = (a: Uint8Array, b: Uint8Array): Uint8Array => {
  const both = new Uint8Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}

/** Whether a key begins with the prefix, or, in a folder, may still come to. */
const agrees = (bytes: Uint8Array, prefix: Uint8Array, isFolder: boolean): boolean => {
  const length = Math.min(bytes.length, prefix.length)
  for (let i = 0; i < length; i++) if (bytes[i] !== prefix[i]) return false
  return isFolder || bytes.length >= prefix.length
}

const codeOf = (cause: unknown): string | undefined => (cause as NodeJS.ErrnoException | undefined)?.code

const isAbsent = (cause: unknown): boolean => codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR"

const describe = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const readError = (cause: unknown): StorageError =>
  cause instanceof StorageError ? cause : new StorageError({ reason: "unavailable", detail: describe(cause) })

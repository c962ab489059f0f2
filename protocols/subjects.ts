/**
 * Where clients ask: `elanus.v1.<database>.<collection>.<verb>`, and `elanus.v1.<database>.<verb>` for a database.
 * Database and collection are one token each, so that NATS' own permissions are the access control.
 */
import { failure, type ElanusError } from "./errors.ts"
import { limits } from "./limits.ts"

export const CLIENT_ROOT = "elanus.v1"
/** Everything that a client may ask. */
export const CLIENT_SUBJECTS = `${CLIENT_ROOT}.>`
export const DEFAULT_DATABASE = "default"

export const databaseVerbs = ["list", "status"] as const
export const collectionVerbs = [
  "create",
  "describe",
  "stats",
  "drop",
  "insert",
  "upsert",
  "delete",
  "get",
  "query",
  "search",
  "flush"
] as const
const writingVerbs: ReadonlyArray<string> = ["create", "drop", "insert", "upsert", "delete"]
/** Whether a request changes something: then it matters if one without an answer was carried out. */
export const isWriting = (subject: string): boolean =>
  writingVerbs.includes(subject.slice(subject.lastIndexOf(".") + 1))
/** In the interface, and not in this version. */
export const laterVerbs = [
  "hybrid_search",
  "compact",
  "load",
  "release",
  "index.create",
  "partition.list",
  "alias.create"
]

export type DatabaseVerb = (typeof databaseVerbs)[number]
export type CollectionVerb = (typeof collectionVerbs)[number]

export type Target =
  | { readonly _tag: "Database"; readonly database: string; readonly verb: DatabaseVerb }
  | {
      readonly _tag: "Collection"
      readonly database: string
      readonly collection: string
      readonly verb: CollectionVerb
    }

/** Milvus' rule, and a token of NATS: a letter or underscore, then letters, digits and underscores. */
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/

/** Why a database or collection may not have this name; undefined if it may. */
export const nameProblem = (name: string): string | undefined => {
  if (name.length === 0) return "a name must not be empty"
  if (name.length > limits.nameLengthMax) return `a name has at most ${limits.nameLengthMax} characters`
  if (!NAME.test(name)) return `"${name}" must begin with a letter or _ and go on with letters, digits and _`
  return undefined
}

export const collectionSubject = (database: string, collection: string, verb: string): string =>
  `${CLIENT_ROOT}.${database}.${collection}.${verb}`
export const databaseSubject = (database: string, verb: DatabaseVerb): string => `${CLIENT_ROOT}.${database}.${verb}`

export const parseSubject = (subject: string): Target | ElanusError => {
  const [, , database, second, ...rest] = subject.split(".")
  if (database === undefined || second === undefined) return failure("bad-request", `no request: ${subject}`)
  const problem = nameProblem(database)
  if (problem !== undefined) return failure("bad-name", problem)
  if (rest.length === 0) {
    const verb = databaseVerbs.find((each) => each === second)
    return verb === undefined
      ? failure("bad-request", `${second} is nothing that a database does: ${databaseVerbs.join(", ")}`)
      : { _tag: "Database", database, verb }
  }
  const verbText = rest.join(".")
  const verb = collectionVerbs.find((each) => each === verbText)
  if (verb !== undefined) {
    const wrong = nameProblem(second)
    return wrong === undefined ? { _tag: "Collection", database, collection: second, verb } : failure("bad-name", wrong)
  }
  if (laterVerbs.includes(verbText)) return failure("not-supported", `${verbText} is not in this version yet`)
  // More tokens than a verb has: a dot in a name, most likely.
  return failure("bad-request", `${verbText} is nothing that a collection does: ${collectionVerbs.join(", ")}`)
}

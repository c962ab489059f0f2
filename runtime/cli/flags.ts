/** The flags that commands share, and the kinds of values that flags take. */
import { Option } from "effect"
import { Argument, type Command, Flag } from "effect/cli"

export const DEFAULT_NATS = "nats://127.0.0.1:4222"
export const DEFAULT_PORT = 4222

/** A flag that may be left out, and is then undefined. */
export const maybe = <A>(flag: Flag.Flag<A>): Flag.Flag<A | undefined> =>
  Flag.map(Flag.optional(flag), Option.getOrUndefined)
export const text = (name: string, metavar: string, description: string) =>
  maybe(Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description)))
export const integer = (name: string, description: string) =>
  maybe(Flag.Int(name).pipe(Flag.withDescription(description)))

/** A number below `least` is refused here: nothing could work with it, and what it breaks shows far from the flag. */
export const integerFrom = (least: number, name: string, description: string) =>
  Flag.Int(name).pipe(
    Flag.withDescription(description),
    Flag.mapTryCatch(
      (given) => {
        if (given < least) throw new Error(`${least} or more`)
        return given
      },
      (cause) => (cause as Error).message
    )
  )

const units: { readonly [unit: string]: number } = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 }
const readBytes = (given: string): number => {
  const match = /^(\d+)\s*([kmgt]?)(?:i?b)?$/i.exec(given.trim())
  if (match === null) throw new Error(`"${given}" is no number of bytes`)
  return Number(match[1]) * units[match[2]!.toLowerCase()]!
}

/** A number of bytes, no lower than `least`. */
export const bytes = (least: string, name: string, description: string) =>
  maybe(
    Flag.String(name).pipe(
      Flag.withMetavar("BYTES"),
      Flag.withDescription(`${description}; 64M, 8GiB and the like, ${least} or more`),
      Flag.mapTryCatch(
        (given) => {
          const read = readBytes(given)
          if (read < readBytes(least)) throw new Error(`${least} or more`)
          return read
        },
        (cause) => (cause as Error).message
      )
    )
  )

export const json = Flag.Boolean("json").pipe(
  Flag.withDescription("Answer in JSON, on one line"),
  Flag.withDefault(false)
)

/** Who we are to NATS, and how the way there is protected. */
export const credentialFlags = {
  user: text("user", "NAME", "User of NATS; or in the URL"),
  password: text("password", "TEXT", "Password of NATS; else ELANUS_PASSWORD"),
  token: text("token", "TEXT", "Token of NATS; else ELANUS_TOKEN"),
  creds: text("creds", "FILE", "Credentials of NATS: a JWT and its seed"),
  nkey: text("nkey", "FILE", "The seed of an NKey"),
  tlsCa: text("tls-ca", "FILE", "Who may have signed the server's certificate; turns TLS on"),
  tlsCert: text("tls-cert", "FILE", "Our certificate"),
  tlsKey: text("tls-key", "FILE", "The key of our certificate"),
  inboxPrefix: text("inbox-prefix", "SUBJECT", "Where answers may come to, if not below _INBOX")
}

/** Whom to talk to, for how long, and in which form to answer. */
export const clientFlags = {
  nats: text("nats", "URL", `Servers of NATS, with commas between; else ELANUS_NATS, else ${DEFAULT_NATS}`),
  directory: text("directory", "DIR", "No server: the embedded database in this directory"),
  database: Flag.String("database").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("The database of the collection; default if not given"),
    Flag.withDefault("default")
  ),
  timeout: integer(
    "timeout",
    "Milliseconds for an answer, with all retries; 10000 if not given, insert 60000, flush 120000"
  ),
  ...credentialFlags,
  json
}

/** The servers that a client is to talk to. */
export const natsOf = ({ nats }: { readonly nats: string | undefined }): string =>
  nats ?? (process.env["ELANUS_NATS"] || DEFAULT_NATS)

export type ClientFlags = Command.Command.Config.Infer<typeof clientFlags>
export type CredentialFlags = Command.Command.Config.Infer<typeof credentialFlags>

export const collectionArgument = Argument.String("collection").pipe(Argument.withDescription("Name of the collection"))

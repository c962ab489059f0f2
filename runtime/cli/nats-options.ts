/** What the NATS client takes, of a list of URLs and of flags. */
import type { Authenticator } from "nats"
import { readFile } from "node:fs/promises"
import { resolve } from "node:path"
import type { NatsOptions } from "../../storage/nats-connection.ts"
import { UsageError } from "./exit.ts"
import { type CredentialFlags, DEFAULT_NATS, DEFAULT_PORT } from "./flags.ts"

const readGiven = async (flag: string, path: string): Promise<Uint8Array> => {
  try {
    return new Uint8Array(await readFile(path))
  } catch (cause) {
    throw new UsageError(`--${flag}: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
}

/** Looked at before there is a server to blame: an authenticator reads its secret only when it is asked to sign. */
const signing = (flag: string, path: string, authenticator: Authenticator): Authenticator => {
  try {
    authenticator("nonce")
    return authenticator
  } catch (cause) {
    throw new UsageError(`--${flag}: ${path} does not hold what it should: ${(cause as Error).message}`)
  }
}

export const natsOptions = async (urls: string, flags: CredentialFlags): Promise<NatsOptions> => {
  let user = flags.user
  let pass = flags.password ?? process.env["ELANUS_PASSWORD"]
  let isTls = flags.tlsCa !== undefined || flags.tlsCert !== undefined
  const servers = urls
    .split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "")
    .map((each) => {
      const url = URL.parse(each.includes("://") ? each : `nats://${each}`)
      if (url === null || !["nats:", "tls:"].includes(url.protocol) || url.hostname === "") {
        throw new UsageError(`--nats: ${each} is no server, as ${DEFAULT_NATS} or tls://HOST:PORT are`)
      }
      if (url.protocol === "tls:") isTls = true
      if (url.username !== "") user ??= decodeURIComponent(url.username)
      if (url.password !== "") pass ??= decodeURIComponent(url.password)
      return `${url.hostname}:${url.port || DEFAULT_PORT}`
    })
  if (servers.length === 0) throw new UsageError("--nats names no server")
  const token = flags.token ?? process.env["ELANUS_TOKEN"]
  const { credsAuthenticator, nkeyAuthenticator } = await import("nats")
  const authenticator =
    flags.creds !== undefined
      ? signing("creds", flags.creds, credsAuthenticator(await readGiven("creds", flags.creds)))
      : flags.nkey !== undefined
        ? signing(
            "nkey",
            flags.nkey,
            nkeyAuthenticator(
              new TextEncoder().encode(new TextDecoder().decode(await readGiven("nkey", flags.nkey)).trim())
            )
          )
        : undefined
  const tls = {
    ...(flags.tlsCa === undefined ? {} : { caFile: resolve(flags.tlsCa) }),
    ...(flags.tlsCert === undefined ? {} : { certFile: resolve(flags.tlsCert) }),
    ...(flags.tlsKey === undefined ? {} : { keyFile: resolve(flags.tlsKey) })
  }
  return {
    servers,
    name: "elanus",
    ...(user === undefined ? {} : { user }),
    ...(user === undefined || pass === undefined ? {} : { pass }),
    ...(token === undefined ? {} : { token }),
    ...(authenticator === undefined ? {} : { authenticator }),
    ...(flags.inboxPrefix === undefined ? {} : { inboxPrefix: flags.inboxPrefix }),
    ...(isTls ? { tls } : {})
  }
}

/**
 * Whether a server has the room that a new cluster's channels set aside, asked before the first of them is made: a
 * cluster that got half of its channels answers nobody, and their sizes stay. For the process that makes them.
 */
import { Effect } from "effect"
import { ask } from "./jetstream-ask.ts"
import { channelStream } from "./log-jetstream.ts"
import { NatsConnection } from "./nats-connection.ts"
import { StorageError } from "./outcome.ts"

export interface Room {
  readonly cluster: string
  readonly replicas: number
  readonly channels: number
  readonly channelBytesMax: number
}

const GIB = 2 ** 30
const gibibytes = (bytes: number) => `${Number((bytes / GIB).toFixed(2))} GiB`

/** What an account, or one tier of it, may keep in files, and has kept or set aside. */
interface Share {
  readonly limits: { readonly max_storage: number }
  readonly storage: number
  readonly reserved_storage: number
}

const checkNew = Effect.fnUntraced(function* (nats: NatsConnection["Service"], room: Room) {
  const { channelBytesMax, channels, cluster, replicas } = room
  const { streams } = nats.manager
  const bytes = channels * channelBytesMax
  const unfit = (needed: number, why: string) =>
    new StorageError({
      reason: "unfit",
      detail:
        `a new cluster sets ${gibibytes(needed)} aside (${channels} channels of ${gibibytes(channelBytesMax)}), and ${why}: ` +
        "raise max_file_store of the server (or the limit of the account), or give a smaller --channel-bytes"
    })

  const account = yield* ask(nats, "the account", () => nats.manager.getAccountInfo(), { beginning: true })
  const tier = account.tiers?.[`R${replicas}`]
  const { limits, reserved_storage, storage } = (tier ?? account) as Share
  // A tier counts what is stored once; an account without tiers counts every replica.
  const needed = tier === undefined ? bytes * replicas : bytes
  const left = limits.max_storage - Math.max(storage, reserved_storage ?? 0)
  if (limits.max_storage >= 0 && left < needed) {
    return yield* unfit(
      needed,
      `the account has ${gibibytes(Math.max(0, left))} left of ${gibibytes(limits.max_storage)}`
    )
  }

  // A server does not say what it has left, but it refuses what is too much. Of several each has its own room.
  if (nats.connection.info?.cluster !== undefined) return
  const name = `ELANUS_${cluster}_ROOM`
  const remove = Effect.ignore(Effect.tryPromise(() => streams.delete(name)))
  yield* remove // which a crash may have left
  const trial = { name, subjects: [`elanus.${cluster}.i1.room`], max_bytes: bytes }
  yield* ask(nats, name, () => streams.add(trial), { beginning: true }).pipe(
    Effect.ensuring(remove),
    Effect.catchIf(
      ({ reason }) => reason !== "unfit",
      () => Effect.void
    ),
    Effect.mapError(({ detail }) => unfit(bytes, `the server refuses them (${detail})`))
  )
})

/** Fails "unfit" if there are no channels yet and certainly no room for them; what cannot be told is not refused. */
export const checkRoom = Effect.fnUntraced(function* (room: Room) {
  const nats = yield* NatsConnection
  const wanted = new Set(Array.from({ length: room.channels }, (_, channel) => channelStream(room.cluster, channel)))
  const isThere = ask(
    nats,
    `the streams of ${room.cluster}`,
    async () => {
      for await (const name of nats.manager.streams.names()) if (wanted.has(name)) return true
      return false
    },
    { beginning: true }
  )
  if (yield* isThere) return
  yield* checkNew(nats, room).pipe(
    // Somebody who began at the same time has taken the room, for this very cluster.
    Effect.catch((error) => Effect.flatMap(isThere, (is) => (is ? Effect.void : error)))
  )
})

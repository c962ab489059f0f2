/** Who gets what: decisions on lists, without a clock or a wish to be right twice. Pure. */

/** The key with the least of something; undefined of none. */
export const leastLoaded = (loads: ReadonlyMap<string, number>): string | undefined => {
  let best: string | undefined
  for (const [id, load] of loads) {
    if (best === undefined || load < loads.get(best)! || (load === loads.get(best)! && id < best)) best = id
  }
  return best
}

/** For every item whose node is not among `alive`, one that is, each time the least loaded. */
export const place = <A>(
  items: ReadonlyArray<A>,
  alive: ReadonlyArray<string>,
  nodeOf: (item: A) => string | undefined,
  weight: (item: A) => number
): ReadonlyArray<{ readonly item: A; readonly node: string }> => {
  if (alive.length === 0) return []
  const loads = new Map(alive.map((id) => [id, 0]))
  const homeless: Array<A> = []
  for (const item of items) {
    const node = nodeOf(item)
    const load = node === undefined ? undefined : loads.get(node)
    if (load === undefined) homeless.push(item)
    else loads.set(node!, load + weight(item))
  }
  return homeless.map((item) => {
    const node = leastLoaded(loads)!
    loads.set(node, loads.get(node)! + weight(item))
    return { item, node }
  })
}

/** The channels for a new collection's shards: those that carry the fewest. */
export const pickChannels = (used: ReadonlyArray<number>, channels: number, shards: number): ReadonlyArray<number> => {
  const loads = new Array<number>(channels).fill(0)
  for (const channel of used) loads[channel]!++
  return Array.from({ length: shards }, () => {
    let best = 0
    for (let i = 1; i < channels; i++) if (loads[i]! < loads[best]!) best = i
    loads[best]!++
    return best
  })
}

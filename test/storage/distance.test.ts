/** Distances against the schoolbook, and scans against one rank at a time. */
import { assert, describe, it } from "@effect/vitest"
import { distanceOf, inverseNorms, metrics, rank, scanBlock, scanRows } from "../../storage/distance.ts"
import { TopK } from "../../storage/top-k.ts"
import { randomOf } from "./random.ts"

const schoolbook = {
  L2: (a: Array<number>, b: Array<number>) => a.reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0),
  IP: (a: Array<number>, b: Array<number>) => a.reduce((sum, x, i) => sum + x * b[i]!, 0),
  COSINE: (a: Array<number>, b: Array<number>): number => {
    const lengths = Math.sqrt(schoolbook.IP(a, a) * schoolbook.IP(b, b))
    return lengths === 0 ? 0 : schoolbook.IP(a, b) / lengths
  }
}

describe("distance", () => {
  it("is what the schoolbook says, at any offset and dimension", () => {
    const random = randomOf("distance")
    for (let run = 0; run < 300; run++) {
      const dimension = 1 + random.below(40)
      const aOffset = random.below(5)
      const bOffset = random.below(5)
      const a = Float32Array.from({ length: dimension + aOffset }, random.gaussian)
      const b = Float32Array.from({ length: dimension + bOffset }, random.gaussian)
      for (const metric of metrics) {
        const found = distanceOf(metric, rank(metric, a, aOffset, b, bOffset, dimension))
        const expected = schoolbook[metric]([...a.subarray(aOffset)], [...b.subarray(bOffset)])
        assert.closeTo(found, expected, 1e-9 * (1 + Math.abs(expected)), `${metric} ${dimension} ${random.seed}`)
      }
    }
  })

  it("has its edges", () => {
    const zero = new Float32Array(3)
    const one = Float32Array.of(1, 0, 0)
    assert.isTrue(Object.is(distanceOf("COSINE", rank("COSINE", zero, 0, one, 0, 3)), 0))
    assert.isTrue(Object.is(distanceOf("IP", rank("IP", zero, 0, one, 0, 3)), 0))
    assert.strictEqual(distanceOf("COSINE", rank("COSINE", one, 0, one, 0, 3)), 1)
    const large = new Float32Array(8).fill(3e38)
    for (const metric of metrics)
      assert.isTrue(
        Number.isFinite(
          rank(
            metric,
            large,
            0,
            large.map((x) => -x),
            0,
            8
          )
        ),
        metric
      )
  })

  it("scans in any cut and order to the same answer", () => {
    const random = randomOf("scan")
    for (let run = 0; run < 60; run++) {
      const dimension = 1 + random.below(9)
      const rows = random.below(200)
      // Few values, so that ranks are often equal.
      const vectors = Float32Array.from({ length: rows * dimension }, () => random.below(3))
      const query = Float32Array.from({ length: dimension }, () => random.below(3))
      const allowed = random.below(2) === 0 ? undefined : (row: number) => row % 3 !== 0
      const k = random.below(20)
      const base = random.below(1000)
      for (const metric of metrics) {
        const norms = random.below(2) === 0 ? inverseNorms(vectors, rows, dimension) : undefined
        const block = { vectors, dimension, inverseNorms: norms }
        const expected = Array.from({ length: rows }, (_, row) => row)
          .filter((row) => allowed === undefined || allowed(base + row))
          .map((row) => [rank(metric, query, 0, vectors, row * dimension, dimension), base + row] as const)
          .sort(([x, i], [y, j]) => x - y || i - j)
          .slice(0, k)
        const cut = random.below(rows + 1)
        const scanned = new TopK(k)
        scanBlock(metric, query, block, cut, rows, scanned, base, allowed)
        scanBlock(metric, query, block, 0, cut, scanned, base, allowed)
        const listed = new TopK(k)
        const chosen = Array.from({ length: rows }, (_, row) => row).filter((row) => allowed?.(base + row) ?? true)
        scanRows(metric, query, block, chosen.reverse(), listed, base)
        for (const top of [scanned, listed]) {
          const found = top.finish()
          assert.deepStrictEqual(
            [...found.rows],
            expected.map(([, row]) => row),
            `${metric} ${random.seed}`
          )
          found.ranks.forEach((value, i) => assert.closeTo(value, expected[i]![0], 1e-9))
        }
      }
    }
  })
})

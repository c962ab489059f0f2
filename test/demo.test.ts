/** The demo as a newcomer runs it, with fewer passages: it ends well, says what it found, and finds it again. */
import { execFile } from "node:child_process"
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { open } from "../runtime/elanus.ts"

const PROGRAM = fileURLToPath(new URL("../runtime/demo.ts", import.meta.url))

interface Run {
  readonly code: number
  readonly output: string
  readonly errors: string
}

const run = (...args: ReadonlyArray<string>): Promise<Run> =>
  new Promise((resolve) => {
    execFile(process.execPath, [PROGRAM, ...args], (error, output, errors) => {
      resolve({ code: error === null ? 0 : Number(error.code), output, errors })
    })
  })

describe("the demo", () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "elanus-demo-test-"))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  it(
    "embeds, inserts, indexes and answers; the second run finds what the first one kept",
    { timeout: 120_000 },
    async () => {
      const directory = join(folder, "kept")
      const first = await run("--directory", directory, "--passages", "60")
      assert.strictEqual(first.code, 0, first.errors)
      for (const line of [
        /Embed +60 passages/,
        /Insert +60 rows/,
        /Flush +sealed/,
        /Index +an HNSW graph/,
        /What did the captain lose to the whale\?/,
        /Recall@10 +1\.000 against exact search, over 64 queries/,
        /Try next/
      ]) {
        assert.match(first.output, line)
      }
      assert.strictEqual(first.errors, "")
      for (const line of first.output.split("\n")) assert.isAtMost(line.length, 100, line)
      assert.isAbove((await readdir(directory)).length, 0)

      const second = await run("--directory", directory, "--passages", "60")
      assert.strictEqual(second.code, 0, second.errors)
      assert.match(second.output, /Found +60 passages of an earlier run/)
      assert.notMatch(second.output, /Embed/)
      assert.deepStrictEqual(answersOf(second.output), answersOf(first.output))
      assert.isAbove(answersOf(first.output).length, 8)
    }
  )

  it("ends at once where its database cannot be: in a file, or where another process has one", async () => {
    const file = join(folder, "file")
    await writeFile(file, "")
    const used = join(folder, "used")
    const other = await open({ directory: used })
    try {
      for (const [directory, why] of [
        [file, /file/],
        [used, /in use|lock/i]
      ] as const) {
        const { code, errors } = await run("--directory", directory)
        assert.strictEqual(code, 1)
        assert.match(errors, /The demo failed: /)
        assert.match(errors, why)
      }
    } finally {
      await other.close()
    }
  }, 20_000)

  it("says what is wrong with its arguments", async () => {
    for (const args of [["--passages", "many"], ["--passages", "5"], ["--nonsense"]]) {
      const { code, errors, output } = await run(...args)
      assert.strictEqual(code, 2)
      assert.match(errors, /npm run demo --/)
      assert.strictEqual(output, "")
    }
    const help = await run("--help")
    assert.strictEqual(help.code, 0)
    assert.match(help.output, /--directory PATH/)
  })
})

/** Scores and the words that follow. */
const answersOf = (output: string) => output.split("\n").filter((line) => /^ {4}-?\d\.\d\d {2}\S/.test(line))

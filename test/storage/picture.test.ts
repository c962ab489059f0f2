/** What a watch tells of the messages of a bucket: the picture as a whole, and then each change. */
import { assert, describe, it } from "@effect/vitest"
import { utf8 } from "../../protocols/wire.ts"
import { type KeyMessage, Picture } from "../../storage/picture.ts"
import { told } from "../support/watching.ts"

const put = (key: string, revision: number): KeyMessage => ({
  key,
  revision,
  value: utf8.encode(`${revision}`),
  isMarker: false
})
const gone = (key: string, revision: number): KeyMessage => ({ ...put(key, revision), isMarker: true })

const pages = (newest: number, ...messages: ReadonlyArray<ReadonlyArray<KeyMessage>>) => {
  const picture = new Picture(newest)
  return messages.map((page) => picture.learn(page).map(told))
}

describe("the picture of a watch", () => {
  it("is told when it is complete, and then what comes", () => {
    assert.deepStrictEqual(pages(3, [put("a", 1)], [put("b", 3), put("c", 4)], [gone("a", 5)]), [
      [],
      ["a=1", "b=3", "CaughtUp", "c=4"],
      ["-a"]
    ])
  })

  it("lacks what went before it was complete, also if it was there when it began", () => {
    assert.deepStrictEqual(pages(5, [put("a", 1), put("b", 2)], [gone("b", 5)]), [[], ["a=1", "CaughtUp"]])
  })

  it("has what came again, once", () => {
    const messages = [put("a", 1), put("b", 2), gone("a", 3), put("b", 4), put("a", 5)]
    assert.deepStrictEqual(pages(5, messages), [["b=4", "a=5", "CaughtUp"]])
  })

  it("is complete when there is nothing more, though the newest never came", () => {
    assert.deepStrictEqual(pages(9, [put("a", 1)], [], [gone("a", 5)], []), [[], ["a=1", "CaughtUp"], ["-a"], []])
  })
})

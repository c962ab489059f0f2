/**
 * Whether bytes are a JSON object, without making one: a door through which a hundred thousand rows a second go has no
 * time for that. What strings hold is not looked at, beyond what ends them: whether it is UTF-8 is another question.
 */

const QUOTE = 0x22
const PLUS = 0x2b
const COMMA = 0x2c
const MINUS = 0x2d
const POINT = 0x2e
const ZERO = 0x30
const NINE = 0x39
const COLON = 0x3a
const ARRAY = 0x5b
const BACKSLASH = 0x5c
const ARRAY_END = 0x5d
const OBJECT = 0x7b
const OBJECT_END = 0x7d

/** Where nothing is: what begins there is no JSON, and so neither is what that is a part of. */
const NOWHERE = -1

/** Whether the bytes from `from` up to `to` are an object, of which at most `depthMax` values lie in each other. */
export const isJsonObject = (bytes: Uint8Array, from: number, to: number, depthMax: number): boolean => {
  const at = space(bytes, from, to)
  // What goes on behind `to` ends behind it.
  return bytes[at] === OBJECT && space(bytes, object(bytes, at + 1, to, depthMax), to) === to
}

// Each of these says where what it reads ends.

const space = (bytes: Uint8Array, from: number, to: number): number => {
  let at = from
  while (at < to) {
    const byte = bytes[at]
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break
    at++
  }
  return at
}

const value = (bytes: Uint8Array, at: number, to: number, depth: number): number => {
  switch (bytes[at]) {
    case QUOTE:
      return string(bytes, at + 1)
    case OBJECT:
      return object(bytes, at + 1, to, depth)
    case ARRAY:
      return array(bytes, at + 1, to, depth)
    case 0x74:
      return word(bytes, at, "true")
    case 0x66:
      return word(bytes, at, "false")
    case 0x6e:
      return word(bytes, at, "null")
    default:
      return number(bytes, at)
  }
}

const object = (bytes: Uint8Array, from: number, to: number, depth: number): number => {
  if (depth === 0) return NOWHERE
  let at = space(bytes, from, to)
  if (bytes[at] === OBJECT_END) return at + 1
  while (bytes[at] === QUOTE) {
    at = space(bytes, string(bytes, at + 1), to)
    if (bytes[at] !== COLON) return NOWHERE
    at = space(bytes, value(bytes, space(bytes, at + 1, to), to, depth - 1), to)
    if (bytes[at] === OBJECT_END) return at + 1
    if (bytes[at] !== COMMA) return NOWHERE
    at = space(bytes, at + 1, to)
  }
  return NOWHERE
}

const array = (bytes: Uint8Array, from: number, to: number, depth: number): number => {
  if (depth === 0) return NOWHERE
  let at = space(bytes, from, to)
  if (bytes[at] === ARRAY_END) return at + 1
  while (true) {
    at = space(bytes, value(bytes, at, to, depth - 1), to)
    if (bytes[at] === ARRAY_END) return at + 1
    if (bytes[at] !== COMMA) return NOWHERE
    at = space(bytes, at + 1, to)
  }
}

const string = (bytes: Uint8Array, from: number): number => {
  let at = from
  while (true) {
    const byte = bytes[at++]!
    if (byte === QUOTE) return at
    if (byte === BACKSLASH) {
      at = escaped(bytes, at)
      if (at === NOWHERE) return NOWHERE
    } else if (!(byte >= 0x20)) return NOWHERE
  }
}

/** What follows a backslash. */
const escaped = (bytes: Uint8Array, from: number): number => {
  const byte = bytes[from]!
  if (byte !== 0x75) return ESCAPES.includes(String.fromCharCode(byte)) ? from + 1 : NOWHERE
  for (let at = from + 1; at <= from + 4; at++) if (!isHex(bytes[at]!)) return NOWHERE
  return from + 5
}

const ESCAPES = '"\\/bfnrt'
const isDigit = (byte: number): boolean => byte >= ZERO && byte <= NINE
const isHex = (byte: number): boolean =>
  isDigit(byte) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66)

const word = (bytes: Uint8Array, from: number, text: string): number => {
  for (let i = 1; i < text.length; i++) if (bytes[from + i] !== text.charCodeAt(i)) return NOWHERE
  return from + text.length
}

const number = (bytes: Uint8Array, from: number): number => {
  let at = bytes[from] === MINUS ? from + 1 : from
  at = bytes[at] === ZERO ? at + 1 : digits(bytes, at)
  if (bytes[at] === POINT) at = digits(bytes, at + 1)
  if (bytes[at] === 0x65 || bytes[at] === 0x45) {
    const sign = bytes[at + 1]
    at = digits(bytes, sign === PLUS || sign === MINUS ? at + 2 : at + 1)
  }
  return at
}

/** At least one. */
const digits = (bytes: Uint8Array, from: number): number => {
  let at = from
  while (isDigit(bytes[at]!)) at++
  return at === from ? NOWHERE : at
}

/** How far a command is, on stderr: for somebody who looks at a terminal, and for nobody else. */
import { bytesText, count } from "./output.ts"

export interface Progress {
  readonly show: (rows: number, bytesRead: number) => void
  readonly end: () => void
}

const BAR_WIDTH = 30
const SHOW_EVERY_MS = 100

/** A bar on stderr while somebody looks at it; nothing for a file or a pipe. */
export const makeProgress = (what: string, bytesTotal: number | undefined): Progress => {
  const { stderr } = process
  if (!stderr.isTTY) return { show: () => {}, end: () => {} }
  const started = performance.now()
  let shown = 0
  return {
    show: (rows, bytesRead) => {
      const now = performance.now()
      if (now - shown < SHOW_EVERY_MS) return
      shown = now
      const rate = `${count(rows)} rows, ${count(rows / ((now - started) / 1_000))} rows/s`
      if (bytesTotal === undefined || bytesTotal === 0) {
        stderr.write(`\r\x1b[K${what} ${rate}, ${bytesText(bytesRead)}`)
        return
      }
      const part = Math.min(1, bytesRead / bytesTotal)
      const filled = Math.round(part * BAR_WIDTH)
      const bar = "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled)
      stderr.write(`\r\x1b[K${what} ${bar} ${Math.floor(part * 100)} %  ${rate}`)
    },
    end: () => {
      if (shown > 0) stderr.write("\r\x1b[K")
    }
  }
}

/** How far many runs are, on stderr: for somebody who looks at a terminal, and for nobody else. */

export interface Bar {
  readonly show: (done: number, more: string) => void
  readonly end: () => void
}

const WIDTH = 30

export const bar = (total: number): Bar => {
  const { stderr } = process
  if (!stderr.isTTY) return { show: () => {}, end: () => {} }
  const started = performance.now()
  return {
    show: (done, more) => {
      const filled = Math.round((done / total) * WIDTH)
      const rate = done / ((performance.now() - started) / 1_000)
      const left = Math.ceil((total - done) / rate)
      const blocks = "█".repeat(filled) + "░".repeat(WIDTH - filled)
      stderr.write(`\r\x1b[K${blocks} ${done} of ${total}, ${rate.toFixed(1)} a second, ${left} s left, ${more}`)
    },
    end: () => {
      stderr.write("\r\x1b[K")
    }
  }
}

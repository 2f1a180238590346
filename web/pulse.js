/**
 * The pulse of a worker: says that it lives, to the other tabs of its database, whatever the worker itself is doing.
 *
 * A step in Python may block its worker for minutes. This one, nested in it, is never blocked, dies with it, and is
 * stopped with it where the system suspends a tab. It cannot come up while its worker is blocked, though, so it is
 * started early and kept. The same file is both halves: imported, it offers what follows; as a worker it beats.
 *
 * @module
 */

/** @typedef {{ channel: string, text: string, everyMs: number }} Beat */

const NAME = "durably-pulse"

/** @type {Promise<Worker> | null} */ let pulse = null

/** Let it come up, in silence. Resolves when it has; a failure is reported, and there will be no pulse. @returns {Promise<Worker>} */
export function preparePulse() {
  pulse ??= new Promise((resolve) => {
    const worker = new Worker(import.meta.url, { type: "module", name: NAME })
    worker.onmessage = worker.onerror = () => resolve(worker)
  })
  return pulse
}

/** Begin to send `text` to the channel every so many milliseconds. @param {string} channel @param {string} text @param {number} everyMs */
export async function startPulse(channel, text, everyMs) {
  const worker = await preparePulse()
  worker.postMessage({ channel, text, everyMs })
}

/** Send nothing more. */
export async function stopPulse() {
  const worker = await preparePulse()
  worker.postMessage(null)
}

if (self.name === NAME) {
  let stop = () => {}
  self.addEventListener("message", (/** @type {MessageEvent<Beat | null>} */ { data: beat }) => {
    stop()
    if (beat === null) return
    const others = new BroadcastChannel(beat.channel)
    const timer = setInterval(() => others.postMessage(beat.text), beat.everyMs)
    stop = () => {
      clearInterval(timer)
      others.close()
    }
  })
  self.postMessage("up")
}

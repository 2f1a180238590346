/**
 * The pulse of a worker: says that it lives, to the other tabs of its database, whatever the worker itself is doing.
 *
 * A step in Python may block its worker for minutes. This one, nested in it, is never blocked, dies with it, and is
 * stopped with it where the system suspends a tab. The same file is both halves: imported, it offers `startPulse` and
 * `stopPulse`; as a worker it beats.
 *
 * @module
 */

/** @typedef {{ channel: string, text: string, everyMs: number }} Beat */

const NAME = "durably-pulse"

/** @type {Worker | null} */ let pulse = null

/** Begin to send `text` to the channel every so many milliseconds. @param {string} channel @param {string} text @param {number} everyMs */
export function startPulse(channel, text, everyMs) {
  pulse ??= new Worker(import.meta.url, { type: "module", name: NAME })
  pulse.postMessage({ channel, text, everyMs })
}

export function stopPulse() {
  pulse?.terminate()
  pulse = null
}

if (self.name === NAME) {
  self.addEventListener("message", (/** @type {MessageEvent<Beat>} */ { data: { channel, text, everyMs } }) => {
    const others = new BroadcastChannel(channel)
    setInterval(() => others.postMessage(text), everyMs)
  })
}

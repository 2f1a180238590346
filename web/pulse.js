/**
 * The pulse of a worker: says that it lives, to the other tabs of its database, whatever the worker itself is doing.
 *
 * A step in Python may block its worker for minutes. This one, nested in it, is never blocked, dies with it, and is
 * stopped with it where the system suspends a tab. The same file is both halves: imported, it offers `preparePulse`,
 * `startPulse` and `stopPulse`; as a worker it beats.
 *
 * @module
 */

/** @typedef {{ channel: string, text: string, everyMs: number }} Beat */

const NAME = "durably-pulse"

/** @type {Worker | undefined} */ let pulse

/** Have it ready: a worker that is blocked could start no other. */
export function preparePulse() {
  pulse ??= new Worker(import.meta.url, { type: "module", name: NAME })
}

/** Begin to send `text` to the channel every so many milliseconds. @param {string} channel @param {string} text @param {number} everyMs */
export function startPulse(channel, text, everyMs) {
  preparePulse()
  pulse?.postMessage({ channel, text, everyMs })
}

export function stopPulse() {
  pulse?.postMessage(null)
}

if (self.name === NAME) {
  /** @type {BroadcastChannel | undefined} */ let others
  /** @type {number | undefined} */ let timer
  self.addEventListener("message", (/** @type {MessageEvent<Beat | null>} */ { data: beat }) => {
    clearInterval(timer)
    others?.close()
    if (!beat) return
    const channel = (others = new BroadcastChannel(beat.channel))
    timer = setInterval(() => channel.postMessage(beat.text), beat.everyMs)
  })
}

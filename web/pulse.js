/**
 * The pulse of a worker: says that it lives, to the other tabs of its database, whatever the worker itself is doing.
 *
 * A step in Python may block its worker for minutes; this one is never blocked. The page makes it, and ends it with its
 * worker; where the system suspends a tab both stop. A worker that no page of durably's has made makes its own, nested in
 * it, and early, since that cannot come up while its worker is blocked. (Firefox may hang for ever in making a nested
 * worker while those of the page before are being ended.) The same file is both halves: imported, it offers what follows;
 * as a worker it beats.
 *
 * @module
 */

/** @typedef {{ channel: string, text: string, everyMs: number }} Beat */
/** @typedef {{ postMessage(beat: Beat | null): void }} Pulse  begins to beat, or stops */

const NAME = "durably-pulse"

/** @type {Promise<Pulse> | null} */ let pulse = null

/** For a page: a new pulse, and the port by which its worker is to tell it when to beat. */
export function newPulse() {
  const { port1, port2 } = new MessageChannel()
  const worker = new Worker(import.meta.url, { type: "module", name: NAME })
  worker.postMessage(port1, [port1])
  return { worker, port: port2 }
}

/** Use this pulse. @param {Pulse} made */
export function usePulse(made) {
  pulse = Promise.resolve(made)
}

/** Let one come up, in silence. Resolves when it has; a failure is reported, and there will be no pulse. @returns {Promise<Pulse>} */
export function preparePulse() {
  pulse ??= new Promise((resolve) => {
    const worker = new Worker(import.meta.url, { type: "module", name: NAME })
    worker.onmessage = worker.onerror = () => resolve(worker)
  })
  return pulse
}

/** Begin to send `text` to the channel every so many milliseconds. @param {string} channel @param {string} text @param {number} everyMs */
export async function startPulse(channel, text, everyMs) {
  const beating = await preparePulse()
  beating.postMessage({ channel, text, everyMs })
}

/** Send nothing more. */
export async function stopPulse() {
  const beating = await preparePulse()
  beating.postMessage(null)
}

if (self.name === NAME) {
  let stop = () => {}
  /** @param {MessageEvent<Beat | null | MessagePort>} event */
  const hear = ({ data: beat }) => {
    if (beat instanceof MessagePort) return void (beat.onmessage = hear)
    stop()
    if (beat === null) return
    const others = new BroadcastChannel(beat.channel)
    const timer = setInterval(() => others.postMessage(beat.text), beat.everyMs)
    stop = () => {
      clearInterval(timer)
      others.close()
    }
  }
  self.addEventListener("message", hear)
  self.postMessage("up")
}

/**
 * Ending what is under way by an `AbortSignal`, without leaving anything behind on it.
 *
 * @module
 */

/** A browser fires a timer that is set for longer at once. No page lives for these 24 days. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

/**
 * What `work` comes to. It gets a signal that aborts with `signal`, or with the error `late` when `timeoutMs` are over.
 *
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} work
 * @param {{ signal?: AbortSignal, timeoutMs?: number, late?: Error }} [limits]
 * @returns {Promise<T>}
 */
export async function abortable(work, { signal, timeoutMs = Infinity, late } = {}) {
  signal?.throwIfAborted()
  const own = new AbortController()
  const abort = () => own.abort(signal?.reason)
  signal?.addEventListener("abort", abort)
  const timer = timeoutMs <= LONGEST_TIMER_MS ? setTimeout(() => own.abort(late), timeoutMs) : undefined
  try {
    return await work(own.signal)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener("abort", abort)
  }
}

/**
 * A pause, which ends with a rejection where the signal aborts before its time.
 * @param {number} milliseconds @param {AbortSignal} [signal] @returns {Promise<void>}
 */
export function pause(milliseconds, signal) {
  const waiting = (/** @type {AbortSignal} */ own) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, milliseconds)
      own.addEventListener("abort", () => {
        clearTimeout(timer)
        reject(own.reason)
      })
    })
  return abortable(waiting, { signal })
}

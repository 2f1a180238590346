/**
 * Trying again for a while: the handles of a page that has just gone are still held for a moment. And not waiting for
 * ever: there are questions to which a browser's answer never comes.
 *
 * @module
 */

const PATIENCE_MS = 5000
const FIRST_PAUSE_MS = 10
const ANSWER_MS = 5000

/**
 * Make attempts, with growing pauses, until one succeeds or fails for a reason that does not pass by itself.
 *
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {(error: unknown) => boolean} mayPass
 * @returns {Promise<T>}
 */
export async function patiently(attempt, mayPass) {
  const giveUpAt = performance.now() + PATIENCE_MS
  for (let pause = FIRST_PAUSE_MS; ; pause *= 2) {
    try {
      return await attempt()
    } catch (error) {
      if (!mayPass(error) || performance.now() + pause > giveUpAt) throw error
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }
}

/**
 * A handle that was asked for, or a `TimeoutError` where the browser does not answer. One that comes later is closed.
 *
 * @param {Promise<FileSystemSyncAccessHandle>} asked @returns {Promise<FileSystemSyncAccessHandle>}
 */
export async function answered(asked) {
  /** @type {number | undefined} */ let timer
  /** @type {Promise<never>} */
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new DOMException("the browser does not open a file", "TimeoutError")), ANSWER_MS)
  })
  try {
    return await Promise.race([asked, late])
  } catch (error) {
    asked.then((handle) => handle.close(), () => {})
    throw error
  } finally {
    clearTimeout(timer)
  }
}

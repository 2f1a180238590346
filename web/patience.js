/**
 * Trying again for a while: the handles of a page that has just gone are still held for a moment.
 *
 * @module
 */

const PATIENCE_MS = 5000
const FIRST_PAUSE_MS = 10

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

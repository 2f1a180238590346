/**
 * The page of `raw-worker.js`.
 *
 * @module
 */

/** Commits a second. @param {string} database @param {string} recording  a URL @param {number} warmUp  commits that are not timed */
function commitsPerSecond(database, recording, warmUp) {
  const worker = new Worker("./raw-worker.js", { type: "module" })
  const answer = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data)
    worker.onerror = ({ message }) => reject(new Error(message))
  })
  worker.postMessage([database, recording, warmUp])
  return answer.finally(() => worker.terminate())
}

Object.assign(window, { connected: Promise.resolve(performance.now()), commitsPerSecond })

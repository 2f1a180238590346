/**
 * Marks: how a page says that its workers were put down in order, and did not crash.
 *
 * A mark is written while the page goes (`localStorage` is written before the page is gone) and read by the pages that
 * find the worker dead. A run whose worker died without one is a little more suspected of having killed it.
 *
 * @module
 */

const PREFIX = "durably:left:"
/** A mark that nobody has asked for in so long is swept out. */
const KEPT_MS = 7 * 24 * 60 * 60 * 1000

/** @param {string} workerId */
export function leaveMark(workerId) {
  attempt(() => localStorage.setItem(PREFIX + workerId, String(Date.now())))
}

/** Those of these workers that left a mark; all of them where marks cannot be kept. @param {string[]} workerIds */
export function marked(workerIds) {
  return attempt(() => workerIds.filter((id) => localStorage.getItem(PREFIX + id) !== null)) ?? workerIds
}

/** All workers that left a mark; old marks are swept out. @returns {string[]} */
export function allMarked() {
  const known = attempt(() => {
    const marks = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX))
    const old = marks.filter((name) => Date.now() - Number(localStorage.getItem(name)) > KEPT_MS)
    for (const name of old) localStorage.removeItem(name)
    return marks.map((name) => name.slice(PREFIX.length))
  })
  return known ?? []
}

/** `undefined` where this site may keep nothing, or its storage is full. @template T @param {() => T} use @returns {T | undefined} */
function attempt(use) {
  try {
    return use()
  } catch (error) {
    if (error instanceof DOMException) return undefined
    throw error
  }
}

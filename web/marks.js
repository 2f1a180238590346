/**
 * Marks: how a page says that its workers were put down in order, and did not crash; and that it uses a database.
 *
 * A mark of leaving is written while the page goes (`localStorage` is written before the page is gone) and read by the pages that
 * find the worker dead. A run whose worker died without one is a little more suspected of having killed it.
 *
 * A mark of use is there from the moment a page begins with a database until it goes in order. One that is found, and
 * whose page is gone, tells of a crash, a kill or a power cut: the first to open the database then looks whether it is
 * sound. That costs some milliseconds for each megabyte, which a reload is spared.
 *
 * @module
 */

const PREFIX = "durably:left:"
const USE_PREFIX = "durably:uses:"
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

/** That a page uses a database. */
export class UseMark {
  #prefix
  #name

  /** @param {string} database */
  constructor(database) {
    this.#prefix = `${USE_PREFIX}${encodeURIComponent(database)}:`
    this.#name = `${this.#prefix}${Date.now()}-${Math.random()}` // a UUID is to be had in secure contexts only
  }

  /** @returns {boolean} whether there are marks of others, who may be gone; or cannot be any */
  begin() {
    return (
      attempt(() => {
        const isAlone = this.#others().length === 0
        localStorage.setItem(this.#name, "")
        return !isAlone
      }) ?? true
    )
  }

  end() {
    attempt(() => localStorage.removeItem(this.#name))
  }

  /** The database is sound, and nobody else uses it. */
  settle() {
    attempt(() => {
      for (const name of this.#others()) localStorage.removeItem(name)
    })
  }

  #others() {
    return Object.keys(localStorage).filter((name) => name.startsWith(this.#prefix) && name !== this.#name)
  }
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

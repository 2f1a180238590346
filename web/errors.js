/**
 * What goes wrong with the storage.
 *
 * @module
 */

/** What SQLite said; `code` is its (extended) result code. */
export class SQLiteError extends Error {
  /** @param {number} code @param {string} message */
  constructor(code, message) {
    super(message)
    this.name = "SQLiteError"
    this.code = code
  }
}

/** The storage that durably needs is not there; the message is for the page's user. */
export class StorageUnavailable extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message)
    this.name = "StorageError"
  }
}

/** Whether an error has this name of a `DOMException`. @param {unknown} error @param {...string} names */
export function isNamed(error, ...names) {
  return error instanceof DOMException && names.includes(error.name)
}

/** Whether the browser gives no more space. @param {unknown} error */
export function isQuota(error) {
  return isNamed(error, "QuotaExceededError")
}

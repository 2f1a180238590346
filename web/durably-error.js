/**
 * The error that a page of durably gets.
 *
 * @module
 */

/** What went wrong. `name` is the class that durably gave it, `status` its HTTP status. */
export class DurablyError extends Error {
  /** @param {string} name @param {number} status @param {string} message */
  constructor(name, status, message) {
    super(message)
    this.name = name
    this.status = status
    /** @type {import("./records.js").Run | undefined} the run that was waited for, of a `RunFailedError` or `RunCancelledError` */
    this.run = undefined
  }
}

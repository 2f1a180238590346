/**
 * What can go wrong before there is Python, in the terms of durably's errors.
 *
 * @module
 */

export class BootError extends Error {
  /** @param {string} name @param {number} status @param {string} message */
  constructor(name, status, message) {
    super(message)
    this.name = name
    this.status = status
  }
}

/** Fetch a file; rejects with a `BootError` where the server has none. @param {string} url @param {string} what */
export async function fetchOk(url, what) {
  const response = await fetch(url)
  if (!response.ok) throw new BootError("NotFoundError", 404, `Loading ${what} failed: ${new URL(url).pathname} answered ${response.status}.`)
  return response
}

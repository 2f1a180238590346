/**
 * Whether a database's file is still where it was: site data can be deleted while a page is open.
 *
 * A browser then leaves the open handles as they are, upon a file that nobody will ever find again. So a look is taken
 * now and then, beside the work. That somebody else has made a new file of the same name is told by that one
 * (`presence.js`).
 *
 * @module
 */

import { isNamed } from "./errors.js"

const LOOK_EVERY_MS = 1000

export class Whereabouts {
  /** Whether the file is known to be gone. */
  isGone = false
  #path
  #lookAt = performance.now() + LOOK_EVERY_MS

  /** @param {string} path  of the file, from the root of this site's private files */
  constructor(path) {
    this.#path = path.split("/")
  }

  /** Begin to look, if the last look was long ago; what is found counts from then on. */
  look() {
    if (this.isGone || performance.now() < this.#lookAt) return
    this.#lookAt = Infinity
    this.#find().finally(() => (this.#lookAt = performance.now() + LOOK_EVERY_MS))
  }

  async #find() {
    try {
      // From the root each time: a folder's handle may be of the past, too.
      let folder = await navigator.storage.getDirectory()
      for (const each of this.#path.slice(0, -1)) folder = await folder.getDirectoryHandle(each)
      await folder.getFileHandle(/** @type {string} */ (this.#path.at(-1)))
    } catch (error) {
      // That it cannot be looked for (the page is going, say) does not mean that it is gone.
      if (isNamed(error, "NotFoundError")) this.isGone = true
    }
  }
}

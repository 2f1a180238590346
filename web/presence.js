/**
 * Who else has a database open: what a connection may keep for itself depends on it.
 *
 * Each connection holds a shared lock named after the database for as long as it lives, and says hello when it
 * has it. So an arrival is told by a message, which costs the others nothing; that everybody else has gone,
 * however they went, is seen by asking for the locks now and then.
 *
 * @module
 */

/** How old may be what is known of the others, while there are some. */
const ASK_EVERY_MS = 1000
const NEW_FILE = "new"

export class Presence {
  /** What to do when somebody else turns up. */
  onArrival = () => {}
  /** What to do when somebody else found no file and made a new one: then ours is gone. */
  onNewFile = () => {}
  #lockName
  #hello
  #release = () => {}
  #others = false
  #askedAt = -Infinity

  /** @param {string} name  of the database */
  constructor(name) {
    this.#lockName = `durably:${name}:open`
    this.#hello = new BroadcastChannel(this.#lockName)
    this.#hello.onmessage = ({ data }) => {
      if (data === NEW_FILE) this.onNewFile()
      this.#others = true
      this.#askedAt = performance.now()
      this.onArrival()
    }
  }

  /** Be present, and know who else is. @param {boolean} isNew  whether the file is made now */
  async enter(isNew) {
    await new Promise((/** @type {(granted: void) => void} */ granted, refused) => {
      const held = () => {
        granted()
        return new Promise((/** @type {(gone: void) => void} */ gone) => (this.#release = gone))
      }
      navigator.locks.request(this.#lockName, { mode: "shared" }, held).catch(refused)
    })
    // Whoever gets the lock after the question is asked says hello after it, too.
    this.#hello.postMessage(isNew ? NEW_FILE : null)
    await this.#ask()
  }

  /** Whether anybody else has the database open, as far as is known. */
  get others() {
    return this.#others
  }

  /**
   * See to it that what is known is not old.
   * @returns {Promise<void> | undefined} what has to be awaited for it
   */
  refresh() {
    return this.#others && performance.now() > this.#askedAt + ASK_EVERY_MS ? this.#ask() : undefined
  }

  leave() {
    this.#hello.close()
    this.#release()
  }

  async #ask() {
    const { held = [] } = await navigator.locks.query()
    this.#others = held.filter(({ name }) => name === this.#lockName).length > 1
    this.#askedAt = performance.now()
  }
}

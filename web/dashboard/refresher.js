/**
 * Reading again: events tell most of what happens, the store all of it. Whoever hears of something asks for a reading
 * `soon`, which comes after a pause; whoever has to have one asks for it `now`. There is never more than one at a time.
 * Without being asked it reads now and then: of an event that was lost on the way, nobody hears.
 */

const IDLE_MS = 30_000

export class Refresher {
  #read
  #pauseMs
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer
  /** @type {ReturnType<typeof setInterval>} */ #idling
  #isReading = false
  /** What was asked for during a reading. @type {"" | "soon" | "now"} */ #asked = ""
  #isStopped = false

  /** @param {() => Promise<void>} read  sees to its own errors @param {number} pauseMs */
  constructor(read, pauseMs) {
    this.#read = read
    this.#pauseMs = pauseMs
    this.#idling = setInterval(() => document.hidden || this.soon(), IDLE_MS)
  }

  soon() {
    if (this.#isStopped) return
    if (this.#isReading) this.#asked ||= "soon"
    else this.#timer ??= setTimeout(() => this.now(), this.#pauseMs)
  }

  async now() {
    if (this.#isStopped) return
    if (this.#isReading) {
      this.#asked = "now"
      return
    }
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#isReading = true
    this.#asked = ""
    await this.#read()
    this.#isReading = false
    this.#readAgain()
  }

  stop() {
    this.#isStopped = true
    clearTimeout(this.#timer)
    clearInterval(this.#idling)
  }

  #readAgain() {
    if (this.#asked === "now") this.now()
    else if (this.#asked === "soon") this.soon()
  }
}

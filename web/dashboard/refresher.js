/**
 * Reading again: events tell most of what happens, the store all of it. Whoever hears of something asks for a reading
 * `soon`, which comes after a pause; whoever has to have one asks for it `now`. There is never more than one at a time.
 */
export class Refresher {
  #read
  #pauseMs
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer
  #isReading = false
  /** What was asked for during a reading. @type {"" | "soon" | "now"} */ #asked = ""
  #isStopped = false

  /** @param {() => Promise<void>} read  sees to its own errors @param {number} pauseMs */
  constructor(read, pauseMs) {
    this.#read = read
    this.#pauseMs = pauseMs
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

  #readAgain() {
    if (this.#asked === "now") this.now()
    else if (this.#asked === "soon") this.soon()
  }

  stop() {
    this.#isStopped = true
    clearTimeout(this.#timer)
  }
}

/** Where the runs are kept: how much of the space is used, whether the browser keeps its promise, and the file itself. */

import { h, setAttribute, setText, show } from "./dom.js"
import { bytes } from "./format.js"
import { Refresher } from "./refresher.js"

/** @typedef {import("./client.js").Client} Client */

const PAUSE_MS = 5000
/** States that the words about the promise tell, or of which there is nothing to tell. */
const USUAL = ["persistent", "best-effort", "ready"]
const KINDS = { opfs: "in this browser's private files", file: "in a file", memory: "in memory only" }

export class Storage {
  #client
  #say
  #words = h("p")
  #kept = h("p", { class: "quiet" })
  #meter = h("div", { class: "progress", role: "meter", "aria-label": "Storage used", "aria-valuemin": 0 }, h("i"))
  #export = h("button", { type: "button", onclick: () => this.#download() }, "Export the database")
  #refresher = new Refresher(() => this.#read(), PAUSE_MS)
  #stopHearing

  /** @param {Client} client @param {import("./news.js").News} news @param {(words: string, isWrong?: boolean) => void} say */
  constructor(client, news, say) {
    this.#client = client
    this.#say = say
    this.element = h("footer", { class: "storage", "aria-label": "Storage" }, h("div", {}, this.#words, this.#meter, this.#kept), this.#export)
    this.#stopHearing = news.on(() => this.#refresher.soon())
    show(this.#meter, false)
    this.#refresher.now()
  }

  stop() {
    this.#refresher.stop()
    this.#stopHearing()
  }

  async #read() {
    try {
      const info = await this.#client.storageInfo()
      const { kind, bytesUsed, quota, persisted, state, sqliteVersion } = info
      setText(this.#words, `${bytes(bytesUsed)}${quota ? ` of ${bytes(quota)}` : ""} ${KINDS[kind]}`)
      const promise = persisted === null ? "" : persisted ? "The browser keeps them for good. " : "The browser may clear them when space is short. "
      const isUsual = USUAL.includes(state)
      setText(this.#kept, `${promise}${isUsual ? "" : `State: ${state}. `}SQLite ${sqliteVersion}`)
      setAttribute(this.element, "data-state", isUsual ? null : "wrong")
      show(this.#meter, quota !== null)
      if (quota) {
        setAttribute(this.#meter, "aria-valuemax", quota)
        setAttribute(this.#meter, "aria-valuenow", Math.min(bytesUsed, quota))
        setAttribute(this.#meter, "aria-valuetext", `${bytes(bytesUsed)} of ${bytes(quota)}`)
        this.#meter.style.setProperty("--share", String(Math.min(1, bytesUsed / quota)))
      }
    } catch (error) {
      setText(this.#words, `The storage cannot be asked: ${/** @type {Error} */ (error).message}`)
    }
  }

  async #download() {
    this.#export.disabled = true
    try {
      const url = URL.createObjectURL(await this.#client.export())
      h("a", { href: url, download: `durably-${new Date().toISOString().slice(0, 10)}.sqlite3` }).click()
      // The download has begun by then; what is never revoked would stay in memory.
      setTimeout(() => URL.revokeObjectURL(url), 60_000)
      this.#say("The database is exported.")
    } catch (error) {
      this.#say(/** @type {Error} */ (error).message, true)
    } finally {
      this.#export.disabled = false
    }
  }
}

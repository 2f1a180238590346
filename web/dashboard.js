/**
 * `<durably-dashboard>`: the runs of a durably, live, in a page of yours.
 *
 * ```html
 * <durably-dashboard></durably-dashboard>
 * <script type="module">
 *   import { connect } from "./durably/durably.js"
 *   await connect({ database: "app.sqlite3", jobs: ["./jobs.py"] })
 * </script>
 * ```
 *
 * It shows the page's first connection, or the one that its property `durably` is set to; `connect` loads this file where
 * the page has the element. Attributes: `url` connects to a server by itself; `routing` keeps the run that is shown in the address. Colours
 * follow the `color-scheme` of the element, and the custom properties `--durably-accent` and `--durably-font` change
 * them. Nothing of a run's data is ever taken for markup.
 *
 * @module
 */

import { h, icon, setText, show } from "./dashboard/dom.js"
import { RunList } from "./dashboard/list.js"
import { News } from "./dashboard/news.js"
import { RunPage } from "./dashboard/run.js"
import { Storage } from "./dashboard/storage.js"
import { styles } from "./dashboard/styles.js"
import { TriggerPage } from "./dashboard/trigger.js"
import { connect, firstConnection } from "./durably.js"

/**
 * @typedef {import("./dashboard/client.js").Client} Client
 * @typedef {{ element: HTMLElement, focus: () => void, stop: () => void }} View
 */

const PLUS = "M8 3v10M3 8h10"
const CLOSE = "M4 4l8 8M12 4l-8 8"
const RUN_ROUTE = "#run="
const TRIGGER_ROUTE = "#trigger"
const NOTICE_MS = 6000

export class DurablyDashboard extends HTMLElement {
  static observedAttributes = ["url"]

  /** @type {Client | null} */ #client = null
  /** The connection that this element has made, and therefore ends. @type {Client | null} */ #own = null
  /** @type {News | null} */ #news = null
  /** @type {RunList | null} */ #list = null
  /** @type {Storage | null} */ #storage = null
  /** What is shown instead of the list. @type {View | null} */ #view = null
  #shownRun = ""
  #isAttached = false
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #hiding
  #new = h("button", { type: "button", class: "primary", onclick: () => this.#openTrigger() }, icon(PLUS), "Run a job")
  #head = h("header", { class: "line brand" }, h("h1", {}, h("span", { class: "mark", "aria-hidden": "true" }, h("i"), h("i"), h("i")), "durably"), this.#new)
  #waiting = h("p", { class: "empty" }, "Waiting for a connection …")
  #main = h("div", { class: "main" }, this.#waiting)
  #foot = h("div")
  #words = h("span")
  #notice = h("div", { class: "notice" }, this.#words, h("button", { type: "button", class: "plain", "aria-label": "Close this message", onclick: () => this.#unsay() }, icon(CLOSE)))
  #followAddress = () => this.#goToAddress()

  constructor() {
    super()
    const root = this.attachShadow({ mode: "open" })
    root.adoptedStyleSheets = styles
    const live = h("div", { class: "live", role: "status", "aria-live": "polite" }, this.#notice)
    root.append(h("div", { class: "dashboard" }, this.#head, this.#main, this.#foot, live))
    show(this.#notice, false)
    show(this.#new, false)
    this.addEventListener("keydown", (event) => this.#pressed(event))
  }

  /** The connection whose runs are shown. */
  get durably() {
    return this.#client
  }

  set durably(client) {
    this.#stop()
    if (client !== this.#own) this.#disconnect()
    this.#client = client
    if (this.#isAttached) this.#start()
  }

  connectedCallback() {
    this.#isAttached = true
    // Set before this class was known, it is a property of the element itself.
    if (Object.hasOwn(this, "durably")) {
      const { durably } = this
      Reflect.deleteProperty(this, "durably")
      this.durably = durably
      return
    }
    this.#start()
  }

  disconnectedCallback() {
    this.#isAttached = false
    this.#stop()
    this.#disconnect()
  }

  attributeChangedCallback() {
    if (!this.#isAttached) return
    this.#disconnect()
    this.#start()
  }

  #start() {
    this.#stop()
    const url = this.getAttribute("url")
    if (!this.#client) void (url === null ? this.#adopt() : this.#connect(url))
    if (!this.#client) return
    const client = this.#client
    const news = new News(client)
    this.#news = news
    news.on((events) => {
      for (const { type, error } of events) if (type === "worker:error") this.#say(`The worker says: ${error}`, true)
    })
    this.#list = new RunList(client, news, { open: (id) => this.#openRun(id), trigger: () => this.#openTrigger() })
    this.#storage = new Storage(client, news, (words, isWrong) => this.#say(words, isWrong))
    this.#main.replaceChildren(this.#list.element)
    this.#foot.replaceChildren(this.#storage.element)
    show(this.#new, true)
    const list = this.#list
    client.jobs().then(
      (jobs) => list.offer(jobs.map(({ name }) => name)),
      (error) => this.#say(`The jobs cannot be read: ${error.message}`, true),
    )
    if (this.hasAttribute("routing")) {
      addEventListener("hashchange", this.#followAddress)
      this.#goToAddress()
    }
  }

  #stop() {
    removeEventListener("hashchange", this.#followAddress)
    clearTimeout(this.#hiding)
    for (const part of [this.#view, this.#list, this.#storage, this.#news]) part?.stop()
    this.#view = this.#list = this.#storage = this.#news = null
    this.#shownRun = ""
    this.#main.replaceChildren(this.#waiting)
    this.#foot.replaceChildren()
    show(this.#new, false)
  }

  /** Show the page's own connection, when it has one. */
  async #adopt() {
    const client = await firstConnection
    if (!this.#client && !this.hasAttribute("url") && this.#isAttached) this.durably = client
  }

  /** @param {string} url */
  async #connect(url) {
    try {
      const client = await connect({ url })
      if (this.#client || this.getAttribute("url") !== url || !this.#isAttached) return client.close?.()
      this.#own = client
      this.durably = client
    } catch (error) {
      setText(this.#waiting, /** @type {Error} */ (error).message)
    }
  }

  #disconnect() {
    this.#own?.close?.()
    if (this.#client === this.#own) this.#client = null
    this.#own = null
  }

  /** @param {string} runId */
  #openRun(runId) {
    if (!this.#client || !this.#news) return
    const doors = { say: this.#say.bind(this), open: this.#openRun.bind(this), leave: this.#leave.bind(this) }
    this.#show(new RunPage(this.#client, this.#news, runId, doors), runId, RUN_ROUTE + encodeURIComponent(runId))
  }

  #openTrigger() {
    if (!this.#client) return
    const doors = { say: this.#say.bind(this), open: this.#openRun.bind(this), leave: this.#leave.bind(this) }
    this.#show(new TriggerPage(this.#client, doors), "", TRIGGER_ROUTE)
  }

  /** Show a view instead of the list, which goes on behind it. @param {View} view @param {string} runId @param {string} route */
  #show(view, runId, route) {
    this.#view?.stop()
    this.#view = view
    this.#shownRun = runId || this.#shownRun
    this.#main.replaceChildren(view.element)
    show(this.#new, false)
    this.#setAddress(route)
    this.#scrollToTop()
    view.focus()
  }

  /** Back to the list, and there to the run that was shown. */
  #leave() {
    if (!this.#view || !this.#list) return
    this.#view.stop()
    this.#view = null
    this.#main.replaceChildren(this.#list.element)
    show(this.#new, true)
    this.#setAddress("")
    this.#scrollToTop()
    this.#list.focus(this.#shownRun)
    this.#shownRun = ""
  }

  #scrollToTop() {
    if (this.getBoundingClientRect().top < 0) this.scrollIntoView({ block: "start" })
  }

  /** @param {string} route */
  #setAddress(route) {
    const { hash } = location
    const isOurs = hash === TRIGGER_ROUTE || hash.startsWith(RUN_ROUTE)
    // What else may stand there is the page's.
    if (!this.hasAttribute("routing") || hash === route || (!route && !isOurs)) return
    history.pushState(null, "", route || location.pathname + location.search)
  }

  #goToAddress() {
    const { hash } = location
    const runId = new URLSearchParams(hash.slice(1)).get("run")
    if (runId) this.#openRun(runId)
    else if (hash === TRIGGER_ROUTE) this.#openTrigger()
    else this.#leave()
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    if (event.key !== "Escape" || event.defaultPrevented || !this.#view) return
    event.preventDefault()
    this.#leave()
  }

  /** Say how something went; what went wrong stays until it is closed. @param {string} words @param {boolean} [isWrong] */
  #say(words, isWrong = false) {
    clearTimeout(this.#hiding)
    setText(this.#words, words)
    this.#notice.classList.toggle("wrong", isWrong)
    show(this.#notice, true)
    if (!isWrong) this.#hiding = setTimeout(() => this.#unsay(), NOTICE_MS)
  }

  #unsay() {
    show(this.#notice, false)
  }
}

customElements.define("durably-dashboard", DurablyDashboard)

/** The lines that a run has logged, the newest last and in view unless the reader has scrolled up. */

import { h, icon, setText, show } from "./dom.js"
import { clockTime, count, json, moment } from "./format.js"

/** @typedef {import("./client.js").Log} Log */

const MAX_LINES = 1000
const MAX_SHORT = 120
const NEAR_THE_END_PX = 32
const SHAPES = {
  info: "M8 2.2a5.8 5.8 0 1 0 0 11.6a5.8 5.8 0 1 0 0-11.6M8 7.6v3M8 5.2v.1",
  warning: "M8 2.6L14 13H2zM8 6.6v3M8 11.2v.1",
  error: "M4 4l8 8M12 4l-8 8",
}

export class Logs {
  /** Lines that were heard while what is stored is being read. @type {Log[] | null} */ #heard = null
  #list = h("ol", { class: "lines", tabindex: 0, "aria-label": "Log lines" })
  #none = h("p", { class: "quiet" }, "Nothing was logged, or no log is kept.")
  #count = h("span", { class: "quiet" })
  #total = 0

  constructor() {
    this.element = h("section", { class: "card logs", "aria-label": "Log" }, h("div", { class: "line" }, h("h3", {}, "Log"), this.#count), this.#none, this.#list)
    this.#describe()
  }

  /** What is stored is about to be read. */
  expect() {
    this.#heard = []
  }

  /**
   * Take the stored lines, if there are more of them than were heard: some may have been lost on the way, and some
   * were logged before anybody listened. Those that were heard meanwhile follow, unless they are among them.
   * @param {Log[]} stored
   */
  take(stored) {
    const same = (/** @type {Log} */ one) => [one.level, one.message, one.stepName].join("\n")
    const known = new Set(stored.map(same))
    const all = [...stored, ...(this.#heard ?? []).filter((line) => !known.has(same(line)))]
    this.#heard = null
    if (all.length <= this.#total) return
    this.#list.replaceChildren()
    this.#total = 0
    this.#add(all)
  }

  /** @param {import("./client.js").DurablyEvent[]} events */
  hear(events) {
    const lines = events
      .filter(({ type }) => type === "log:write")
      .map(({ timestamp, level, message, data, stepName }) => ({ level, message, data, stepName, createdAt: timestamp }))
    this.#heard?.push(...lines)
    this.#add(lines)
  }

  /** @param {Log[]} lines */
  #add(lines) {
    if (lines.length === 0) return
    const { scrollHeight, scrollTop, clientHeight } = this.#list
    const isFollowing = scrollHeight - scrollTop - clientHeight < NEAR_THE_END_PX
    this.#total += lines.length
    this.#list.append(...lines.slice(-MAX_LINES).map(line))
    while (this.#list.childElementCount > MAX_LINES) this.#list.firstElementChild?.remove()
    this.#describe()
    if (isFollowing) this.showLatest()
  }

  /** Scroll to the end. */
  showLatest() {
    this.#list.scrollTop = this.#list.scrollHeight
  }

  #describe() {
    const hidden = this.#total - this.#list.childElementCount
    setText(this.#count, hidden ? `the last ${count(MAX_LINES)} of ${count(this.#total)}` : this.#total ? count(this.#total) : "")
    show(this.#none, this.#total === 0)
    show(this.#list, this.#total > 0)
  }
}

/** On one line if it is short. @param {unknown} data */
function textOf(data) {
  const short = JSON.stringify(data)
  return short.length <= MAX_SHORT ? short : json(data)
}

/** @param {Log} log */
function line({ level, message, data, stepName, createdAt }) {
  const hasData = data !== null && data !== undefined
  return h(
    "li",
    { "data-level": level },
    h("time", { datetime: createdAt, title: moment(createdAt) }, clockTime(createdAt)),
    h("span", { class: "level" }, icon(SHAPES[level]), level),
    h("span", { class: "message" }, message, stepName && h("span", { class: "quiet" }, ` ${stepName}`), hasData && h("code", {}, textOf(data))),
  )
}

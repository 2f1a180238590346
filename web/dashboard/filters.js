/** The bar above the list: search, job, status. */

import { h, setAttribute } from "./dom.js"
import { STATES } from "./status.js"

/** @typedef {import("./query.js").Wanted} Wanted */

const STATUSES = /** @type {const} */ (["running", "pending", "completed", "failed", "cancelled"])
const TYPING_MS = 200

export class Filters {
  /** @type {Wanted} */ #wanted = { status: "", jobName: "", text: "" }
  #search = h("input", { type: "search", placeholder: "Search by job, id or label", "aria-label": "Search runs", spellcheck: "false", autocomplete: "off" })
  #jobs = h("select", { "aria-label": "Job" }, h("option", { value: "" }, "All jobs"))
  #chosen = h("div", { class: "statuses", role: "group", "aria-label": "Status" })
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #typing
  #change

  /** @param {(wanted: Wanted) => void} change */
  constructor(change) {
    this.#change = change
    this.#chosen.append(
      this.#button("", "All"),
      ...STATUSES.map((status) => this.#button(status, STATES[status].word)),
    )
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#typing)
      this.#typing = setTimeout(() => this.#set({ text: this.#search.value }), TYPING_MS)
    })
    this.#jobs.addEventListener("change", () => this.#set({ jobName: this.#jobs.value }))
    this.element = h("div", { class: "filters", role: "search" }, this.#search, this.#jobs, this.#chosen)
  }

  get isOn() {
    return Object.values(this.#wanted).some(Boolean)
  }

  clear() {
    this.#search.value = ""
    this.#jobs.value = ""
    this.#set({ status: "", jobName: "", text: "" })
    this.#search.focus()
  }

  /** Offer jobs to choose from; those that are there stay. @param {string[]} names */
  offer(names) {
    const known = new Set([...this.#jobs.options].map(({ value }) => value))
    for (const name of names) {
      if (known.has(name)) continue
      const next = [...this.#jobs.options].find(({ value }) => value > name) ?? null
      this.#jobs.insertBefore(h("option", { value: name }, name), next)
      known.add(name)
    }
  }

  stop() {
    clearTimeout(this.#typing)
  }

  /** @param {Wanted["status"]} status @param {string} word */
  #button(status, word) {
    const choose = () => this.#set({ status })
    return h("button", { type: "button", "data-status": status, "aria-pressed": String(status === this.#wanted.status), onclick: choose }, word)
  }

  /** @param {Partial<Wanted>} change */
  #set(change) {
    this.#wanted = { ...this.#wanted, ...change }
    for (const button of this.#chosen.children) {
      setAttribute(button, "aria-pressed", String(button.getAttribute("data-status") === this.#wanted.status))
    }
    this.#change(this.#wanted)
  }
}

/** The steps of a run as bars on a common axis of time. */

import { h, newId, setAttribute, setText, show, walkWithArrows } from "./dom.js"
import { axisStep, clockTime, count, duration, json, shortened } from "./format.js"
import { STATES, badge, setBadge } from "./status.js"

/**
 * @typedef {import("./steps.js").Bar} Bar
 * @typedef {{ from: number, to: number }} Span  in ms
 */

const MAX_BARS = 100
const MAX_GLANCE = 400
/** What the label of a mark on the axis needs. */
const MARK_PX = 130
const LEGEND = { completed: "Executed", replayed: "Replayed from the store", retried: "Retried", running: "Running", waiting: "Asleep or waiting", failed: "Failed", cancelled: "Cancelled" }

/** A step's row: its name, its bar, and below them, when it was opened, all that is known of it. */
class BarRow {
  #name = h("span", { class: "name mono" })
  #bar = h("i", { class: "bar" })
  #badge = badge()
  #took = h("span", { class: "took" })
  #facts = h("div", { class: "facts", hidden: true, id: newId() })
  #isOpen = false
  /** @type {Bar | null} */ #shown = null
  #glance

  /** @param {(row: BarRow | null) => void} glance  told which row is looked at */
  constructor(glance) {
    this.#glance = glance
    this.button = h(
      "button",
      { type: "button", "aria-expanded": "false", "aria-controls": this.#facts.id, onclick: () => this.#toggle() },
      this.#name,
      h("span", { class: "track" }, this.#bar),
      h("span", { class: "outcome" }, this.#badge, this.#took),
    )
    for (const [name, row] of /** @type {[string, BarRow | null][]} */ ([["mouseenter", this], ["focus", this], ["mouseleave", null], ["blur", null]])) {
      this.button.addEventListener(name, () => glance(row))
    }
    this.element = h("li", {}, this.button, this.#facts)
  }

  get isOpen() {
    return this.#isOpen
  }

  /** @param {Bar} bar @param {Span} span @param {number} now */
  update(bar, span, now) {
    const { step, state, start } = bar
    const end = bar.end ?? now
    this.#bar.style.setProperty("--from", String(start - span.from))
    this.#bar.style.setProperty("--to", String(end - span.from))
    setText(this.#took, duration(end - start))
    const old = this.#shown
    this.#shown = bar
    if (old?.state === state && old.step === step) return
    setText(this.#name, step.name)
    setAttribute(this.element, "data-state", state)
    setBadge(this.#badge, state)
    if (this.#isOpen) this.#facts.replaceChildren(this.#describe(Infinity))
  }

  /** What is to be seen at a glance. */
  glance() {
    return this.#describe(MAX_GLANCE)
  }

  #toggle() {
    this.#isOpen = !this.#isOpen
    setAttribute(this.button, "aria-expanded", String(this.#isOpen))
    this.#facts.replaceChildren(...(this.#isOpen ? [this.#describe(Infinity)] : []))
    show(this.#facts, this.#isOpen)
    this.#glance(this)
  }

  /** @param {number} most  characters of a value */
  #describe(most) {
    const { step, state, start, end } = /** @type {Bar} */ (this.#shown)
    const value = step.error ?? (step.status === "completed" ? json(step.output) : "")
    return h(
      "div",
      { class: "about" },
      h("b", { class: "mono" }, step.name),
      h("p", { class: "quiet" }, [STATES[state].word, end && duration(end - start), `from ${clockTime(step.startedAt)}`, `attempt ${step.attempt}`].filter(Boolean).join(" · ")),
      value && h("pre", { class: step.error === null ? "" : "error", tabindex: most === Infinity ? 0 : null }, shortened(value, most)),
    )
  }
}

export class Timeline {
  /** @type {Map<string, BarRow>} */ #rows = new Map()
  /** @type {Bar[]} */ #bars = []
  #isWhole = false
  #list = h("ol", { class: "bars" })
  #axis = h("div", { class: "axis", "aria-hidden": "true" })
  #legend = h("ul", { class: "legend", "aria-label": "What the bars mean" })
  #all = h("button", { type: "button", class: "small", onclick: () => this.#showAll() }, "Show all steps")
  #none = h("p", { class: "quiet" }, "No step has a checkpoint yet.")
  #count = h("span", { class: "quiet" })
  #tip = h("div", { class: "tip", hidden: true, id: newId(), role: "tooltip" })
  /** @type {Span} */ #span = { from: 0, to: 1 }
  #now = 0

  constructor() {
    this.element = h(
      "section",
      { class: "card timeline", "aria-label": "Timeline of the steps" },
      h("div", { class: "line" }, h("h3", {}, "Steps"), this.#count),
      this.#none,
      h("div", { class: "chart" }, this.#axis, this.#list, this.#tip),
      this.#all,
      this.#legend,
    )
    walkWithArrows(this.#list, "li > button")
    this.#list.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.#tip.hidden) return
      this.#glance(null)
      event.stopPropagation()
    })
  }

  /** @param {Bar[]} bars @param {Span} span @param {number} now */
  update(bars, span, now) {
    this.#bars = bars
    this.#span = span
    this.#now = now
    this.#drawAxis()
    this.#drawRows()
    setText(this.#count, bars.length ? count(bars.length) : "")
    show(this.#none, bars.length === 0)
    show(this.#all, !this.#isWhole && bars.length > MAX_BARS)
    setText(this.#all, `Show all ${count(bars.length)} steps`)
    this.#drawLegend(new Set(bars.map(({ state }) => (state === "sleeping" ? "waiting" : state))))
  }

  #showAll() {
    this.#isWhole = true
    this.update(this.#bars, this.#span, this.#now)
    this.#list.querySelector("button")?.focus()
  }

  #drawRows() {
    // The newest are what one wants to see of a run that goes on.
    const bars = this.#isWhole ? this.#bars : this.#bars.slice(-MAX_BARS)
    const names = new Set(bars.map(({ step }) => step.name))
    for (const [name, row] of this.#rows) {
      if (names.has(name)) continue
      row.element.remove()
      this.#rows.delete(name)
    }
    // The axis grows with each look at a run that goes on; its bars are left alone, and measured by this.
    this.#list.style.setProperty("--length", String(this.#span.to - this.#span.from))
    let at = this.#list.firstElementChild
    for (const bar of bars) {
      const row = this.#rows.get(bar.step.name) ?? new BarRow((looked) => this.#glance(looked))
      this.#rows.set(bar.step.name, row)
      row.update(bar, this.#span, this.#now)
      if (row.element === at) at = at.nextElementSibling
      else this.#list.insertBefore(row.element, at)
    }
  }

  #drawAxis() {
    const { from, to } = this.#span
    const every = axisStep(to - from, Math.max(2, Math.floor(this.#axis.clientWidth / MARK_PX)))
    const marks = Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, at) => at * every)
    while (this.#axis.childElementCount > marks.length) this.#axis.lastElementChild?.remove()
    while (this.#axis.childElementCount < marks.length) this.#axis.append(h("span"))
    for (const [at, mark] of marks.entries()) {
      const label = /** @type {HTMLElement} */ (this.#axis.children[at])
      const share = mark / (to - from)
      setText(label, mark ? duration(mark).replace(".0 s", " s") : "0")
      label.style.setProperty("--at", share.toFixed(5))
      label.classList.toggle("last", share > 0.9)
    }
    show(this.#axis, this.#bars.length > 0)
  }

  /** @param {Set<string>} states */
  #drawLegend(states) {
    const shown = Object.entries(LEGEND).filter(([state]) => states.has(state))
    if (this.#legend.dataset.states === shown.join()) return
    this.#legend.dataset.states = shown.join()
    this.#legend.replaceChildren(...shown.map(([state, words]) => h("li", { "data-state": state }, h("i", { class: "bar" }), words)))
  }

  /** Show what a row has to tell beside it; nothing where that is open already. @param {BarRow | null} row */
  #glance(row) {
    show(this.#tip, row !== null && !row.isOpen)
    for (const each of this.#rows.values()) setAttribute(each.button, "aria-describedby", each === row && !row.isOpen ? this.#tip.id : null)
    if (!row || row.isOpen) return
    this.#tip.replaceChildren(row.glance())
    this.#tip.style.setProperty("--top", `${row.element.offsetTop + row.button.offsetHeight}px`)
  }
}

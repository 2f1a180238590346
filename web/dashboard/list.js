/** The list of runs: newest first, a page at a time, live. */

import { h, setText, show, walkWithArrows } from "./dom.js"
import { Filters } from "./filters.js"
import { count } from "./format.js"
import { runAfter, runFrom } from "./news.js"
import { PAGE_LENGTH, Query, isWanted } from "./query.js"
import { Refresher } from "./refresher.js"
import { Row } from "./row.js"

/**
 * @typedef {import("./client.js").Client} Client
 * @typedef {import("./client.js").DurablyEvent} DurablyEvent
 * @typedef {import("./client.js").Run} Run
 */

const PAUSE_MS = 1500
const TICK_MS = 1000
const COLUMNS = ["Status", "Job", "Labels", "Progress", "Started", "Duration"]

export class RunList {
  #client
  #doors
  #stopHearing
  #ticking
  #query
  #page = 0
  /** Runs that came since the first page was read: they push the others down by so many places. */
  #arrived = 0
  #hasOlder = false
  #isRead = false
  /** @type {Map<string, Run>} */ #runs = new Map()
  /** @type {Map<string, Row>} */ #rows = new Map()
  /** Runs of which something was heard while they were being read: what was read may be older. @type {Set<string>} */ #heard = new Set()
  #refresher = new Refresher(() => this.#read(), PAUSE_MS)
  #filters = new Filters((wanted) => this.#want(wanted))
  #body = h("div", { role: "rowgroup", class: "rows" })
  #table = h(
    "div",
    { role: "table", class: "table", "aria-label": "Runs" },
    h("div", { role: "rowgroup", class: "head" }, h("div", { role: "row", class: "row" }, ...COLUMNS.map((name) => h("div", { role: "columnheader" }, name)))),
    this.#body,
  )
  #empty = h("div", { class: "empty" })
  #said = h("p", { class: "quiet said", role: "status" })
  #newer = h("button", { type: "button", onclick: () => this.#turn(-1) }, "Newer")
  #older = h("button", { type: "button", onclick: () => this.#turn(1) }, "Older")
  #pages = h("nav", { class: "pages", "aria-label": "Pages" }, this.#said, this.#newer, this.#older)

  /**
   * @param {Client} client @param {import("./news.js").News} news
   * @param {{ open: (runId: string) => void, trigger: () => void }} doors
   */
  constructor(client, news, doors) {
    this.#client = client
    this.#doors = doors
    this.#query = new Query(client, { status: "", jobName: "", text: "" })
    this.#stopHearing = news.on((events, isComplete) => this.#hear(events, isComplete))
    this.element = h("section", { class: "view list", "aria-label": "Runs" }, this.#filters.element, this.#table, this.#empty, this.#pages)
    walkWithArrows(this.#body, "button.open")
    this.#ticking = setInterval(() => this.#tick(), TICK_MS)
    this.#render()
    this.#refresher.now()
  }

  stop() {
    clearInterval(this.#ticking)
    this.#filters.stop()
    this.#refresher.stop()
    this.#stopHearing()
  }

  /** Offer jobs in the filter. @param {string[]} names */
  offer(names) {
    this.#filters.offer(names)
  }

  /** Focus a run's row, or else the first that can be focused. @param {string} runId */
  focus(runId) {
    const target = this.#rows.get(runId)?.button ?? this.element.querySelector("input")
    target?.focus()
  }

  /** @param {import("./query.js").Wanted} wanted */
  #want(wanted) {
    this.#query = new Query(this.#client, wanted)
    this.#goTo(0)
  }

  /** @param {number} by */
  #turn(by) {
    this.#goTo(this.#page + by)
    this.element.scrollIntoView({ block: "nearest" })
  }

  /** @param {number} page */
  #goTo(page) {
    this.#page = page
    if (page === 0) this.#arrived = 0
    this.#isRead = false
    this.#refresher.now()
  }

  async #read() {
    const [query, page] = [this.#query, this.#page]
    const isCurrent = () => query === this.#query && page === this.#page
    if (this.#isRead && !query.isCheap) return
    const goesOn = (/** @type {number} */ looked) => {
      if (isCurrent() && looked) setText(this.#said, `Searching: ${count(looked)} runs looked at`)
      return isCurrent()
    }
    this.#heard.clear()
    try {
      const runs = await query.page(page * PAGE_LENGTH + (page && this.#arrived), goesOn)
      if (isCurrent()) this.#take(runs)
    } catch (error) {
      if (isCurrent()) this.#refused(/** @type {Error} */ (error))
    }
  }

  /** @param {Run[]} runs */
  #take(runs) {
    const known = this.#isRead ? this.#runs : new Map()
    this.#isRead = true
    this.#hasOlder = runs.length > PAGE_LENGTH
    this.#runs = new Map()
    for (const run of runs.slice(0, PAGE_LENGTH)) {
      const mine = known.get(run.id)
      this.#runs.set(run.id, mine && this.#heard.has(run.id) ? mine : run)
    }
    for (const [id, run] of known) if (this.#heard.has(id)) this.#runs.set(id, run)
    if (this.#heard.size) this.#refresher.soon()
    this.#filters.offer(runs.map(({ jobName }) => jobName))
    this.#render()
  }

  /** @param {DurablyEvent[]} events @param {boolean} isComplete */
  #hear(events, isComplete) {
    let isChanged = false
    let isUnknown = !isComplete
    for (const event of events) {
      const { type, runId } = event
      if (!runId) continue
      const run = this.#runs.get(runId)
      if (run) {
        const after = runAfter(run, event)
        this.#heard.add(runId)
        isUnknown ||= type.startsWith("step:")
        if (after && isWanted(after, this.#query.wanted)) this.#runs.set(runId, after)
        else this.#runs.delete(runId)
        isChanged ||= after !== run
      } else if (type === "run:trigger" && isWanted(runFrom(event), this.#query.wanted)) {
        this.#arrive(runFrom(event))
        isChanged = true
      } else if (type.startsWith("run:") && type !== "run:progress") {
        isUnknown = true // it may be one that is wanted from now on
      }
    }
    if (isChanged) this.#render()
    if (isUnknown) this.#refresher.soon()
  }

  /** @param {Run} run */
  #arrive(run) {
    this.#arrived += 1
    this.#query.add(run)
    this.#filters.offer([run.jobName])
    if (this.#page > 0 || !this.#isRead) return
    this.#heard.add(run.id)
    this.#runs.set(run.id, run)
  }

  /** @param {Error} error */
  #refused(error) {
    this.#isRead = true
    this.#empty.replaceChildren(
      h("p", { role: "alert" }, h("b", {}, "The runs cannot be read. "), error.message),
      h("button", { type: "button", onclick: () => this.#refresher.now() }, "Try again"),
    )
    show(this.#empty, true)
    show(this.#table, this.#runs.size > 0)
  }

  #tick() {
    const now = Date.now()
    for (const row of this.#rows.values()) row.tick(now)
  }

  #render() {
    const now = Date.now()
    const all = [...this.#runs.values()].sort((one, other) => (one.id < other.id ? 1 : -1))
    const runs = all.slice(0, PAGE_LENGTH)
    this.#hasOlder ||= all.length > PAGE_LENGTH
    for (const { id } of all.slice(PAGE_LENGTH)) this.#runs.delete(id)
    const lost = this.#drop()
    let at = this.#body.firstElementChild
    for (const run of runs) {
      const row = this.#rows.get(run.id) ?? this.#make(run.id)
      row.update(run, now)
      // A row that is where it belongs is not moved: it would lose the focus.
      if (row.element === at) at = at.nextElementSibling
      else this.#body.insertBefore(row.element, at)
    }
    show(this.#table, runs.length > 0)
    // The run that had the focus is gone: whoever takes its place has it now.
    if (lost >= 0) this.#rows.get(runs[Math.min(lost, runs.length - 1)]?.id)?.button.focus()
    if (this.#isRead) this.#describe(runs.length)
  }

  /** @param {string} id */
  #make(id) {
    const row = new Row(id, () => this.#doors.open(id))
    this.#rows.set(id, row)
    return row
  }

  /** Take away the rows of runs that are no longer shown. @returns {number} the place of the one that had the focus, or -1 */
  #drop() {
    const { activeElement } = /** @type {ShadowRoot | Document} */ (this.#body.getRootNode())
    const places = [...this.#body.children]
    let place = -1
    for (const [id, row] of this.#rows) {
      if (this.#runs.has(id)) continue
      if (row.button === activeElement) place = places.indexOf(row.element)
      row.element.remove()
      this.#rows.delete(id)
    }
    return place
  }

  /** @param {number} length */
  #describe(length) {
    const first = this.#page * PAGE_LENGTH + 1
    const more = this.#hasOlder ? ", and older ones" : ""
    setText(this.#said, length ? `Runs ${count(first)} to ${count(first + length - 1)}${more}` : "")
    this.#newer.disabled = this.#page === 0
    this.#older.disabled = !this.#hasOlder
    show(this.#pages, length > 0 || this.#page > 0)
    show(this.#empty, length === 0)
    if (length) return
    const [words, action] = this.#filters.isOn
      ? ["No run fits these filters.", h("button", { type: "button", onclick: () => this.#filters.clear() }, "Clear the filters")]
      : ["There are no runs yet.", h("button", { type: "button", class: "primary", onclick: this.#doors.trigger }, "Run a job")]
    this.#empty.replaceChildren(h("p", {}, words), action)
  }
}

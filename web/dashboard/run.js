/** A run's page: what it is, what it does, what can be done to it. */

import { Actions } from "./actions.js"
import { h, icon, setAttribute, setText, show } from "./dom.js"
import { ago, count, duration, moment, progressWords } from "./format.js"
import { Logs } from "./logs.js"
import { runAfter } from "./news.js"
import { Refresher } from "./refresher.js"
import { chips, tookMs } from "./row.js"
import { badge, progressBar, setBadge, setProgress, stateOf, waitWords } from "./status.js"
import { Steps } from "./steps.js"
import { Timeline } from "./timeline.js"
import { Value } from "./value.js"

/**
 * @typedef {import("./client.js").Client} Client
 * @typedef {import("./client.js").DurablyEvent} DurablyEvent
 * @typedef {import("./client.js").Run} Run
 */

const PAUSE_MS = 1000
const TICK_MS = 250
const BACK = "M10 3.5L5.5 8l4.5 4.5"
const ALL_LABELS = 1000

export class RunPage {
  #client
  #runId
  #stopHearing
  #actions
  #body
  #ticking
  /** @type {Run | null} */ #run = null
  #isHeard = false
  /** Whether there may be lines in the log of which nothing was heard. */
  #isLogDue = true
  #steps = new Steps()
  #timeline = new Timeline()
  #logs = new Logs()
  #heading = h("h2", { tabindex: -1 })
  #badge = badge()
  #labels = h("div", { class: "labels" })
  #facts = h("dl", { class: "figures" })
  #bar = progressBar()
  #progress = h("p", { class: "quiet" })
  #going = h("div", { class: "going" }, this.#bar, this.#progress)
  #error = h("section", { class: "card wrong", "aria-label": "Error" }, h("h3", {}, "Error"), h("pre", { tabindex: 0, role: "region", "aria-label": "Text of the error" }))
  #payload = new Value("Payload")
  #output = new Value("Output")
  #nothing = h("p", { class: "card", hidden: true })
  #refresher = new Refresher(() => this.#read(), PAUSE_MS)

  /**
   * @param {Client} client @param {import("./news.js").News} news @param {string} runId
   * @param {Omit<import("./actions.js").Doors, "refresh">} doors
   */
  constructor(client, news, runId, doors) {
    this.#client = client
    this.#runId = runId
    this.#actions = new Actions(client, { ...doors, refresh: () => this.#refresher.now() })
    this.#stopHearing = news.on((events, isComplete) => this.#hear(events, isComplete))
    this.#body = h(
      "div",
      { class: "body", hidden: true },
      h("header", { class: "line top" }, h("div", { class: "title" }, this.#heading, this.#badge), this.#actions.element),
      h("p", { class: "mono quiet id" }, runId),
      this.#labels,
      this.#going,
      this.#facts,
      this.#actions.signalForm,
      this.#error,
      this.#timeline.element,
      h("div", { class: "pair" }, this.#payload.element, this.#output.element),
      this.#logs.element,
    )
    this.element = h(
      "section",
      { class: "view run", "aria-label": `Run ${runId}` },
      h("button", { type: "button", class: "back", onclick: doors.leave }, icon(BACK), "All runs"),
      this.#nothing,
      this.#body,
    )
    this.#ticking = setInterval(() => this.#tick(), TICK_MS)
    this.#refresher.now()
  }

  stop() {
    clearInterval(this.#ticking)
    this.#refresher.stop()
    this.#stopHearing()
  }

  focus() {
    const target = this.#body.hidden ? this.element.querySelector("button") : this.#heading
    target?.focus()
  }

  async #read() {
    // Asked for by nobody, it looks for what was missed.
    if (this.#isLogDue || !this.#isHeard) this.#readLogs()
    this.#isHeard = false
    this.#steps.expect()
    try {
      const run = await this.#client.getRun(this.#runId)
      if (!run) return this.#sayThatThereIsNone("There is no such run; it may have been deleted.")
      const steps = await this.#client.getSteps(this.#runId)
      // What was heard meanwhile may be newer than what was read.
      if (this.#isHeard && this.#run) this.#refresher.soon()
      else this.#run = run
      this.#steps.take(steps)
      this.#render()
    } catch (error) {
      // What is known of it stays in view.
      setText(this.#nothing, `The run cannot be read: ${/** @type {Error} */ (error).message}`)
      show(this.#nothing, true)
    }
  }

  async #readLogs() {
    this.#isLogDue = false
    this.#logs.expect()
    try {
      this.#logs.take(await this.#client.getLogs(this.#runId))
    } catch (error) {
      this.#logs.take([{ level: "error", message: `The log cannot be read: ${/** @type {Error} */ (error).message}`, data: null, stepName: null, createdAt: new Date().toISOString() }])
    }
  }

  /** @param {DurablyEvent[]} all @param {boolean} isComplete */
  #hear(all, isComplete) {
    const events = all.filter(({ runId }) => runId === this.#runId)
    if (!isComplete || events.length) this.#refresher.soon()
    this.#isLogDue ||= !isComplete || events.some(({ type }) => type.startsWith("run:") && type !== "run:progress")
    if (events.length === 0) return
    this.#isHeard = true
    for (const event of events) {
      this.#steps.hear(event)
      if (!this.#run) continue
      const run = runAfter(this.#run, event)
      if (!run) return this.#sayThatThereIsNone("This run has been deleted.")
      this.#run = run
    }
    this.#logs.hear(events)
    this.#render()
  }

  /** @param {string} words */
  #sayThatThereIsNone(words) {
    setText(this.#nothing, words)
    show(this.#nothing, true)
    show(this.#body, false)
  }

  #render() {
    const run = this.#run
    if (!run) return
    const isFirst = this.#body.hidden
    show(this.#nothing, false)
    show(this.#body, true)
    setText(this.#heading, run.jobName)
    setBadge(this.#badge, stateOf(run))
    if (isFirst) this.#labels.replaceChildren(...chips(run.labels, ALL_LABELS))
    show(this.#labels, Object.keys(run.labels).length > 0)
    this.#renderProgress(run)
    show(this.#error, run.error !== null)
    setText(/** @type {Element} */ (this.#error.lastElementChild), run.error ?? "")
    this.#payload.set(run.payload)
    this.#output.set(run.status === "completed" ? run.output : undefined)
    const isFocusLost = this.#actions.update(run)
    this.#tick(true)
    if (isFirst) this.#logs.showLatest()
    if (isFirst || isFocusLost) this.#heading.focus({ preventScroll: !isFirst })
  }

  /** @param {Run} run */
  #renderProgress(run) {
    const { progress } = run
    const isOfUse = progress !== null && run.status !== "completed"
    show(this.#going, isOfUse)
    if (!isOfUse) return
    const words = progressWords(progress)
    setProgress(this.#bar, progress, words, `Progress of ${run.jobName}`)
    setText(this.#progress, progress.message ? `${words} · ${progress.message}` : words)
  }

  /** Let times go on and bars grow; without being asked only where something does. @param {boolean} [isAsked] */
  #tick(isAsked = false) {
    const run = this.#run
    if (!run || document.hidden || !(isAsked || run.isActive)) return
    const now = Date.now()
    this.#renderFacts(run, now)
    const bars = this.#steps.bars(run, this.#client.begunAt?.(run.id))
    const from = Math.min(...bars.map(({ start }) => start), Date.parse(run.startedAt ?? run.createdAt))
    const to = Math.max(...bars.map(({ end }) => end ?? 0), run.completedAt ? Date.parse(run.completedAt) : now)
    this.#timeline.update(bars, { from, to: Math.max(to, from + 1) }, now)
  }

  /** @param {Run} run @param {number} now */
  #renderFacts(run, now) {
    const wait = waitWords(run)
    // Until a signal or another run comes it may be for ever.
    const isLater = run.status === "pending" && stateOf(run) !== "waiting" && !!run.runAt && Date.parse(run.runAt) > now
    /** @type {[string, string, string?][]} */ const facts = [
      ["Duration", run.startedAt ? duration(tookMs(run, now)) : "not started"],
      ["Steps", count(run.completedStepCount)],
      ["Triggered", ago(run.createdAt, now), run.createdAt],
      ...(run.startedAt ? [/** @type {[string, string, string]} */ (["Started", ago(run.startedAt, now), run.startedAt])] : []),
      ...(run.completedAt ? [/** @type {[string, string, string]} */ (["Ended", ago(run.completedAt, now), run.completedAt])] : []),
      ...(wait ? [/** @type {[string, string]} */ (["Waits", wait])] : []),
      ...(isLater ? [/** @type {[string, string, string]} */ (["Goes on in", duration(Date.parse(/** @type {string} */ (run.runAt)) - now), String(run.runAt)])] : []),
    ]
    while (this.#facts.childElementCount > facts.length) this.#facts.lastElementChild?.remove()
    for (const [at, [name, words, iso]] of facts.entries()) {
      const fact = this.#facts.children[at] ?? this.#facts.appendChild(h("div", {}, h("dt"), h("dd")))
      const [term, value] = fact.children
      setText(term, name)
      setText(value, words)
      setAttribute(fact, "class", name === "Waits" ? "wide" : null)
      setAttribute(value, "title", iso ? moment(iso) : null)
    }
  }
}

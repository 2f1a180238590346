/** A run's row in the list. It is made once; an update touches what has changed. */

import { h, setAttribute, setText, show } from "./dom.js"
import { ago, count, duration, moment, progressWords, shortened } from "./format.js"
import { badge, progressBar, setBadge, setProgress, stateOf, waitWords } from "./status.js"

/** @typedef {import("./client.js").Run} Run */

const MAX_LABELS = 2
const MAX_NOTE = 160

export class Row {
  #badge = badge()
  #name = h("span")
  #id = h("span", { class: "mono quiet id" })
  #labels = h("div", { class: "labels", role: "cell" })
  #bar = progressBar()
  #note = h("span", { class: "note" })
  #started = h("time", {})
  #took = h("span")
  /** @type {Run | null} */ #run = null

  /** @param {string} id @param {() => void} open */
  constructor(id, open) {
    this.button = h("button", { class: "open", type: "button", onclick: open }, this.#name)
    setText(this.#id, id)
    this.element = h(
      "div",
      { class: "row", role: "row" },
      h("div", { class: "state", role: "cell" }, this.#badge),
      h("div", { class: "job", role: "cell" }, this.button, this.#id),
      this.#labels,
      h("div", { class: "going", role: "cell" }, this.#bar, this.#note),
      h("div", { class: "when quiet", role: "cell" }, this.#started),
      h("div", { class: "took", role: "cell" }, this.#took),
    )
  }

  /** @param {Run} run @param {number} now */
  update(run, now) {
    if (run === this.#run) return
    const hasNewLabels = JSON.stringify(run.labels) !== JSON.stringify(this.#run?.labels)
    this.#run = run
    const state = stateOf(run)
    setAttribute(this.element, "data-state", state)
    setBadge(this.#badge, state)
    setText(this.#name, run.jobName)
    if (hasNewLabels) this.#labels.replaceChildren(...chips(run.labels))
    const progress = run.isActive ? run.progress : null
    show(this.#bar, progress !== null)
    if (progress) setProgress(this.#bar, progress, progressWords(progress), `Progress of ${run.jobName}`)
    const note = shortened(noteOf(run), MAX_NOTE)
    setText(this.#note, note)
    this.tick(now)
  }

  /** Let the times go on. @param {number} now */
  tick(now) {
    const run = this.#run
    if (!run) return
    const from = run.startedAt ?? run.createdAt
    setText(this.#started, `${run.startedAt ? "" : "triggered "}${ago(from, now)}`)
    setAttribute(this.#started, "datetime", from)
    setAttribute(this.#started, "title", moment(from))
    setText(this.#took, run.startedAt ? duration(tookMs(run, now)) : "")
  }
}

/** How long a run has taken, or takes since. @param {Run} run @param {number} now */
export function tookMs({ startedAt, completedAt }, now) {
  return startedAt ? (completedAt ? Date.parse(completedAt) : now) - Date.parse(startedAt) : 0
}

/** What is to be said of a run in a line. @param {Run} run */
function noteOf(run) {
  if (run.status === "failed") return (run.error ?? "").split("\n")[0]
  const wait = waitWords(run)
  if (wait) return wait
  if (run.isActive && run.progress) {
    const { message } = run.progress
    return progressWords(run.progress) + (message ? ` · ${message}` : "")
  }
  const steps = run.completedStepCount
  return steps || run.startedAt ? `${count(steps)} ${steps === 1 ? "step" : "steps"}` : ""
}

/** Labels as chips; what does not fit in is counted. @param {Record<string, string>} labels @param {number} [most] */
export function chips(labels, most = MAX_LABELS) {
  const all = Object.entries(labels).map(([key, value]) =>
    h("span", { class: "chip", title: `${key}=${value}` }, h("b", {}, key), h("span", {}, value)),
  )
  const rest = all.length - most
  return rest > 0 ? [...all.slice(0, most), h("span", { class: "chip" }, `+${rest}`)] : all
}

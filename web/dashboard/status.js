/** The states of runs and steps: each has a word and a shape, so that nobody depends on its colour. */

import { h, icon, setAttribute, setText } from "./dom.js"

/** @typedef {import("./client.js").Run} Run */

/** @type {Record<string, { word: string, path: string }>} */
export const STATES = {
  pending: { word: "Pending", path: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 5.2V8l1.9 1.6" },
  running: { word: "Running", path: "M8 2.5A5.5 5.5 0 1 1 2.5 8" },
  waiting: { word: "Waiting", path: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M6.4 6v4M9.6 6v4" },
  sleeping: { word: "Sleeping", path: "M12.9 9.6A5.4 5.4 0 1 1 6.4 3.1a4.4 4.4 0 0 0 6.5 6.5z" },
  completed: { word: "Completed", path: "M3 8.6l3.2 3.2L13 4.6" },
  failed: { word: "Failed", path: "M4 4l8 8M12 4l-8 8" },
  cancelled: { word: "Cancelled", path: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M4.2 11.8l7.6-7.6" },
  replayed: { word: "Replayed", path: "M3 8a5 5 0 1 0 1.7-3.7M3.2 2.4v2.8H6" },
  retried: { word: "Retried", path: "M13 8a5 5 0 1 1-1.7-3.7M12.8 2.4v2.8H10" },
}

/** The state of a run: its status, or what it waits for. @param {Run} run */
export function stateOf(run) {
  if (run.status !== "pending" || !run.waitingFor) return run.status
  return run.waitingFor.startsWith("sleep:") ? "sleeping" : "waiting"
}

/** What a run waits for, in words; empty if it does not. @param {Run} run */
export function waitWords(run) {
  const [kind, ...rest] = (run.waitingFor ?? "").split(":")
  const name = rest.join(":")
  return { sleep: `in the step ${name}`, signal: `for the signal ${name}`, run: `for the run ${name}` }[kind] ?? ""
}

/** The name of the signal that a run waits for, or `null`. @param {Run} run */
export const awaitedSignal = ({ waitingFor }) => (waitingFor?.startsWith("signal:") ? waitingFor.slice(7) : null)

/** A badge, whose state is set by `setBadge`. */
export const badge = () => h("span", { class: "badge" }, icon(""), h("span"))

/** @param {HTMLElement} made  by `badge` @param {string} state */
export function setBadge(made, state) {
  if (made.dataset.state === state) return
  made.dataset.state = state
  const { word, path } = STATES[state]
  setAttribute(/** @type {Element} */ (made.querySelector("path")), "d", path)
  setText(/** @type {Element} */ (made.lastElementChild), word)
}

/** A bar for a run's progress. */
export function progressBar() {
  return h("div", { class: "progress", role: "progressbar", "aria-valuemin": 0 }, h("i"))
}

/**
 * @param {HTMLElement} bar  made by `progressBar` @param {{ current: number, total: number | null }} progress
 * @param {string} words  what it says to those who do not see it @param {string} label
 */
export function setProgress(bar, { current, total }, words, label) {
  setAttribute(bar, "aria-label", label)
  setAttribute(bar, "aria-valuetext", words)
  // Without a total nobody knows how far it is: such a bar has no value.
  setAttribute(bar, "aria-valuenow", total ? Math.min(current, total) : null)
  setAttribute(bar, "aria-valuemax", total || null)
  bar.style.setProperty("--share", String(total ? Math.min(1, Math.max(0, current / total)) : 0))
  bar.classList.toggle("endless", !total)
}

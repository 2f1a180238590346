/**
 * What the timeline knows of a run's steps: the store's rows, and what the events have told since.
 *
 * The store has a step when it ends or waits; one that is at work is known from its `step:start` only.
 *
 * @typedef {import("./client.js").Step} Step
 * @typedef {import("./client.js").Run} Run
 * @typedef {"running" | "replayed" | "completed" | "retried" | "failed" | "cancelled" | "sleeping" | "waiting"} State
 * @typedef {{ step: Step, state: State, start: number, end: number | null }} Bar  instants in ms; no end: it goes on
 */

export class Steps {
  /** @type {Map<string, Step>} */ #steps = new Map()
  /** @type {Set<string>} */ #heard = new Set()
  /** Attempts that have failed, by step. @type {Map<string, number>} */ #failures = new Map()
  /** When the execution began that is under way. @type {number | null} */ #resumed = null

  /** The store is about to be read: what is heard from now on may be newer than what it says. */
  expect() {
    this.#heard.clear()
  }

  /** Take the store's rows. A step that is at work has none, or that of an attempt before. @param {Step[]} rows */
  take(rows) {
    const stored = new Map(rows.map((step) => [step.name, step]))
    for (const [name, step] of this.#steps) {
      const row = stored.get(name)
      const isAtWork = step.status === "running" && (!row || (row.completedAt !== null && row.completedAt < step.startedAt))
      if (isAtWork || this.#heard.has(name)) stored.set(name, step)
    }
    this.#steps = stored
  }

  /** @param {import("./client.js").DurablyEvent} event */
  hear({ type, timestamp, stepName, stepIndex, output = null, error = null, duration, attempt }) {
    if (type === "run:start") this.#resumed = Date.parse(timestamp)
    if (/^run:(complete|fail|cancel|stale|retry)$/.test(type)) this.#forgetWork()
    if (!type.startsWith("step:")) return
    const known = this.#steps.get(stepName)
    const step = { name: stepName, index: stepIndex, attempt: (this.#failures.get(stepName) ?? 0) + 1, output: null, error: null }
    if (type === "step:start") {
      // A step that waits has its row already, whose start is the true one.
      if (known?.status !== "waiting") this.#put({ ...step, status: "running", startedAt: timestamp, completedAt: null })
    } else if (type === "step:retry") {
      this.#failures.set(stepName, attempt)
      this.#put({ ...step, attempt: attempt + 1, error, status: "running", startedAt: known?.startedAt ?? timestamp, completedAt: null })
    } else {
      const status = type === "step:complete" ? "completed" : type === "step:fail" ? "failed" : "cancelled"
      // A row that has ended is that of an attempt before.
      const began = known?.completedAt === null ? known.startedAt : null
      const startedAt = duration === undefined ? began : new Date(Date.parse(timestamp) - duration * 1000).toISOString()
      // When nobody knows when it began, its bar has to wait for the store to be read.
      if (startedAt) this.#put({ ...step, output, error, status, startedAt, completedAt: timestamp })
    }
  }

  /**
   * The steps in their order.
   * @param {Run} run @param {number | null} [begun]  when the execution began, where that was not heard
   * @returns {Bar[]}
   */
  bars(run, begun = null) {
    const resumed = this.#resumed ?? begun ?? (run.startedAt ? Date.parse(run.startedAt) : 0)
    return [...this.#steps.values()]
      .sort((one, other) => one.index - other.index || (one.startedAt < other.startedAt ? -1 : 1))
      .map((step) => {
        const end = step.completedAt ? Date.parse(step.completedAt) : null
        return { step, state: this.#state(step, run, end, resumed), start: Date.parse(step.startedAt), end }
      })
  }

  /** @param {Step} step @param {Run} run @param {number | null} end @param {number} resumed @returns {State} */
  #state(step, run, end, resumed) {
    if (step.status === "waiting") return run.waitingFor === `sleep:${step.name}` ? "sleeping" : "waiting"
    if (step.status !== "completed") return step.status
    if (end !== null && end < resumed) return "replayed"
    return step.attempt > 1 ? "retried" : "completed"
  }

  /** @param {Step} step */
  #put(step) {
    this.#steps.set(step.name, step)
    this.#heard.add(step.name)
  }

  #forgetWork() {
    for (const [name, { status }] of this.#steps) if (status === "running") this.#steps.delete(name)
  }
}

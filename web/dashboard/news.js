/**
 * The client's events, handed on once a frame: a thousand of them in one go are one change of the page.
 *
 * @typedef {import("./client.js").DurablyEvent} DurablyEvent
 * @typedef {import("./client.js").Run} Run
 * @typedef {(events: DurablyEvent[], isComplete: boolean) => void} Listener
 */

/** A hidden page draws no frames. So that what it hears does not grow without end, it then forgets, and looks anew. */
const MAX_EVENTS = 5_000

export class News {
  /** @type {Set<Listener>} */ #listeners = new Set()
  /** @type {DurablyEvent[]} */ #heard = []
  #isComplete = true
  #frame = 0
  #stop

  /** @param {import("./client.js").Client} client */
  constructor(client) {
    this.#stop = client.on("*", (event) => this.#hear(event))
  }

  /** Call `listener` with the events since the last frame, and whether these are all. @param {Listener} listener */
  on(listener) {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  stop() {
    this.#stop()
    cancelAnimationFrame(this.#frame)
  }

  /** @param {DurablyEvent} event */
  #hear(event) {
    if (this.#heard.length === MAX_EVENTS) {
      this.#heard = []
      this.#isComplete = false
    }
    this.#heard.push(event)
    this.#frame ||= requestAnimationFrame(() => this.#tell())
  }

  #tell() {
    const [events, isComplete] = [this.#heard, this.#isComplete]
    this.#frame = 0
    this.#heard = []
    this.#isComplete = true
    for (const listener of this.#listeners) listener(events, isComplete)
  }
}

/**
 * A run after an event: the same object if nothing of it has changed, `null` if it is gone.
 *
 * @param {Run} run @param {DurablyEvent} event @returns {Run | null}
 */
export function runAfter(run, event) {
  const active = { isTerminal: false, isActive: true, error: null, completedAt: null, waitingFor: null }
  const ended = { isTerminal: true, isActive: false, completedAt: event.timestamp, waitingFor: null }
  switch (event.type) {
    case "run:start":
      return { ...run, ...active, status: "running", startedAt: run.startedAt ?? event.timestamp }
    case "run:progress":
      return { ...run, progress: event.progress }
    case "run:complete":
      return { ...run, ...ended, status: "completed", output: event.output }
    case "run:fail":
      return { ...run, ...ended, status: "failed", error: event.error }
    case "run:cancel":
      return { ...run, ...ended, status: "cancelled" }
    case "run:retry":
    case "run:stale":
      return { ...run, ...active, status: "pending" }
    case "run:delete":
      return null
    case "step:complete":
      return { ...run, completedStepCount: run.completedStepCount + 1 }
    default:
      return run
  }
}

/** The run that an event tells of for the first time. @param {DurablyEvent} event @returns {Run} */
export function runFrom({ runId, jobName, timestamp, labels, payload }) {
  return {
    id: String(runId),
    jobName: String(jobName),
    status: "pending",
    payload,
    output: null,
    error: null,
    progress: null,
    priority: 0,
    runAt: timestamp,
    labels: labels ?? {},
    completedStepCount: 0,
    currentStepIndex: -1,
    createdAt: timestamp,
    startedAt: null,
    completedAt: null,
    waitingFor: null,
    isTerminal: false,
    isActive: true,
  }
}

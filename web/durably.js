/**
 * durably for a page: start the worker that runs your Python jobs, trigger them, and follow them.
 *
 * ```js
 * import { connect } from "./durably/durably.js"
 * const durably = await connect({ database: "app.sqlite3", jobs: ["./jobs.py"] })
 * const run = await durably.trigger("sync-users", { org_id: "o1" })
 * for await (const event of durably.subscribe(run.id)) console.log(event.type)
 * ```
 *
 * The client speaks durably's HTTP API: over the worker's message port, or with `connect({ url })` to a server.
 * Runs, steps and events are plain objects as the API gives them. Errors are `DurablyError`s.
 *
 * @module
 */

import { DurablyError } from "./durably-error.js"
import { Port } from "./port.js"

export { DurablyError }

/**
 * @typedef {object} Options
 * @property {string} [database]  the file's name in this origin's private file system; default `durably.sqlite3`
 * @property {string[]} [jobs]  job files (`.py`), relative to the page
 * @property {string[]} [packages]  what micropip is to install for them: names, or URLs of wheels
 * @property {"full" | "relaxed"} [durability]  `full` (default) flushes every commit
 * @property {(sentence: string) => void} [onBoot]  told what is happening while Python starts
 * @property {boolean} [persist]  whether to ask the browser never to delete this site's files by itself; default `true`
 * @property {string} [url]  the base URL of a durably server; the options above are the server's business then
 *
 * @typedef {object} TriggerOptions
 * @property {string} [idempotencyKey]  one run per key and job, for ever
 * @property {string} [concurrencyKey]  one running run per key at a time
 * @property {Record<string, string>} [labels]
 *
 * @typedef {"pending" | "running" | "completed" | "failed" | "cancelled"} Status
 *
 * @typedef {object} Run
 * @property {string} id
 * @property {string} jobName
 * @property {Status} status
 * @property {any} payload
 * @property {any} output
 * @property {string | null} error
 * @property {{ current: number, total: number | null, message: string | null } | null} progress
 * @property {Record<string, string>} labels
 * @property {number} completedStepCount
 * @property {number} currentStepIndex
 * @property {string} createdAt
 * @property {string | null} startedAt
 * @property {string | null} completedAt
 * @property {boolean} isTerminal
 * @property {boolean} isActive
 *
 * @typedef {object} Step
 * @property {string} name
 * @property {number} index
 * @property {"completed" | "failed"} status
 * @property {any} output
 * @property {string | null} error
 * @property {number} attempt
 * @property {string} startedAt
 * @property {string} completedAt
 *
 * @typedef {object} StorageInfo
 * @property {"opfs" | "file" | "memory"} kind
 * @property {string} vfs
 * @property {number} bytesUsed
 * @property {number | null} quota  bytes that the browser gives the whole site
 * @property {boolean | null} persisted  whether the browser has promised not to clear the site's data
 * @property {string} sqliteVersion
 * @property {string} state  `persistent`, `best-effort`, `full`, `waiting for another tab`, `corrupt: set aside as NAME`
 *
 * @typedef {{ type: string, timestamp: string, sequence: number, runId: string | null, jobName: string | null, [fact: string]: any }} DurablyEvent
 * @typedef {(path: string, init?: { method?: string, body?: string, signal?: AbortSignal }) => Promise<Response>} Send
 */

const JSON_HEADERS = { "content-type": "application/json" }

/**
 * Start durably in a worker of this page, or speak to a server's.
 *
 * Resolves when jobs can be triggered; unfinished runs have gone on by then. Rejects with a `DurablyError`
 * whose message can be shown: no private file system, a job file that is no Python, a file that is no database.
 *
 * @param {Options} options
 * @returns {Promise<Durably>}
 */
export async function connect(options) {
  if (options.url !== undefined) {
    const base = options.url.replace(/\/$/, "")
    return new Durably((path, init) => fetch(base + path, { headers: JSON_HEADERS, ...init }))
  }
  if (options.persist ?? true) askToPersist()
  const start = {
    database: options.database ?? "durably.sqlite3",
    durability: options.durability ?? "full",
    jobs: (options.jobs ?? []).map((file) => new URL(file, document.baseURI).href),
    packages: options.packages ?? [],
  }
  const durably = Durably.overPort(start, options.onBoot)
  await durably.ready
  return durably
}

/** Ask that the browser does not delete this site's files when space is short. The answer is in `storageInfo()`. */
function askToPersist() {
  // Not awaited: a browser may ask its user.
  navigator.storage?.persist?.().catch(() => {}) // refused is an answer, too
}

/** A connection. Get one from `connect`. */
export class Durably {
  #send
  /** @type {Port | null} */ #port = null
  /** @type {Map<string, Set<(event: DurablyEvent) => void>>} */ #listeners = new Map()
  /** @type {AbortController | null} */ #listening = null

  /** @param {Send} send */
  constructor(send) {
    this.#send = send
    /** @type {Worker | null} the worker that runs the jobs, where this page has one; another one takes its place when it dies */
    this.worker = null
  }

  /**
   * A connection to a worker of this page, which is booting; `connect` waits for it.
   * @param {import("./port.js").Start} start @param {((sentence: string) => void) | undefined} onBoot
   */
  static overPort(start, onBoot) {
    /** @type {Durably} */ const durably = new Durably((path, init) => port.send(path, init))
    const port = new Port(start, {
      onBoot,
      onWorker: (worker) => (durably.worker = worker),
      onDeath: (error) => reportError(error), // a method of the port's it cannot be
      onCancelled: ({ id, job_name, labels }) =>
        durably.#dispatch({
          type: "run:cancel",
          timestamp: new Date().toISOString(),
          sequence: 0,
          runId: id,
          jobName: job_name,
          labels: JSON.parse(labels),
        }),
    })
    durably.#port = port
    return durably
  }

  /** Resolves when jobs can be triggered. Rejects with a `DurablyError`. */
  get ready() {
    const port = this.#port
    return port === null
      ? Promise.resolve()
      : port.ready.catch((error) => {
          port.close()
          throw error
        })
  }

  /**
   * Store a run of a job and return it at once.
   * @param {string} jobName @param {any} input @param {TriggerOptions} [options]
   * @returns {Promise<Run & { disposition: string }>}
   */
  async trigger(jobName, input, options = {}) {
    const { runId, disposition } = await this.#json("/trigger", { jobName, input, ...options })
    return { ...(await this.#json(`/run?${query({ runId })}`)), disposition }
  }

  /** @param {string} runId @returns {Promise<Run | null>} `null` if there is no such run */
  async getRun(runId) {
    try {
      return await this.#json(`/run?${query({ runId })}`)
    } catch (error) {
      if (error instanceof DurablyError && error.status === 404) return null
      throw error
    }
  }

  /**
   * Runs, newest first.
   * @param {{ status?: Status | Status[], jobName?: string | string[], labels?: Record<string, string>, limit?: number, offset?: number }} [filter]
   * @returns {Promise<Run[]>}
   */
  getRuns({ labels = {}, ...filter } = {}) {
    const byLabel = Object.entries(labels).map(([key, value]) => [`label.${key}`, value])
    return this.#json(`/runs?${query({ ...filter, ...Object.fromEntries(byLabel) })}`)
  }

  /** @param {string} runId @returns {Promise<Step[]>} the steps that have ended, in their order */
  getSteps(runId) {
    return this.#json(`/steps?${query({ runId })}`)
  }

  /**
   * Cancel a pending or running run: its step is cancelled at its next `await`. A step that blocks the worker is
   * interrupted where the browser lets Python be; elsewhere it is ended with the worker, and another takes its place.
   * @param {string} runId
   */
  async cancel(runId) {
    const path = `/cancel?${query({ runId })}`
    if (this.#port) await this.#checked(await this.#port.cancelRun(path, runId))
    else await this.#json(path, {})
  }

  /** Make a failed or cancelled run pending again; its completed steps are kept. @param {string} runId */
  async retry(runId) {
    await this.#json(`/retry?${query({ runId })}`, {})
  }

  /**
   * Send a signal to an active run; it is kept until a step waits for it.
   * @param {string} runId @param {string} name @param {any} [payload]
   */
  async signal(runId, name, payload = null) {
    await this.#json(`/signal?${query({ runId })}`, { name, payload })
  }

  /** @returns {Promise<StorageInfo>} where the database is kept, and how it is there */
  storageInfo() {
    return this.#json("/storage")
  }

  /**
   * Call `listener` for each event of a type, or of any with `"*"`.
   * @param {string} type @param {(event: DurablyEvent) => void} listener
   * @returns {() => void} the way to stop it
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set()
    this.#listeners.set(type, listeners.add(listener))
    if (!this.#listening) this.#listen()
    return () => {
      listeners.delete(listener)
      if ([...this.#listeners.values()].every((all) => all.size === 0)) {
        this.#listening?.abort()
        this.#listening = null
      }
    }
  }

  /**
   * The events of one run: its present state first, then live, up to its end.
   * @param {string} runId
   * @returns {AsyncGenerator<DurablyEvent, void, void>}
   */
  async *subscribe(runId) {
    yield* this.#events(`/subscribe?${query({ runId })}`)
  }

  /** End the connection. The worker stops; unfinished runs go on at the next `connect`. */
  close() {
    this.#listening?.abort()
    this.#port?.close()
  }

  #listen() {
    const listening = new AbortController()
    this.#listening = listening
    const dispatch = async () => {
      for await (const event of this.#events("/runs/subscribe", listening.signal)) this.#dispatch(event)
    }
    dispatch()
      .catch((error) => {
        if (!listening.signal.aborted) reportError(error)
      })
      .finally(() => {
        // So that the next `on` listens again.
        if (this.#listening === listening) this.#listening = null
      })
  }

  /** @param {DurablyEvent} event */
  #dispatch(event) {
    for (const type of [event.type, "*"]) {
      for (const listener of this.#listeners.get(type) ?? []) {
        try {
          listener(event)
        } catch (error) {
          // A listener must not end the others' events; the page still hears of its error.
          reportError(error)
        }
      }
    }
  }

  /** @param {string} path @param {AbortSignal} [signal] @returns {AsyncGenerator<DurablyEvent, void, void>} */
  async *#events(path, signal) {
    const abort = new AbortController()
    signal?.addEventListener("abort", () => abort.abort())
    try {
      const response = await this.#checked(await this.#send(path, { signal: abort.signal }))
      let text = ""
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return
        const frames = (text + value).split("\n\n")
        text = /** @type {string} */ (frames.pop())
        for (const frame of frames) {
          const data = frame.split("\n").filter((line) => line.startsWith("data:"))
          if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"))
        }
      }
    } finally {
      abort.abort()
    }
  }

  /** @param {string} path @param {any} [body] given, it is a POST */
  async #json(path, body) {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }
    return await (await this.#checked(await this.#send(path, init))).json()
  }

  /** @param {Response} response */
  async #checked(response) {
    if (response.ok) return response
    const text = await response.text()
    let message = text
    try {
      message = JSON.parse(text).error ?? text
    } catch {
      // Not durably's own answer (a proxy's page, say): its text is all there is.
    }
    throw new DurablyError(response.headers.get("durably-error") ?? "DurablyError", response.status, message)
  }
}

/** @param {Record<string, unknown>} values lists become repeated parameters, undefined ones are left out */
function query(values) {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined) query.append(name, String(one))
    }
  }
  return query
}

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

import { abortable, pause } from "./aborting.js"
import { DurablyError } from "./durably-error.js"
import { EVENT_TYPES, Events } from "./events.js"
import { checked, overFetch, query } from "./http.js"
import { Port } from "./port.js"
import { greet, register } from "./registration.js"
import { serve } from "./served.js"
import { completedRun } from "./waiting.js"

export { DurablyError }

/**
 * @typedef {object} Options
 * @property {string} [database]  the file's name in this origin's private file system; default `durably.sqlite3`
 * @property {string[]} [jobs]  job files (`.py`), relative to the page
 * @property {string[]} [packages]  what micropip is to install for them: names, or URLs of wheels
 * @property {"full" | "relaxed"} [durability]  `full` (default) flushes every commit
 * @property {(sentence: string) => void} [onBoot]  told what is happening while Python starts
 * @property {boolean} [snapshot]  whether Python may be started from a snapshot of its memory, and one be kept; default `true`
 * @property {boolean} [persist]  whether to ask the browser never to delete this site's files by itself; default `true`
 * @property {string} [url]  the base URL of a durably server; the options above are the server's business then
 * @property {string} [serviceWorker]  a script, relative to the page, that is or imports `durably-sw.js`: with it every page
 *   below its folder can `fetch("/api/durably/...")` from this one. With `url`: the service worker is the server
 *
 * @typedef {import("./records.js").Abortable} Abortable
 * @typedef {import("./records.js").Disposition} Disposition
 * @typedef {import("./records.js").DurablyEvent} DurablyEvent
 * @typedef {import("./records.js").Job} Job
 * @typedef {import("./records.js").Log} Log
 * @typedef {import("./records.js").Run} Run
 * @typedef {import("./records.js").Status} Status
 * @typedef {import("./records.js").Step} Step
 * @typedef {import("./records.js").StorageInfo} StorageInfo
 * @typedef {import("./records.js").TriggerOptions} TriggerOptions
 * @typedef {import("./records.js").WaitOptions} WaitOptions
 * @typedef {{ body?: any, method?: string, signal?: AbortSignal }} Ask  a `body` is sent as JSON, by default with POST
 * @typedef {import("./http.js").Send} Send
 * @typedef {{ listener: (event: DurablyEvent) => void }} Registration  an object of its own: a function that listens twice is two
 */

/** @type {(durably: Durably) => void} */ let offer
/**
 * The page's first connection: a `<durably-dashboard>` that is given none shows its runs.
 * @type {Promise<Durably>}
 */
export const firstConnection = new Promise((resolve) => (offer = resolve))

/** How long what changes something waits for a listener to be heard, which some proxy may never let be. */
const HEARING_PATIENCE_MS = 1000

/**
 * Start durably in a worker of this page, or speak to a server's.
 *
 * Resolves when jobs can be triggered; unfinished runs go on by themselves. Rejects with a `DurablyError`
 * whose message can be shown: no private file system, a job file that is no Python, a file that is no database.
 * Where the page has a `<durably-dashboard>`, that is loaded, too.
 *
 * @param {Options} [options]
 * @returns {Promise<Durably>}
 */
export async function connect(options = {}) {
  if (document.querySelector("durably-dashboard:not(:defined)")) void import("./dashboard.js")
  const durably = await connected(options)
  offer(durably)
  return durably
}

/** @param {Options} options */
async function connected(options) {
  if (options.url !== undefined) {
    if (options.serviceWorker !== undefined) await greet(await register(options.serviceWorker))
    return new Durably(overFetch(options.url))
  }
  if (options.persist ?? true) askToPersist()
  const start = {
    database: options.database ?? "durably.sqlite3",
    durability: options.durability ?? "full",
    jobs: jobFiles(options.jobs ?? []),
    packages: options.packages ?? [],
    snapshot: options.snapshot ?? true,
  }
  const durably = Durably.overPort(start, options)
  await durably.ready
  return durably
}

/** Their URLs, each once: no module can be imported twice. @param {string[]} files */
function jobFiles(files) {
  if (!Array.isArray(files)) {
    throw new DurablyError("ValidationError", 400, `jobs must be a list of job files, for example ["./jobs.py"], not ${JSON.stringify(files)}`)
  }
  return [...new Set(files.map((file) => new URL(file, document.baseURI).href))]
}

/** Ask that the browser does not delete this site's files when space is short. The answer is in `storageInfo()`. */
function askToPersist() {
  // Not awaited: a browser may ask its user.
  navigator.storage?.persist?.().catch(() => {}) // refused is an answer, too
}

/** One run to be, for `batchTrigger`: an input with options of its own. */
export class Trigger {
  /** @param {any} input @param {TriggerOptions} [options] */
  constructor(input, options = {}) {
    this.input = input
    this.options = options
  }
}

/** A connection. Get one from `connect`. */
export class Durably {
  #send
  /** @type {Port | null} */ #port = null
  /** @type {Promise<void>} settles when the site's service worker can ask this page, or never will */ #isServed = Promise.resolve()
  /** @type {Map<string, Set<Registration>>} */ #listeners = new Map()
  /** @type {AbortController | null} */ #listening = null
  /** What ends all that is under way with a server or a service worker; the port sees to its own. */
  #closing = new AbortController()
  /** @type {Promise<unknown>} settles when the listeners hear all that happens from then on */ #isHeard = Promise.resolve()

  /** @param {Send} send */
  constructor(send) {
    this.#send = send
    /** @type {Worker | null} the worker that runs the jobs, where this page has one; another one takes its place when it dies */
    this.worker = null
  }

  /**
   * A connection to a worker of this page, which is booting; `connect` waits for it.
   * @param {import("./port.js").Start} start @param {Pick<Options, "onBoot" | "serviceWorker">} options
   */
  static overPort(start, { onBoot, serviceWorker }) {
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
    if (serviceWorker !== undefined) durably.#isServed = serve(port, serviceWorker, durably.#closing.signal)
    return durably
  }

  /** Resolves when jobs can be triggered. Rejects with a `DurablyError`. */
  get ready() {
    const port = this.#port
    return port === null
      ? Promise.resolve()
      : Promise.all([port.ready, this.#isServed]).then(
          () => {},
          (error) => {
            this.close()
            throw error
          },
        )
  }

  /**
   * Store a run of a job and return it at once.
   * @param {string} jobName @param {any} input @param {TriggerOptions & Abortable} [options]
   * @returns {Promise<Run & { disposition: Disposition }>}
   */
  async trigger(jobName, input, { signal, ...options } = {}) {
    // With `/trigger`, which answers with an id alone, the run would be asked for when its first step may block Python.
    const [{ run, runId, disposition }] = await this.#json("/triggers", { body: [{ jobName, input, ...options }], signal })
    // It is left out where this client may not read it: that is then told as of any run.
    return { ...(run ?? (await this.#run(runId, signal))), disposition }
  }

  /**
   * Store several runs of a job, all of them or none.
   * @param {string} jobName @param {any[]} inputs  a `Trigger` is an input with options of its own @param {Abortable} [options]
   * @returns {Promise<(Run & { disposition: Disposition })[]>}
   */
  async batchTrigger(jobName, inputs, { signal } = {}) {
    const triggers = inputs.map((one) => (one instanceof Trigger ? one : new Trigger(one)))
    const body = triggers.map(({ input, options }) => ({ jobName, input, ...options }))
    /** @type {{ run: Run, disposition: Disposition }[]} */ const stored = await this.#json("/triggers", { body, signal })
    return stored.map(({ run, disposition }) => ({ ...run, disposition }))
  }

  /**
   * `trigger`, then `waitForRun`: nothing that the run reports is missed.
   * @param {string} jobName @param {any} input @param {TriggerOptions & WaitOptions & Abortable} [options]
   * @returns {Promise<Run>}
   */
  triggerAndWait(jobName, input, { timeout, onProgress, onLog, signal, ...options } = {}) {
    const begin = this.#stream("/trigger/subscribe", { jobName, input, ...options })
    /** @type {import("./events.js").Reopen} */
    const reopen = async (signal, last) => {
      const runId = last.event?.runId
      if (!runId) throw new DurablyError("DurablyError", 500, "The run was triggered, but its id was lost with the connection.")
      return await this.#stream(`/subscribe?${query({ runId })}`)(signal)
    }
    return completedRun(this, (signal) => new Events(begin, { signal, reopen }), { timeout, onProgress, onLog, signal })
  }

  /**
   * The run, once it has completed. If it fails or is cancelled, rejects with a `DurablyError` named `RunFailedError` or
   * `RunCancelledError`, whose `run` it is.
   * @param {string} runId @param {WaitOptions & Abortable} [options]
   * @returns {Promise<Run>}
   */
  waitForRun(runId, options = {}) {
    return completedRun(this, (signal) => this.subscribe(runId, { signal }), options)
  }

  /** @param {string} runId @param {Abortable} [options] @returns {Promise<Run | null>} `null` if there is no such run */
  async getRun(runId, { signal } = {}) {
    try {
      return await this.#run(runId, signal)
    } catch (error) {
      if (error instanceof DurablyError && error.status === 404) return null
      throw error
    }
  }

  /**
   * Runs, newest first; of an empty list of statuses or names there are none.
   * @param {{ status?: Status | Status[], jobName?: string | string[], labels?: Record<string, string>, limit?: number, offset?: number } & Abortable} [filter]
   * @returns {Promise<Run[]>}
   */
  async getRuns({ labels = {}, signal, ...filter } = {}) {
    signal?.throwIfAborted()
    // A query cannot have an empty list: it would ask for all.
    if ([filter.status, filter.jobName].some((wanted) => Array.isArray(wanted) && wanted.length === 0)) return []
    const byLabel = Object.entries(labels).map(([key, value]) => [`label.${key}`, value])
    return await this.#json(`/runs?${query({ ...filter, ...Object.fromEntries(byLabel) })}`, { signal })
  }

  /** @param {string} runId @param {Abortable} [options] @returns {Promise<Step[]>} the steps that wait or have ended, in their order */
  getSteps(runId, { signal } = {}) {
    return this.#json(`/steps?${query({ runId })}`, { signal })
  }

  /** @param {string} runId @param {Abortable} [options] @returns {Promise<Log[]>} what it has logged, in that order */
  getLogs(runId, { signal } = {}) {
    return this.#json(`/logs?${query({ runId })}`, { signal })
  }

  /** @param {Abortable} [options] @returns {Promise<Job[]>} the registered jobs */
  jobs({ signal } = {}) {
    return this.#json("/jobs", { signal })
  }

  /**
   * Cancel a pending or running run: its step is cancelled at its next `await`. A step that blocks the worker is
   * interrupted where the browser lets Python be; elsewhere it is ended with the worker, and another takes its place.
   * @param {string} runId
   */
  async cancel(runId) {
    const path = `/cancel?${query({ runId })}`
    if (this.#port) await checked(await this.#port.cancelRun(path, runId))
    else await this.#json(path, { method: "POST" })
  }

  /** Make a failed or cancelled run pending again; its completed steps are kept. @param {string} runId */
  async retry(runId) {
    await this.#json(`/retry?${query({ runId })}`, { method: "POST" })
  }

  /** Trigger a run like one that has ended: the same job, payload and labels. @param {string} runId @returns {Promise<Run>} the fresh one */
  async retrigger(runId) {
    const fresh = await this.#json(`/retrigger?${query({ runId })}`, { method: "POST" })
    return await this.#run(fresh.runId)
  }

  /** Delete a run that has ended, with all that is stored of it. @param {string} runId */
  async deleteRun(runId) {
    await this.#json(`/run?${query({ runId })}`, { method: "DELETE" })
  }

  /**
   * Send a signal to an active run; it is kept until a step waits for it.
   * @param {string} runId @param {string} name @param {any} [payload]
   */
  async signal(runId, name, payload = null) {
    await this.#json(`/signal?${query({ runId })}`, { body: { name, payload } })
  }

  /**
   * When the worker of this page began to execute a run, in ms since 1970: the steps that completed before come out of the
   * store. `null` for a run that it does not know.
   * @param {string} runId
   */
  begunAt(runId) {
    return this.#port?.begunAt(runId) ?? null
  }

  /** @param {Abortable} [options] @returns {Promise<StorageInfo>} where the database is kept, and how it is there */
  storageInfo({ signal } = {}) {
    return this.#json("/storage", { signal })
  }

  /** @param {Abortable} [options] @returns {Promise<Blob>} all of the database at one moment, as a SQLite file */
  export({ signal } = {}) {
    return this.#ask("/export", { signal }, (response) => response.blob())
  }

  /**
   * Call `listener` for each event of a type, or of any with `"*"`. Of what happens while the connection to a
   * server is lost it hears what has come of it: the present state of the runs that are active or have ended since.
   * Throws a `DurablyError` for a type that does not exist, a `TypeError` for a listener that cannot be called.
   * @param {string} type @param {(event: DurablyEvent) => void} listener
   * @returns {() => void} the way to stop it
   */
  on(type, listener) {
    if (type !== "*" && !EVENT_TYPES.includes(type)) {
      throw new DurablyError("ValidationError", 400, `no event has the type '${type}'; known: *, ${EVENT_TYPES.join(", ")}`)
    }
    if (typeof listener !== "function") throw new TypeError(`a listener is a function that takes the event, not ${String(listener)}`)
    const registration = { listener }
    const registrations = this.#listeners.get(type) ?? new Set()
    this.#listeners.set(type, registrations.add(registration))
    if (!this.#listening) this.#listen()
    return () => {
      registrations.delete(registration)
      if ([...this.#listeners.values()].every((all) => all.size === 0)) {
        this.#listening?.abort()
        this.#listening = null
      }
    }
  }

  /**
   * The events of one run: its present state first, then live, up to its end. Where the worker dies or the connection to
   * the server is lost it goes on, with the then present state, as soon as there is another. `return` ends it.
   * @param {string} runId @param {Abortable} [options]
   */
  subscribe(runId, { signal } = {}) {
    const open = this.#stream(`/subscribe?${query({ runId })}`)
    return new Events(open, { signal, reopen: this.#port ? null : open }) // the port asks again by itself
  }

  /** End the connection, and all that is under way. The worker stops; unfinished runs go on at the next `connect`. */
  close() {
    this.#listening?.abort()
    this.#port?.close()
    this.#closing.abort(new DurablyError("ConnectionClosedError", 503, "The connection was closed."))
  }

  #listen() {
    const listening = new AbortController()
    this.#listening = listening
    let onOpen = () => {}
    const opened = new Promise((resolve) => (onOpen = () => resolve(undefined)))
    this.#isHeard = Promise.race([opened, pause(HEARING_PATIENCE_MS)])
    const dispatch = async () => {
      const open = this.#stream("/runs/subscribe")
      /** @type {import("./events.js").Reopen} */
      const reopen = (signal, { id }) => this.#response("/runs/subscribe", { headers: { "last-event-id": id } }, signal)
      const opening = async (/** @type {AbortSignal} */ signal) => {
        const response = await open(signal)
        onOpen()
        return response
      }
      const events = new Events(opening, { signal: listening.signal, reopen: this.#port ? null : reopen, isLast: () => false })
      for await (const event of events) this.#dispatch(event)
    }
    dispatch()
      .catch((error) => {
        if (!listening.signal.aborted) reportError(error)
      })
      .finally(() => {
        onOpen()
        // So that the next `on` listens again.
        if (this.#listening === listening) this.#listening = null
      })
  }

  /** @param {DurablyEvent} event */
  #dispatch(event) {
    for (const type of [event.type, "*"]) {
      for (const { listener } of this.#listeners.get(type) ?? []) {
        try {
          listener(event)
        } catch (error) {
          // A listener must not end the others' events; the page still hears of its error.
          reportError(error)
        }
      }
    }
  }

  /** The way to ask for a stream. @param {string} path @param {any} [body] @returns {import("./events.js").Open} */
  #stream(path, body) {
    return (signal) => this.#response(path, { body }, signal)
  }

  /** @param {string} runId @param {AbortSignal} [signal] @returns {Promise<Run>} */
  #run(runId, signal) {
    return this.#json(`/run?${query({ runId })}`, { signal })
  }

  /** @param {string} path @param {Ask} [ask] @returns {Promise<any>} */
  #json(path, ask = {}) {
    return this.#ask(path, ask, (response) => response.json())
  }

  /**
   * @template T
   * @param {string} path @param {Ask} ask @param {(response: Response) => Promise<T>} read
   * @returns {Promise<T>}
   */
  async #ask(path, { signal, ...ask }, read) {
    return await abortable(async (signal) => read(await this.#response(path, ask, signal)), { signal })
  }

  /** @param {string} path @param {{ body?: any, method?: string, headers?: Record<string, string> }} ask @param {AbortSignal} signal */
  async #response(path, { body, method = body === undefined ? "GET" : "POST", headers }, signal) {
    // Of two requests to a server the second may be the faster: a listener would miss what it has done.
    if (method !== "GET" && !this.#port) await this.#isHeard
    const ending = this.#port ? signal : AbortSignal.any([signal, this.#closing.signal])
    const init = { method, signal: ending, ...(headers ? { headers } : {}), ...(body === undefined ? {} : { body: JSON.stringify(body) }) }
    return await checked(await this.#send(path, init))
  }
}

/**
 * The page's end of its worker, and the worker's life. What the page asks of it goes through `requests.js`.
 *
 * The worker is booted here, and booted again where it has died, where it does not answer, and where the page comes
 * back from the back/forward cache. Its runs go on from their checkpoints by themselves. Of the requests under way
 * those that only read are made again; any other is refused, as it may or may not have been done.
 *
 * @module
 */

import { Deputy, pause } from "./deputize.js"
import { DurablyError } from "./durably-error.js"
import { allMarked, leaveMark, marked, UseMark } from "./marks.js"
import { newPulse } from "./pulse.js"
import { Requests } from "./requests.js"

/** How long an urgent request waits for an answer before the worker is taken to be blocked. */
const URGENT_PATIENCE_MS = 200
/** How long an interrupted worker may take to answer, before it is ended. */
const INTERRUPT_PATIENCE_MS = 600
/** How long a step may go on after its run was cancelled, while its worker is not blocked, before the worker is ended. */
const IGNORED_MS = 5000
/** How long one that cannot be interrupted may be slow, and not blocked, before it is ended. */
const SLOW_PATIENCE_MS = 300

/**
 * @typedef {{ database: string, durability: string, jobs: string[], packages: string[] }} Start
 * @typedef {import("./deputize.js").CancelledRun} CancelledRun
 * @typedef {import("./requests.js").Init} Init
 */

export class Port {
  #options
  #onBoot
  #onWorker
  #onDeath
  #onCancelled
  /** @type {Worker} */ #worker
  /** @type {Worker | null} says for the worker that it lives, whatever it is doing */ #pulse = null
  /** @type {Worker | null} makes a snapshot of Python for the next visit */ #snapshotMaker = null
  /** @type {string | null} the name of the Python worker */ #workerId = null
  /** @type {string[]} what the deputy sends to cancel a run, with its parameters left open */ #cancelRequests = []
  /** @type {Promise<void>} settles when the worker can be spoken to, or never will be */ #ready
  #isReady = false
  /** @type {string | null} the name by which the worker can be interrupted */ #interrupts = null
  /** @type {string[]} the runs that the worker executes */ #active = []
  /** @type {Map<string, number>} when this worker began with each of its runs; a run that only waited goes on */ #begun = new Map()
  /** @type {"no" | "yes" | "frozen"} */ #closed = "no"
  /** @type {BroadcastChannel | null} what the tabs of the database tell each other */ #tabs = null
  /** That this page uses the database. */ #useMark
  /** Whether there may have been an unclean end: then the database is looked at before it is used. */ #isInDoubt
  /** Whether the mark stays when the page goes: something was damaged here. */ #keepsMark = false
  #requests = new Requests((message) => {
    if (this.#isReady) this.#worker.postMessage(message)
  })

  /**
   * @param {Start} options
   * @param {object} listeners
   * @param {(sentence: string) => void} [listeners.onBoot]  told what is happening while Python starts
   * @param {(worker: Worker) => void} listeners.onWorker  told of each worker that is started
   * @param {(error: Error) => void} listeners.onDeath  told when the worker has died and cannot be replaced
   * @param {(run: CancelledRun) => void} listeners.onCancelled  told of a run that the deputy has cancelled
   */
  constructor(options, { onBoot, onWorker, onDeath, onCancelled }) {
    this.#options = options
    this.#onBoot = onBoot
    this.#onWorker = onWorker
    this.#onDeath = onDeath
    this.#onCancelled = onCancelled
    addEventListener("pagehide", this.#leave)
    addEventListener("pageshow", this.#comeBack)
    this.#useMark = new UseMark(options.database)
    this.#isInDoubt = this.#useMark.begin()
    this.#worker = this.#newWorker()
    this.#ready = this.#boot()
  }

  /** Resolves when the first worker is up. Rejects with a `DurablyError` where it cannot be. */
  get ready() {
    return this.#ready
  }

  /** Whether there is a worker that can be spoken to, or else one is booting. */
  get isReady() {
    return this.#isReady
  }

  /** When the worker began with a run, in ms since 1970. @param {string} runId @returns {number | null} */
  begunAt(runId) {
    return this.#begun.get(runId) ?? null
  }

  /** @param {string} path @param {Init} [init] @returns {Promise<Response>} */
  send(path, init) {
    if (this.#closed === "yes") return Promise.reject(gone())
    return this.#requests.send(path, init)
  }

  /**
   * Cancel a run even if the worker is blocked. If it is by that run, Python is interrupted; where that cannot be, the
   * worker is ended, the deputy cancels the run, and another worker is booted. If it is by another run, that goes on.
   * @param {string} path @param {string} runId @returns {Promise<Response>}
   */
  async cancelRun(path, runId) {
    const worker = this.#worker
    const answered = this.send(path, { method: "POST", body: "{}" })
    if (!this.#isReady) return await answered
    const late = Symbol("late")
    const first = await Promise.race([answered, pause(URGENT_PATIENCE_MS).then(() => late)])
    if (first !== late) {
      if ((await answered).ok) void this.#seeToItsEnd(runId)
      return await answered
    }
    if (this.#active.includes(runId)) {
      if (await this.#interrupted(runId, answered)) return await answered
      answered.catch(() => {}) // it is refused as soon as its worker is ended
      // Another cancel may have ended it by now, and there is another one.
      return this.#worker === worker && this.#isReady ? await this.#endAndCancel(runId) : await this.#cancelByDeputy(runId)
    }
    // The worker is busy with another run, which it keeps. In time it will answer; the deputy may be faster. Whichever is
    // the slower finds the run cancelled and refuses, so what counts is the one that did it.
    const answers = [answered, this.#cancelByDeputy(runId)]
    return await Promise.any(answers.map(done)).catch(() => Promise.any(answers)).catch(() => answered)
  }

  /** End the worker, and all that waits for it. */
  close() {
    this.#closed = "yes"
    if (!this.#keepsMark) this.#useMark.end()
    removeEventListener("pagehide", this.#leave)
    removeEventListener("pageshow", this.#comeBack)
    this.#endWorker()
    this.#leaveTabs()
    this.#requests.refuse(gone())
  }

  // -- the worker's life ------------------------------------------------------------------------------

  #newWorker() {
    this.#tabs ??= new BroadcastChannel(`durably:${this.#options.database}`)
    this.#tabs.onmessage = ({ data }) => this.#overhear(data)
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "durably" })
    this.#onWorker(worker)
    return worker
  }

  /** @returns {Promise<void>} */
  #boot() {
    const worker = this.#worker
    return new Promise((resolve, reject) => {
      worker.onerror = (event) => {
        event.preventDefault()
        reject(new DurablyError("DurablyError", 500, `The worker could not start: ${event.message ?? "its files cannot be loaded"}.`))
      }
      worker.onmessage = ({ data }) => {
        if (data.booting) {
          this.#onBoot?.(data.booting)
        } else if (data.failed) {
          reject(new DurablyError(data.failed.name, data.failed.status, data.failed.message))
        } else if (data.dead && !this.#isReady) {
          reject(new DurablyError("DurablyError", 500, `Python broke down while it started: ${data.dead}`))
        } else if (data.ready) {
          worker.onerror = null // from here on an error of the worker is the page's to see
          this.#isReady = true
          this.#requests.postAll()
          resolve()
        } else {
          this.#receive(data)
        }
      }
      const pulse = newPulse()
      this.#pulse = pulse.worker
      const start = { ...this.#options, left: allMarked(), doubt: this.#isInDoubt }
      worker.postMessage({ start, pulse: pulse.port }, [pulse.port])
    })
  }

  /** Boot another worker in the place of one that is gone. */
  #replace() {
    const lost = new DurablyError("ConnectionLostError", 503, "The worker ended before it answered; what was asked for may or may not have been done.")
    this.#requests.refuse(lost, ({ method }) => method !== "GET")
    this.#worker = this.#newWorker()
    this.#ready = this.#boot()
    this.#ready.catch((error) => {
      this.close()
      this.#onDeath(error)
    })
  }

  #endWorker() {
    if (this.#workerId !== null) leaveMark(this.#workerId)
    this.#worker.onmessage = this.#worker.onerror = null
    this.#worker.terminate()
    this.#pulse?.terminate()
    this.#snapshotMaker?.terminate()
    this.#isReady = false
    this.#workerId = this.#interrupts = null
    this.#active = []
    this.#begun.clear()
  }

  /** By the page, as the pulse is: in Firefox a worker may hang for ever when it starts another. */
  #makeSnapshot() {
    const maker = new Worker(new URL("./snapshot-maker.js", import.meta.url), { type: "module", name: "durably snapshot" })
    this.#snapshotMaker = maker
    maker.onmessage = () => maker.terminate()
    maker.onerror = (event) => {
      event.preventDefault() // the page goes on as it did
      console.info("durably: no snapshot of Python could be made for the next visit.", event.message)
      maker.terminate()
    }
  }

  #leave = () => {
    this.#closed = "frozen"
    if (!this.#keepsMark) this.#useMark.end()
    this.#endWorker()
    this.#leaveTabs()
  }

  #leaveTabs() {
    this.#tabs?.close()
    this.#tabs = null
  }

  #comeBack = (/** @type {PageTransitionEvent} */ { persisted }) => {
    if (!persisted || this.#closed !== "frozen") return
    this.#closed = "no"
    this.#isInDoubt = this.#useMark.begin() || this.#isInDoubt
    this.#replace()
  }

  /** Break into Python, if that can be; whether it answers then. @param {string} runId @param {Promise<Response>} answered */
  async #interrupted(runId, answered) {
    const heard = answered.then(() => true, () => false)
    if (this.#interrupts === null) return await Promise.race([heard, pause(SLOW_PATIENCE_MS).then(() => false)])
    const deputy = new Deputy()
    const asked = deputy.interrupt(this.#interrupts, runId)
    try {
      const late = pause(INTERRUPT_PATIENCE_MS).then(() => false)
      // The deputy's own answer tells nothing but a failure, after which there is nothing to wait for.
      return await Promise.race([heard, late, asked.then(() => heard, () => false)])
    } finally {
      deputy.end()
    }
  }

  /** See to it that a run which has been cancelled does end here, whatever its step makes of it. @param {string} runId */
  async #seeToItsEnd(runId) {
    const worker = this.#worker
    const goesOn = () => this.#worker === worker && this.#active.includes(runId)
    await pause(URGENT_PATIENCE_MS)
    if (!goesOn()) return
    const answered = this.send("/runs?limit=1")
    answered.catch(() => {}) // it only shows whether the worker hears anything
    const isBlocked = await Promise.race([answered.then(() => false, () => false), pause(URGENT_PATIENCE_MS).then(() => true)])
    // Python that hears again, if only because it was interrupted, has yet to end the run.
    const hears = !isBlocked || (await this.#interrupted(runId, answered))
    for (let waited = 0; hears && goesOn() && waited < IGNORED_MS; waited += URGENT_PATIENCE_MS) await pause(URGENT_PATIENCE_MS)
    if (goesOn() && this.#closed === "no") {
      this.#endWorker()
      this.#replace()
    }
  }

  /** What a tab tells the others, as `durably/neighbours.py` describes it. @param {unknown} text */
  #overhear(text) {
    if (typeof text !== "string" || !text.startsWith('{"durably":1,')) return
    if (!text.includes('"kind":"hello"') && !text.includes('"run:cancel"')) return
    try {
      const { kind, from, type, facts } = JSON.parse(text)
      // In place of the worker, who may be too busy to hear: or nobody would think that anybody listens.
      if (kind === "hello" && this.#workerId !== null && from !== this.#workerId) this.#tell({ from: this.#workerId, kind: "here" })
      if (type !== "run:cancel") return
      const [runId] = JSON.parse(facts.run_id)
      if (this.#active.includes(runId)) void this.#seeToItsEnd(runId)
    } catch (error) {
      // Anybody in this origin may write to the channel; the worker, too, ignores what it does not understand.
      if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error
    }
  }

  /** End the worker that a run blocks, cancel the run, and boot another worker. @param {string} runId */
  async #endAndCancel(runId) {
    const worker = this.#worker
    this.#endWorker()
    try {
      return await this.#cancelByDeputy(runId)
    } catch (error) {
      return problem("StorageError", 503, `Run ${runId} could not be cancelled: ${error instanceof Error ? error.message : error}.`)
    } finally {
      // The page may have gone and come back meanwhile, and have another one.
      if (this.#closed === "no" && this.#worker === worker) this.#replace()
    }
  }

  /** @param {string} runId */
  async #cancelByDeputy(runId) {
    const deputy = new Deputy()
    try {
      const { run, cancelled } = await deputy.cancel(this.#options, this.#cancelRequests, runId)
      if (!run) return problem("NotFoundError", 404, `there is no run ${runId}`)
      if (!cancelled.length) return problem("ConflictError", 409, `run ${runId} is ${run.status} and cannot be cancelled`)
      this.#announce(cancelled)
      // The worker that takes the place of the old one has not heard of it.
      if (!this.#isReady) for (const run of cancelled) this.#onCancelled(run)
      return new Response(JSON.stringify({ success: true }))
    } finally {
      deputy.end()
    }
  }

  /** Tell every tab, as `durably/neighbours.py` would. @param {CancelledRun[]} cancelled */
  #announce(cancelled) {
    for (const { id, job_name, labels } of cancelled) {
      const facts = { run_id: JSON.stringify([id]), job_name: JSON.stringify([job_name]), labels: `[${labels}]` }
      this.#tell({ from: "deputy", kind: "event", type: "run:cancel", at: Date.now(), facts })
    }
  }

  /** @param {object} message */
  #tell(message) {
    this.#tabs?.postMessage(JSON.stringify({ durably: 1, ...message }))
  }

  // -- messages ----------------------------------------------------------------------------------------

  /** @param {any} message */
  #receive(message) {
    const { ask, left, active, at, interrupts, worker, cancel, dead, sound, snapshot } = message
    if (ask !== undefined) return this.#worker.postMessage({ told: ask, left: marked(left) })
    if (worker !== undefined) {
      this.#workerId = worker
      this.#cancelRequests = cancel
      return
    }
    if (interrupts !== undefined) return void (this.#interrupts = interrupts)
    if (active !== undefined) return this.#noteActive(active, at)
    if (dead !== undefined) return this.#died()
    if (sound !== undefined) return this.#noteSoundness(sound)
    if (snapshot !== undefined) return this.#makeSnapshot()
    this.#requests.receive(message)
  }

  /** Python is dead, the worker around it not: no mark is left, for this was a crash. */
  #died() {
    this.#workerId = null
    this.#isInDoubt = this.#keepsMark = true
    this.#endWorker()
    this.#replace()
  }

  /** @param {string[]} active @param {number} at */
  #noteActive(active, at) {
    this.#active = active
    for (const runId of active) if (!this.#begun.has(runId)) this.#begun.set(runId, at)
  }

  /** @param {boolean} isSound */
  #noteSoundness(isSound) {
    this.#isInDoubt = this.#keepsMark = !isSound
    if (isSound) this.#useMark.settle()
  }
}

/** The answer, if it is that the thing was done. @param {Promise<Response>} answer */
async function done(answer) {
  const response = await answer
  if (!response.ok) throw new Error(`answered ${response.status}`)
  return response
}

function gone() {
  return new DurablyError("ConnectionClosedError", 503, "The connection was closed.")
}

/** The answer that the HTTP API would give. @param {string} name @param {number} status @param {string} sentence */
function problem(name, status, sentence) {
  return new Response(JSON.stringify({ error: sentence }), { status, headers: { "durably-error": name } })
}

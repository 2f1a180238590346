/**
 * Server-sent events as an async iterator, which its reader can end at any time, and which a lost connection does not end.
 *
 * @module
 */

import { pause } from "./aborting.js"
import { DurablyError } from "./durably-error.js"

/**
 * @typedef {import("./records.js").DurablyEvent} DurablyEvent
 * @typedef {(signal: AbortSignal) => Promise<Response>} Open  asks for a stream; rejects where it is refused
 * @typedef {(signal: AbortSignal, last: Last) => Promise<Response>} Reopen
 * @typedef {{ event: DurablyEvent | null, id: string }} Last  the last event that was heard, and the last id
 */

/** What an event can be, in the order of the alphabet. */
export const EVENT_TYPES = [
  "log:write",
  "run:cancel",
  "run:coalesced",
  "run:complete",
  "run:delete",
  "run:fail",
  "run:progress",
  "run:retry",
  "run:stale",
  "run:start",
  "run:trigger",
  "step:cancel",
  "step:complete",
  "step:fail",
  "step:retry",
  "step:start",
  "worker:error",
]

/** How long after its loss a stream is asked for again; each time that it fails it is twice as long. */
const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 5000
const TERMINAL_TYPES = ["run:complete", "run:fail", "run:cancel"]

/** @param {DurablyEvent} event */
export function isTerminal({ type }) {
  return TERMINAL_TYPES.includes(type)
}

/** @implements {AsyncIterableIterator<DurablyEvent, void, void>} */
export class Events {
  #own = new AbortController()
  #events
  #isUnwanted = false

  /**
   * Nothing is asked for before the first `next`.
   *
   * @param {Open} open
   * @param {object} options
   * @param {AbortSignal | undefined} options.signal  what ends it with an error, the signal's reason
   * @param {Reopen | null} options.reopen  asks for another stream where one was lost, after the last event of that
   * @param {(event: DurablyEvent) => boolean} [options.isLast]  whether nothing comes after this event
   */
  constructor(open, { signal, reopen, isLast = isTerminal }) {
    this.#events = this.#read(open, reopen, signal, isLast)
  }

  [Symbol.asyncIterator]() {
    return this
  }

  next() {
    return this.#events.next()
  }

  /** End it. A `next` that is still waiting resolves, too, as at an end. @returns {Promise<IteratorReturnResult<void>>} */
  async return() {
    this.#isUnwanted = true
    this.#own.abort()
    await this.#events.return()
    return { done: true, value: undefined }
  }

  /**
   * @param {Open} open @param {Reopen | null} reopen @param {AbortSignal | undefined} signal
   * @param {(event: DurablyEvent) => boolean} isLast
   * @returns {AsyncGenerator<DurablyEvent, void, void>}
   */
  async *#read(open, reopen, signal, isLast) {
    const own = this.#own.signal
    const abort = () => this.#own.abort(signal?.reason)
    signal?.throwIfAborted()
    signal?.addEventListener("abort", abort, { once: true })
    try {
      for await (const event of eventsOf(open, reopen, own)) {
        own.throwIfAborted()
        yield event
        if (isLast(event)) return
      }
    } catch (error) {
      if (!this.#isUnwanted) throw own.aborted ? own.reason : error
    } finally {
      signal?.removeEventListener("abort", abort)
      this.#own.abort()
    }
  }
}

/**
 * The events of a stream, and of those that take its place.
 * @param {Open} open @param {Reopen | null} reopen @param {AbortSignal} signal
 * @returns {AsyncGenerator<DurablyEvent, void, void>}
 */
async function* eventsOf(open, reopen, signal) {
  let response = await open(signal)
  /** @type {Last} */ const last = { event: null, id: "" }
  for (;;) {
    try {
      for await (const { id, event } of framesIn(response)) {
        last.id = id ?? last.id
        last.event = event ?? last.event
        if (event) yield event
      }
    } catch (error) {
      if (signal.aborted || !reopen || !isLoss(error)) throw error
    }
    if (!reopen) return
    response = await reopened(reopen, signal, last)
  }
}

/** @param {Reopen} reopen @param {AbortSignal} signal @param {Last} last */
async function reopened(reopen, signal, last) {
  for (let rest = FIRST_PAUSE_MS; ; rest = Math.min(2 * rest, LONGEST_PAUSE_MS)) {
    await pause(rest, signal)
    try {
      return await reopen(signal, last)
    } catch (error) {
      if (signal.aborted || !mayPass(error)) throw error
    }
  }
}

/** Whether a stream was lost: a `TypeError` is what `fetch` has for a connection that breaks. @param {unknown} error */
function isLoss(error) {
  return error instanceof TypeError || (error instanceof DurablyError && error.name === "ConnectionLostError")
}

/**
 * Whether it is no answer of durably's own: there is none, or it is that of a proxy whose server is away, or of a service
 * worker that finds no tab with an engine.
 * @param {unknown} error
 */
function mayPass(error) {
  return isLoss(error) || (error instanceof DurablyError && ["DurablyError", "NoEngineError"].includes(error.name) && [502, 503, 504].includes(error.status))
}

/** @param {Response} response @returns {AsyncGenerator<{ id: string | undefined, event: DurablyEvent | null }, void, void>} */
async function* framesIn(response) {
  let text = ""
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const frames = (text + value).split("\n\n")
    text = /** @type {string} */ (frames.pop())
    for (const frame of frames) {
      const lines = frame.split("\n")
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5))
      const id = lines.find((line) => line.startsWith("id:"))?.slice(3).trim()
      yield { id, event: data.length ? JSON.parse(data.join("\n")) : null }
    }
  }
}

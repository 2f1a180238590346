/**
 * Server-sent events as an async iterator, which its reader can end at any time, and which a lost connection does not end.
 *
 * @module
 */

import { pause } from "./aborting.js"
import { DurablyError } from "./durably-error.js"

/** @typedef {import("./records.js").DurablyEvent} DurablyEvent */

/** How long after its loss a connection is tried again; each time that it fails it is twice as long. */
const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 5000

/** @implements {AsyncIterableIterator<DurablyEvent, void, void>} */
export class Events {
  #own = new AbortController()
  #events
  #isUnwanted = false

  /**
   * Nothing is asked for before the first `next`.
   *
   * @param {(signal: AbortSignal) => Promise<Response>} open  asks for the stream; rejects where it is refused
   * @param {object} options
   * @param {AbortSignal | undefined} options.signal  what ends it with an error, the signal's reason
   * @param {boolean} options.mayReconnect  whether to ask again when a stream that was there is lost
   * @param {(event: DurablyEvent) => boolean} options.isLast  whether nothing comes after this event
   */
  constructor(open, { signal, mayReconnect, isLast }) {
    this.#events = this.#read(mayReconnect ? reopening(open) : once(open), signal, isLast)
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
   * @param {(signal: AbortSignal) => AsyncGenerator<string, void, void>} frames
   * @param {AbortSignal | undefined} signal @param {(event: DurablyEvent) => boolean} isLast
   * @returns {AsyncGenerator<DurablyEvent, void, void>}
   */
  async *#read(frames, signal, isLast) {
    const own = this.#own.signal
    const abort = () => this.#own.abort(signal?.reason)
    signal?.throwIfAborted()
    signal?.addEventListener("abort", abort, { once: true })
    try {
      for await (const frame of frames(own)) {
        own.throwIfAborted()
        const data = frame.split("\n").filter((line) => line.startsWith("data:"))
        if (!data.length) continue
        /** @type {DurablyEvent} */ const event = JSON.parse(data.map((line) => line.slice(5)).join("\n"))
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

/** The frames of one stream. @param {(signal: AbortSignal) => Promise<Response>} open */
function once(open) {
  return async function* (/** @type {AbortSignal} */ signal) {
    yield* framesOf(await open(signal))
  }
}

/** The frames of one stream after the other: of another one, where one was lost. @param {(signal: AbortSignal) => Promise<Response>} open */
function reopening(open) {
  return async function* (/** @type {AbortSignal} */ signal) {
    let response = await open(signal)
    for (;;) {
      try {
        yield* framesOf(response)
      } catch (error) {
        if (signal.aborted || !(error instanceof TypeError)) throw error // which is what a break is to `fetch`
      }
      response = await reopened(open, signal)
    }
  }
}

/** @param {(signal: AbortSignal) => Promise<Response>} open @param {AbortSignal} signal */
async function reopened(open, signal) {
  for (let rest = FIRST_PAUSE_MS; ; rest = Math.min(2 * rest, LONGEST_PAUSE_MS)) {
    await pause(rest, signal)
    try {
      return await open(signal)
    } catch (error) {
      if (signal.aborted || !(error instanceof DurablyError && mayPass(error))) throw error
    }
  }
}

/** Whether it is no answer of durably's own: there is none, or it is that of a proxy whose server is away. @param {DurablyError} error */
function mayPass({ name, status }) {
  return name === "ConnectionLostError" || (name === "DurablyError" && [502, 503, 504].includes(status))
}

/** @param {Response} response @returns {AsyncGenerator<string, void, void>} */
async function* framesOf(response) {
  let text = ""
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const frames = (text + value).split("\n\n")
    text = /** @type {string} */ (frames.pop())
    yield* frames
  }
}

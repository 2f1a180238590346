/**
 * What a page with an engine does for the service worker of its site (`durably-sw.js`): answers the requests of all pages.
 *
 * The service worker asks with `{durably: scope, life}` and a port of its own for each request. The page says by that port
 * `{lock, isReady: false}` while its engine is booting and `{lock, isReady: true}` as soon as it can answer. Where it is
 * sent `{request}` it answers with `{status, headers, body}`, an `ArrayBuffer`, or for events with `{status, headers}`,
 * after which each `{pull}` is answered by `{chunk}`, or by `{end: true}` where no more can come.
 * The lock is held until `{over}` comes, whatever was answered: that it is free tells that the page is gone.
 *
 * @module
 */

import { DurablyError } from "./durably-error.js"
import { greet, register } from "./registration.js"

/** How often the service worker is told to go on. Firefox ends one that hears nothing for a minute, in the middle of a stream. */
const GO_ON_MS = 20_000

/**
 * @typedef {import("./port.js").Port} Port
 * @typedef {{ method: string, path: string, headers: Record<string, string>, body: ArrayBuffer | null }} Asked
 */

/**
 * Register a service worker and answer its requests, until `closing` aborts. Resolves when it controls this page; rejects
 * with a `DurablyError` named `ServiceWorkerError`.
 * @param {Port} port @param {string} file @param {AbortSignal} closing
 */
export async function serve(port, file, closing) {
  const registration = await register(file)
  if (closing.aborted) return
  const container = navigator.serviceWorker
  let leaving = new AbortController()
  const leave = () => {
    leaving.abort()
    leaving = new AbortController() // for the page may come back
  }
  const hear = (/** @type {MessageEvent} */ { data, ports: [way] }) => {
    // The service worker of another folder of this origin asks, too, for a database of its own.
    if (way && data?.durably === registration.scope) void new Answer(port, registration, way, leaving.signal).give(data.life)
  }
  container.addEventListener("message", hear, { signal: closing })
  container.startMessages()
  addEventListener("pagehide", leave, { signal: closing })
  closing.addEventListener("abort", leave)
  await greet(registration)
}

/** One request's, from the offer to the end. */
class Answer {
  #port
  #registration
  #way
  #ending = new AbortController()
  /** @type {ReadableStreamDefaultReader<Uint8Array> | null} */ #reader = null
  /** @type {ReturnType<typeof setInterval> | undefined} */ #goingOn

  /**
   * @param {Port} port @param {ServiceWorkerRegistration} registration
   * @param {MessagePort} way  to the service worker @param {AbortSignal} left  aborts when the page is left
   */
  constructor(port, registration, way, left) {
    this.#port = port
    this.#registration = registration
    this.#way = way
    const end = () => this.#end()
    left.addEventListener("abort", end, { signal: this.#ending.signal })
    way.onmessage = ({ data }) => {
      if (data.request) void this.#answer(data.request)
      else if (data.pull) void this.#pass()
      else if (data.over) end()
    }
  }

  /** Offer it, and stand by the offer until its end. @param {string} life  the lock that ends with the service worker */
  async give(life) {
    const lock = `durably:answers:${crypto.randomUUID()}`
    const { signal } = this.#ending
    const gone = navigator.locks.request(life, { signal }, () => this.#end())
    const offered = navigator.locks.request(lock, { signal }, () => this.#stand(lock))
    for (const result of await Promise.allSettled([gone, offered])) {
      if (result.status === "rejected" && !signal.aborted) throw result.reason
    }
  }

  /** @param {string} lock @returns {Promise<void>} resolves at the end of the offer */
  async #stand(lock) {
    const { signal } = this.#ending
    const ended = new Promise((resolve) => signal.addEventListener("abort", () => resolve(undefined)))
    if (!this.#port.isReady) this.#way.postMessage({ lock, isReady: false })
    this.#port.ready.then(() => this.#way.postMessage({ lock, isReady: true }), () => this.#end())
    await ended
  }

  /** @param {Asked} asked */
  async #answer(asked) {
    const response = await this.#ask(asked).catch(problem)
    if (this.#ending.signal.aborted) return
    const { status } = response
    const headers = Object.fromEntries(response.headers)
    if (headers["content-type"]?.startsWith("text/event-stream") && response.body) {
      this.#reader = response.body.getReader()
      this.#goingOn = setInterval(() => this.#registration.active?.postMessage({ durably: "go on" }), GO_ON_MS)
      this.#way.postMessage({ status, headers })
      return
    }
    const body = await response.arrayBuffer()
    this.#way.postMessage({ status, headers, body }, [body])
  }

  /** @param {Asked} asked @returns {Promise<Response>} */
  async #ask({ method, path, headers, body: bytes }) {
    const body = text(bytes)
    const { pathname, searchParams } = new URL(location.origin + path)
    const runId = searchParams.get("runId")
    // As the page's own client does it: the step may block the worker.
    if (method === "POST" && pathname === "/cancel" && runId !== null) return await this.#port.cancelRun(path, runId)
    return await this.#port.send(path, { method, headers, body, signal: this.#ending.signal })
  }

  /** Send what comes next of the stream. */
  async #pass() {
    try {
      const { done, value } = await /** @type {ReadableStreamDefaultReader<Uint8Array>} */ (this.#reader).read()
      if (done) return this.#way.postMessage({ end: true })
      const { buffer } = value.slice()
      this.#way.postMessage({ chunk: buffer }, [buffer])
    } catch (error) {
      if (this.#ending.signal.aborted) return
      // Its reader, who has had its head, cannot be told why it ends; the next stream tells, if that is refused.
      this.#way.postMessage({ end: true })
      if (!(error instanceof DurablyError)) throw error
    }
  }

  #end() {
    clearInterval(this.#goingOn)
    this.#ending.abort(new DurablyError("ConnectionClosedError", 503, "Nobody waits for the answer any more."))
    this.#way.close()
  }
}

/** @param {ArrayBuffer | null} bytes */
function text(bytes) {
  if (bytes === null) return ""
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes)
  } catch {
    throw new DurablyError("ValidationError", 400, "the body is not UTF-8")
  }
}

/** The answer that the HTTP API would give. @param {unknown} error */
function problem(error) {
  const { name, status, message } = error instanceof DurablyError ? error : new DurablyError("DurablyError", 500, String(error))
  return new Response(JSON.stringify({ error: message }), { status, headers: { "content-type": "application/json", "durably-error": name } })
}

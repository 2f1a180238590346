/**
 * HTTP over messages: the requests that a page makes of its worker, and their answers.
 *
 * A request is `{id, method, url, headers, body}`, and `{cancel: id}` when nobody waits for its answer any more. What is
 * answered is described in `durably/browser/port.py`. A request waits for its answer across the death of the worker: it
 * is sent to the next one, unless it is refused before.
 *
 * @module
 */

import { DurablyError } from "./durably-error.js"

const JSON_HEADERS = { "content-type": "application/json" }

/**
 * @typedef {{ method?: string, headers?: Record<string, string>, body?: string, signal?: AbortSignal }} Init  headers are by default those of JSON
 * @typedef {{ method: string, url: string, headers: Record<string, string>, body: string }} Request
 *
 * @typedef {object} Waiting
 * @property {Request} request
 * @property {(response: Response) => void} answer
 * @property {(error: Error) => void} refuse
 * @property {ReadableStreamDefaultController<Uint8Array>} [stream]
 */

export class Requests {
  #post
  #lastId = 0
  /** @type {Map<number, Waiting>} */ #waiting = new Map()
  #encoder = new TextEncoder()

  /** @param {(message: object) => void} post  sends it to the worker, or does nothing where that is not ready */
  constructor(post) {
    this.#post = post
  }

  /** @param {string} path @param {Init} [init] @returns {Promise<Response>} */
  send(path, { method = "GET", headers = JSON_HEADERS, body = "", signal } = {}) {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      const request = { method, url: path, headers, body }
      this.#waiting.set(id, { request, answer: resolve, refuse: reject })
      signal?.addEventListener("abort", () => {
        this.#waiting.get(id)?.stream?.error(signal.reason)
        reject(signal.reason)
        this.#cancel(id)
      })
      this.#postRequest(id, request)
    })
  }

  /** Send whatever waits to a worker that has become ready. */
  postAll() {
    for (const [id, { request }] of this.#waiting) this.#postRequest(id, request)
  }

  /** Give up on what waits. @param {DurablyError} error @param {(request: Request) => boolean} [isMeant] */
  refuse(error, isMeant = () => true) {
    for (const [id, { request, refuse, stream }] of this.#waiting) {
      if (!isMeant(request)) continue
      this.#waiting.delete(id)
      refuse(error)
      stream?.error(error)
    }
  }

  /** What the worker answers. @param {any} message */
  receive({ id, status, headers, body, stream, chunk, end, broken }) {
    const waiting = this.#waiting.get(id)
    if (!waiting) return
    if (stream) {
      // A stream that was under way when its worker was replaced goes on: its reader sees the present state again.
      if (!waiting.stream) this.#answerWithStream(id, waiting, status, headers)
    } else if (chunk !== undefined) {
      waiting.stream?.enqueue(this.#encoder.encode(chunk))
    } else {
      this.#waiting.delete(id)
      if (end) waiting.stream?.close()
      else if (broken) waiting.stream?.error(new DurablyError("DurablyError", 500, broken))
      else if (waiting.stream) waiting.stream.error(new DurablyError(headers["durably-error"] ?? "DurablyError", status, JSON.parse(new TextDecoder().decode(body)).error))
      else waiting.answer(new Response(body.byteLength ? body : null, { status, headers })) // some statuses may have none
    }
  }

  /** @param {number} id @param {Waiting} waiting @param {number} status @param {Record<string, string>} headers */
  #answerWithStream(id, waiting, status, headers) {
    const chunks = new ReadableStream({
      start: (controller) => void (waiting.stream = controller),
      cancel: () => this.#cancel(id),
    })
    waiting.answer(new Response(chunks, { status, headers }))
  }

  /** @param {number} id @param {Request} request */
  #postRequest(id, request) {
    this.#post({ id, ...request })
  }

  /** @param {number} id */
  #cancel(id) {
    if (this.#waiting.delete(id)) this.#post({ cancel: id })
  }
}

/**
 * The service worker of a site: answers `fetch("/api/durably/...")`, `EventSource` and links of any page of it, from a tab
 * that has an engine. It is optional, and a classic script, so that it can be imported where it has to lie:
 *
 * ```js
 * // sw.js, at the root of the site, because a service worker's pages are those of its own folder
 * importScripts("./durably/durably-sw.js")
 * ```
 *
 * The page with the engine registers it: `connect({ ..., serviceWorker: "./sw.js" })`. Requests below `/api/durably/` are
 * durably's, or below the path that the query of the registered script names: `sw.js?base=/jobs`. A path without a slash
 * in front is relative to the folder: `sw.js?base=api/durably`, for a site that is not at the root of its origin.
 *
 * The browser ends a service worker whenever it likes, so this one keeps nothing: for each request it asks the windows of
 * the origin anew who can answer, and the first that can does. Where nobody comes forward for some seconds, and no engine
 * is booting, the answer is 503 with a `NoEngineError`.
 *
 * An `EventSource` gives up for good where it gets a status other than 200, or where its stream breaks; after a stream
 * that ends it comes back by itself. So where there is no engine it gets a stream that is over at once, and where the tab
 * that sends one is closed, or a newer service worker takes over, the stream ends. What it gets then begins with the
 * present state of the run, so that nothing is missed. (The header `Last-Event-ID` goes on to the handler where a service
 * worker is shown it, as in Firefox; Chromium keeps it to itself.)
 *
 * To each window goes `{durably: scope, life}` with a port; `life` is a lock that this worker holds until it ends. What an
 * engine's page sends by that port is described in `served.js`. It is sent `{request: {method, path, headers, body}}` if it
 * is chosen, `{pull}` for each chunk of a stream, and `{over}` in the end, or when nothing is wanted of it.
 * A page sends `{durably: "hello"}` with a port when it offers an engine: it is answered `{hello}` once this worker
 * controls it, and is asked on behalf of every request that waits. What else it sends only keeps this worker alive.
 */
"use strict"
{
  const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self))
  const { clients, location, registration } = worker
  const { locks } = worker.navigator

  /** How long is waited for a page that says it has an engine: one may be being reloaded. */
  const NOBODY_MS = 4000
  /** How long is waited for an engine that is booting. */
  const BOOTING_MS = 30_000
  /** When an `EventSource` that lost its stream comes back, and how long other clients are asked to wait. */
  const COMES_BACK_MS = 1000
  const RETRY = new TextEncoder().encode(`retry: ${COMES_BACK_MS}\n\n`)

  /** The path below which requests are durably's. It cannot be the root, where the site itself is. */
  const base = new URL(new URLSearchParams(location.search).get("base") ?? "/api/durably", registration.scope).pathname.replace(/\/+$/, "")
  if (base === "") throw new Error("durably-sw.js: the base path is that of the site itself")

  /** The engine's page is gone, or takes its offer back. */
  class Lost extends Error {}

  /** @typedef {{ method: string, path: string, headers: Record<string, string>, body: ArrayBuffer | null }} Asked */

  /** An offer to answer one request. */
  class Engine {
    #port
    #over = new AbortController()

    /** @param {MessagePort} port @param {string} lock  which its page holds as long as the offer stands */
    constructor(port, lock) {
      this.#port = port
      /** @type {Promise<void>} resolves when the offer no longer stands */
      this.gone = locks.request(lock, { signal: this.#over.signal }, () => {}).catch(ignoreAbort)
    }

    /** Nothing more is wanted of it. */
    end() {
      this.#over.abort()
      this.#port.postMessage({ over: true })
      this.#port.close()
    }

    /**
     * Its answer. Rejects with `Lost` where the page goes before there is one; a stream is over then.
     * @param {Asked} asked @param {AbortSignal} signal @returns {Promise<Response>}
     */
    answer(asked, signal) {
      return new Promise((resolve, reject) => {
        /** @type {EventStream | null} */ let stream = null
        this.gone.then(() => {
          this.end()
          stream?.close()
          reject(new Lost())
        })
        signal.addEventListener("abort", () => {
          if (stream) stream.stop()
          else this.end()
          reject(signal.reason)
        })
        this.#port.onmessage = ({ data: { status, headers, body, chunk, end } }) => {
          if (body !== undefined) {
            this.end()
            resolve(new Response(body.byteLength ? body : null, { status, headers }))
          } else if (status !== undefined) {
            stream = new EventStream(() => this.#port.postMessage({ pull: true }), () => this.end())
            resolve(new Response(stream.chunks, { status, headers }))
          } else if (chunk !== undefined) {
            stream?.add(chunk)
          } else if (end) {
            this.end()
            stream?.close()
          }
        }
        this.#port.postMessage({ request: asked }, asked.body ? [asked.body] : [])
      })
    }
  }

  /** The streams under way. @type {Set<EventStream>} */
  const streams = new Set()

  /** Server-sent events on their way to a page. They begin with how soon an `EventSource` is to come back. */
  class EventStream {
    /** @type {ReadableStreamDefaultController<Uint8Array>} */ #controller
    /** @type {() => void} */ #onChunk = () => {}
    #onUnwanted

    /** @param {() => void} pull  asks for a chunk @param {() => void} onUnwanted  told when nobody reads any more */
    constructor(pull, onUnwanted) {
      this.#onUnwanted = onUnwanted
      /** @type {any} */ let own
      this.chunks = new ReadableStream({
        start: (controller) => {
          own = controller
          controller.enqueue(RETRY)
        },
        pull: () => {
          pull()
          return new Promise((resolve) => (this.#onChunk = resolve))
        },
        cancel: () => {
          this.#leave()
          onUnwanted()
        },
      })
      this.#controller = own
      streams.add(this)
      // It would keep the one that waits from taking over.
      if (registration.waiting) this.stop()
    }

    /** @param {ArrayBuffer} chunk */
    add(chunk) {
      this.#controller.enqueue(new Uint8Array(chunk))
      this.#onChunk()
    }

    /** It is never broken, whatever has happened: browsers give an `EventSource` up for that, and reopen it after an end. */
    close() {
      if (this.#leave()) this.#controller.close()
    }

    /** End it here; whoever reads it will ask for another. */
    stop() {
      this.close()
      this.#onUnwanted()
    }

    /** @returns {boolean} whether it was under way until now */
    #leave() {
      this.#onChunk()
      return streams.delete(this)
    }
  }

  /** The name of the lock that is held until this worker ends. */
  const life = `durably:service-worker:${crypto.randomUUID()}`
  const living = new Promise((resolve) => {
    void locks.request(life, () => {
      resolve(undefined)
      return new Promise(() => {})
    })
  })

  /** Each request that waits for an engine asks every page that comes. @type {Set<(client: Client) => void>} */
  const questions = new Set()

  /** The first engine that is ready. @param {AbortSignal} signal @returns {Promise<Engine | null>} `null` if there is none in time */
  async function findEngine(signal) {
    await living
    signal.throwIfAborted()
    return await new Promise((resolve, reject) => {
      /** @type {Map<MessagePort, Engine>} */ const booting = new Map()
      /** @type {Set<MessagePort>} */ const asked = new Set()
      /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer
      const settle = (/** @type {Engine | null} */ chosen) => {
        clearTimeout(timer)
        questions.delete(ask)
        for (const port of asked) port.onmessage = hearTooLate
        for (const engine of booting.values()) if (engine !== chosen) engine.end()
        resolve(chosen)
      }
      const waitFor = (/** @type {number} */ milliseconds) => {
        clearTimeout(timer)
        timer = setTimeout(settle, milliseconds, null)
      }
      const ask = (/** @type {Client} */ client) => {
        const { port1: port, port2 } = new MessageChannel()
        asked.add(port)
        port.onmessage = ({ data: { lock, isReady } }) => {
          const engine = booting.get(port) ?? new Engine(port, lock)
          booting.set(port, engine)
          if (isReady) return settle(engine)
          waitFor(BOOTING_MS)
          engine.gone.then(() => {
            if (booting.delete(port) && booting.size === 0 && questions.has(ask)) waitFor(NOBODY_MS)
          })
        }
        client.postMessage({ durably: registration.scope, life }, [port2])
      }
      waitFor(NOBODY_MS)
      questions.add(ask)
      signal.addEventListener("abort", () => {
        reject(signal.reason)
        settle(null)
      })
      void clients.matchAll({ type: "window", includeUncontrolled: true }).then((all) => {
        if (questions.has(ask)) all.forEach(ask)
      })
    })
  }

  /** An offer that comes when another one has been taken. @this {MessagePort} */
  function hearTooLate() {
    this.postMessage({ over: true })
    this.close()
  }

  /** @param {Request} request @param {string} path @returns {Promise<Response>} */
  async function answer(request, path) {
    const { method, headers, signal } = request
    if (request.mode === "navigate" && method !== "GET") {
      // A form of any other site could send it, and nobody would know from where it came.
      return problem(403, "DurablyError", `a form cannot send ${method} here: use fetch`)
    }
    const isRead = method === "GET" || method === "HEAD"
    const body = isRead ? null : await request.arrayBuffer()
    for (;;) {
      const engine = await findEngine(signal)
      if (engine === null) return headers.get("accept") === "text/event-stream" ? emptyStream() : nobody()
      try {
        return await engine.answer({ method, path, headers: Object.fromEntries(headers), body }, signal)
      } catch (error) {
        if (!(error instanceof Lost)) throw error
        if (!isRead) return problem(503, "ConnectionLostError", "The tab that was asked is gone; what was asked for may or may not have been done.")
      }
    }
  }

  /** What makes an `EventSource` come back. */
  function emptyStream() {
    return new Response(RETRY, { headers: { "content-type": "text/event-stream", "cache-control": "no-cache" } })
  }

  function nobody() {
    return problem(503, "NoEngineError", "No tab of this site has durably's engine: open a page that does.", { "retry-after": String(COMES_BACK_MS / 1000) })
  }

  /** @param {number} status @param {string} name @param {string} sentence @param {Record<string, string>} [headers] */
  function problem(status, name, sentence, headers = {}) {
    const all = { "content-type": "application/json", "cache-control": "no-store", "durably-error": name, ...headers }
    return new Response(JSON.stringify({ error: sentence }), { status, headers: all })
  }

  /** @param {unknown} error */
  function ignoreAbort(error) {
    // Nobody waits for the lock any more; what was to happen when it came does not.
    if (error instanceof DOMException && error.name === "AbortError") return new Promise(() => {})
    throw error
  }

  worker.addEventListener("install", (event) => event.waitUntil(worker.skipWaiting()))
  worker.addEventListener("activate", (event) => event.waitUntil(clients.claim()))

  // A newer one takes over when this one has nothing left to do, which an endless stream would put off for minutes.
  registration.addEventListener("updatefound", () => {
    const { installing } = registration
    installing?.addEventListener("statechange", () => {
      if (installing === registration.waiting) for (const stream of streams) stream.stop()
    })
  })

  worker.addEventListener("message", (event) => {
    const { data, source, ports } = event
    if (data?.durably !== "hello" || !source) return
    event.waitUntil(clients.claim().then(() => ports[0]?.postMessage({ hello: true })))
    for (const ask of questions) ask(source)
  })

  worker.addEventListener("fetch", (event) => {
    const url = new URL(event.request.url)
    if (url.origin !== location.origin || !url.pathname.startsWith(`${base}/`)) return
    event.stopImmediatePropagation() // a listener of the site's own would answer, too
    event.respondWith(answer(event.request, url.pathname.slice(base.length) + url.search))
  })
}

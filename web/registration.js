/**
 * A page and the service worker of its site: registering it, and being controlled by it.
 *
 * @module
 */

import { abortable } from "./aborting.js"
import { DurablyError } from "./durably-error.js"

/** How long the service worker may take to be installed and to take over this page. */
const CONTROL_MS = 10_000

/**
 * Register a service worker for this page. Rejects with a `DurablyError` named `ServiceWorkerError` where it cannot be.
 * @param {string} file  a script, relative to the page, that is or imports `durably-sw.js`
 */
export async function register(file) {
  if (!("serviceWorker" in navigator)) {
    throw refusal(isSecureContext ? "This browser has no service workers, or allows none here." : "A service worker needs a secure context: https, or localhost.")
  }
  const url = new URL(file, document.baseURI).href
  /** @type {ServiceWorkerRegistration} */ let registration
  try {
    // What it imports must not come out of the browser's cache either, or an update would never be seen.
    registration = await navigator.serviceWorker.register(url, { updateViaCache: "none" })
  } catch (error) {
    throw refusal(`The service worker ${url} cannot be registered: ${error instanceof Error ? error.message : error}`)
  }
  if (!document.URL.startsWith(registration.scope)) {
    throw refusal(`The service worker ${url} is only for pages below ${registration.scope}, and this one is not. Put it into a folder further up.`)
  }
  return registration
}

/**
 * Offer this page's engine, and wait until the service worker controls the page: what the page fetches goes through it
 * from then on. Rejects with a `DurablyError` where that takes longer than ten seconds.
 * @param {ServiceWorkerRegistration} registration
 */
export async function greet(registration) {
  const late = refusal(`The service worker for ${registration.scope} has not taken over this page within ${CONTROL_MS / 1000} s. Does it import durably-sw.js?`)
  await abortable((signal) => controlled(registration, signal), { timeoutMs: CONTROL_MS, late })
}

/** @param {ServiceWorkerRegistration} registration @param {AbortSignal} signal @returns {Promise<void>} */
async function controlled(registration, signal) {
  const container = navigator.serviceWorker
  const done = new AbortController()
  try {
    await new Promise((resolve, reject) => {
      let isAnswered = false
      const look = () => {
        if (isAnswered && container.controller) resolve(undefined)
      }
      const greet = () => {
        const { port1, port2 } = new MessageChannel()
        port1.onmessage = () => {
          isAnswered = true
          look()
        }
        registration.active?.postMessage({ durably: "hello" }, [port2])
      }
      signal.addEventListener("abort", () => reject(signal.reason))
      // Another one may take over meanwhile: the first that there is, or a newer one.
      container.addEventListener("controllerchange", () => (look(), greet()), { signal: done.signal })
      void container.ready.then(greet)
    })
  } finally {
    done.abort()
  }
}

/** @param {string} sentence */
function refusal(sentence) {
  return new DurablyError("ServiceWorkerError", 503, sentence)
}

/**
 * What the client needs of HTTP: the way to a server, the errors in its answers, and queries.
 *
 * @module
 */

import { DurablyError } from "./durably-error.js"

/** @typedef {(path: string, init?: { method?: string, body?: string, signal?: AbortSignal }) => Promise<Response>} Send */

const JSON_HEADERS = { "content-type": "application/json" }

/** The way to the server at a URL. @param {string} url @returns {Send} */
export function overFetch(url) {
  const base = url.replace(/\/$/, "")
  return async (path, init = {}) => {
    try {
      return await fetch(base + path, init.body === undefined ? init : { headers: JSON_HEADERS, ...init })
    } catch (error) {
      if (init.signal?.aborted) throw error
      const doubt = (init.method ?? "GET") === "GET" ? "" : " What was asked for may or may not have been done."
      throw new DurablyError("ConnectionLostError", 503, `There was no answer from ${base}${path}.${doubt}`)
    }
  }
}

/** The response, unless it is an error, which is thrown. @param {Response} response */
export async function checked(response) {
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

/** @param {Record<string, unknown>} values lists become repeated parameters, undefined ones are left out */
export function query(values) {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined) query.append(name, String(one))
    }
  }
  return query
}

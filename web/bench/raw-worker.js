/**
 * The limit of checkpoints: the very statements that a job's steps write, sent to durably's bridge to SQLite from
 * JavaScript. It is sent `[database, recording, warmUp]`, and answers how many of them it commits a second.
 *
 * A recording is what `playwright/measures/recording.py` makes: an image of the database when a job begins, and the
 * requests of each of its steps, the first `warmUp` of which are not timed.
 *
 * @module
 */

import { openDatabase } from "./durably/opfs.js"

self.onmessage = async ({ data: [database, recording, warmUp] }) => {
  const { image, steps } = await (await fetch(recording)).json()
  const connection = await openDatabase(database)
  await connection.load(Uint8Array.from(atob(image), (sign) => sign.charCodeAt(0)), "SELECT 1 WHERE 0")
  const run = async (/** @type {unknown[]} */ requests) => {
    for (const request of requests) {
      const reply = connection.execute(JSON.stringify(request))
      if (reply instanceof Promise) await reply
    }
  }
  await run(steps.slice(0, warmUp))
  const began = performance.now()
  await run(steps.slice(warmUp))
  const perSecond = (1000 * (steps.length - warmUp)) / (performance.now() - began)
  const reply = await connection.execute(JSON.stringify(["read", [["SELECT count(*) FROM durably_steps", []]]]))
  const [[, [[stored]]]] = JSON.parse(/** @type {string} */ (reply))
  if (stored !== steps.length) throw new Error(`of ${steps.length} steps ${stored} were stored`)
  await connection.close()
  self.postMessage(perSecond)
}

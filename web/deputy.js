/**
 * The deputy: does in the place of a worker what that is too busy to do, or to hear.
 *
 * The page starts it, sends one message, and ends it. `{ interrupt: { name, runId } }` breaks into Python where that is
 * possible; the answer is `{ done: true }`. `{ database, durability, requests }` makes requests, as `sqlite.js` describes
 * them, of the same database; the answer is `{ replies }`. What fails is answered by `{ failed: sentence }`.
 *
 * @module
 */

import { interrupt, sweepInterrupts } from "./interrupt.js"
import { openDatabase } from "./opfs.js"

self.addEventListener("message", async ({ data }) => {
  try {
    self.postMessage(data.interrupt ? await breakIn(data.interrupt) : await ask(data))
  } catch (error) {
    self.postMessage({ failed: error instanceof Error ? error.message : String(error) })
  }
})

/** @param {{ name: string, runId: string }} what */
async function breakIn({ name, runId }) {
  await interrupt(name, runId)
  await sweepInterrupts()
  return { done: true }
}

/** @param {{ database: string, durability: "full" | "relaxed", requests: string[] }} what */
async function ask({ database, durability, requests }) {
  const connection = await openDatabase(database, { durability, doubt: false })
  const replies = []
  for (const request of requests) replies.push(await connection.execute(request))
  await connection.close()
  return { replies }
}

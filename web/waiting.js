/**
 * Waiting for a run to complete.
 *
 * @module
 */

import { abortable } from "./aborting.js"
import { DurablyError } from "./durably-error.js"

/**
 * @typedef {import("./events.js").Events} Events
 * @typedef {import("./records.js").Run} Run
 *
 * @typedef {object} Client
 * @property {(runId: string, options: { signal: AbortSignal }) => Promise<Run | null>} getRun
 * @property {(runId: string, options: { signal: AbortSignal }) => Events} subscribe
 */

/**
 * The run, once it has completed. Rejects with a `DurablyError` where it ends otherwise, or not in time.
 * @param {Client} client
 * @param {(signal: AbortSignal) => Events} begin  its events, from which its id is known
 * @param {import("./records.js").WaitOptions & import("./records.js").Abortable} options
 * @returns {Promise<Run>}
 */
export async function completedRun(client, begin, { timeout, onProgress, onLog, signal }) {
  const seconds = timeout ?? Infinity
  if (typeof seconds !== "number" || !(seconds >= 0)) {
    throw new DurablyError("ValidationError", 400, `timeout must be a number of seconds from 0 on, got ${String(timeout)}`)
  }
  const late = new DurablyError("TimeoutError", 504, `the run has not ended after ${seconds} s; it goes on`)
  const ended = async (/** @type {AbortSignal} */ signal) => {
    for (let events = begin(signal); ; ) {
      let runId = ""
      for await (const event of events) {
        runId = event.runId ?? ""
        if (event.type === "run:progress") onProgress?.(event.progress)
        if (event.type === "log:write") onLog?.(event)
      }
      const run = await client.getRun(runId, { signal })
      if (run === null) throw new DurablyError("NotFoundError", 404, `run ${runId} has been deleted`)
      if (run.isTerminal) return run
      events = client.subscribe(runId, { signal }) // a retry has begun it again
    }
  }
  return completed(await abortable(ended, { signal, timeoutMs: seconds * 1000, late }))
}

/** The run, if it has completed. @param {Run} run */
function completed(run) {
  if (run.status === "completed") return run
  const error =
    run.status === "failed"
      ? new DurablyError("RunFailedError", 500, run.error ?? "the run failed")
      : new DurablyError("RunCancelledError", 409, `run ${run.id} of job '${run.jobName}' was cancelled`)
  error.run = run
  throw error
}

/**
 * The page's end of the deputy (`deputy.js`): what is asked of it, and what its answers mean.
 *
 * @module
 */

/** How long the deputy may take. */
const PATIENCE_MS = 5000

/**
 * @typedef {{ id: string, job_name: string, labels: string }} CancelledRun  as the store keeps it
 * @typedef {[columns: string[], rows: unknown[][], changes: number]} Result  as the bridge gives it
 */

/** A worker that does what the one with Python is too busy to do. `end` it after use. */
export class Deputy {
  #worker = new Worker(new URL("./deputy.js", import.meta.url), { type: "module", name: "durably-deputy" })

  /** Break into Python in the middle of a run. @param {string} name  by which its worker can be interrupted @param {string} runId */
  async interrupt(name, runId) {
    await this.#ask({ interrupt: { name, runId } })
  }

  /**
   * Cancel a run in the database.
   * @param {{ database: string, durability: string }} where
   * @param {string[]} requests  a look at the run and the deed, their parameters left open
   * @param {string} runId
   * @returns {Promise<{ run: Record<string, any> | undefined, cancelled: CancelledRun[] }>} the run as it was before, and
   *   all that were cancelled with it
   */
  async cancel({ database, durability }, requests, runId) {
    const values = { id: runId, run_id: runId, now: Date.now() }
    const { replies } = await this.#ask({ database, durability, requests: requests.map((request) => filledIn(request, values)) })
    const [found, did] = replies.map(firstResult)
    return { run: records(found)[0], cancelled: /** @type {CancelledRun[]} */ (records(did)) }
  }

  end() {
    this.#worker.terminate()
  }

  /** @param {object} message @returns {Promise<any>} */
  async #ask(message) {
    const answer = new Promise((resolve) => (this.#worker.onmessage = ({ data }) => resolve(data)))
    this.#worker.postMessage(message)
    const late = pause(PATIENCE_MS).then(() => ({ failed: "the database did not answer" }))
    const said = await Promise.race([answer, late])
    if (said.failed) throw new Error(said.failed)
    return said
  }
}

/** @param {number} milliseconds @returns {Promise<void>} */
export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}

/** A request of the bridge with its open parameters filled in. @param {string} request @param {Record<string, unknown>} values */
function filledIn(request, values) {
  const [mode, statements] = JSON.parse(request)
  const filled = (/** @type {object} */ open) => Object.fromEntries(Object.entries(open).map(([name, value]) => [name, value ?? values[name]]))
  return JSON.stringify([mode, statements.map((/** @type {[string, object]} */ [sql, open]) => [sql, filled(open)])])
}

/** What a request's first statement gave. @param {any} reply @returns {Result} */
function firstResult(reply) {
  const results = JSON.parse(typeof reply === "string" ? reply : new TextDecoder().decode(reply[0]))
  if (results.error) throw new Error(results.error[1])
  return results[0]
}

/** The rows of a result as objects. @param {Result} result @returns {Record<string, any>[]} */
function records([columns, rows]) {
  return rows.map((row) => Object.fromEntries(columns.map((name, place) => [name, row[place]])))
}

/**
 * Which runs the list shows, and reading a page of them.
 *
 * The store filters by status and job. It knows no search, so a search reads the runs in lots and looks at each.
 *
 * @typedef {import("./client.js").Client} Client
 * @typedef {import("./client.js").Run} Run
 * @typedef {{ status: import("./client.js").Status | "", jobName: string, text: string }} Wanted
 */

export const PAGE_LENGTH = 50
const LOT_LENGTH = 500
const ID_LENGTH = 26

/** Whether a run is wanted. @param {Run} run @param {Wanted} wanted */
export function isWanted(run, { status, jobName, text }) {
  return (!status || run.status === status) && (!jobName || run.jobName === jobName) && contains(run, text)
}

/** Whether each word of the text is in a run's id, job or labels. @param {Run} run @param {string} text */
function contains(run, text) {
  const labels = Object.entries(run.labels).map(([key, value]) => `${key}=${value}`)
  const all = [run.id, run.jobName, ...labels].join("\n").toLowerCase()
  return text.toLowerCase().split(/\s+/).every((word) => all.includes(word))
}

export class Query {
  /** @type {Run[]} */ #found = []
  #looked = 0
  #isAtEnd = false
  #client

  /** @param {Client} client @param {Wanted} wanted */
  constructor(client, wanted) {
    this.#client = client
    this.wanted = { ...wanted, text: wanted.text.trim() }
    this.filter = { ...(wanted.status && { status: wanted.status }), ...(wanted.jobName && { jobName: wanted.jobName }) }
    /** Whether reading a page again is one small question. */
    this.isCheap = !this.wanted.text
  }

  /**
   * The runs from `offset` on, as many as a page has, and one more if there is one.
   * @param {number} offset @param {(looked: number) => boolean} goesOn  told how many runs were looked at so far
   */
  async page(offset, goesOn) {
    if (this.isCheap) return await this.#client.getRuns({ ...this.filter, limit: PAGE_LENGTH + 1, offset })
    if (this.wanted.text.length === ID_LENGTH && !this.#looked) await this.#lookForId()
    while (!this.#isAtEnd && this.#found.length <= offset + PAGE_LENGTH && goesOn(this.#looked)) await this.#lookOn()
    return this.#found.slice(offset, offset + PAGE_LENGTH + 1)
  }

  /** Take note of a run that was triggered since. @param {Run} run */
  add(run) {
    if (!this.isCheap) this.#found.unshift(run)
  }

  async #lookForId() {
    const run = await this.#client.getRun(this.wanted.text.toUpperCase())
    if (!run || !isWanted(run, this.wanted)) return
    this.#found = [run]
    this.#isAtEnd = true
  }

  async #lookOn() {
    const lot = await this.#client.getRuns({ ...this.filter, limit: LOT_LENGTH, offset: this.#looked })
    const known = new Set(this.#found.map(({ id }) => id)) // runs triggered meanwhile push others into the next lot
    this.#found.push(...lot.filter((run) => !known.has(run.id) && isWanted(run, this.wanted)))
    this.#looked += lot.length
    this.#isAtEnd = lot.length < LOT_LENGTH
  }
}

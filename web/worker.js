/**
 * The worker of one tab: boots Pyodide, installs durably, loads the job files, and serves the page.
 *
 * The page sends `{start: {database, durability, jobs, packages, left, doubt}, pulse}` first: `jobs` are absolute URLs,
 * `left` the workers that are known to have left in order, `doubt` is whether the database may not have been, and `pulse`
 * is the port of this worker's pulse (`pulse.js`). The answer is
 * `{ready: true}` or `{failed: {name, status, message}}`, sent by `durably/browser/boot.py` or, before there is
 * Python, from here; on the way `{booting: sentence}`. After that, requests `{id, method, url, headers, body}`
 * and `{cancel: id}`, answered as `durably/browser/port.py` says. Before `ready` comes `{worker: id, cancel: requests}`:
 * the name by which others know this worker, and what a deputy sends to the database to cancel a run. At any time there
 * may be a question, `{ask: id, left: workers}`, to be answered by `{told: id, left: workers}` (`durably/browser/page.py`);
 * `{interrupts: name}` names the file through which a run can be interrupted, `{active: runs, at: ms}` names the runs that are executed here from that moment on, `{dead: sentence}` says that Python has broken down,
 * `{sound: boolean}` what was found when the database was looked at, or (`false`) come across.
 * Everything comes from this file's own folder; nothing is asked of any other origin.
 *
 * @module
 */

import { Interrupts } from "./interrupt.js"
import { openDatabase } from "./opfs.js"
import { startPulse, stopPulse, usePulse } from "./pulse.js"

/** @typedef {{ wheel: string, packages: string[] }} Manifest */
/** @typedef {{ database: string, durability: string, jobs: string[], packages: string[], left: string[], doubt: boolean }} Start */

/** What went wrong, in the terms of durably's errors. */
class BootError extends Error {
  /** @param {string} name @param {number} status @param {string} message */
  constructor(name, status, message) {
    super(message)
    this.name = name
    this.status = status
  }
}

/** @type {Promise<any>} */
const pyodideBoot = bootPyodide()
// A failure is reported when the page's `start` is answered, not as an unhandled rejection before it.
pyodideBoot.catch(() => {})

/** Whether the database is to be looked at when it is opened. */
let isInDoubt = true

/** Whether Python has broken down. Until the page ends this worker its timers go on, and fail in many ways. */
let isDead = false
for (const type of ["error", "unhandledrejection"]) {
  self.addEventListener(type, (event) => {
    if (isDead) event.preventDefault()
  })
}

/** @type {Promise<any>} the Python port, or null where starting failed */
let started = Promise.resolve(null)

self.addEventListener("message", async ({ data }) => {
  if (data.start) {
    usePulse(data.pulse)
    started = start(data.start).catch((error) => void self.postMessage({ failed: describe(error) }))
    return
  }
  const port = await started
  if (data.told !== undefined) port.page.told(data.told, JSON.stringify(data.left))
  else if (data.cancel !== undefined) port.cancel(data.cancel)
  else port.receive(data.id, data.method, data.url, JSON.stringify(data.headers), data.body)
})

/** @param {Start} options */
async function start({ database, durability, jobs, packages, left, doubt }) {
  isInDoubt = doubt
  const sources = Promise.all(jobs.map(readJobFile))
  sources.catch(() => {}) // awaited below; a failure in between is not unhandled
  const pyodide = await pyodideBoot
  if (packages.length) {
    tell("Installing packages")
    const micropip = pyodide.pyimport("micropip")
    try {
      await micropip.install(pyodide.toPy(packages))
    } catch (error) {
      throw new BootError("ValidationError", 400, `The packages ${packages.join(", ")} cannot be installed: ${lastLine(error)}`)
    }
  }
  tell("Opening the database")
  const { boot } = pyodide.pyimport("durably.browser.boot")
  const wayIn = await openWayIn(pyodide)
  return await boot(database, JSON.stringify(await sources), durability, JSON.stringify(left), post, wayIn)
}

/** Through which the page can interrupt Python, where the browser has what it takes. @param {any} pyodide */
async function openWayIn(pyodide) {
  try {
    const name = crypto.randomUUID()
    const interrupts = await Interrupts.open(pyodide, name)
    if (interrupts) self.postMessage({ interrupts: name })
    return interrupts
  } catch (error) {
    if (error instanceof DOMException || error instanceof TypeError) return null // opening the database will tell it better
    throw error
  }
}

async function bootPyodide() {
  tell("Loading Python")
  const base = new URL("./pyodide/", import.meta.url).href
  const [{ loadPyodide }, manifest] = await Promise.all([import(`${base}pyodide.mjs`), readManifest()])
  const pyodide = await loadPyodide({ indexURL: base, packages: manifest.packages })
  pyodide._api.on_fatal = (/** @type {unknown} */ error) => {
    isDead = true
    self.postMessage({ dead: lastLine(error) })
  }
  pyodide.registerJsModule("durably_bridge", {
    startPulse,
    stopPulse,
    openDatabase: (/** @type {string} */ name, /** @type {"full" | "relaxed"} */ durability) =>
      openDatabase(name, {
        durability,
        doubt: isInDoubt,
        onChecked: () => tellSoundness(true),
        onDamage: () => tellSoundness(false),
      }),
  })
  const micropip = pyodide.pyimport("micropip")
  await micropip.install(new URL(manifest.wheel, import.meta.url).href)
  return pyodide
}

/** @returns {Promise<Manifest>} */
async function readManifest() {
  return await (await fetchOk(new URL("./manifest.json", import.meta.url).href, "durably's own files")).json()
}

/** @param {string} url @returns {Promise<[string, string]>} the file's name and its source */
async function readJobFile(url) {
  const response = await fetchOk(url, "the job file")
  return [new URL(url).pathname, await response.text()]
}

/** @param {string} url @param {string} what */
async function fetchOk(url, what) {
  const response = await fetch(url)
  if (!response.ok) throw new BootError("NotFoundError", 404, `Loading ${what} failed: ${new URL(url).pathname} answered ${response.status}.`)
  return response
}

/** Python's way to the page. @param {string} text  JSON @param {any} [bytes]  a body, which is handed over as it is */
function post(text, bytes) {
  const message = JSON.parse(text)
  if (bytes === undefined) return self.postMessage(message)
  const body = /** @type {Uint8Array<ArrayBuffer>} */ (bytes.toJs()).buffer
  self.postMessage({ ...message, body }, { transfer: [body] })
}

/** @param {boolean} sound */
function tellSoundness(sound) {
  isInDoubt = !sound
  self.postMessage({ sound })
}

/** @param {string} sentence */
function tell(sentence) {
  self.postMessage({ booting: sentence })
}

/** @param {unknown} error @returns {{ name: string, status: number, message: string }} */
function describe(error) {
  if (error instanceof BootError) return { name: error.name, status: error.status, message: error.message }
  return { name: "DurablyError", status: 500, message: `Python could not start: ${lastLine(error)}` }
}

/** The last line of a Python traceback is the error. @param {unknown} error @returns {string} */
function lastLine(error) {
  const text = error instanceof Error ? error.message : String(error)
  return text.trim().split("\n").at(-1) ?? text
}

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
 * `{interrupts: name}` names the file through which a run can be interrupted, `{active: runs, at: ms}` the runs that are
 * executed here from that moment on, `{dead: sentence}` says that Python has broken down, `{sound: boolean}` what was found
 * when the database was looked at, or (`false`) come across, `{snapshot: "wanted"}` that one may now be made for the next visit.
 * Everything comes from this file's own folder; nothing is asked of any other origin.
 *
 * @module
 */

import { pause } from "./aborting.js"
import { BootError, fetchOk } from "./boot-error.js"
import { Interrupts } from "./interrupt.js"
import { startPulse, stopPulse, usePulse } from "./pulse.js"
import { fetchManifest, fetchPackages, startPython } from "./python.js"
import { dropSnapshot, findSnapshot, madeOf, refuseSnapshots } from "./snapshot.js"

/** @typedef {{ database: string, durability: string, jobs: string[], packages: string[], left: string[], doubt: boolean, snapshot?: boolean }} Start */

/** A snapshot is not taken sooner than this after the start, */
const SNAPSHOT_AFTER_MS = 3000
/** and, while runs are executed here, not sooner than this. */
const SNAPSHOT_AT_LAST_MS = 30_000

/** Python's files are on their way before SQLite's are asked for. */
const opfs = import("./opfs.js")
opfs.catch(() => {}) // awaited where a database is opened

/**
 * The database, which is opened while Python's files are on their way.
 * @type {{ database: string, durability: string, connection: Promise<import("./sqlite.js").Connection> } | null}
 */
let early = null

/** Whether the database is to be looked at when it is opened. */
let isInDoubt = true

/** Whether runs are executed here. */
let isBusy = false

/** Whether a snapshot of Python's memory is to be made for the next visit. */
let isSnapshotWanted = false

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
async function start({ database, durability, jobs, packages, left, doubt, snapshot = true }) {
  isInDoubt = doubt
  const connection = open(database, durability)
  connection.catch(() => {}) // reported where Python asks for it
  early = { database, durability, connection }
  const sources = Promise.all(jobs.map(readJobFile))
  sources.catch(() => {}) // awaited below; a failure in between is not unhandled
  const pyodide = await bootPyodide(snapshot, connection, packages.length > 0)
  if (packages.length) {
    tell("Installing packages")
    try {
      await pyodide.loadPackage("micropip", { messageCallback: () => {} })
      const micropip = pyodide.pyimport("micropip")
      await micropip.install(pyodide.toPy(packages))
    } catch (error) {
      throw new BootError("ValidationError", 400, `The packages ${packages.join(", ")} cannot be installed: ${lastLine(error)}`)
    }
  }
  tell("Opening the database")
  const { boot } = pyodide.pyimport("durably.browser.boot")
  const wayIn = await openWayIn(pyodide)
  const port = await boot(database, JSON.stringify(await sources), durability, JSON.stringify(left), post, wayIn)
  if (port && isSnapshotWanted) void wishSnapshot()
  return port
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

/** Have the page make a snapshot for the next visit, when there is little else to do. */
async function wishSnapshot() {
  await pause(SNAPSHOT_AFTER_MS)
  const atLast = performance.now() + SNAPSHOT_AT_LAST_MS
  while (isBusy && performance.now() < atLast) await pause(SNAPSHOT_AFTER_MS)
  if (!isDead) self.postMessage({ snapshot: "wanted" })
}

/** @param {string} name @param {string} durability */
async function open(name, durability) {
  const { openDatabase } = await opfs
  return await openDatabase(name, {
    durability: durability === "full" ? "full" : "relaxed",
    doubt: isInDoubt,
    onChecked: () => tellSoundness(true),
    onDamage: () => tellSoundness(false),
  })
}

/**
 * @param {boolean} mayUseSnapshot
 * @param {Promise<unknown>} opened  settles when the database needs no time here any more
 * @param {boolean} installsPackages  whether packages are installed afterwards
 */
async function bootPyodide(mayUseSnapshot, opened, installsPackages) {
  tell("Loading Python")
  const pyodide = mayUseSnapshot ? await pythonSoonest(opened, installsPackages) : await startPython(anew(), { after: opened })
  pyodide._api.on_fatal = (/** @type {unknown} */ error) => {
    isDead = true
    void dropSnapshot()
    self.postMessage({ dead: lastLine(error) })
  }
  pyodide.registerJsModule("durably_bridge", {
    startPulse,
    stopPulse,
    openDatabase: (/** @type {string} */ name, /** @type {"full" | "relaxed"} */ durability) => {
      const connection = early?.database === name && early.durability === durability ? early.connection : open(name, durability)
      early = null
      return connection
    },
  })
  return pyodide
}

/**
 * Python from the snapshot of an earlier visit or, where there is none that will do, anew: then one is made for the next.
 * @param {Promise<unknown>} opened @param {boolean} installsPackages
 */
async function pythonSoonest(opened, installsPackages) {
  const made = fetchManifest().then(({ build }) => madeOf(build))
  made.catch(() => {}) // where it is needed it is awaited
  const found = findSnapshot(made)
  try {
    const pyodide = await startPython(found.then((parts) => (isUsable(parts) ? parts : anew())), { after: opened })
    if (isUsable(await found)) wake(pyodide, installsPackages)
    else isSnapshotWanted = (await found) === null
    return pyodide
  } catch (error) {
    if (!isUsable(await found)) throw error
    console.warn("durably: Python's snapshot could not be used, and there will be no other one.", error)
    await refuseSnapshots(await made)
    return await startPython(anew(), { after: opened })
  }
}

/** @param {import("./snapshot.js").Parts | "refused" | null} parts @returns {parts is import("./snapshot.js").Parts} */
function isUsable(parts) {
  return parts !== null && parts !== "refused"
}

async function anew() {
  return { packages: await fetchPackages() }
}

/** Tell Python that it was asleep. @param {any} pyodide @param {boolean} installsPackages */
function wake(pyodide, installsPackages) {
  tell("Waking Python up")
  const snapshots = pyodide.pyimport("durably.browser.snapshots")
  snapshots.wake(installsPackages)
  snapshots.destroy()
}

/** @param {string} url @returns {Promise<[string, string]>} the file's name and its source */
async function readJobFile(url) {
  const response = await fetchOk(url, "the job file")
  return [new URL(url).pathname, await response.text()]
}

/** Python's way to the page. @param {string} text  JSON @param {any} [bytes]  a body, which is handed over as it is */
function post(text, bytes) {
  const message = JSON.parse(text)
  if (message.active) isBusy = message.active.length > 0
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

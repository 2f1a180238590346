/**
 * The demonstration: one import at a time, started here or in another tab, followed to its end. All state worth keeping
 * is in the store; what this page holds can be lost at any moment, and is rebuilt when it is opened again.
 *
 * For those who drive the page: `data-state` on the root element is booting, ready, running, done or failed
 * `data-batches-done` and `data-batches-total` are there while it runs, `data-replayed` and `data-executed` (steps)
 * once an import that an earlier visit had begun is done.
 */

import { connect } from "./durably/durably.js"
import { acceptFiles, forget, keep } from "./files.js"
import { Log, ProgressBar, byId, count, showReport } from "./view.js"

const JOB = "import-csv"
const SAMPLE = "birdstrikes.csv"
const PACE_SECONDS = 0.25
const STEPS_AROUND_BATCHES = 3 // read, sniff, summary
const OPENED_AT = Date.now()

/** @typedef {Awaited<ReturnType<typeof connect>>} Client */
/** @typedef {NonNullable<Awaited<ReturnType<Client["getRun"]>>>} Run */
/** @typedef {{ source: string, name: string, pause: number }} ImportRequest */

const root = document.documentElement
const progressBar = new ProgressBar()
const log = new Log()
/** @type {Map<unknown, number>} rejects of each batch, so that none is counted twice */
const rejected = new Map()
/** @type {string | null} the run that is being followed */
let followed = null
/** @type {string | null} the run whose end is shown */
let concluded = null

/** @param {"booting" | "ready" | "running" | "done" | "failed"} state */
function setState(state) {
  for (const section of ["booting", "running", "failure", "report"]) byId(section).hidden = true
  const shown = { booting: "booting", ready: null, running: "running", done: "report", failed: "failure" }[state]
  if (shown) byId(shown).hidden = false
  byId("start").hidden = state === "booting" || state === "running"
  button("import-sample").textContent = state === "done" ? "Import again" : "Import the sample"
  for (const id of ["import-sample", "retry", "cancel"]) button(id).disabled = false
  fileInput().disabled = state === "booting" || state === "running"
  if (state !== "running") {
    delete root.dataset.batchesDone
    delete root.dataset.batchesTotal
    document.title = "An import that survives a closed tab · durably"
    void showUsage()
  }
  root.dataset.state = state
}

/** @param {string} id */
const button = (id) => /** @type {HTMLButtonElement} */ (byId(id))
const fileInput = () => /** @type {HTMLInputElement} */ (byId("file"))

/** @param {string} sentence */
function say(sentence) {
  if (byId("status").textContent !== sentence) byId("status").textContent = sentence
}

async function main() {
  for (const id of ["reload", "reload-failed"]) button(id).addEventListener("click", () => location.reload())
  void showSource()
  say("The page is getting ready.")
  const otherTabs = await greetOtherTabs()
  const durably = await connect({ database: "demo.sqlite3", jobs: ["./csv_rows.py", "./jobs.py"], onBoot: say })

  button("import-sample").addEventListener("click", () => {
    const source = new URL(SAMPLE, document.baseURI).href // the job's own base is the worker's
    begin(durably, { source, name: SAMPLE, pause: pause() })
  })
  acceptFiles(fileInput(), byId("drop"), (file) => {
    attempt(async () => begin(durably, { source: await keep(file), name: file.name, pause: pause() }))
  })
  button("cancel").addEventListener("click", () => {
    button("cancel").disabled = true
    attempt(async () => {
      if (followed) await durably.cancel(followed)
    })
  })
  button("retry").addEventListener("click", () => {
    button("retry").disabled = true
    attempt(async () => {
      const id = root.dataset.failedRun
      if (!id) return
      await durably.retry(id)
      await follow(durably, id)
    })
  })

  attempt(async () => {
    const found = await latestRun(durably)
    if (!found) ready("Ready.")
    else if (isOver(found)) await conclude(durably, found, null)
    else await follow(durably, found.id, { resumed: true, otherTabs })
  })
  // Events of all tabs are heard in each.
  const look = () => attempt(() => showOthersRun(durably))
  for (const type of ["run:trigger", "run:retry"]) durably.on(type, look)
  addEventListener("visibilitychange", look)
}

/**
 * The run to show: the one that is under way, or else the newest.
 *
 * @param {Client} durably
 * @returns {Promise<Run | undefined>}
 */
async function latestRun(durably) {
  const [unfinished] = await durably.getRuns({ jobName: JOB, status: ["running", "pending"], limit: 1 })
  if (unfinished) return unfinished
  const [newest] = await durably.getRuns({ jobName: JOB, limit: 1 })
  return newest
}

/**
 * Show a run that another tab has begun.
 *
 * @param {Client} durably
 */
async function showOthersRun(durably) {
  if (followed || document.hidden || root.dataset.state === "booting") return
  const found = await latestRun(durably)
  if (!found || followed) return
  if (!isOver(found)) await follow(durably, found.id)
  else if (found.id !== concluded) await conclude(durably, found, null)
}

const pause = () => (/** @type {HTMLInputElement} */ (byId("full-speed")).checked ? 0 : PACE_SECONDS)

/** @param {string} sentence */
function ready(sentence) {
  setState("ready")
  say(sentence)
}

/**
 * Start an import and stay with it to its end.
 *
 * @param {Client} durably
 * @param {ImportRequest} request
 */
function begin(durably, request) {
  button("import-sample").disabled = true
  attempt(async () => {
    const run = await durably.trigger(JOB, request)
    await follow(durably, run.id, { focus: true })
  })
}

/**
 * Show a run until it ends.
 *
 * @param {Client} durably
 * @param {string} id
 * @param {{ resumed?: boolean, otherTabs?: boolean, focus?: boolean }} [how] `resumed`: it was found when the page opened
 */
async function follow(durably, id, { resumed = false, otherTabs = false, focus = false } = {}) {
  if (followed === id) return
  followed = id
  try {
    const run = await durably.getRun(id)
    if (!run) throw new Error("This import is no longer in the store.")
    prepare(run)
    const replayed = resumed ? await showStored(durably, run, otherTabs) : null
    setState("running")
    log.showLatest()
    if (focus) byId("running-title").focus()
    let last = run
    while (followed === id && !isOver(last)) {
      for await (const event of durably.subscribe(id)) handle(event, last)
      last = (await durably.getRun(id)) ?? last
    }
    if (followed === id) await conclude(durably, last, replayed)
  } finally {
    if (followed === id) followed = null
  }
}

/** @param {Run} run */
const isOver = (run) => ["completed", "failed", "cancelled"].includes(run.status)
/** @param {Run} run */
const requestOf = (run) => /** @type {ImportRequest} */ (run.payload)

/** @param {Run} run */
function prepare(run) {
  const { name } = requestOf(run)
  rejected.clear()
  log.clear()
  progressBar.reset(0)
  for (const id of ["batches", "rows", "rejected"]) byId(id).textContent = "–"
  byId("running-title").textContent = `Importing ${name}`
  byId("resumed").hidden = true
  delete root.dataset.replayed
  delete root.dataset.executed
  say(`Importing ${name}.`)
  if (run.progress) showProgress(run, run.progress)
}

/**
 * Show what an earlier visit has left in the store.
 *
 * @param {Client} durably
 * @param {Run} run
 * @param {boolean} otherTabs
 * @returns {Promise<number>} how many steps that is
 */
async function showStored(durably, run, otherTabs) {
  const steps = await durably.getSteps(run.id)
  // The worker may have gone on before this page could ask: what was done since the page opened is not "found".
  const found = steps.filter(
    (step) => step.status === "completed" && (!step.completedAt || Date.parse(step.completedAt) < OPENED_AT),
  )
  const batches = found.filter((step) => step.name.startsWith("batch-"))
  progressBar.reset(batches.length)
  for (const step of found) {
    const at = step.completedAt ? new Date(step.completedAt) : new Date()
    log.add(`${step.name} is in the store`, "stored", at)
    const output = /** @type {{ rejects?: unknown[] } | null} */ (step.output)
    if (output?.rejects) rejected.set(Number(step.name.slice("batch-".length)), output.rejects.length)
  }
  if (run.progress) showProgress(run, run.progress)
  const total = run.progress?.total ? ` of ${count(run.progress.total + STEPS_AROUND_BATCHES)}` : ""
  const share = `${count(found.length)}${total} steps were already in the store`
  const banner = byId("resumed")
  banner.textContent = otherTabs
    ? `Another tab has this import open too: ${share} when this page was opened`
    : `Picked up where it stopped: ${share}`
  banner.hidden = false
  say(`${banner.textContent}.`)
  root.dataset.replayed = String(found.length)
  return found.length
}

/**
 * @param {import("./durably/durably.js").DurablyEvent} event
 * @param {Run} run
 */
function handle(event, run) {
  const at = event.timestamp ? new Date(event.timestamp) : new Date()
  if (event.type === "run:progress" && event.progress) showProgress(run, event.progress)
  else if (event.type === "log:write") {
    const data = /** @type {{ batch?: number, rejected?: number } | null | undefined} */ (event.data)
    if (data?.rejected !== undefined) rejected.set(data.batch, data.rejected)
    showRejected()
    log.add(String(event.message), event.level === "info" ? "info" : "warning", at)
  } else if (event.type === "step:complete" && event.stepName === "read") {
    log.add("The file is read; its bytes are in the store", "info", at)
  } else if (event.type === "step:complete" && event.stepName === "sniff") {
    log.add("Columns and their types are found out", "info", at)
  } else if (event.type === "run:stale") {
    log.add("The tab that worked on this import is gone; it is taken over", "warning", at)
  } else if (event.type === "step:fail" || event.type === "run:fail") {
    log.add(plain(event.error), "error", at)
  }
}

/**
 * @param {Run} run
 * @param {{ current: number, total?: number | null, message?: string | null }} progress
 */
function showProgress(run, { current, total, message }) {
  if (!total) return
  progressBar.update(current, total)
  byId("batches").textContent = `${count(current)} of ${count(total)}`
  if (message) byId("rows").textContent = message.replace(/ rows$/, "")
  showRejected()
  root.dataset.batchesDone = String(current)
  root.dataset.batchesTotal = String(total)
  const { name } = requestOf(run)
  document.title = `${Math.floor((100 * current) / total)} % · ${name}`
  // Spoken at each quarter only: a screen reader should not read fifty batches aloud.
  const quarter = Math.floor((4 * current) / total) * 25
  if (quarter > 0) say(`Importing ${name}: ${quarter}\u00a0% reached.`)
}

function showRejected() {
  byId("rejected").textContent = count([...rejected.values()].reduce((sum, some) => sum + some, 0))
}

/**
 * Show how a run ended.
 *
 * @param {Client} durably
 * @param {Run} run
 * @param {number | null} replayed steps that were in the store when this page was opened, if it found the run unfinished
 */
async function conclude(durably, run, replayed) {
  concluded = run.id
  delete root.dataset.replayed
  delete root.dataset.executed
  const { name, source } = requestOf(run)
  const hadFocus = byId("running").contains(document.activeElement)
  byId("resumed").hidden = true
  if (run.status === "completed") {
    let resumed = null
    if (replayed !== null) {
      const steps = await durably.getSteps(run.id)
      const completed = steps.filter((step) => step.status === "completed").length
      resumed = { replayed, executed: completed - replayed }
      root.dataset.replayed = String(resumed.replayed)
      root.dataset.executed = String(resumed.executed)
    }
    const report = /** @type {import("./view.js").Report} */ (run.output)
    showReport(report, Date.parse(run.completedAt ?? "") - Date.parse(run.createdAt), resumed)
    setState("done")
    say(`${name} is imported: ${count(report.stored)} rows stored, ${count(report.rejected)} rejected.`)
    if (hadFocus) byId("report-title").focus()
  } else if (run.status === "failed") {
    fail(`${name} was not imported`, plain(run.error), run.id)
    if (hadFocus) byId("failure-title").focus()
  } else {
    const batches = run.progress ? ` after ${count(run.progress.current)} batches` : ""
    ready(`The import of ${name} was cancelled${batches}. A new one starts from the beginning.`)
    if (hadFocus) byId("import-sample").focus()
  }
  if (run.status !== "failed") await forget(source) // a failed one may be tried again
}

/**
 * @param {string} title
 * @param {string} sentence
 * @param {string} [runId] the run that can be tried again
 */
function fail(title, sentence, runId) {
  byId("failure-title").textContent = title
  byId("error").textContent = sentence
  button("retry").hidden = !runId
  button("reload-failed").hidden = Boolean(runId)
  if (runId) root.dataset.failedRun = runId
  say("Stopped.")
  setState("failed")
}

/**
 * An error as people read it: without the name of its class.
 *
 * @param {unknown} error
 */
function plain(error) {
  const text = error instanceof Error ? error.message : String(error ?? "")
  return text.replace(/^[A-Z]\w*(Error|Exception): /, "").trim() || "No reason was given."
}

/**
 * Run an action of the user; what goes wrong is shown.
 *
 * @param {() => Promise<void>} action
 */
function attempt(action) {
  action().catch((error) => fail("This did not work", plain(error)))
}

/**
 * Tell the other tabs of this page from an earlier visit: each holds this lock while it lives.
 *
 * @returns {Promise<boolean>} whether there are others
 */
async function greetOtherTabs() {
  const name = "durably-demo-page"
  if (!navigator.locks) return false // an insecure context: `connect` says so better than we could here
  const { held } = await navigator.locks.query()
  const others = held?.some((lock) => lock.name === name) ?? false
  void navigator.locks.request(name, { mode: "shared" }, () => new Promise(() => {}))
  return others
}

async function showUsage() {
  if (!navigator.storage?.estimate) return
  const { usage } = await navigator.storage.estimate()
  if (usage) byId("kept").textContent = `This browser keeps ${count(Math.ceil(usage / 1024))} KB for it.`
}

/** Show the job itself, which is the first function of its file. */
async function showSource() {
  const response = await fetch("jobs.py")
  const text = await response.text()
  const job = text.slice(text.indexOf("@job(")).split("\n\n\n")[0] ?? ""
  byId("code").textContent = job
  byId("source-lines").textContent = `${job.split("\n").length} lines`
}

main().catch((error) => {
  fail("This page cannot start", plain(error))
  byId("start").hidden = true
})

/**
 * What the examples have in common: a page that starts a run of one job, follows it to its end, and finds it again when
 * it is opened anew. A page has the sections `start`, `running` and `result`; all else is added here.
 *
 * For those who drive a page: `data-state` on the root element is booting, ready, running, done or failed, `data-done`
 * the number of steps of this run that are known to be done; once a run has ended that an earlier visit had begun,
 * `data-replayed` and `data-executed` say how many were in the store when the page was opened, and how many came after.
 *
 * @module
 */

import { connect } from "../durably/durably.js"

/**
 * @typedef {Awaited<ReturnType<typeof connect>>} Client
 * @typedef {NonNullable<Awaited<ReturnType<Client["getRun"]>>>} Run
 * @typedef {{ name: string, output: any, completedAt: string, wasStored: boolean }} Done  a step that is done
 *
 * @typedef {object} Program
 * @property {string} database
 * @property {string} job
 * @property {string} doing  what it does, as a title: "Fetching orders"
 * @property {(run: Run) => void} onBegin  a run is to be shown: forget the one before
 * @property {(step: Done, run: Run) => void} [onStep]
 * @property {(run: Run) => string} onDone  show its output; the sentence that tells of it
 * @property {(run: Run) => Promise<void>} [onEnd]  it is done or cancelled, and will not be tried again
 *
 * @typedef {object} Playing
 * @property {Client} durably
 * @property {(input: any) => void} begin  start a run, and stay with it
 * @property {(action: () => Promise<unknown>) => void} attempt  what goes wrong is shown
 * @property {() => string | null} runId  of the run that is followed
 */

const OPENED_AT = Date.now()
const root = document.documentElement
const counts = new Intl.NumberFormat("en")

/** @param {number} value */
export const count = (value) => counts.format(value)

/**
 * @param {string} id
 * @returns {HTMLElement} Throws where the page and its script do not fit together.
 */
export function byId(id) {
  const found = document.getElementById(id)
  if (!found) throw new Error(`The page has no element #${id}`)
  return found
}

/** @param {string} id */
export const button = (id) => /** @type {HTMLButtonElement} */ (byId(id))
/** @param {string} id */
export const input = (id) => /** @type {HTMLInputElement} */ (byId(id))

/**
 * An element whose children are elements, or texts that stay texts.
 *
 * @param {string} tag @param {Record<string, string>} attributes @param {(Node | string)[]} children
 */
export function element(tag, attributes, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

/** A number of the page's address, `?name=5`, else `usual`. @param {string} name @param {number} usual */
export function setting(name, usual) {
  const given = new URLSearchParams(location.search).get(name)
  return given !== null && Number.isFinite(Number(given)) ? Number(given) : usual
}

/** Figures with their labels. @param {[string, string][]} pairs */
export function figures(...pairs) {
  const rows = pairs.map(([label, value]) => element("div", {}, element("dt", {}, label), element("dd", {}, value)))
  return element("dl", { class: "figures" }, ...rows)
}

/** A cell for each step, in the element `cells`: those that an earlier visit has stored look different. */
export class Cells {
  #box = byId("cells")
  #done = 0

  /** @param {number} total @param {string} label */
  reset(total, label) {
    this.#done = 0
    this.#box.replaceChildren(...Array.from({ length: total }, () => element("span", { class: "segment" })))
    const facts = { role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuenow": "0", "aria-valuemax": String(total) }
    for (const [name, value] of Object.entries(facts)) this.#box.setAttribute(name, value)
  }

  /** @param {number} at from 0 @param {boolean} wasStored */
  fill(at, wasStored) {
    const cell = this.#box.children[at]
    if (!cell) return
    cell.className = `segment ${wasStored ? "stored" : "done"}`
    this.#done += 1
    this.#box.setAttribute("aria-valuenow", String(this.#done))
  }
}

/** @param {string} sentence */
function say(sentence) {
  if (byId("status").textContent !== sentence) byId("status").textContent = sentence
}

/** @param {"booting" | "ready" | "running" | "done" | "failed"} state */
function setState(state) {
  const shown = { booting: ["booting"], ready: ["start"], running: ["running"], done: ["result", "start"], failed: ["failure", "start"] }
  for (const id of ["booting", "running", "failure", "result", "start"]) byId(id).hidden = !shown[state].includes(id)
  if (state !== "running") byId("resumed").hidden = true
  for (const each of document.querySelectorAll("main button")) /** @type {HTMLButtonElement} */ (each).disabled = false
  root.dataset.state = state
}

/** An error as people read it: without the name of its class. @param {unknown} error */
function plain(error) {
  const text = error instanceof Error ? error.message : String(error ?? "")
  return text.replace(/^[A-Z]\w*(Error|Exception): /, "").trim() || "No reason was given."
}

/** @param {unknown} error @param {string} [runId] the run that can be tried again */
function fail(error, runId) {
  byId("error").textContent = plain(error)
  button("retry").hidden = !runId
  say("Stopped.")
  setState("failed")
}

/** Add what each page has: status, the card of the boot, buttons, the failure, the job's source. */
function frame() {
  const make = element
  const [header, main] = ["header", "main"].map((tag) => /** @type {HTMLElement} */ (document.querySelector(tag)))
  header?.after(
    make("p", { id: "status", role: "status" }, "Starting …"),
    make("section", { id: "booting", class: "card", "aria-labelledby": "booting-title" },
      make("h2", { id: "booting-title" }, "Starting Python and SQLite in this tab"),
      make("p", {}, "The first visit loads the Python runtime, some 17 MB. Later visits take it from the browser’s cache."),
      make("div", { class: "waiting", "aria-hidden": "true" })),
    make("p", { id: "resumed", class: "banner", role: "status", hidden: "" }),
    make("section", { id: "failure", class: "card", "aria-labelledby": "failure-title", hidden: "" },
      make("h2", { id: "failure-title", tabindex: "-1" }, "This did not work"),
      make("p", { id: "error", role: "alert" }),
      make("p", { class: "actions" }, make("button", { id: "retry", type: "button", class: "primary" }, "Try again"))),
  )
  byId("running").append(
    make("p", { id: "note", class: "tally" }),
    make("p", { class: "invitation" }, "Go on: reload, close this tab, even kill the browser. Open the page again and it continues."),
    make("p", { class: "actions" },
      make("button", { id: "reload", type: "button", class: "primary" }, "Reload now"),
      make("button", { id: "cancel", type: "button" }, "Cancel")),
  )
  main?.append(
    make("details", {},
      make("summary", {}, "The whole program is ", make("span", { id: "lines" }, "some 50 lines"), " of Python"),
      make("pre", { role: "region", tabindex: "0", "aria-label": "Source of the program" }, make("code", { id: "code" }))),
    make("footer", {},
      make("p", {}, make("a", { href: "../" }, "All examples"), " · ", make("a", { href: "jobs.py" }, "jobs.py"), " · ",
        make("a", { href: "../../" }, "The CSV import"))),
  )
  button("reload").addEventListener("click", () => location.reload())
}

async function showSource() {
  const text = await (await fetch("jobs.py")).text()
  byId("code").textContent = text
  byId("lines").textContent = `${text.trimEnd().split("\n").length} lines`
}

/** @param {Run} run */
const isOver = (run) => ["completed", "failed", "cancelled"].includes(run.status)

/** Follows one run at a time. */
class Player {
  /** @type {string | null} */ followed = null

  /** @param {Client} durably @param {Program} program */
  constructor(durably, program) {
    this.durably = durably
    this.program = program
  }

  /** Show the run that an earlier visit has begun, or its end. */
  async find() {
    const { durably, program: { job: jobName } } = this
    const [unfinished] = await durably.getRuns({ jobName, status: ["running", "pending"], limit: 1 })
    if (unfinished) return await this.follow(unfinished.id, { wasFound: true })
    const [latest] = await durably.getRuns({ jobName, limit: 1 })
    // It may have come to its end before this page could look.
    if (latest?.status === "completed") return await this.#conclude(latest, Date.parse(latest.completedAt ?? "") > OPENED_AT)
    setState("ready")
    say("Ready.")
  }

  /** @param {string} id @param {{ wasFound?: boolean }} [how] */
  async follow(id, { wasFound = false } = {}) {
    const { durably, program } = this
    const run = await durably.getRun(id)
    if (!run || this.followed === id) return
    this.followed = id
    try {
      delete root.dataset.replayed
      delete root.dataset.executed
      byId("note").textContent = ""
      program.onBegin(run)
      byId("running-title").textContent = program.doing
      setState("running")
      say(`${program.doing} …`)
      if (!wasFound) byId("running-title").focus()
      await this.#watch(run, wasFound)
      const ended = await durably.getRun(id)
      if (ended && isOver(ended)) await this.#conclude(ended, wasFound)
    } finally {
      this.followed = null
    }
  }

  /** @param {Run} run @param {boolean} wasFound */
  async #watch(run, wasFound) {
    /** @type {Set<string>} */ const known = new Set()
    const tell = (/** @type {Done} */ step) => {
      if (known.has(step.name)) return
      known.add(step.name)
      root.dataset.done = String(known.size)
      this.program.onStep?.(step, run)
    }
    root.dataset.done = "0"
    let hasLooked = false
    for await (const event of this.durably.subscribe(run.id)) {
      if (!hasLooked) {
        // From the first event on all is heard; what was done before is in the store.
        hasLooked = true
        const steps = await this.#done(run.id, wasFound)
        steps.forEach(tell)
        if (wasFound) {
          const replayed = steps.filter((step) => step.wasStored).length
          byId("resumed").hidden = false
          const found = `${count(replayed)} ${replayed === 1 ? "step was" : "steps were"} already in the store`
          byId("resumed").textContent = `Picked up where it stopped: ${found}.`
        }
      }
      if (event.type === "step:complete") {
        tell({ name: event.stepName, output: event.output, completedAt: event.timestamp, wasStored: false })
      } else if (event.type === "step:retry") {
        byId("note").textContent = `${event.stepName} is tried again: ${plain(event.error)}.`
      }
    }
  }

  /** @param {string} id @param {boolean} wasFound @returns {Promise<Done[]>} the steps that are done by now */
  async #done(id, wasFound) {
    return (await this.durably.getSteps(id)).flatMap(({ name, status, output, completedAt }) =>
      status === "completed" && completedAt
        ? [{ name, output, completedAt, wasStored: wasFound && Date.parse(completedAt) < OPENED_AT }]
        : [],
    )
  }

  /** @param {Run} run @param {boolean} wasFound  an earlier visit has begun it, and it was unfinished when the page was opened */
  async #conclude(run, wasFound) {
    const hadFocus = byId("running").contains(document.activeElement)
    if (run.status === "failed") {
      root.dataset.failedRun = run.id
      fail(run.error, run.id)
      if (hadFocus) byId("failure-title").focus()
      return
    }
    if (run.status === "completed") {
      const sentence = this.program.onDone(run)
      if (wasFound) {
        const done = await this.#done(run.id, true)
        const replayed = done.filter((step) => step.wasStored).length
        root.dataset.replayed = String(replayed)
        root.dataset.executed = String(done.length - replayed)
        const share = `${count(replayed)} of its ${count(done.length)} steps ${replayed === 1 ? "was" : "were"}`
        const text = `It went on after the page was opened anew: ${share} already in the store.`
        byId("result").append(element("p", { class: "survived" }, text))
      }
      setState("done")
      say(sentence)
      if (hadFocus) byId("result-title").focus()
    } else {
      setState("ready")
      say("Cancelled. A new run starts from the beginning.")
    }
    await this.program.onEnd?.(run)
  }
}

/**
 * Boot Python, show what is there, and give the page what it needs to go on.
 *
 * @param {Program} program @param {(playing: Playing) => void} [wire] connect the page's own buttons
 */
export async function play(program, wire) {
  frame()
  setState("booting")
  void showSource()
  try {
    const durably = await connect({ database: program.database, jobs: ["./jobs.py"], onBoot: say })
    const player = new Player(durably, program)
    /** @type {Playing["attempt"]} */
    const attempt = (action) => void action().catch((error) => fail(error))
    /** @type {Playing["begin"]} */
    const begin = (input) => {
      for (const each of byId("start").querySelectorAll("button")) each.disabled = true // a second click is no second run
      attempt(async () => player.follow((await durably.trigger(program.job, input)).id))
    }
    button("cancel").addEventListener("click", () => attempt(async () => player.followed && durably.cancel(player.followed)))
    button("retry").addEventListener("click", () => attempt(async () => {
      const id = root.dataset.failedRun
      if (!id) return
      await durably.retry(id)
      await player.follow(id)
    }))
    wire?.({ durably, begin, attempt, runId: () => player.followed })
    await player.find()
  } catch (error) {
    fail(error)
    byId("start").hidden = true
  }
}

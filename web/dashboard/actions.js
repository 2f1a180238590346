/** What can be done to a run: buttons for what its status allows, each kept while it does. */

import { h, show } from "./dom.js"
import { awaitedSignal } from "./status.js"

/**
 * @typedef {import("./client.js").Client} Client
 * @typedef {import("./client.js").Run} Run
 *
 * @typedef {object} Doors
 * @property {(words: string, isWrong?: boolean) => void} say
 * @property {(runId: string) => void} open
 * @property {() => void} leave
 * @property {() => Promise<unknown>} refresh
 */

export class Actions {
  #client
  #doors
  /** @type {Run | null} */ #run = null
  #isBusy = false
  #cancel = this.#button("Cancel", "", () => this.#do("Cancelled.", (client, id) => client.cancel(id)))
  #retry = this.#button("Retry", "primary", () => this.#do("It is pending again; its completed steps are kept.", (client, id) => client.retry(id)))
  #retrigger = this.#button("Run again", "", () => this.#doAgain())
  #delete = this.#button("Delete", "", () => this.#ask(true))
  #reallyDelete = this.#button("Delete", "danger", () => this.#doDelete())
  #keep = this.#button("Keep it", "", () => this.#ask(false))
  #question = h("span", { class: "question", role: "group", "aria-label": "Delete this run?", hidden: true }, h("span", {}, "Delete this run and its steps?"), this.#reallyDelete, this.#keep)
  #payload = h("textarea", { rows: 1, class: "mono", "aria-label": "Payload of the signal, as JSON", spellcheck: "false" }, "null")
  #signalName = h("b", { class: "mono" })
  #signal = h(
    "form",
    { class: "card signal", hidden: true, "aria-label": "Signal", onsubmit: (/** @type {Event} */ event) => this.#sendSignal(event) },
    h("p", {}, "It waits for the signal ", this.#signalName, ". Its payload:"),
    this.#payload,
    h("button", { type: "submit", class: "primary" }, "Send the signal"),
  )

  /** @param {Client} client @param {Doors} doors */
  constructor(client, doors) {
    this.#client = client
    this.#doors = doors
    this.element = h("div", { class: "actions" }, this.#cancel, this.#retry, this.#retrigger, this.#delete, this.#question)
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.#question.hidden) return
      event.stopPropagation()
      this.#ask(false)
    })
  }

  /** The form for a signal, which stands below. */
  get signalForm() {
    return this.#signal
  }

  /** @param {Run} run @returns {boolean} whether a button that had the focus is gone */
  update(run) {
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode())
    const focused = /** @type {HTMLElement | null} */ (root.activeElement)
    const isMine = this.element.contains(focused) || this.#signal.contains(focused)
    this.#run = run
    const signal = awaitedSignal(run)
    show(this.#cancel, run.isActive)
    show(this.#retry, run.status === "failed" || run.status === "cancelled")
    show(this.#retrigger, run.isTerminal)
    if (run.isActive) show(this.#question, false)
    show(this.#delete, run.isTerminal && Boolean(this.#question.hidden))
    show(this.#signal, signal !== null)
    if (signal !== null && this.#signalName.textContent !== signal) this.#signalName.textContent = signal
    return isMine && !!focused?.closest("[hidden]")
  }

  /** @param {boolean} isAsked */
  #ask(isAsked) {
    show(this.#question, isAsked)
    show(this.#delete, !isAsked)
    ;(isAsked ? this.#keep : this.#delete).focus()
  }

  /** @param {string} word @param {string} kind @param {() => void} act */
  #button(word, kind, act) {
    return h("button", { type: "button", class: kind, onclick: act }, word)
  }

  /**
   * Do something, once at a time, and tell how it went.
   * @param {string} words  when it is done @param {(client: Client, id: string) => Promise<unknown>} act
   */
  async #do(words, act) {
    if (this.#isBusy || !this.#run) return false
    this.#isBusy = true
    try {
      await act(this.#client, this.#run.id)
      this.#doors.say(words)
      await this.#doors.refresh()
      return true
    } catch (error) {
      this.#doors.say(/** @type {Error} */ (error).message, true)
      return false
    } finally {
      this.#isBusy = false
    }
  }

  #doAgain() {
    this.#do("Started anew; this is the fresh run.", async (client, id) => this.#doors.open((await client.retrigger(id)).id))
  }

  #doDelete() {
    this.#do("The run is deleted.", async (client, id) => {
      await client.deleteRun(id)
      this.#doors.leave()
    })
  }

  /** @param {Event} event */
  async #sendSignal(event) {
    event.preventDefault()
    const name = this.#run && awaitedSignal(this.#run)
    if (!name) return
    /** @type {unknown} */ let payload
    try {
      payload = JSON.parse(this.#payload.value)
    } catch (error) {
      this.#doors.say(`The payload is no JSON: ${/** @type {Error} */ (error).message}`, true)
      this.#payload.focus()
      return
    }
    if (await this.#do(`The signal ${name} is sent.`, (client, id) => client.signal(id, name, payload))) this.#payload.value = "null"
  }
}

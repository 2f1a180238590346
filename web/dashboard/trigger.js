/** The page on which a job is chosen, its input given, and a run of it triggered. */

import { h, setText, show } from "./dom.js"
import { FieldError, fieldOf } from "./fields.js"
import { isObject } from "./schema.js"

/**
 * @typedef {import("./client.js").Client} Client
 * @typedef {import("./client.js").Job} Job
 */

export class TriggerPage {
  #client
  #doors
  /** @type {Job[]} */ #jobs = []
  /** @type {import("./fields.js").Field | null} */ #field = null
  #isBusy = false
  #choice = h("select", { id: "job", onchange: () => this.#choose() })
  #input = h("div", { class: "input" })
  #key = h("input", { id: "idempotency", type: "text", autocomplete: "off", spellcheck: "false" })
  #labels = h("textarea", { id: "labels", class: "mono", rows: 2, spellcheck: "false", placeholder: "key=value" })
  #wrong = h("div", { class: "card wrong", role: "alert", hidden: true }, h("h3", {}, "This was not accepted"), h("pre", { tabindex: 0 }))
  #none = h("p", { class: "card", hidden: true })
  #submit = h("button", { type: "submit", class: "primary" }, "Run it")
  #form = h(
    "form",
    { class: "card", novalidate: true, hidden: true, "aria-label": "Run a job", onsubmit: (/** @type {Event} */ event) => this.#send(event) },
    h("div", { class: "field" }, h("label", { for: "job" }, "Job"), this.#choice),
    this.#input,
    h(
      "details",
      {},
      h("summary", {}, "Labels and key"),
      h("div", { class: "field" }, h("label", { for: "labels" }, "Labels, one a line"), this.#labels),
      h("div", { class: "field" }, h("label", { for: "idempotency" }, "Idempotency key"), this.#key, h("p", { class: "quiet hint" }, "The same key gives the same run, for ever.")),
    ),
    h("div", { class: "line" }, this.#submit, h("button", { type: "button", onclick: () => this.#doors.leave() }, "Not now")),
  )
  #heading = h("h2", { tabindex: -1 }, "Run a job")

  /** @param {Client} client @param {{ open: (runId: string) => void, leave: () => void, say: (words: string) => void }} doors */
  constructor(client, doors) {
    this.#client = client
    this.#doors = doors
    this.element = h("section", { class: "view trigger", "aria-label": "Run a job" }, this.#heading, this.#none, h("div", { class: "beside" }, this.#form, this.#wrong))
    this.#read()
  }

  /** There is nothing to stop: it follows nothing. */
  stop() {}

  focus() {
    const target = this.#form.hidden ? this.#heading : this.#choice
    target.focus()
  }

  async #read() {
    try {
      this.#jobs = await this.#client.jobs()
    } catch (error) {
      return this.#sayThatThereIsNone(`The jobs cannot be read: ${/** @type {Error} */ (error).message}`)
    }
    if (this.#jobs.length === 0) return this.#sayThatThereIsNone("No job is registered.")
    this.#choice.replaceChildren(...this.#jobs.map(({ name }, at) => h("option", { value: at }, name)))
    show(this.#form, true)
    this.#choose()
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode())
    if (root.activeElement === this.#heading) this.focus()
  }

  /** @param {string} words */
  #sayThatThereIsNone(words) {
    setText(this.#none, words)
    show(this.#none, true)
  }

  #choose() {
    const { schema } = this.#jobs[Number(this.#choice.value)]
    const root = isObject(schema) ? schema : {}
    // The name of the input's class is of no use here.
    const { title: _, ...plain } = root
    this.#field = fieldOf(plain, { root, depth: 0, label: "Input", isRequired: true })
    this.#input.replaceChildren(this.#field.element)
    show(this.#wrong, false)
  }

  /** @param {Event} event */
  async #send(event) {
    event.preventDefault()
    if (this.#isBusy || !this.#field) return
    this.#isBusy = true
    show(this.#wrong, false)
    try {
      const input = this.#field.read()
      const key = this.#key.value.trim()
      const labels = readLabels(this.#labels)
      const { name } = this.#jobs[Number(this.#choice.value)]
      const run = await this.#client.trigger(name, input ?? null, { ...(key && { idempotencyKey: key }), ...(labels && { labels }) })
      this.#doors.open(run.id)
      this.#doors.say("Triggered.")
    } catch (error) {
      if (error instanceof FieldError) return error.control.focus()
      setText(/** @type {Element} */ (this.#wrong.lastElementChild), /** @type {Error} */ (error).message)
      show(this.#wrong, true)
    } finally {
      this.#isBusy = false
    }
  }
}

/** @param {HTMLTextAreaElement} area */
function readLabels(area) {
  const lines = area.value.split("\n").map((line) => line.trim()).filter(Boolean)
  const pairs = lines.map((line) => [line.split("=")[0].trim(), line.split("=").slice(1).join("=").trim()])
  return lines.length ? Object.fromEntries(pairs) : null
}

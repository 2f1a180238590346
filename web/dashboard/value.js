/** A value of a run, shown as the text of its JSON. */

import { h, setText, show } from "./dom.js"
import { bytes, json } from "./format.js"

const MAX_LENGTH = 20_000

export class Value {
  #text = ""
  #pre = h("pre", { tabindex: 0 })
  #all = h("button", { type: "button", class: "small", onclick: () => this.#show(this.#text) }, "Show all of it")

  /** @param {string} title */
  constructor(title) {
    const id = `value-${title.toLowerCase()}`
    this.#pre.setAttribute("role", "region")
    this.#pre.setAttribute("aria-labelledby", id)
    this.element = h("section", { class: "card value" }, h("h3", { id }, title), this.#pre, this.#all)
  }

  /** Show a value; `undefined` hides the whole. @param {unknown} value */
  set(value) {
    show(this.element, value !== undefined)
    if (value !== undefined) this.setText(json(value))
  }

  /** @param {string} text */
  setText(text) {
    show(this.element, true)
    if (text === this.#text) return
    this.#text = text
    this.#show(text.slice(0, MAX_LENGTH))
  }

  /** @param {string} text */
  #show(text) {
    setText(this.#pre, text)
    setText(this.#all, `Show all of it (${bytes(this.#text.length)})`)
    show(this.#all, text.length < this.#text.length)
  }
}

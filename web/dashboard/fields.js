/**
 * Fields of a form, made from a JSON Schema. A field is read when the form is sent; a value that cannot be one raises
 * a `FieldError`, and the field says so beside itself. What a value must be beyond its shape, the server knows best.
 *
 * @typedef {import("./schema.js").Schema} Schema
 * @typedef {import("./schema.js").Wish} Wish
 * @typedef {{ element: HTMLElement, read: () => unknown }} Field  it reads as `undefined` where nothing is to be sent
 * @typedef {{ root: Schema, depth: number, label: string, isRequired: boolean }} Place
 */

import { h, newId, setAttribute, setText, show } from "./dom.js"
import { json } from "./format.js"
import { isObject, wishOf } from "./schema.js"

/** A text that is no value of its field. */
export class FieldError extends Error {
  /** @param {string} words @param {HTMLElement} control  where it stands */
  constructor(words, control) {
    super(words)
    this.control = control
  }
}

/** @param {Schema} schema @param {Place} place @param {unknown} [value]  what it is filled with; else its default @returns {Field} */
export function fieldOf(schema, place, value) {
  const wish = wishOf(schema, place.root, place.depth)
  const filled = value === undefined ? wish.schema.default : value
  const named = { ...place, label: String(wish.schema.title ?? place.label) }
  const mayBeLeftOut = wish.isNullable || (!place.isRequired && filled === undefined)
  if (!mayBeLeftOut || wish.kind === "constant") return makers[wish.kind](wish, named, filled)
  return optional(makers[wish.kind](wish, named, filled ?? undefined), named, filled !== undefined && filled !== null, wish.isNullable)
}

/** @type {Record<import("./schema.js").Kind, (wish: Wish, place: Place, value: any) => Field>} */
const makers = {
  text: ({ schema }, place, value) => {
    const kinds = { date: "date", time: "time" }
    const type = kinds[/** @type {keyof typeof kinds} */ (schema.format)] ?? "text"
    const hint = { "date-time": "2026-01-31T12:00:00Z", uuid: "00000000-0000-0000-0000-000000000000", uri: "https://", email: "name@example.org" }[String(schema.format)]
    const input = h("input", { type, value: value ?? "", placeholder: hint, spellcheck: "false", autocomplete: "off" })
    return labelled(input, schema, place, () => input.value)
  },
  integer: (wish, place, value) => numeric(wish.schema, place, value, "a whole number", Number.isSafeInteger),
  number: (wish, place, value) => numeric(wish.schema, place, value, "a number", Number.isFinite),
  boolean: ({ schema }, place, value) => {
    const input = h("input", { type: "checkbox", checked: value === true })
    const told = notes(input, schema)
    return { element: h("div", { class: "field" }, h("label", { class: "check" }, input, place.label), ...told.elements), read: () => input.checked }
  },
  choice: ({ schema }, place, value) => {
    const options = /** @type {unknown[]} */ (schema.enum)
    const words = (/** @type {unknown} */ option) => (typeof option === "string" ? option : json(option))
    const select = h("select", {}, ...options.map((option, at) => h("option", { value: at, selected: option === value }, words(option))))
    return labelled(select, schema, place, () => options[Number(select.value)])
  },
  constant: ({ schema }, place) => {
    const value = "const" in schema ? schema.const : null
    return { element: h("p", { class: "field quiet" }, `${place.label}: ${json(value)}`), read: () => value }
  },
  json: ({ schema }, place, value) => {
    const area = h("textarea", { class: "mono", rows: 4, spellcheck: "false" }, value === undefined ? "" : json(value))
    return labelled(area, schema, { ...place, label: `${place.label} (JSON)` }, (refuse) => {
      if (!area.value.trim() && !place.isRequired) return undefined
      try {
        return JSON.parse(area.value)
      } catch (error) {
        return refuse(`This is no JSON: ${/** @type {Error} */ (error).message}`)
      }
    })
  },
  object: ({ schema }, place, value) => {
    const needed = new Set(schema.required)
    const filled = isObject(value) ? value : {}
    const fields = Object.entries(/** @type {Schema} */ (schema.properties)).map(([name, inner]) => {
      const at = { root: place.root, depth: place.depth + 1, label: name, isRequired: needed.has(name) }
      return /** @type {const} */ ([name, fieldOf(inner, at, filled[name])])
    })
    return {
      element: group(place, schema, ...fields.map(([, { element }]) => element)),
      read: () => Object.fromEntries(fields.map(([name, field]) => [name, field.read()]).filter(([, read]) => read !== undefined)),
    }
  },
  list: ({ schema }, place, value) => {
    /** @type {Set<Field>} */ const fields = new Set()
    const items = h("ul", { class: "items" })
    const add = (/** @type {unknown} */ item) => {
      const label = `${place.label}, item ${fields.size + 1}`
      const field = fieldOf(schema.items, { root: place.root, depth: place.depth + 1, label, isRequired: true }, item)
      const remove = () => {
        fields.delete(field)
        line.remove()
        button.focus()
      }
      const line = h("li", {}, field.element, h("button", { type: "button", class: "small", "aria-label": `Remove ${label}`, onclick: remove }, "Remove"))
      fields.add(field)
      items.append(line)
      return field
    }
    const button = h("button", {
      type: "button",
      class: "small",
      onclick: () => /** @type {HTMLElement | null} */ (add(undefined).element.querySelector("input, select, textarea"))?.focus(),
    }, "Add one")
    for (const item of Array.isArray(value) ? value : []) add(item)
    return { element: group(place, schema, items, button), read: () => [...fields].map((field) => field.read()) }
  },
}

/** @param {Schema} schema @param {Place} place @param {unknown} value @param {string} words @param {(value: number) => boolean} isOne */
function numeric(schema, place, value, words, isOne) {
  const input = h("input", { type: "text", inputmode: isOne === Number.isSafeInteger ? "numeric" : "decimal", value: value ?? "", autocomplete: "off", class: "number" })
  return labelled(input, schema, place, (refuse) => {
    const read = Number(input.value)
    return input.value.trim() && isOne(read) ? read : refuse(`This has to be ${words}.`)
  })
}

/** @param {Place} place @param {Schema} schema @param {(Node | string)[]} children */
function group(place, schema, ...children) {
  const about = schema.description && h("p", { class: "quiet" }, String(schema.description))
  // The outermost needs no frame: the form is one.
  if (place.depth === 0) return h("div", { class: "fields" }, about, ...children)
  return h("fieldset", { class: "fields" }, h("legend", {}, place.label), about, ...children)
}

/** The notes below a control: what it is for, and what is wrong with it. @param {HTMLElement} control @param {Schema} schema */
function notes(control, schema) {
  const about = h("p", { class: "quiet hint", id: newId() }, [schema.description, limits(schema)].filter(Boolean).join(" "))
  const wrong = h("p", { class: "wrong", id: newId(), hidden: true })
  setAttribute(control, "aria-describedby", `${about.id} ${wrong.id}`)
  show(about, about.textContent !== "")
  const refuse = (/** @type {string} */ words) => {
    setText(wrong, words)
    show(wrong, words !== "")
    setAttribute(control, "aria-invalid", words ? "true" : null)
  }
  control.addEventListener("input", () => refuse(""))
  return { elements: [about, wrong], refuse }
}

/** @param {Schema} schema */
function limits(schema) {
  const words = { minimum: "at least", exclusiveMinimum: "more than", maximum: "at most", exclusiveMaximum: "less than", minLength: "length at least", maxLength: "length at most" }
  const found = Object.entries(words).flatMap(([name, said]) => (typeof schema[name] === "number" ? [`${said} ${schema[name]}`] : []))
  return found.length ? `${found.join(", ")}.`.replace(/^./, (first) => first.toUpperCase()) : ""
}

/**
 * @param {HTMLElement} control @param {Schema} schema @param {Place} place
 * @param {(refuse: (words: string) => never) => unknown} read @returns {Field}
 */
function labelled(control, schema, place, read) {
  control.id = newId()
  setAttribute(control, "aria-required", place.isRequired ? "true" : null)
  const { elements, refuse } = notes(control, schema)
  return {
    element: h("div", { class: "field" }, h("label", { for: control.id }, place.label), control, ...elements),
    read: () =>
      read((words) => {
        refuse(words)
        throw new FieldError(words, control)
      }),
  }
}

/** A field that may be left out, by a box before it. @param {Field} field @param {Place} place @param {boolean} isGiven @param {boolean} isNullable @returns {Field} */
function optional(field, place, isGiven, isNullable) {
  const box = h("input", { type: "checkbox", checked: isGiven })
  const inner = h("div", { class: "inner" }, field.element)
  const follow = () => show(inner, box.checked)
  box.addEventListener("change", follow)
  follow()
  return {
    element: h("div", { class: "optional" }, h("label", { class: "check" }, box, h("span", {}, place.label, h("span", { class: "quiet" }, " (optional)"))), inner),
    read: () => (box.checked ? field.read() : isNullable ? null : undefined),
  }
}

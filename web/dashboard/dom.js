/**
 * Making elements. What a run carries is anybody's text, so it gets into the document in two ways only: as a text
 * node, or as the value of an attribute that this package names.
 *
 * @typedef {Node | string | null | undefined | false} Child
 * @typedef {Record<string, unknown>} Properties
 */

/**
 * An element: functions under `onNAME` become listeners, `false` and `null` leave an attribute out, texts become nodes.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Properties} [properties] @param {Child[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), /** @type {EventListener} */ (value))
    else setAttribute(made, name, value)
  }
  made.append(...children.filter(isChild))
  return made
}

/** @param {Child} child @returns {child is Node | string} */
const isChild = (child) => child !== null && child !== undefined && child !== false

/** Set an attribute, or remove it; touch nothing where nothing changes. @param {Element} element @param {string} name @param {unknown} value */
export function setAttribute(element, name, value) {
  const text = value === true ? "" : String(value)
  if (value === null || value === undefined || value === false) element.removeAttribute(name)
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text)
}

/** @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/** @param {HTMLElement} element @param {boolean} isShown */
export function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown
}

const SVG = "http://www.w3.org/2000/svg"

/** A drawing of 16 by 16 that says nothing by itself: words stand beside it. @param {string} path @param {string} [kind] */
export function icon(path, kind = "") {
  const drawing = document.createElementNS(SVG, "svg")
  for (const [name, value] of [["viewBox", "0 0 16 16"], ["aria-hidden", "true"], ["class", `icon ${kind}`.trim()]]) {
    drawing.setAttribute(name, value)
  }
  const line = document.createElementNS(SVG, "path")
  line.setAttribute("d", path)
  drawing.append(line)
  return drawing
}

/** Let the arrow keys go up and down, Home and End to the ends of what a selector finds. @param {HTMLElement} container @param {string} selector */
export function walkWithArrows(container, selector) {
  container.addEventListener("keydown", (event) => {
    const all = /** @type {HTMLElement[]} */ ([...container.querySelectorAll(selector)])
    const at = all.findIndex((each) => each === event.target)
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key]
    if (at < 0 || to === undefined || !all[to]) return
    event.preventDefault()
    all[to].focus()
  })
}

let made = 0

/** An id for `aria-describedby` and the like. */
export const newId = () => `durably-${++made}`

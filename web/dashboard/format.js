/** Times, sizes and values as people read them. */

const SECOND_MS = 1000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" })
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" })
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" })
const COUNT = new Intl.NumberFormat("en")

/** @param {number} value */
export const count = (value) => COUNT.format(value)

/** @param {string} iso */
export const moment = (iso) => MOMENT.format(new Date(iso))

/** The time of the day. @param {string} iso */
export const clockTime = (iso) => CLOCK.format(new Date(iso))

/** A length of time in its two largest units. @param {number} ms */
export function duration(ms) {
  if (ms < 0) return duration(0)
  if (ms < SECOND_MS) return `${Math.round(ms)} ms`
  if (ms < 10 * SECOND_MS) return `${(ms / SECOND_MS).toFixed(1)} s`
  if (ms < MINUTE_MS) return `${Math.floor(ms / SECOND_MS)} s`
  if (ms < HOUR_MS) return two(ms, MINUTE_MS, "min", SECOND_MS, "s")
  return ms < DAY_MS ? two(ms, HOUR_MS, "h", MINUTE_MS, "min") : two(ms, DAY_MS, "d", HOUR_MS, "h")
}

/** @param {number} ms @param {number} large @param {string} word @param {number} small @param {string} smallWord */
function two(ms, large, word, small, smallWord) {
  const rest = Math.floor((ms % large) / small)
  return rest ? `${Math.floor(ms / large)} ${word} ${rest} ${smallWord}` : `${Math.floor(ms / large)} ${word}`
}

/** How long ago, in one unit; a date where that is long. @param {string} iso @param {number} now */
export function ago(iso, now) {
  const ms = now - Date.parse(iso)
  if (ms < 5 * SECOND_MS) return "just now"
  if (ms < MINUTE_MS) return `${Math.floor(ms / SECOND_MS)} s ago`
  if (ms < HOUR_MS) return `${Math.floor(ms / MINUTE_MS)} min ago`
  if (ms < DAY_MS) return `${Math.floor(ms / HOUR_MS)} h ago`
  return DAY.format(new Date(iso))
}

/** @param {number} value */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"]
  let at = 0
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000
    at += 1
  }
  return `${at && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[at]}`
}

/** A value as indented JSON. @param {unknown} value */
export const json = (value) => JSON.stringify(value ?? null, null, 2)

/** The beginning of a text. @param {string} text @param {number} length */
export const shortened = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text)

/** How far a run is, in words. @param {{ current: number, total: number | null }} progress */
export const progressWords = ({ current, total }) => (total ? `${count(current)} of ${count(total)}` : count(current))

/** A round step for an axis of that length, so that it has no more marks than that. @param {number} ms @param {number} most */
export function axisStep(ms, most) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500]
    .concat([1, 2, 5, 10, 15, 30].map((each) => each * SECOND_MS))
    .concat([1, 2, 5, 10, 15, 30].map((each) => each * MINUTE_MS))
    .concat([1, 2, 4, 6, 12].map((each) => each * HOUR_MS))
  return steps.find((each) => ms / each <= most) ?? Math.ceil(ms / most / DAY_MS) * DAY_MS
}

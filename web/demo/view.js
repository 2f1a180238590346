/**
 * What the page shows: progress, log, report. Data reaches the document as text nodes only.
 *
 * @typedef {{ line: number, kind: string, reason: string }} Reject
 * @typedef {{ label: string, count: number, average: number | null }} Group
 * @typedef {{ name: string, rows: number, stored: number, rejected: number,
 *   rejects_by_reason: { reason: string, count: number }[], sample_rejects: Reject[],
 *   grouped_by: string | null, average_of: string | null, groups: Group[] }} Report
 * @typedef {{ class?: string, id?: string, role?: string, scope?: string, tabIndex?: number,
 *   label?: string, share?: number }} Attributes
 */

const MAX_SEGMENTS = 60
const MAX_LOG_LINES = 300
const counts = new Intl.NumberFormat("en")
const averages = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 })
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" })

/** @param {number} value */
export const count = (value) => counts.format(value)

/**
 * @param {string} id
 * @returns {HTMLElement} Throws where the page and this script do not fit together.
 */
export function byId(id) {
  const found = document.getElementById(id)
  if (!found) throw new Error(`The page has no element #${id}`)
  return found
}

/**
 * @param {string} tag
 * @param {Attributes} attributes
 * @param {(Node | string)[]} children
 */
function element(tag, attributes, ...children) {
  const made = document.createElement(tag)
  const { label, share, tabIndex, ...plain } = attributes
  for (const [name, value] of Object.entries(plain)) made.setAttribute(name, value)
  if (label !== undefined) made.setAttribute("aria-label", label)
  if (share !== undefined) made.style.setProperty("--share", String(share))
  if (tabIndex !== undefined) made.tabIndex = tabIndex
  made.append(...children)
  return made
}

/** The bar whose segments are batches. Those stored before this page was opened look different. */
export class ProgressBar {
  #bar = byId("progress")
  #stored = 0

  /** @param {number} stored batches that an earlier visit has stored */
  reset(stored) {
    this.#stored = stored
    this.#bar.replaceChildren()
    for (const name of ["aria-valuenow", "aria-valuemax", "aria-valuetext"]) this.#bar.removeAttribute(name)
    byId("legend").hidden = stored === 0
  }

  /**
   * @param {number} done
   * @param {number} total
   */
  update(done, total) {
    const segments = Math.min(total, MAX_SEGMENTS)
    if (this.#bar.childElementCount !== segments) {
      this.#bar.replaceChildren(...Array.from({ length: segments }, () => element("span", { class: "segment" })))
    }
    const full = Math.floor((done / total) * segments)
    const stored = Math.floor((this.#stored / total) * segments)
    for (const [at, segment] of [...this.#bar.children].entries()) {
      const kind = at < stored ? "stored" : at < full ? "done" : at === full ? "now" : ""
      segment.className = `segment ${kind}`.trim()
    }
    this.#bar.setAttribute("aria-valuemax", String(total))
    this.#bar.setAttribute("aria-valuenow", String(done))
    this.#bar.setAttribute("aria-valuetext", `${done} of ${total} batches`)
  }
}

/** The live log: newest last, in view unless the reader has scrolled up. */
export class Log {
  #list = byId("log")
  #following = true

  constructor() {
    this.#list.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#list
      this.#following = scrollHeight - scrollTop - clientHeight < 32
    })
  }

  clear() {
    this.#following = true
    this.#list.replaceChildren()
  }

  /**
   * @param {string} message
   * @param {"info" | "warning" | "error" | "stored"} kind
   * @param {Date} [at]
   */
  add(message, kind = "info", at = new Date()) {
    const list = this.#list
    list.append(
      element("li", { class: kind }, element("time", {}, clock.format(at)), element("span", {}, message)),
    )
    while (list.childElementCount > MAX_LOG_LINES) list.firstElementChild?.remove()
    this.showLatest()
  }

  /** Also to be called when the list appears: what is hidden cannot be scrolled. */
  showLatest() {
    if (this.#following) this.#list.scrollTop = this.#list.scrollHeight
  }
}

/**
 * @param {Report} report
 * @param {number} milliseconds from the start of the import to its end
 * @param {{ replayed: number, executed: number } | null} resumed
 */
export function showReport(report, milliseconds, resumed) {
  const children = [
    element("h2", { id: "report-title" }, `${report.name} is imported`),
    element(
      "dl",
      { class: "figures" },
      figure("Rows in the file", count(report.rows)),
      figure("Stored", count(report.stored), "key"),
      figure("Rejected", count(report.rejected)),
      figure("From start to end", duration(milliseconds)),
    ),
  ]
  if (resumed) {
    children.push(
      element(
        "p",
        { class: "survived" },
        `It went on after the page was opened anew: ${count(resumed.replayed)} steps were already in the store, ` +
          `${count(resumed.executed)} were done after that.`,
      ),
    )
  }
  const findings = element("div", { class: "findings" }, reasons(report))
  if (report.grouped_by !== null && report.groups.length > 0) findings.append(groups(report, report.grouped_by))
  children.push(findings)
  byId("report").replaceChildren(...children)
  const title = byId("report-title")
  title.tabIndex = -1
}

/**
 * @param {string} label
 * @param {string} value
 * @param {string} [kind]
 */
function figure(label, value, kind = "") {
  return element("div", { class: kind }, element("dt", {}, label), element("dd", {}, value))
}

/** @param {Report} report */
function reasons(report) {
  const box = element("div", {}, element("h3", {}, "Why rows were rejected"))
  if (report.rejected === 0) {
    box.append(element("p", { class: "quiet" }, "None was: every row fits its columns."))
    return box
  }
  const largest = Math.max(...report.rejects_by_reason.map((row) => row.count))
  const list = element("ul", { class: "bars" })
  for (const { reason, count: number } of report.rejects_by_reason) {
    const bar = element("div", { class: "bar", share: number / largest })
    list.append(element("li", {}, element("span", {}, reason), element("b", {}, count(number)), bar))
  }
  const some = report.sample_rejects.length
  const title = some < report.rejected ? `The first ${some} rejects` : "The rejects"
  const rows = report.sample_rejects.map((reject) =>
    element(
      "tr",
      {},
      element("td", { class: "number" }, count(reject.line)),
      element("td", {}, reject.reason),
    ),
  )
  box.append(
    list,
    element(
      "div",
      { class: "scroll", role: "region", label: title, tabIndex: 0 },
      table([["Line", "number"], [title, ""]], rows),
    ),
  )
  return box
}

/**
 * @param {Report} report
 * @param {string} groupedBy
 */
function groups(report, groupedBy) {
  const measured = report.average_of
  const largest = Math.max(...report.groups.map((group) => group.count))
  const rows = report.groups.map((group) => {
    const bar = element("div", { class: "bar", share: group.count / largest })
    const row = element(
      "tr",
      {},
      element("th", { scope: "row" }, group.label, bar),
      element("td", { class: "number" }, count(group.count)),
    )
    if (measured !== null) {
      const average = group.average === null ? "–" : averages.format(group.average)
      row.append(element("td", { class: "number" }, average))
    }
    return row
  })
  const head = [[groupedBy, ""], ["Rows", "number"]]
  if (measured !== null) head.push([`Average ${measured}`, "number"])
  const body = table(head, rows)
  body.className = "groups"
  return element("div", {}, element("h3", {}, `Stored rows by ${groupedBy}`), body)
}

/**
 * @param {string[][]} head each column's title and class
 * @param {HTMLElement[]} rows
 */
function table(head, rows) {
  const titles = head.map(([title = "", kind = ""]) => element("th", { scope: "col", class: kind }, title))
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...titles)),
    element("tbody", {}, ...rows),
  )
}

/** @param {number} milliseconds */
function duration(milliseconds) {
  const seconds = milliseconds / 1000
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** The page of the pipeline: a cell for each batch; at the end the rows are counted, and what the stations measured. */

import { Cells, button, byId, count, element, figures, play, setting } from "../examples.js"

/** @typedef {[number, number, number, number, number]} Station  its number, its readings; the coldest, the mean, the warmest */

const ROWS = setting("rows", 300_000)
const PAUSE_SECONDS = setting("pause", 0.2)
const BATCH = 10_000
const cells = new Cells()
let batches = 0
const degrees = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })

/** @param {number} rows */
function tally(rows) {
  byId("tally").textContent = `${count(Math.min(batches * BATCH, rows))} of ${count(rows)} rows are in the table`
}

/** @param {Station[]} stations */
function table(stations) {
  const head = ["Station", "Readings", "Coldest °C", "Mean °C", "Warmest °C"].map((title, at) =>
    element("th", { scope: "col", class: at ? "number" : "" }, title),
  )
  const rows = stations.map(([station, readings, ...celsius]) => {
    const cells = [count(readings), ...celsius.map((value) => degrees.format(value))]
    const numbers = cells.map((text) => element("td", { class: "number" }, text))
    return element("tr", {}, element("th", { scope: "row" }, String(station + 1)), ...numbers)
  })
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))
  return element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "What the stations measured" }, made)
}

play({
  database: "example-pipeline.sqlite3",
  job: "weather-pipeline",
  doing: "Filling the table",
  onBegin({ payload }) {
    batches = 0
    cells.reset(Math.ceil(payload.rows / BATCH), "Batches stored")
    tally(payload.rows)
  },
  onStep({ name, wasStored }, { payload }) {
    if (!name.startsWith("rows-")) return
    cells.fill(batches, wasStored)
    batches += 1
    tally(payload.rows)
  },
  onDone({ output }) {
    const { expected, rows, different, stations } = output
    const isRight = rows === expected && different === expected
    const title = isRight ? "Every row is there, exactly once" : "The rows are wrong"
    byId("result").replaceChildren(
      element("h2", { id: "result-title", tabindex: "-1" }, title),
      figures(
        ["Rows expected", count(expected)],
        ["Rows in the table", count(rows)],
        ["Missing", count(expected - different)],
        ["There twice", count(rows - different)],
      ),
      table(stations),
    )
    return `${title}: ${count(rows)} rows.`
  },
}, ({ begin }) => {
  button("begin").addEventListener("click", () => begin({ rows: ROWS, pause: PAUSE_SECONDS }))
})

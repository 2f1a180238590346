/** The page of the job that asks an API: a cell for each order, and what they add up to. */

import { Cells, button, byId, count, element, figures, play, setting } from "../examples.js"

const ORDERS = setting("orders", 200)
const cells = new Cells()
let cents = 0
let answered = 0

const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })
/** @param {number} cents */
const euros = (cents) => `${money.format(cents / 100)} €`

/** @param {number} of */
function tally(of) {
  byId("tally").textContent = `${count(answered)} of ${count(of)} orders, ${euros(cents)}`
}

play({
  database: "example-api.sqlite3",
  job: "sync-orders",
  doing: "Fetching orders",
  onBegin({ payload }) {
    cents = answered = 0
    cells.reset(payload.orders, "Orders fetched")
    tally(payload.orders)
  },
  onStep({ output, wasStored }, { payload }) {
    cents += output.cents
    answered += 1
    cells.fill(output.number - 1, wasStored)
    tally(payload.orders)
  },
  onDone({ output }) {
    const largest = Math.max(...Object.values(output.by_country))
    const bars = Object.entries(output.by_country).map(([country, sum]) => {
      const bar = element("div", { class: "bar" })
      bar.style.setProperty("--share", String(sum / largest))
      return element("li", {}, element("span", {}, country), element("b", {}, euros(sum)), bar)
    })
    byId("result").replaceChildren(
      element("h2", { id: "result-title", tabindex: "-1" }, "All orders are here"),
      figures(["Orders", count(output.orders)], ["In all", euros(output.cents)]),
      element("ul", { class: "bars" }, ...bars),
    )
    return `${count(output.orders)} orders are fetched.`
  },
}, ({ begin }) => {
  // The job's own base is the worker's, so it is told the whole address.
  button("begin").addEventListener("click", () => begin({ url: new URL("../../api/orders", document.baseURI).href, orders: ORDERS }))
})

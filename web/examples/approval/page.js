/** The page of the expense: a form that asks, and two buttons that answer. */

import { button, byId, element, input, play, setting } from "../examples.js"

const TITLES = /** @type {Record<string, string>} */ ({ approved: "Approved", rejected: "Rejected", expired: "Too late" })
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" })

play({
  database: "example-approval.sqlite3",
  job: "approve-expense",
  doing: "Waiting for a decision",
  onBegin() {
    byId("question").textContent = ""
    byId("until").textContent = ""
    byId("answers").hidden = true
  },
  onStep({ name, output, completedAt }, { payload }) {
    if (name !== "ask") return
    byId("question").textContent = output
    const until = moment.format(Date.parse(completedAt) + 1000 * payload.patience)
    byId("until").textContent = `Asked ${moment.format(Date.parse(completedAt))}. Without an answer it expires ${until}.`
    byId("answers").hidden = false
  },
  onDone({ output }) {
    const title = TITLES[output.outcome] ?? output.outcome
    byId("result").replaceChildren(
      element("h2", { id: "result-title", tabindex: "-1" }, title),
      element("p", { class: "question" }, output.sentence),
    )
    return `${title}: ${output.sentence}`
  },
}, ({ durably, begin, attempt, runId }) => {
  button("reload").classList.remove("primary") // what matters most here is to answer
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault()
    const patience = setting("patience", Number(input("patience").value))
    begin({ purpose: input("purpose").value, euros: input("euros").valueAsNumber, patience })
  })
  for (const [id, approved] of /** @type {[string, boolean][]} */ ([["approve", true], ["reject", false]])) {
    button(id).addEventListener("click", () => attempt(async () => {
      const run = runId()
      if (!run) return
      for (const each of ["approve", "reject"]) button(each).disabled = true // one answer is enough
      await durably.signal(run, "decision", { approved })
    }))
  }
})

/**
 * A client without a Python behind it, for the dashboard's tests: 5,000 runs of every kind, whose texts are as bad as
 * texts can be, and one run at work that goes on when it is told to. The same at every load, but for the time of day.
 */

const RUNS = 5000
const DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
const HOSTILE = `<img src=x onerror="window.hacked = true">`
const LONG = "a-job-whose-author-had-a-great-deal-to-say-about-what-it-does-and-for-whom-and-why-it-may-take-so-long"
const JOBS = ["import-birdstrikes", "send-newsletter", "index-pages", "resize-images", "nightly-report"]
const ENDS = ["completed", "completed", "failed", "completed", "cancelled", "completed", "completed"]
const BEGAN = Date.now()
const iso = (ago) => new Date(BEGAN - ago * 1000).toISOString()

function idOf(number) {
  let [rest, text] = [number, ""]
  for (let at = 0; at < 6; at++, rest = Math.floor(rest / 32)) text = DIGITS[rest % 32] + text
  return `01K${"0".repeat(17)}${text}`
}

const SCHEMAS = {
  "import-birdstrikes": {
    title: "Import",
    type: "object",
    required: ["file", "rows", "format", "source"],
    $defs: {
      Format: { enum: ["csv", "jsonl", "parquet"], title: "Format", type: "string" },
      Source: {
        title: "Source",
        type: "object",
        required: ["url"],
        properties: {
          url: { type: "string", format: "uri", title: "Url" },
          retries: { type: "integer", default: 3, title: "Retries", minimum: 0, maximum: 10 },
        },
      },
    },
    properties: {
      file: { type: "string", title: "File", description: "What to read: a name below the folder of uploads." },
      rows: { type: "integer", minimum: 1, title: "Rows" },
      share: { type: "number", default: 0.5, title: "Share", exclusiveMinimum: 0, maximum: 1 },
      strict: { type: "boolean", default: true, title: "Strict" },
      format: { $ref: "#/$defs/Format", default: "jsonl" },
      source: { $ref: "#/$defs/Source" },
      columns: { type: "array", items: { type: "string" }, default: ["date", "species"], title: "Columns" },
      note: { anyOf: [{ type: "string" }, { type: "null" }], default: null, title: "Note" },
      extra: { type: "object", additionalProperties: { type: "integer" }, default: { a: 1 }, title: "Extra" },
    },
  },
  "index-pages": { type: "integer" },
  "send-newsletter": { anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }] },
  "resize-images": { type: "null" },
  "nightly-report": {},
}

function makeRun(number) {
  const age = (RUNS - number) * 97 + 240
  const status = ENDS[number % ENDS.length]
  const steps = number % 40
  return {
    id: idOf(number),
    jobName: number % 41 === 0 ? LONG : JOBS[number % JOBS.length],
    status,
    payload: { number, html: HOSTILE },
    output: status === "completed" ? { rows: number * 3, kept: [1, 2, 3] } : null,
    error: status === "failed" ? `ValueError: row ${number} has no date ${HOSTILE}\n  in step 'parse-${number}'` : null,
    progress: null,
    labels: number % 3 ? { site: `site-${number % 7}`, day: ["mon", "tue", "wed"][number % 3] } : {},
    completedStepCount: steps,
    currentStepIndex: steps - 1,
    priority: 0,
    waitingFor: null,
    runAt: iso(age),
    createdAt: iso(age),
    startedAt: iso(age - 1),
    completedAt: iso(age - 2 - (number % 90)),
    isTerminal: true,
    isActive: false,
  }
}

const active = { isTerminal: false, isActive: true, completedAt: null, output: null, error: null }
const runs = Array.from({ length: RUNS }, (_, number) => makeRun(number))
Object.assign(runs[RUNS - 1], active, {
  jobName: "import-birdstrikes",
  status: "running",
  payload: { file: "birdstrikes.csv", rows: 5000, html: HOSTILE },
  progress: { current: 12, total: 53, message: "parsing batch 12" },
  labels: { source: "faa", html: HOSTILE, year: "2026", team: "data" },
  completedStepCount: 15,
  createdAt: iso(95),
  startedAt: iso(94),
})
Object.assign(runs[RUNS - 2], active, { jobName: "expense-approval", status: "pending", waitingFor: "signal:approved", labels: { amount: "1,200 EUR" }, completedStepCount: 2 })
Object.assign(runs[RUNS - 3], active, { jobName: "send-newsletter", status: "pending", waitingFor: "sleep:until-monday", runAt: iso(-260_000), completedStepCount: 4 })
Object.assign(runs[RUNS - 4], active, { jobName: "nightly-report", status: "pending", startedAt: null, completedStepCount: 0 })
Object.assign(runs[RUNS - 5], { jobName: `job ${HOSTILE}` })
Object.assign(runs[RUNS - 6], { jobName: "resize-images", status: "failed", output: null, error: `OSError: the disk is full ${HOSTILE}`, completedStepCount: 3 })
runs.reverse()

const step = (name, index, from, to, rest = {}) => ({
  name, index, status: "completed", output: { rows: 100, html: HOSTILE }, error: null, attempt: 1,
  startedAt: iso(from), completedAt: to === null ? null : iso(to), ...rest,
})

const stepsOf = new Map([
  [runs[0].id, [
    step("open-file", 0, 94, 91),
    step("fetch-codes", 1, 91, 80, { attempt: 3 }),
    ...Array.from({ length: 7 }, (_, at) => step(`batch-${at}`, at + 2, 80 - at * 5, 76 - at * 5)),
    step(`check ${HOSTILE}`, 9, 46, 41, { status: "failed", output: null, error: `TimeoutError: nobody answered ${HOSTILE}` }),
    step("look-up-species", 10, 46, 38, { status: "cancelled", output: null }),
    step("rate-limit", 11, 30, 18),
    step("batch-7", 12, 18, 13.5),
    step("batch-8", 13, 13.5, 9, { attempt: 2 }),
    step("batch-9-of-the-second-file-with-a-name-that-does-not-fit", 14, 9, 4.2),
    step("notify", 15, 9, null, { status: "waiting", output: null }),
  ]],
  [runs[1].id, [step("draft", 0, 300, 298), step("send", 1, 298, 290), step("ask-the-boss", 2, 290, null, { status: "waiting", output: null })]],
])
const logs = Array.from({ length: 40 }, (_, at) => ({
  id: idOf(at), stepName: at % 4 ? `batch-${at}` : null, level: at % 11 === 7 ? "warning" : at === 33 ? "error" : "info",
  message: at % 11 === 7 ? `no date ${HOSTILE}` : `batch ${at} read`, data: at % 11 === 7 ? { row: at, html: HOSTILE } : null, createdAt: iso(94 - at * 2),
}))

class Refusal extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

/** What it was asked, for the test to see. */
export const asked = []
const listeners = new Set()
export const listening = () => listeners.size
const find = (id) => runs.find((run) => run.id === id)

/** Change a run and tell of it. */
export function tell(type, run, facts = {}) {
  const { id: runId, jobName, labels } = run
  for (const listener of listeners) listener({ type, runId, jobName, labels, timestamp: new Date().toISOString(), sequence: 1, ...facts })
}

const end = (status) => ({ status, isTerminal: true, isActive: false, waitingFor: null, completedAt: new Date().toISOString() })

export const client = {
  async getRuns({ status, jobName, limit = 1e9, offset = 0 } = {}) {
    asked.push(["getRuns", status, jobName, limit, offset])
    return runs.filter((run) => (!status || run.status === status) && (!jobName || run.jobName === jobName)).slice(offset, offset + limit)
  },
  getRun: async (id) => find(id) ?? null,
  getSteps: async (id) => stepsOf.get(id) ?? [],
  getLogs: async (id) => (id === runs[0].id ? logs : []),
  jobs: async () => Object.entries(SCHEMAS).map(([name, schema]) => ({ name, schema })),
  storageInfo: async () => ({ kind: "opfs", vfs: "OPFSWriteAheadVFS", bytesUsed: 3_412_992, quota: 1_122_000_000, persisted: true, sqliteVersion: "3.51.1", state: "persistent" }),
  export: async () => new Blob(["SQLite format 3\0"]),
  async trigger(jobName, input, options) {
    asked.push(["trigger", jobName, input, options])
    if (input?.rows === 0) throw new Refusal(400, `1 validation error for Import\nrows\n  Input should be greater than or equal to 1 ${HOSTILE}`)
    return add({ jobName, payload: input, labels: options?.labels ?? {} })
  },
  async cancel(id) {
    tell("run:cancel", Object.assign(find(id), end("cancelled")))
  },
  async retry(id) {
    tell("run:retry", Object.assign(find(id), active, { status: "pending" }))
  },
  retrigger: async (id) => add({ jobName: find(id).jobName, payload: find(id).payload, labels: find(id).labels }),
  async deleteRun(id) {
    const [gone] = runs.splice(runs.findIndex((run) => run.id === id), 1)
    tell("run:delete", gone)
  },
  async signal(id, name, payload) {
    asked.push(["signal", id, name, payload])
    tell("run:start", Object.assign(find(id), active, { status: "running", waitingFor: null }))
  },
  on(_type, listener) {
    listeners.add(listener)
    return () => listeners.delete(listener)
  },
}

/** Trigger a run. */
export function add(facts) {
  const createdAt = new Date().toISOString()
  const run = { ...makeRun(Number(RUNS) + added++), ...active, status: "pending", startedAt: null, completedStepCount: 0, labels: {}, createdAt, ...facts }
  runs.unshift(run)
  tell("run:trigger", run, { payload: run.payload })
  return run
}
let added = 0

/** Let the run that is at work be claimed anew, as after a reload. */
export const resume = () => tell("run:start", working, { timestamp: iso(32), payload: working.payload })

/** Let it do one more step: begin it, or end the one that it is in. */
export function begin(name, index) {
  tell("step:start", working, { stepName: name, stepIndex: index })
}

export function complete(name, index, current) {
  working.completedStepCount += 1
  working.progress = { current, total: 53, message: `parsing batch ${current}` }
  stepsOf.get(working.id).push(step(name, index, 0.4, 0, { startedAt: new Date(Date.now() - 400).toISOString(), completedAt: new Date().toISOString() }))
  tell("step:complete", working, { stepName: name, stepIndex: index, output: null, duration: 0.4 })
  tell("run:progress", working, { progress: working.progress })
}

const working = runs[0]

export function log(message) {
  tell("log:write", working, { level: "info", message, data: null, stepName: null })
}

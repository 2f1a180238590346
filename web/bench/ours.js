/**
 * durably as it is measured: the page connects at once to the `database` that its query names.
 *
 * `connected` and `firstStep` resolve to milliseconds since the navigation; the functions measure what their names say.
 * `peer.js` offers the same of the peer. What a job measures itself comes by a channel of its own, so that nobody
 * listens to the engine's events while it is measured.
 *
 * @module
 */

import { connect } from "./durably/durably.js"

/** @typedef {import("../durably.js").Durably} Durably */

/** @type {(told: number[]) => void} */ let hear = () => {}
const channel = new BroadcastChannel("bench")
const firstStep = new Promise((resolve) => {
  hear = ([at]) => resolve(at - performance.timeOrigin)
})
channel.onmessage = ({ data }) => hear(JSON.parse(data))

/** What the next job tells. @returns {Promise<number[]>} */
const told = () => new Promise((resolve) => (hear = resolve))

const database = new URLSearchParams(location.search).get("database") ?? "bench.sqlite3"
const open = (/** @type {string} */ name) => connect({ database: name, jobs: ["./jobs.py"] })
const connection = open(database)
const connected = connection.then(() => performance.now())

const now = () => performance.timeOrigin + performance.now()
const pause = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Long enough for an engine without work to come to rest. */
const REST_MS = 150

/** Wait for the end of a run without listening to it. @param {Durably} durably @param {string} id */
async function ended(durably, id) {
  for (;;) {
    const run = await durably.getRun(id)
    if (run?.isTerminal) return run
    await pause(20)
  }
}

/** Steps a second of one job, from before its first to after its last. @param {number} count */
async function stepsPerSecond(count) {
  const durably = await connection
  const telling = told()
  const { id } = await durably.trigger("steps", { steps: count })
  const [began, end] = await telling
  await ended(durably, id)
  return (1000 * count) / (end - began)
}

/** One-step runs a second, triggered in one batch: from the trigger to the end of the last. @param {number} count */
async function runsPerSecond(count) {
  const durably = await connection
  let left = count
  const all = new Promise((resolve) => durably.on("run:complete", () => --left || resolve(undefined)))
  await pause(REST_MS) // until the listener is heard
  const began = performance.now()
  await durably.batchTrigger("single", Array.from({ length: count }, () => ({})))
  await all
  return (1000 * count) / (performance.now() - began)
}

/**
 * Milliseconds from a trigger to the first line of the job, so often, with the engine at rest before each.
 * @param {number} times @param {Durably} [durably]
 */
async function triggerToStart(times, durably) {
  durably ??= await connection
  const found = []
  for (let time = 0; time < times; time++) {
    await pause(REST_MS)
    const telling = told()
    const asked = now()
    const { id } = await durably.trigger("one", {})
    const [began] = await telling
    found.push(began - asked)
    await ended(durably, id)
  }
  return found
}

/**
 * Microseconds for each step that is stored, so often: from `retry` to the end of the last step, less the same of a run
 * without steps (of as many the median); and the job's own loop alone.
 * @param {number} count @param {number} times
 */
async function replay(count, times) {
  const durably = await connection
  const ids = []
  for (const steps of [count, 0]) {
    const { id } = await durably.trigger("cached", { steps })
    ids.push(id)
    await ended(durably, id)
  }
  const took = ids.map(() => /** @type {{ all: number, loop: number }[]} */ ([]))
  for (let time = 0; time < times; time++) {
    for (const [which, id] of ids.entries()) {
      await pause(REST_MS)
      const telling = told()
      const asked = now()
      await durably.retry(id)
      const [began, end] = await telling
      took[which].push({ all: end - asked, loop: end - began })
      await ended(durably, id)
    }
  }
  const [full, empty] = took
  const usual = empty.map(({ all }) => all).sort((a, b) => a - b)[empty.length >> 1]
  return full.map(({ all, loop }) => ({ all: (1000 * (all - usual)) / count, loop: (1000 * loop) / count }))
}

/** What the job `long` gives. @param {number} count */
async function long(count) {
  const durably = await connection
  const telling = told()
  const { id } = await durably.trigger("long", { steps: count })
  await telling
  return (await ended(durably, id)).output
}

/**
 * Milliseconds from a trigger to the first line: in an empty file, and in one with so many finished runs, in turns.
 * @param {number} runs @param {number} times
 */
async function claim(runs, times) {
  const empty = await open(`${database}-empty`)
  const full = await open(`${database}-full`)
  const { id } = await full.trigger("fill", { steps: runs })
  const { status, error } = await ended(full, id)
  if (status !== "completed") throw new Error(`the file could not be filled: ${error}`)
  for (const durably of [empty, full]) await triggerToStart(3, durably)
  const found = { empty: /** @type {number[]} */ ([]), full: /** @type {number[]} */ ([]) }
  for (let time = 0; time < times; time++) {
    found.empty.push(...(await triggerToStart(1, empty)))
    found.full.push(...(await triggerToStart(1, full)))
  }
  empty.close()
  full.close()
  return found
}

/** Begin a run without an end, so that it can be interrupted; resolves when it is at work. */
async function begin() {
  const durably = await connection
  await durably.trigger("endless", { steps: 100_000, pause: 0.05 })
  await firstStep
}

const facts = async () => (await connection).storageInfo()

Object.assign(window, { connected, firstStep, stepsPerSecond, runsPerSecond, triggerToStart, replay, long, claim, begin, facts })

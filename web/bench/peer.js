/**
 * The peer as it is measured: `@coji/durably` on `sqlocal`, set up as its guide for browsers says. See `ours.js`.
 *
 * The file is bundled; the page needs cross-origin isolation, without which SQLite's own build has no files here.
 *
 * @module
 */

import { createDurably, defineJob } from "@coji/durably"
import { SQLocalKysely } from "sqlocal/kysely"
import { z } from "zod"

/** What its documentation gives for a browser; the package's own defaults are 1000, 5000 and 30000. */
const SETTINGS = { pollingIntervalMs: 100, leaseRenewIntervalMs: 500, leaseMs: 3000 }

const now = () => performance.timeOrigin + performance.now()
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

let hear = () => {}
const firstStep = new Promise((resolve) => (hear = ([at]) => resolve(at - performance.timeOrigin)))
const told = () => new Promise((resolve) => (hear = resolve))
let first = true

const work = z.object({ steps: z.number().default(1) })
const jobs = {
  steps: defineJob({
    name: "steps",
    input: work,
    run: async (step, { steps }) => {
      const began = now()
      for (let number = 0; number < steps; number++) await step.run(`step-${number}`, async () => number)
      hear([began, now()])
    },
  }),
  one: defineJob({
    name: "one",
    input: work,
    run: async (step) => {
      const began = now()
      await step.run("only", async () => 1)
      hear([began])
    },
  }),
  endless: defineJob({
    name: "endless",
    input: work,
    run: async (step, { steps }) => {
      for (let number = 0; number < steps; number++) {
        await step.run(`step-${number}`, async () => {
          if (first) hear([now()])
          first = false
          await pause(50)
        })
      }
    },
  }),
}

const database = new URLSearchParams(location.search).get("database") ?? "peer.sqlite3"
const processor = new Worker(new URL("./sqlocal-worker.js", import.meta.url), { type: "module" })
const sqlocal = new SQLocalKysely({ databasePath: database, processor })
const durably = createDurably({ dialect: sqlocal.dialect, ...SETTINGS, jobs })
const connected = durably.init().then(() => performance.now())

async function ended(id) {
  for (;;) {
    const run = await durably.getRun(id)
    if (["completed", "failed", "cancelled"].includes(run?.status)) return run
    await pause(20)
  }
}

async function stepsPerSecond(count) {
  const telling = told()
  const { id } = await durably.jobs.steps.trigger({ steps: count })
  const [began, end] = await telling
  await ended(id)
  return (1000 * count) / (end - began)
}

async function runsPerSecond(count) {
  let left = count
  const all = new Promise((resolve) => durably.on("run:complete", () => --left || resolve()))
  const began = performance.now()
  await durably.jobs.one.batchTrigger(Array.from({ length: count }, () => ({})))
  await all
  return (1000 * count) / (performance.now() - began)
}

async function triggerToStart(times) {
  const found = []
  for (let time = 0; time < times; time++) {
    await pause(150)
    const telling = told()
    const asked = now()
    const { id } = await durably.jobs.one.trigger({})
    const [began] = await telling
    found.push(began - asked)
    await ended(id)
  }
  return found
}

async function begin() {
  await durably.jobs.endless.trigger({ steps: 100_000 })
  await firstStep
}

/** The build of SQLite, the settings. */
async function facts() {
  const [{ version }] = await sqlocal.sql`SELECT sqlite_version() AS version`
  const [{ journal_mode }] = await sqlocal.sql`PRAGMA journal_mode`
  const [{ synchronous }] = await sqlocal.sql`PRAGMA synchronous`
  return { sqlite: version, journal_mode, synchronous, ...SETTINGS }
}

Object.assign(window, { connected, firstStep, stepsPerSecond, runsPerSecond, triggerToStart, begin, facts })

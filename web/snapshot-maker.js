/**
 * A worker that takes a snapshot of Python's memory (`snapshot.js`) for the next visits, while nobody waits for it.
 *
 * Python is started anew for it, everything that a page imports is imported, and what is then in memory is kept. It says
 * `done` when there is nothing more to do, whatever became of it. Where another tab is about the same, that is at once.
 *
 * @module
 */

import { fetchManifest, fetchPackages, startPython } from "./python.js"
import { keepSnapshot, madeOf } from "./snapshot.js"

const manifest = await fetchManifest()
const made = madeOf(manifest.build)
await navigator.locks.request(`durably:snapshot:${made}`, { ifAvailable: true }, async (lock) => {
  if (lock) await keepSnapshot(made, await take())
})
self.postMessage("done")

/** @returns {Promise<import("./snapshot.js").Parts>} */
async function take() {
  const packages = await fetchPackages()
  const pyodide = await startPython(Promise.resolve({ packages }), { isForSnapshot: true })
  const snapshots = pyodide.pyimport("durably.browser.snapshots")
  snapshots.prepare()
  snapshots.destroy()
  return { packages, memory: pyodide.makeMemorySnapshot() }
}

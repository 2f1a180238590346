/**
 * The limit of booting: a worker that only loads Pyodide, the wheels that durably needs, and imports pydantic.
 *
 * `connected` resolves to the milliseconds since the navigation. The query names the `packages`.
 *
 * @module
 */

const worker = new Worker(`./bare-worker.js${location.search}`, { type: "module" })

const connected = new Promise((resolve, reject) => {
  worker.onmessage = () => resolve(performance.now())
  worker.onerror = reject
})

Object.assign(window, { connected })

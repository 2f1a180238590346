/**
 * Starting Python: Pyodide with all packages in their place, anew or from a snapshot of its memory.
 *
 * Everything comes from this file's own folder; nothing is asked of any other origin.
 *
 * @module
 */

import { fetchOk } from "./boot-error.js"
import { install, readPackages, unpacked } from "./packages.js"

const PYODIDE = new URL("./pyodide/", import.meta.url).href
/** Of a snapshot (Pyodide's `snapshot.ts`), in words of 4 bytes: where it says at which byte the memory begins. */
const MEMORY_BEGINS = 1

/** What Emscripten waits for before Python runs. */
const DEPENDENCY = "durably"

/** Fetched at once, for otherwise the second would only be asked for by the first. */
const loader = import(`${PYODIDE}pyodide.mjs`), runtime = import(`${PYODIDE}pyodide.asm.mjs`)
for (const file of [loader, runtime]) file.catch(() => {}) // awaited below

/** @typedef {{ wheel: string, packages: string[], build: string }} Manifest */
/** @typedef {Uint8Array<ArrayBuffer>} Bytes */

/** Of the site. @returns {Promise<Manifest>} */
export async function fetchManifest() {
  return await (await fetchOk(new URL("./manifest.json", import.meta.url).href, "durably's own files")).json()
}

/** @returns {Promise<Bytes>} as `readPackages` wants it */
export async function fetchPackages() {
  return await unpacked(await fetchOk(new URL("./packages.bin", import.meta.url).href, "durably's own files"))
}

/**
 * Start Python: anew, or from a snapshot if there is a `memory`.
 * @param {Promise<{ packages: Bytes, memory?: Bytes }>} source  `packages` as `fetchPackages` gives them
 * @param {object} [options]
 * @param {boolean} [options.isForSnapshot]  whether a snapshot is to be taken
 * @param {Promise<unknown>} [options.after]  what is to be done before Python, whatever becomes of it: once that starts, it
 *   leaves no time to anything else here
 * @returns {Promise<any>} Pyodide
 */
export async function startPython(source, { isForSnapshot = false, after = Promise.resolve() } = {}) {
  const content = source.then(async ({ packages, memory }) => ({ ...(await readPackages(packages)), memory }))
  content.catch(() => {}) // awaited below
  const { loadPyodide } = await loader
  const pyodide = await loadPyodide({
    indexURL: PYODIDE,
    createPyodideModule: async (/** @type {any} */ settings) => {
      const { default: createModule } = await runtime
      // Not awaited before: meanwhile the WebAssembly is compiled.
      const contentFails = new Promise((_, reject) => {
        settings.preRun.push(async (/** @type {any} */ module) => {
          module.addRunDependency(DEPENDENCY)
          try {
            const { memory, ...packages } = await content
            await after.catch(() => {})
            install(module, packages)
            module.noInitialRun = memory !== undefined
            module.removeRunDependency(DEPENDENCY)
          } catch (error) {
            reject(error)
          }
        })
      })
      const module = await Promise.race([createModule(settings), contentFails])
      const { memory } = await content
      if (memory) restore(module, memory)
      return module
    },
    _makeSnapshot: isForSnapshot,
  })
  delete pyodide._api.config.createPyodideModule // and with it what was read for it
  // So that nobody installs them again. A snapshot is taken with nothing in that list, which is made anew with Python.
  for (const name of Object.keys(pyodide.loadedPackages)) delete pyodide.loadedPackages[name]
  if (!isForSnapshot) for (const name of (await content).names) pyodide.loadedPackages[name] = "durably"
  return pyodide
}

/**
 * What `loadPyodide` does with `_loadSnapshot`; but that has to be there before anything else begins, and Pyodide makes no
 * room for a memory that has grown.
 * @param {any} module  Emscripten's @param {Bytes} snapshot
 */
function restore(module, snapshot) {
  const header = new Uint32Array(snapshot.buffer, snapshot.byteOffset, MEMORY_BEGINS + 1)
  module.growMemory(snapshot.length - header[MEMORY_BEGINS])
  const { API } = module
  const state = API.restoreSnapshot(snapshot)
  const { finalizeBootstrap } = API
  API.finalizeBootstrap = () => finalizeBootstrap(state)
}

/**
 * See `bare.js`: posts a message when the first model is there.
 *
 * @module
 */

import { loadPyodide } from "./durably/pyodide/pyodide.mjs"

const packages = new URL(self.location.href).searchParams.getAll("package")
const source = fetch("./first_model.py").then((response) => response.text())
const pyodide = await loadPyodide({ indexURL: new URL("./durably/pyodide/", import.meta.url).href, packages })
pyodide.runPython(await source)
self.postMessage("ready")

/**
 * Pyodide in a worker that knows nothing of durably. It is sent `[wheel, name, environment]`, installs the wheel, calls
 * that function of `one_wheel.py`, and answers what it returns.
 *
 * @module
 */

import { loadPyodide } from "./durably/pyodide/pyodide.mjs"

self.onmessage = async ({ data: [wheel, name, environment] }) => {
  try {
    const pyodide = await loadPyodide({ packages: ["micropip"], env: environment })
    await pyodide.pyimport("micropip").install(new URL(wheel, location.href).href)
    for (const file of ["jobs.py", "one_wheel.py"]) pyodide.FS.writeFile(file, await (await fetch(file)).text())
    self.postMessage(await pyodide.pyimport("one_wheel")[name]())
  } catch (error) {
    self.postMessage(`stopped: ${error}`)
  }
}

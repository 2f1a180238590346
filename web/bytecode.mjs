/**
 * For the build: run `bytecode.py` in the Python that pages will run. `node bytecode.mjs WHEEL RESULT` writes a wheel with
 * bytecode in the place of sources.
 *
 * @module
 */

import { readFileSync, writeFileSync } from "node:fs"
import { loadPyodide } from "./node_modules/pyodide/pyodide.mjs"

const [wheel, result] = process.argv.slice(2)
// The order in the constants that are sets is that of their hashes.
const { FS, runPython } = await loadPyodide({ env: { PYTHONHASHSEED: "0" } })
FS.writeFile("/wheel.zip", readFileSync(wheel))
try {
  runPython(readFileSync(new URL("./bytecode.py", import.meta.url), "utf-8"), { filename: "bytecode.py" })
} catch (error) {
  // Not thrown on: Node would show the line of Pyodide that threw it, which is as long as the file.
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
writeFileSync(result, FS.readFile("/result.zip"))

/**
 * For the build: run `bytecode.py` in the Python that pages will run. `node bytecode.mjs FOLDER WHEEL...` writes
 * `packages.bin` and `python_stdlib.zip` into the folder.
 *
 * @module
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { loadPyodide } from "./node_modules/pyodide/pyodide.mjs"

const [folder, ...wheels] = process.argv.slice(2)
// The order in the constants that are sets is that of their hashes.
const pyodide = await loadPyodide({ env: { PYTHONHASHSEED: "0" } })
const { FS } = pyodide
FS.mkdir("/wheels")
for (const wheel of wheels) FS.writeFile(`/wheels/${basename(wheel)}`, readFileSync(wheel))
try {
  build()
} catch (error) {
  // Not thrown on: Node would show the line of Pyodide that threw it, which is as long as the file.
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}

function build() {
  pyodide.runPython(readFileSync(new URL("./bytecode.py", import.meta.url), "utf-8"), { filename: "bytecode.py" })
  pyodide.runPython(`
write_packages(sorted(Path("/wheels").iterdir()), Path("/packages.bin"))
write_stdlib(Path("/python_stdlib.zip"))
`)
  mkdirSync(folder, { recursive: true })
  for (const name of ["packages.bin", "python_stdlib.zip"]) writeFileSync(join(folder, name), FS.readFile(`/${name}`))
}

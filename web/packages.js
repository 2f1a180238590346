/**
 * All packages that Python needs here, in one file: put into Pyodide's file system before Python starts.
 *
 * The file is made by `build.py`, so that nothing is installed in the page. Compiled libraries (`.so`) are loaded before Python starts, too. That saves a wait, and it gives them the
 * same addresses each time: a snapshot of Python's memory with them in it can be used (`snapshot.js`).
 *
 * @module
 */

/**
 * @typedef {object} Packages
 * @property {[string, Uint8Array<ArrayBuffer>][]} files  paths below site-packages, and contents; of a library, nothing
 * @property {string[]} names  of the packages, as Pyodide compares them
 * @property {[string, WebAssembly.Module][]} libraries  paths below site-packages, in the order in which they are loaded
 */

/** Undo the compression of the file. @param {Response} response @returns {Promise<Uint8Array<ArrayBuffer>>} */
export async function unpacked(response) {
  const stream = /** @type {ReadableStream} */ (response.body).pipeThrough(new DecompressionStream("gzip"))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

/** Read what `unpacked` gave, and compile the libraries. @param {Uint8Array<ArrayBuffer>} content @returns {Promise<Packages>} */
export async function readPackages(content) {
  const length = new DataView(content.buffer, content.byteOffset).getUint32(0, true)
  /** @type {[string, number][]} */ const index = JSON.parse(new TextDecoder().decode(content.subarray(4, 4 + length)))
  let at = 4 + length
  /** @type {[string, Uint8Array<ArrayBuffer>][]} */ const files = index.map(([path, size]) => [path, content.subarray(at, (at += size))])
  const libraries = files.filter(([path]) => isLibrary(path))
  const compiled = await Promise.all(libraries.map(([, bytes]) => WebAssembly.compile(bytes)))
  const about = files.filter(([path]) => path.endsWith(".dist-info/METADATA"))
  return {
    names: about.map(([path]) => path.split("-")[0].toLowerCase().replace(/[-_.]+/g, "-")),
    files: files.map(([path, bytes]) => [path, isLibrary(path) ? new Uint8Array() : bytes]),
    libraries: libraries.map(([path], i) => [path, compiled[i]]),
  }
}

/**
 * Put everything in its place. To be called by Emscripten, before Python runs and before its memory is restored.
 * @param {any} module  Emscripten's @param {Packages} packages
 */
export function install({ FS, API, loadWebAssemblyModule, preloadedWasm }, { files, libraries }) {
  const made = new Set()
  for (const [path, bytes] of files) {
    const whole = `${API.sitePackages}/${path}`
    const folder = whole.slice(0, whole.lastIndexOf("/"))
    if (!made.has(folder)) FS.mkdirTree(folder)
    made.add(folder)
    FS.writeFile(whole, bytes, { canOwn: true })
  }
  for (const [path, compiled] of libraries) {
    const whole = `${API.sitePackages}/${path}`
    // Where Python imports it, this is what it gets; `{}` is a scope of its own, as when Python loads one.
    preloadedWasm[whole] = loadWebAssemblyModule(compiled, { nodelete: true }, whole, {})
  }
}

/** @param {string} path */
function isLibrary(path) {
  return path.endsWith(".so")
}

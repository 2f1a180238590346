/**
 * Files that the user picks. The job runs in a worker and must find the file again after a reload, so the page keeps a
 * copy in the browser's private file system until the import is over.
 */

const FOLDER = "imports"
const MAX_BYTES = 100 * 1024 * 1024

/**
 * Keep a copy. Throws an `Error` with a sentence for people.
 *
 * @param {File} file
 * @returns {Promise<string>} the `source` of an import request
 */
export async function keep(file) {
  if (file.size > MAX_BYTES) throw new Error(`${file.name} is larger than 100 MB, too much for this page.`)
  const name = `${Date.now()}-${file.name.replace(/[^\p{L}\p{N}._-]/gu, "_").slice(-80)}`
  try {
    const root = await navigator.storage.getDirectory()
    const folder = await root.getDirectoryHandle(FOLDER, { create: true })
    const handle = await folder.getFileHandle(name, { create: true })
    const writable = await handle.createWritable()
    await writable.write(file)
    await writable.close()
  } catch (error) {
    throw new Error(`${file.name} could not be copied into this browser’s private file system.`, { cause: error })
  }
  return `opfs:${FOLDER}/${name}`
}

/**
 * Remove the copy that an import has read to its end; nothing happens for other sources.
 *
 * @param {string} source
 */
export async function forget(source) {
  const [, name] = source.split(`opfs:${FOLDER}/`)
  if (!name) return
  const root = await navigator.storage.getDirectory()
  const folder = await root.getDirectoryHandle(FOLDER, { create: true })
  for await (const found of folder.keys()) {
    if (found === name) await folder.removeEntry(name) // another tab may have been first
  }
}

/**
 * Call `use` with a file that is picked or dropped anywhere on the page.
 *
 * @param {HTMLInputElement} input
 * @param {HTMLElement} curtain shown while a file is held over the page
 * @param {(file: File) => void} use
 */
export function acceptFiles(input, curtain, use) {
  input.addEventListener("change", () => {
    const file = input.files?.[0]
    input.value = "" // or else the same file could not be picked twice
    if (file) use(file)
  })
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return
    event.preventDefault()
    curtain.hidden = input.disabled
  })
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) curtain.hidden = true
  })
  addEventListener("drop", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return
    event.preventDefault() // the browser would leave the page and open the file
    curtain.hidden = true
    const file = event.dataTransfer.files[0]
    if (file && !input.disabled) use(file)
  })
}

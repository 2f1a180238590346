/**
 * A snapshot of Python's memory, kept in this origin's private file system: with it Python is up in a fraction of the time.
 *
 * It is only ever used where everything is as it was when it was made: the site's own files, the browser, the language
 * and the time zone, which Python reads when it starts. Anything else, or anything odd, and there is none: Python is
 * started anew, and a new one takes the place of the old. It is one file for each copy of the site:
 * a header of `HEADER_SIZE` bytes (JSON, padded with spaces, written last), then the packages, then the memory.
 *
 * @module
 */

const FOLDER = ".durably-snapshots"
const HEADER_SIZE = 4096
/** A snapshot is only kept where this many times its size is free. */
const ROOM = 4

/**
 * @typedef {Uint8Array<ArrayBuffer>} Bytes
 *
 * @typedef {object} Parts  what is kept
 * @property {Bytes} packages  what `unpacked` of `packages.js` gives
 * @property {Bytes} memory  what Pyodide's `makeMemorySnapshot` gives
 *
 * @typedef {object} Header
 * @property {string} made  of what it was made: `madeOf`
 * @property {number} packages  length in bytes
 * @property {number} memory  length in bytes; 0 says that with these files and this browser there is to be no snapshot
 * @property {[number, number]} sums  of the packages and of the memory
 */

/** What a snapshot made here and now depends on. @param {string} build  of the site, from its manifest */
export function madeOf(build) {
  return JSON.stringify([build, navigator.userAgent, navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone])
}

/**
 * Look for a snapshot.
 * @param {Promise<string>} made  what it has to be made of; looking begins before this is known
 * @returns {Promise<Parts | "refused" | null>} nothing if there is none that will do; `refused` if there is to be none
 */
export async function findSnapshot(made) {
  /** @type {Source | undefined} */ let source
  try {
    source = await openSource(await (await folderOf(false)).getFileHandle(fileName()))
    const header = /** @type {Header} */ (JSON.parse(new TextDecoder().decode(await source.read(0, HEADER_SIZE))))
    if (header.made !== (await made)) return null
    if (!header.memory) return "refused"
    // Each in a buffer of its own: the packages stay in use, the memory is only copied.
    const packages = await source.read(HEADER_SIZE, header.packages)
    const memory = await source.read(HEADER_SIZE + header.packages, header.memory)
    return [packages, memory].every((part, i) => sumOf(part) === header.sums[i]) ? { packages, memory } : null
  } catch (error) {
    if (isStorageError(error) || error instanceof SyntaxError) return null
    throw error
  } finally {
    source?.close()
  }
}

/**
 * Keep a snapshot, in the place of an older one.
 * @param {string} made @param {Parts} parts
 * @returns {Promise<boolean>} whether it is kept
 */
export async function keepSnapshot(made, { packages, memory }) {
  const { quota = 0, usage = 0 } = await navigator.storage.estimate()
  if (quota - usage < ROOM * (packages.length + memory.length)) return false
  const header = { made, packages: packages.length, memory: memory.length, sums: [sumOf(packages), sumOf(memory)] }
  return await write(/** @type {Header} */ (header), [packages, memory])
}

/** With these files and this browser there is to be no snapshot: it was made, and could not be used. @param {string} made */
export async function refuseSnapshots(made) {
  await write({ made, packages: 0, memory: 0, sums: [0, 0] }, [])
}

/** Delete the snapshot: Python has broken down with it, perhaps because of it. */
export async function dropSnapshot() {
  try {
    await (await folderOf(false)).removeEntry(fileName())
  } catch (error) {
    if (!isStorageError(error)) throw error // there is none, or it is in use
  }
}

/** @param {Header} header @param {Bytes[]} parts @returns {Promise<boolean>} whether it was written */
async function write(header, parts) {
  try {
    const file = await (await folderOf(true)).getFileHandle(fileName(), { create: true })
    const handle = await file.createSyncAccessHandle()
    try {
      writeTo(handle, header, parts)
    } finally {
      handle.close()
    }
    return true
  } catch (error) {
    if (!isStorageError(error)) throw error
    await dropSnapshot() // what there is of it
    return false
  }
}

/** @param {FileSystemSyncAccessHandle} handle @param {Header} header @param {Bytes[]} parts */
function writeTo(handle, header, parts) {
  handle.truncate(0)
  let at = HEADER_SIZE
  for (const part of parts) {
    if (handle.write(part, { at }) < part.length) throw new DOMException("there is no room", "QuotaExceededError")
    at += part.length
  }
  handle.flush()
  // Last: whoever reads it while the rest is not there yet finds nothing.
  handle.write(new TextEncoder().encode(JSON.stringify(header).padEnd(HEADER_SIZE)), { at: 0 })
  handle.flush()
}

/**
 * @typedef {object} Source
 * @property {(at: number, length: number) => Promise<Bytes>} read  rejects if there is less
 * @property {() => void} close
 */

/** @param {FileSystemFileHandle} file @returns {Promise<Source>} */
async function openSource(file) {
  const handle = await file.createSyncAccessHandle({ mode: "read-only" })
  if (handle.mode === "read-only") return new SharedHandle(handle)
  // Without the mode a handle is had by one tab alone, and several may be starting.
  handle.close()
  return new BlobSource(await file.getFile())
}

/** @implements {Source} */
class SharedHandle {
  #handle

  /** @param {FileSystemSyncAccessHandle} handle */
  constructor(handle) {
    this.#handle = handle
  }

  /** @param {number} at @param {number} length */
  async read(at, length) {
    const bytes = new Uint8Array(length)
    if (this.#handle.read(bytes, { at }) < length) throw tooShort()
    return bytes
  }

  close() {
    this.#handle.close()
  }
}

/** @implements {Source} */
class BlobSource {
  #blob

  /** @param {Blob} blob */
  constructor(blob) {
    this.#blob = blob
  }

  /** @param {number} at @param {number} length */
  async read(at, length) {
    const bytes = new Uint8Array(await this.#blob.slice(at, at + length).arrayBuffer())
    if (bytes.length < length) throw tooShort()
    return bytes
  }

  close() {}
}

function tooShort() {
  return new DOMException("the file is too short", "NotReadableError")
}

/** Tells what has been damaged by chance. @param {Bytes} bytes  all of their buffer */
function sumOf(bytes) {
  const words = new Int32Array(bytes.buffer, 0, 4 * Math.floor(bytes.length / 16))
  let a = 1, b = 2, c = 3, d = 4
  for (let i = 0; i < words.length; i += 4) {
    a = Math.imul(a, 31) + words[i]
    b = Math.imul(b, 37) + words[i + 1]
    c = Math.imul(c, 41) + words[i + 2]
    d = Math.imul(d, 43) + words[i + 3]
  }
  for (const byte of bytes.subarray(words.byteLength)) a = Math.imul(a, 31) + byte
  return (a ^ Math.imul(b, 3) ^ Math.imul(c, 5) ^ Math.imul(d, 7)) >>> 0
}

/** The name that the snapshot of this copy of the site has. */
function fileName() {
  return encodeURIComponent(new URL("./", import.meta.url).pathname)
}

/** @param {boolean} create */
async function folderOf(create) {
  const root = await navigator.storage.getDirectory()
  return await root.getDirectoryHandle(FOLDER, { create })
}

/** No room, no permission, no such file, in use, or no private file system at all. @param {unknown} error */
function isStorageError(error) {
  return error instanceof DOMException || error instanceof TypeError
}

/**
 * A way into a worker that Python keeps busy: a few bytes of a file, which a second worker writes and this one reads.
 *
 * Pyodide looks into an "interrupt buffer" every few dozen bytecodes. That is meant to be shared memory, which pages have
 * only with special HTTP headers. Where a file can have several handles, one of them does as well: reading it takes less
 * than a microsecond, and is done at every `LOOKS`-th look. What is written is the id of the run to be interrupted.
 * Where it cannot, there is no interrupting, and what blocks is ended with its worker. Python itself may ask to be
 * interrupted at some moment, if it is still busy then: a timeout has passed.
 *
 * @module
 */

import { answered } from "./patience.js"

const FOLDER = ".durably-interrupts"
/** Looks of Pyodide for each of ours; between two of ours Python goes on for about a quarter of a millisecond. */
const LOOKS = 256
/** An interruption that was not taken (Python was about something else) is offered again after this. */
const AGAIN_MS = 20
const SIGINT = 2
/** Ids are ULIDs. */
const ID_LENGTH = 26

const decoder = new TextDecoder()

export class Interrupts {
  #pyodide
  #handle
  #bytes = new Uint8Array(ID_LENGTH)
  #looks = 0
  #offeredAt = -Infinity
  #deadline = Infinity

  /**
   * @param {any} pyodide @param {string} name  of the worker
   * @returns {Promise<Interrupts | null>} nothing where a file has one handle only
   */
  static async open(pyodide, name) {
    const file = await fileOf(name)
    const handle = await answered(file.createSyncAccessHandle({ mode: "readwrite-unsafe" }))
    if (handle.mode === "readwrite-unsafe") return new Interrupts(pyodide, handle)
    handle.close()
    return null
  }

  /** @param {any} pyodide @param {FileSystemSyncAccessHandle} handle */
  constructor(pyodide, handle) {
    this.#pyodide = pyodide
    this.#handle = handle
    this.clear()
  }

  /** Look, or look no more. @param {boolean} on */
  watch(on) {
    this.#pyodide.setInterruptBuffer(on ? this : undefined)
  }

  /** What Pyodide reads: the number of a signal, or 0. */
  get 0() {
    if (++this.#looks % LOOKS) return 0
    this.#handle.read(this.#bytes, { at: 0 })
    const now = performance.now()
    if ((!this.#bytes[0] && now < this.#deadline) || now < this.#offeredAt + AGAIN_MS) return 0
    this.#offeredAt = now
    return SIGINT
  }

  /** Pyodide resets what it has read. */
  set 0(_) {}

  /** Interrupt whatever is at work so many milliseconds from now; `Infinity` for never. @param {number} milliseconds */
  lookIn(milliseconds) {
    this.#deadline = performance.now() + milliseconds
  }

  /** The run that is to be interrupted, or nothing. @returns {string} */
  wanted() {
    return this.#bytes[0] ? decoder.decode(this.#bytes) : ""
  }

  /** It was interrupted, or need not be any more. */
  clear() {
    this.#bytes.fill(0)
    this.#handle.write(this.#bytes, { at: 0 })
  }
}

/** From another worker: interrupt a run. @param {string} name  of the worker that executes it @param {string} runId */
export async function interrupt(name, runId) {
  const handle = await (await fileOf(name)).createSyncAccessHandle({ mode: "readwrite-unsafe" })
  handle.write(new TextEncoder().encode(runId), { at: 0 })
  handle.close()
}

/** Delete the files of workers that are gone; the open ones cannot be deleted. */
export async function sweepInterrupts() {
  const folder = await folderOf()
  for await (const name of folder.keys()) {
    try {
      await folder.removeEntry(name)
    } catch (error) {
      if (!(error instanceof DOMException)) throw error // it is in use, or another tab was faster
    }
  }
}

/** @param {string} name */
async function fileOf(name) {
  return await (await folderOf()).getFileHandle(name, { create: true })
}

async function folderOf() {
  return await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create: true })
}

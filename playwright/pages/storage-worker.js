/**
 * A worker with durably's bridge to SQLite and no Python, so that a test may start dozens.
 *
 * It is asked `[id, name, ...arguments]`, and answers `[id, value]` or `[id, null, {name, code, message}]`.
 *
 * @module
 */

import { openDatabase } from "./durably/opfs.js"

/** @type {import("../../web/sqlite.js").Connection} */ let connection
/** Handles that are open. */
const open = new Set()
/** How often any handle was flushed, and a log was written to. */
let flushes = 0, writes = 0
/** Handles of write-ahead logs, and those of them that were written to and not flushed since. */
const logs = new Set(), dirty = new Set()

const { createSyncAccessHandle } = FileSystemFileHandle.prototype
FileSystemFileHandle.prototype.createSyncAccessHandle = async function (options) {
  const handle = await createSyncAccessHandle.call(this, options)
  open.add(handle)
  if (/-wa[01]$/.test(this.name)) logs.add(handle)
  return handle
}
const { close, flush, write } = FileSystemSyncAccessHandle.prototype
Object.assign(FileSystemSyncAccessHandle.prototype, {
  close() {
    open.delete(this)
    logs.delete(this)
    close.call(this)
  },
  flush() {
    flushes++
    flush.call(this)
    dirty.delete(this)
  },
  write(...args) {
    if (logs.has(this)) {
      dirty.add(this)
      writes++
    }
    return write.apply(this, args)
  },
})

/** One request to the bridge, as Python makes it; the rows of the last statement. */
async function execute(mode, ...statements) {
  const reply = await connection.execute(JSON.stringify([mode, statements.map((one) => (Array.isArray(one) ? one : [one, []]))]))
  const found = JSON.parse(typeof reply === "string" ? reply : new TextDecoder().decode(reply[0]))
  if (found.error) throw Object.assign(new Error(found.error[1]), { code: found.error[0] })
  return found.at(-1)[1]
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1]

const COMMANDS = {
  /** The name of what was set aside, and whether the database was looked at. */
  async open(name, options) {
    let checked = false
    connection = await openDatabase(name, { onChecked: () => (checked = true), ...options })
    return { setAside: connection.setAside, checked }
  },
  isDoubtful: () => connection.isDoubtful,
  /** What a browser does that takes the files away from a page. */
  loseHandles() {
    for (const handle of open) close.call(handle)
    open.clear()
  },
  /** Turn over the bits of so many bytes of a file that nobody has open. */
  async flip(name, at, length) {
    const handle = await createSyncAccessHandle.call(await (await navigator.storage.getDirectory()).getFileHandle(name))
    const bytes = new Uint8Array(length)
    handle.read(bytes, { at })
    handle.write(bytes.map((byte) => byte ^ 0xff), { at })
    close.call(handle)
  },
  close: () => connection.close(),
  execute,
  /** What a tab of durably does with a file that nobody has ever opened: a schema, then work. */
  async begin(name, options, writer, rows) {
    connection = await openDatabase(name, options)
    await execute("write", "CREATE TABLE IF NOT EXISTS marks (writer, number)", "CREATE TABLE IF NOT EXISTS schema_version (version)")
    for (let number = 0; number < rows; number++) await execute("write", ["INSERT INTO marks VALUES (?, ?)", [writer, number]])
    await connection.close()
  },
  /** Write, and when that is done, do what nobody can interrupt: a plain step after a checkpoint. */
  async writeAndBeBusy(milliseconds) {
    await execute("write", "INSERT INTO marks VALUES ('busy', 1)")
    // Python hears of an answer that took time in a turn of the event loop after it.
    await new Promise((resolve) => setTimeout(resolve))
    self.postMessage("busy")
    const end = performance.now() + milliseconds
    while (performance.now() < end);
  },
  handlesOpen: () => open.size,
  /** Hear nothing for a while, and read at once afterwards. */
  beBusyAndCount(milliseconds) {
    self.postMessage("busy")
    const end = performance.now() + milliseconds
    while (performance.now() < end);
    return execute("read", "SELECT count(*) FROM marks")
  },
  async commitsLeftUnflushed(commits) {
    let count = 0
    for (let number = 0; number < commits; number++) {
      await execute("write", ["INSERT INTO marks VALUES ('flushed', ?)", [number]])
      if (dirty.size) count++
    }
    return count
  },
  /** How often files were flushed, and logs written to, for so many commits. */
  async callsOf(commits) {
    const before = { flushes, writes }
    for (let number = 0; number < commits; number++) await execute("write", "INSERT INTO marks VALUES ('flushed', 1)")
    return { flushes: flushes - before.flushes, writes: writes - before.writes }
  },
  /** Microseconds of one commit, one read: medians of `rounds` rounds of 100. */
  async cost(rounds) {
    const write = [], read = []
    for (let round = 0; round < rounds; round++) {
      const start = performance.now()
      for (let number = 0; number < 100; number++) await execute("write", ["INSERT INTO marks VALUES ('cost', ?)", [number]])
      const middle = performance.now()
      for (let number = 0; number < 100; number++) await execute("read", "SELECT count(*) FROM schema_version")
      write.push((middle - start) * 10)
      read.push((performance.now() - middle) * 10)
    }
    return { write: median(write), read: median(read) }
  },
}

self.onmessage = async ({ data: [id, name, ...args] }) => {
  try {
    self.postMessage([id, (await COMMANDS[name](...args)) ?? null])
  } catch (error) {
    self.postMessage([id, null, { name: error.name, code: error.code ?? null, message: error.message }])
  }
}

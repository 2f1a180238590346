/**
 * Opening a database in the browser's private file system: what must be there, which file layer fits, patience.
 *
 * @module
 */

import { Connection, SQLiteError, StorageUnavailable } from "./sqlite.js"

const SQLITE_BUSY = 5, SQLITE_CANTOPEN = 14
const OPEN_READWRITE_CREATE = 6

/** How long to try to open a file whose handles a page that has just gone may still hold. */
const OPEN_PATIENCE_MS = 5000
const OPEN_FIRST_PAUSE_MS = 20
/** Bytes of a database's path, its companions' endings included; wa-sqlite's own limit is 64. */
const LONGEST_PATH = 512

/**
 * Open a database file in OPFS.
 *
 * @param {string} name  the file's name; folders in it are made
 * @param {{ durability?: "full" | "relaxed", vfs?: "write-ahead" | "coop" }} [options]
 *   `relaxed` does not flush at each commit; `vfs` forces the choice of the file layer, for tests
 * @returns {Promise<Connection>}
 */
export async function openDatabase(name, { durability = "full", vfs } = {}) {
  checkSupport()
  if (new TextEncoder().encode(name).length > LONGEST_PATH - 16) {
    throw new StorageUnavailable(`The database's name has more than ${LONGEST_PATH - 16} bytes; choose a shorter one.`)
  }
  const giveUpAt = performance.now() + OPEN_PATIENCE_MS
  for (let pause = OPEN_FIRST_PAUSE_MS; ; pause *= 2) {
    try {
      return await tryToOpen(name, durability, vfs ?? (await chooseVfs()))
    } catch (error) {
      if (!mayPass(error) || performance.now() + pause > giveUpAt) throw error
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }
}

function checkSupport() {
  if (!globalThis.isSecureContext) {
    throw new StorageUnavailable(
      "This page is not in a secure context, and browsers keep files only for pages that are: open it over https or from localhost.",
    )
  }
  if (!navigator.storage?.getDirectory) {
    throw new StorageUnavailable("This browser has no private file system (OPFS), where durably keeps its database; update it, or use another.")
  }
  if (!globalThis.FileSystemFileHandle || !("createSyncAccessHandle" in FileSystemFileHandle.prototype)) {
    throw new StorageUnavailable(
      "Synchronous file access is not available here; durably must run in a dedicated web worker of a browser that has it.",
    )
  }
}

/**
 * Which file layer fits this browser: several open handles on one file at once where it has them, else
 * handles that are handed from tab to tab. A browser without the mode ignores the option silently.
 * @returns {Promise<"write-ahead" | "coop">}
 */
async function chooseVfs() {
  const root = await reach(() => navigator.storage.getDirectory())
  const name = `.durably-probe-${crypto.randomUUID()}`
  const file = await reach(() => root.getFileHandle(name, { create: true }))
  try {
    const handle = await file.createSyncAccessHandle({ mode: "readwrite-unsafe" })
    const mode = handle.mode
    handle.close()
    return mode === "readwrite-unsafe" ? "write-ahead" : "coop"
  } finally {
    await root.removeEntry(name)
  }
}

/** @template T @param {() => Promise<T>} call @returns {Promise<T>} */
async function reach(call) {
  try {
    return await call()
  } catch (error) {
    throw new StorageUnavailable(
      `The browser refuses its private file system (${error instanceof Error ? error.message : error}); ` +
        "this happens in some private windows and where site data is blocked.",
    )
  }
}

/** @param {string} path */
const load = (path) => import(new URL(`./wa-sqlite/${path}`, import.meta.url).href)

/** @param {string} name @param {string} durability @param {"write-ahead" | "coop"} layer */
async function tryToOpen(name, durability, layer) {
  const className = layer === "coop" ? "OPFSCoopSyncVFS" : "OPFSWriteAheadVFS"
  const [{ default: createModule }, { Factory }, vfsModule] = await Promise.all([
    load("dist/wa-sqlite.mjs"),
    load("src/sqlite-api.js"),
    load(`src/examples/${className}.js`),
  ])
  const module = await createModule()
  const api = Factory(module)
  const vfs = await vfsModule[className].create(className, module)
  vfs.mxPathname = LONGEST_PATH
  api.vfs_register(vfs, true)
  /** @type {Connection | undefined} */ let connection
  try {
    connection = new Connection(module, api, vfs, await api.open_v2(name, OPEN_READWRITE_CREATE, className))
    // Reading the schema is what finds out whether the file is a database at all.
    const settings = [
      "SELECT count(*) FROM sqlite_schema",
      `PRAGMA synchronous=${durability === "full" ? "FULL" : "NORMAL"}`,
      "PRAGMA foreign_keys=ON",
      "PRAGMA temp_store=MEMORY",
    ]
    const reply = await connection.execute(JSON.stringify(["bare", settings.map((sql) => [sql, []])]))
    const { error } = JSON.parse(/** @type {string} */ (reply))
    if (error) throw new SQLiteError(error[0], error[1])
    return connection
  } catch (error) {
    if (connection) await connection.close()
    else vfs.close()
    throw error instanceof Error && "code" in error && typeof error.code === "number"
      ? new SQLiteError(error.code, error.message)
      : error
  }
}

/** Whether an error at opening may be the last trace of a page that is going away. @param {unknown} error */
function mayPass(error) {
  if (error instanceof SQLiteError) return [SQLITE_BUSY, SQLITE_CANTOPEN].includes(error.code & 0xff)
  return error instanceof DOMException && ["NoModificationAllowedError", "NotFoundError", "InvalidStateError"].includes(error.name)
}

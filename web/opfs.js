/**
 * Opening a database in the browser's private file system: what must be there, which file layer fits, patience.
 *
 * @module
 */

import { CoopVFS } from "./coop.js"
import { checkSoundness, COMPANIONS, isDamage, setAside } from "./damage.js"
import { isNamed, isQuota, SQLiteError, StorageUnavailable } from "./errors.js"
import { answered, patiently } from "./patience.js"
import { Presence } from "./presence.js"
import { Connection, IN_MEMORY } from "./sqlite.js"
import { Whereabouts } from "./whereabouts.js"
import createModule from "./wa-sqlite/dist/wa-sqlite.mjs"
import { Factory } from "./wa-sqlite/src/sqlite-api.js"
import { WriteAheadVFS } from "./write-ahead.js"

const SQLITE_BUSY = 5, SQLITE_FULL = 13, SQLITE_CANTOPEN = 14, SQLITE_NOTADB = 26
const OPEN_READWRITE_CREATE = 6

/**
 * How much SQLite has flushed. `relaxed` is nothing at a commit: with a log that costs at most the last commits when the
 * power fails, with a rollback journal it may damage the file.
 */
const SYNCHRONOUS = { "write-ahead": { full: "FULL", relaxed: "NORMAL" }, coop: { full: "FULL", relaxed: "OFF" } }
/** What a SQLite file begins with. */
const MAGIC = new TextEncoder().encode("SQLite format 3\0")
/** Bytes of a write-ahead log with nothing in it. */
const LOG_HEADER_SIZE = 32
/** Bytes of a database's path, its companions' endings included; wa-sqlite's own limit is 64. */
const LONGEST_PATH = 512

/**
 * @typedef {object} Options
 * @property {"full" | "relaxed"} [durability]  `relaxed` does not flush at each commit
 * @property {"write-ahead" | "coop"} [vfs]  forces the choice of the file layer, for tests
 * @property {boolean} [doubt]  whether the database may not have been left in order, so that its first user is to look
 *   whether it is sound; default `true`
 * @property {() => void} [onChecked]  told that it was looked at, by one who has it alone, and is sound
 * @property {() => void} [onDamage]  told when a part that is damaged is come across later
 */

/**
 * Open a database file in OPFS. One that is damaged is set aside under a new name, in the connection's `setAside`, and
 * a new one takes its place.
 *
 * @param {string} name  the file's name; folders in it are made. Or `:memory:`
 * @param {Options} [options]
 * @returns {Promise<Connection>}
 */
export async function openDatabase(name, { durability = "full", vfs, doubt = true, onChecked, onDamage } = {}) {
  if (name === IN_MEMORY) return await openInMemory()
  checkSupport()
  if (new TextEncoder().encode(name).length > LONGEST_PATH - 16) {
    throw new StorageUnavailable(`The database's name has more than ${LONGEST_PATH - 16} bytes; choose a shorter one.`)
  }
  // The same file by another name would be another one to the locks.
  const path = name.split("/").filter(Boolean).join("/")
  const layer = vfs ?? (layerHere ??= await patiently(chooseVfs, mayPass))
  const open = () => patiently(() => tryToOpen(path, durability, layer, doubt, onChecked), mayPass)
  // One after the other, so that one is the first: who comes second finds the file looked at.
  const connection = await navigator.locks.request(`durably:${path}:begin`, async () => {
    try {
      return await open()
    } catch (error) {
      if (!(error instanceof Damaged)) throw error
      const folder = await folderOf(path)
      const aside = await patiently(() => setAside(folder, /** @type {string} */ (path.split("/").at(-1))), mayPass)
      const connection = await open()
      connection.setAside = aside
      return connection
    }
  })
  connection.onDamage = onDamage ?? connection.onDamage
  return connection
}

/** What `chooseVfs` found. @type {"write-ahead" | "coop" | undefined} */
let layerHere

/** How SQLite is started where its WebAssembly does not lie beside these files. @type {object | undefined} */
let broughtSqlite

/** SQLite is not to be fetched: here it is. @param {Uint8Array} wasm */
export function bringSqlite(wasm) {
  // It asks where its file is, though it needs none, and where these files are a Blob there is no answer.
  broughtSqlite = { wasmBinary: wasm, locateFile: (/** @type {string} */ name) => name }
}

/** A database that nobody else can have. @returns {Promise<Connection>} */
async function openInMemory() {
  const module = await createModule({ ...broughtSqlite })
  const connection = await Connection.inMemory(module, Factory(module))
  await queryOf(connection)("PRAGMA foreign_keys=ON")
  return connection
}

/** A database is damaged, and nobody else has it open. */
class Damaged extends SQLiteError {}

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
    const handle = await answered(file.createSyncAccessHandle({ mode: "readwrite-unsafe" }))
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
    if (isQuota(error)) throw new SQLiteError(SQLITE_FULL, "there is no space for a new file")
    throw new StorageUnavailable(
      `The browser refuses its private file system (${error instanceof Error ? error.message : error}); ` +
        "this happens in some private windows and where site data is blocked.",
    )
  }
}

/**
 * @param {string} name @param {string} durability @param {"write-ahead" | "coop"} layer
 * @param {boolean} doubt @param {(() => void) | undefined} onChecked
 */
async function tryToOpen(name, durability, layer, doubt, onChecked) {
  const folder = await folderOf(name)
  const isNew = await checkLeftovers(folder, name, layer)
  const module = await createModule({ ...broughtSqlite })
  const api = Factory(module)
  const vfs = layer === "coop" ? await CoopVFS.create(module, name, folder) : await WriteAheadVFS.open(module, name)
  vfs.mxPathname = LONGEST_PATH
  // Its type names the calls that SQLite makes, which the base class of both layers turns into those they have.
  api.vfs_register(/** @type {any} */ (vfs), true)
  const presence = new Presence(name)
  /** @type {Connection | undefined} */ let connection
  try {
    await presence.enter(isNew)
    await vfs.take()
    const db = await api.open_v2(name, OPEN_READWRITE_CREATE, vfs.name)
    connection = new Connection(module, api, vfs, db, presence, new Whereabouts(name))
    // Reading the schema is what finds out whether the file is a database at all.
    const settings = [
      "SELECT count(*) FROM sqlite_schema",
      `PRAGMA synchronous=${SYNCHRONOUS[layer][durability === "full" ? "full" : "relaxed"]}`,
      "PRAGMA foreign_keys=ON",
      "PRAGMA temp_store=MEMORY",
      ...(layer === "coop" ? ["PRAGMA journal_mode=TRUNCATE"] : []),
    ]
    const query = queryOf(connection)
    for (const setting of settings) await query(setting)
    if (doubt && !presence.others) {
      await checkSoundness(query)
      onChecked?.()
    }
    return connection
  } catch (error) {
    const isAlone = !presence.others
    if (connection) {
      await connection.close()
    } else {
      vfs.close()
      presence.leave()
    }
    if (isAlone && isDamage(error)) throw new Damaged(/** @type {SQLiteError} */ (error).code, /** @type {Error} */ (error).message)
    if (isQuota(error)) throw new SQLiteError(SQLITE_FULL, "there is no space for a new file")
    throw error instanceof Error && "code" in error && typeof error.code === "number"
      ? new SQLiteError(error.code, error.message)
      : error
  }
}

/** A way to ask a connection: the rows of one statement. @param {Connection} connection */
function queryOf(connection) {
  return async (/** @type {string} */ sql) => {
    const reply = await connection.execute(JSON.stringify(["bare", [[sql, []]]]))
    const found = JSON.parse(/** @type {string} */ (reply))
    if (found.error) throw new SQLiteError(found.error[0], found.error[1])
    return found[0][1]
  }
}

/** The folder that a database's file is in, made if need be. @param {string} name */
async function folderOf(name) {
  let folder = await navigator.storage.getDirectory()
  for (const each of name.split("/").slice(0, -1)) folder = await folder.getDirectoryHandle(each, { create: true })
  return folder
}

/**
 * Refuse a file that is no database before anything is put beside it, and what the other layer has left behind.
 *
 * @param {FileSystemDirectoryHandle} folder @param {string} name @param {"write-ahead" | "coop"} layer
 * @returns {Promise<boolean>} whether there is no file yet
 */
async function checkLeftovers(folder, name, layer) {
  const fileName = /** @type {string} */ (name.split("/").at(-1))
  const [file, journal, ...logs] = await Promise.all(
    ["", ...COMPANIONS].map((suffix) => fileIn(folder, fileName + suffix)),
  )
  const logged = logs.some((log) => log && log.size > LOG_HEADER_SIZE)
  if (file?.size && !logged && !journal?.size) {
    const magic = new Uint8Array(await file.slice(0, MAGIC.length).arrayBuffer())
    if (!MAGIC.every((byte, at) => byte === magic[at])) throw new SQLiteError(SQLITE_NOTADB, "file is not a database")
  }
  if (layer === "coop" ? logged : journal?.size) {
    throw new StorageUnavailable(
      `The database ${name} has changes in a form that this browser cannot read in the way it opens files now; ` +
        "open it once in the version of the browser that wrote them.",
    )
  }
  return !file
}

/** @param {FileSystemDirectoryHandle} folder @param {string} name @returns {Promise<File | undefined>} */
async function fileIn(folder, name) {
  try {
    return await (await folder.getFileHandle(name)).getFile()
  } catch (error) {
    if (isNamed(error, "NotFoundError")) return undefined
    throw error
  }
}

/** Whether an error at opening may be the last trace of a page that is going away. @param {unknown} error */
function mayPass(error) {
  if (error instanceof SQLiteError) return [SQLITE_BUSY, SQLITE_CANTOPEN].includes(error.code & 0xff)
  return isNamed(error, "NoModificationAllowedError", "NotFoundError", "InvalidStateError", "NotReadableError", "TimeoutError")
}

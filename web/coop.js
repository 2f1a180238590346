/**
 * SQLite's file layer where only one access handle to a file may be open: it is handed from tab to tab.
 *
 * A connection owns the store between `take` and `giveBack`: it holds an exclusive Web Lock named after the
 * database, and the handles of the database's file and of its rollback journal. In between, everything is
 * synchronous, and SQLite needs no locks of its own. A tab that dies while it owns the store leaves its journal,
 * which the next owner's SQLite plays back.
 *
 * There are no temporary files: the connection keeps what is temporary in memory. There is no write-ahead log.
 *
 * @module
 */

import { isNamed, isQuota, SQLiteError } from "./errors.js"
import { answered, patiently } from "./patience.js"
import { FacadeVFS } from "./wa-sqlite/src/FacadeVFS.js"

const SQLITE_OK = 0, SQLITE_FULL = 13, SQLITE_CANTOPEN = 14
const SQLITE_IOERR_READ = 266, SQLITE_IOERR_SHORT_READ = 522, SQLITE_IOERR_WRITE = 778, SQLITE_IOERR_FSYNC = 1034
const SQLITE_IOERR_TRUNCATE = 1546, SQLITE_IOERR_FSTAT = 1802, SQLITE_IOERR_DELETE = 2570, SQLITE_IOERR_ACCESS = 3338
const OPEN_MAIN_DB = 0x100, OPEN_MAIN_JOURNAL = 0x800
const IOCAP_UNDELETABLE_WHEN_OPEN = 0x800

const JOURNAL = "-journal"
/** @typedef {{ database: FileSystemSyncAccessHandle, journal: FileSystemSyncAccessHandle }} Handles */

export class CoopVFS extends FacadeVFS {
  /** What the file system threw last. @type {unknown} */ lastError = null
  /** Whatever failed, the journal has what was there before. */
  isDoubtful = false
  #lockName
  #files
  /** @type {Handles | null} */ #handles = null
  #release = () => {}
  /** Which file SQLite means by its number. @type {Map<number, keyof Handles>} */ #open = new Map()

  /**
   * @param {unknown} module  SQLite
   * @param {string} name  of the database
   * @param {FileSystemDirectoryHandle} folder  where it is
   */
  static async create(module, name, folder) {
    const fileName = /** @type {string} */ (name.split("/").at(-1))
    const database = await folder.getFileHandle(fileName, { create: true })
    const journal = await folder.getFileHandle(fileName + JOURNAL, { create: true })
    return new CoopVFS(module, name, { database, journal })
  }

  /**
   * @param {unknown} module
   * @param {string} name
   * @param {{ database: FileSystemFileHandle, journal: FileSystemFileHandle }} files
   */
  constructor(module, name, files) {
    super("CoopVFS", module)
    this.#lockName = `durably:${name}:turn`
    this.#files = files
  }

  /**
   * Own the store, whoever has it now.
   * @returns {Promise<void> | undefined} what has to be awaited for it; nothing where it is owned already
   */
  take() {
    return this.#handles ? undefined : this.#take()
  }

  /** Let others have the store, if it is ours. */
  giveBack() {
    if (!this.#handles) return
    const { database, journal } = this.#handles
    this.#handles = null
    journal.close()
    database.close()
    this.#release()
  }

  /** Let others have the store, whose files are not ours any more: Chromium hangs where such a handle is closed. */
  abandon() {
    this.#handles = null
    this.#release()
  }

  /** Nothing goes on by itself here. */
  async settle() {}

  close() {
    this.giveBack()
  }

  async #take() {
    await new Promise((/** @type {(granted: void) => void} */ granted, refused) => {
      const held = () => {
        granted()
        return new Promise((/** @type {(done: void) => void} */ done) => (this.#release = done))
      }
      navigator.locks.request(this.#lockName, held).catch(refused)
    })
    try {
      this.#handles = await patiently(() => this.#openBoth(), isStillHeld)
    } catch (error) {
      this.#release()
      // Of a file that was deleted with all of a site's data the browser's answer never comes.
      throw isNamed(error, "NotFoundError", "TimeoutError")
        ? new SQLiteError(SQLITE_CANTOPEN, "its file is gone, somebody has deleted this site's data; reload the page")
        : error
    }
  }

  /** @returns {Promise<Handles>} */
  async #openBoth() {
    const names = /** @type {(keyof Handles)[]} */ (["database", "journal"])
    const opened = await Promise.allSettled(names.map((name) => answered(this.#files[name].createSyncAccessHandle())))
    const handles = opened.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []))
    const failed = opened.find((one) => one.status === "rejected")
    if (failed) {
      for (const handle of handles) handle.close()
      throw failed.reason
    }
    const [database, journal] = /** @type {[FileSystemSyncAccessHandle, FileSystemSyncAccessHandle]} */ (handles)
    return { database, journal }
  }

  // What SQLite calls. Each answers with a result code.

  /** @override @param {string | null} path @param {number} id @param {number} flags @param {DataView} outFlags */
  jOpen(path, id, flags, outFlags) {
    if (!path || !(flags & (OPEN_MAIN_DB | OPEN_MAIN_JOURNAL))) return SQLITE_CANTOPEN
    this.#open.set(id, flags & OPEN_MAIN_DB ? "database" : "journal")
    outFlags.setInt32(0, flags, true)
    return SQLITE_OK
  }

  /** @override @param {number} id */
  jClose(id) {
    this.#open.delete(id)
    return SQLITE_OK
  }

  /** @override @param {number} id @param {Uint8Array} data @param {number} at */
  jRead(id, data, at) {
    return this.#try(SQLITE_IOERR_READ, () => {
      // The handle wants the memory itself, not what SQLite's module puts around it.
      const length = this.#handle(id).read(data.subarray(), { at })
      if (length === data.byteLength) return SQLITE_OK
      data.fill(0, length)
      return SQLITE_IOERR_SHORT_READ
    })
  }

  /** @override @param {number} id @param {Uint8Array} data @param {number} at */
  jWrite(id, data, at) {
    return this.#try(SQLITE_IOERR_WRITE, () =>
      this.#handle(id).write(data.subarray(), { at }) === data.byteLength ? SQLITE_OK : SQLITE_FULL,
    )
  }

  /** @override @param {number} id @param {number} size */
  jTruncate(id, size) {
    return this.#try(SQLITE_IOERR_TRUNCATE, () => void this.#handle(id).truncate(size))
  }

  /** @override @param {number} id */
  jSync(id) {
    return this.#try(SQLITE_IOERR_FSYNC, () => void this.#handle(id).flush())
  }

  /** @override @param {number} id @param {DataView} outSize */
  jFileSize(id, outSize) {
    return this.#try(SQLITE_IOERR_FSTAT, () => outSize.setBigInt64(0, BigInt(this.#handle(id).getSize()), true))
  }

  /** A journal that is empty is none. @override @param {string} path @param {number} _flags @param {DataView} outThere */
  jAccess(path, _flags, outThere) {
    return this.#try(SQLITE_IOERR_ACCESS, () => {
      const there = path.endsWith(JOURNAL) && this.#owned().journal.getSize() > 0
      outThere.setInt32(0, Number(there), true)
    })
  }

  /** Only a journal is ever deleted. @override @param {string} _path @param {number} syncFolder */
  jDelete(_path, syncFolder) {
    return this.#try(SQLITE_IOERR_DELETE, () => {
      const { journal } = this.#owned()
      journal.truncate(0)
      if (syncFolder) journal.flush()
    })
  }

  /** @override */
  jDeviceCharacteristics() {
    return IOCAP_UNDELETABLE_WHEN_OPEN
  }

  /** @param {number} id */
  #handle(id) {
    return this.#owned()[/** @type {keyof Handles} */ (this.#open.get(id))]
  }

  #owned() {
    if (!this.#handles) throw new Error("the store was used out of turn")
    return this.#handles
  }

  /** @param {number} failure  the code for an error @param {() => number | void} call */
  #try(failure, call) {
    try {
      return call() ?? SQLITE_OK
    } catch (error) {
      this.lastError = error
      return isQuota(error) ? SQLITE_FULL : failure
    }
  }
}

/** As those of a page that has just gone are, for a moment. @param {unknown} error */
const isStillHeld = (error) => isNamed(error, "NoModificationAllowedError", "InvalidStateError")

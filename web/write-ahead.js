/**
 * SQLite's file layer where several access handles to one file may be open at once: wa-sqlite's, with its gaps
 * filled.
 *
 * - A read sees every commit made before it. By itself the layer reads what it has heard of by message.
 * - A commit that is to be flushed is, also when it fills one of the two logs and the layer goes on in the other.
 * - A commit is written in one call (`gathered.js`).
 * - The lock for writing can be given back. By itself the layer keeps it until somebody asks for it by a message,
 *   which a worker that is busy in somebody's code does not hear.
 * - A full disk is told apart from a broken one, and closing closes every handle.
 * - A transaction that cannot even be rolled back by SQLite, for want of space, is dropped at its end. By itself the layer
 *   would go on in it at the next one, and write over what other tabs have written since.
 * - After a commit that failed it is told that the layer may have lost track (`isDoubtful`): the commit can be in the log,
 *   and not in what the layer knows of it.
 *
 * @module
 */

import { isNamed, isQuota } from "./errors.js"
import { gather } from "./gathered.js"
import { OPFSWriteAheadVFS } from "./wa-sqlite/src/examples/OPFSWriteAheadVFS.js"

const SQLITE_OK = 0, SQLITE_FULL = 13, SQLITE_IOERR = 10, SQLITE_IOERR_FSYNC = 1034, SQLITE_IOERR_LOCK = 3850
const LOCK_NONE = 0, LOCK_SHARED = 1
const SYNCHRONOUS_FULL = 2
/** The control by which SQLite has the layer commit. */
const FCNTL_SYNC = 21

/** How long closing waits for a checkpoint, which may itself wait for a tab that does not answer. */
const CHECKPOINT_PATIENCE_MS = 1000

export class WriteAheadVFS extends OPFSWriteAheadVFS {
  #name
  #commitFailed = false
  /** @type {(() => void)[]} what there is to flush in each of the two logs */ #flushes = []

  /** @param {unknown} module  SQLite @param {string} name  of the database */
  static async open(module, name) {
    const vfs = new WriteAheadVFS(module, name)
    await vfs.isReady()
    return vfs
  }

  /** @param {unknown} module @param {string} name */
  constructor(module, name) {
    super("OPFSWriteAheadVFS", module)
    this.#name = name
  }

  /** The layer's own locks are taken as SQLite goes along. @returns {undefined} */
  take() {
    return undefined
  }

  /** Let others write. */
  giveBack() {
    this.mapPathToFile.get(this.#name)?.writeLock?.release()
  }

  /** Let others have the locks, and hear of their commits no more: they are in other files. */
  abandon() {
    const file = this.mapPathToFile.get(this.#name)
    file?.writeAhead?.close()
    file?.writeLock?.release()
    file?.readLock?.release()
  }

  /** Whether a commit failed. */
  get isDoubtful() {
    return this.#commitFailed
  }

  /** Wait for a checkpoint that is under way, for it goes on with the files' handles after the commit. */
  async settle() {
    try {
      const signal = AbortSignal.timeout(CHECKPOINT_PATIENCE_MS)
      await navigator.locks.request(`${this.#name}#ckpt`, { signal }, () => {})
    } catch (error) {
      if (!isNamed(error, "TimeoutError")) throw error
    }
  }

  /** @override */
  close() {
    for (const handle of [...this.unboundTempFiles, ...this.boundTempFiles.values()]) handle.close()
    // What the layer asked to be told of its end keeps it for ever, and it would keep SQLite's memory: after some
    // 120 databases the browser has no more.
    this._module = null
  }

  /** @override @param {string | null} path @param {number} id @param {number} flags @param {DataView} outFlags */
  jOpen(path, id, flags, outFlags) {
    const code = super.jOpen(path, id, flags, outFlags)
    const file = code === SQLITE_OK ? this.mapIdToFile.get(id) : undefined
    const writeAhead = file?.writeAhead
    if (writeAhead) {
      this.#flushes = file?.waHandles?.map(gather) ?? []
      const checkpoint = writeAhead.checkpoint.bind(writeAhead)
      writeAhead.checkpoint = async (/** @type {any} */ options) => {
        try {
          await checkpoint(options)
        } catch (error) {
          // Nobody waits for a passive one. What it was to write is still in the log, and the next one writes it.
          if (!options?.isPassive) throw error
          this.lastError = error
        }
      }
    }
    return code
  }

  /** @override @param {number} id @param {number} lock */
  jLock(id, lock) {
    const file = this.mapIdToFile.get(id)
    if (file && file.lockState === LOCK_NONE && lock === LOCK_SHARED && !file.writeHint && !file.retryResult) {
      // Writers read the log to its end before they begin; here a reader does, too.
      try {
        file.writeAhead?.isolateForWrite()
      } catch (error) {
        this.lastError = error
        return SQLITE_IOERR_LOCK
      } finally {
        file.writeAhead?.rejoin()
      }
    }
    return super.jLock(id, lock)
  }

  /** @override @param {number} id @param {number} lock */
  jUnlock(id, lock) {
    const file = this.mapIdToFile.get(id)
    if (lock === LOCK_NONE && !file?.retryResult && file?.writeAhead?.isTransactionPending()) file.writeAhead.rollback()
    return super.jUnlock(id, lock)
  }

  /**
   * A journal is only for its own connection, which keeps it in mind: none that is found is to be played back.
   * @override @param {string} path @param {number} flags @param {DataView} outThere
   */
  jAccess(path, flags, outThere) {
    if (!path.endsWith("-journal")) return super.jAccess(path, flags, outThere)
    outThere.setInt32(0, 0, true)
    return SQLITE_OK
  }

  /** @override @param {number} id @param {number} flags */
  jSync(id, flags) {
    const file = this.mapIdToFile.get(id)
    if (!file?.waHandles || Number(file.synchronous) < SYNCHRONOUS_FULL) return super.jSync(id, flags)
    try {
      // Which of the two logs the commit is in depends on whether it filled one.
      for (const flush of this.#flushes) flush()
      return SQLITE_OK
    } catch (error) {
      this.lastError = error
      this.#commitFailed = true
      return isQuota(error) ? SQLITE_FULL : SQLITE_IOERR_FSYNC
    }
  }

  /** @override @param {number} id @param {Uint8Array} data @param {number} at */
  jWrite(id, data, at) {
    return this.#fullOr(super.jWrite(id, data, at))
  }

  /** @override @param {number} id @param {number} operation @param {DataView} argument */
  jFileControl(id, operation, argument) {
    const code = super.jFileControl(id, operation, argument)
    if (operation === FCNTL_SYNC && (code & 0xff) === SQLITE_IOERR) this.#commitFailed = true
    return this.#fullOr(code)
  }

  /** @param {number} code */
  #fullOr(code) {
    const isFull = (code & 0xff) === SQLITE_IOERR && isQuota(this.lastError)
    return isFull ? SQLITE_FULL : code
  }
}

/**
 * The bridge between Python and wa-sqlite on OPFS: whole batches of SQL, synchronously where that is possible.
 *
 * A batch is one call. It runs to its end with direct calls into the synchronous build of SQLite, and
 * returns its reply; only where the file system has to be asked first (another tab holds the lock or the
 * handle) it returns a promise of the reply. Nothing here knows what the SQL is for.
 *
 * Request: JSON text, or the same as UTF-8 bytes, `[mode, [[sql, params], ...]]`, and one `Uint8Array` more
 * per BLOB in it. `mode` is `"read"` or `"write"` (one transaction around all of it) or `"bare"` (none: the
 * caller sends its own BEGIN, COMMIT and ROLLBACK). `params` is a list, or an object for named parameters.
 * Reply: the like, `[[columns, rows, changes], ...]`, or `{"error": [code, message]}`, as text; or as an array
 * of UTF-8 bytes and BLOBs where it is long or has any.
 * Values: null, numbers and text stand for themselves; `{"i": text}` is an integer beyond 2**53,
 * `{"f": text}` a float that JSON would make an integer or cannot write, `{"b": n}` the n-th BLOB.
 *
 * After an error in a transaction it has been rolled back before the reply is given.
 *
 * A database can be taken out whole as the bytes of a SQLite file (`dump`), looked at in memory before it is
 * trusted (`stage`), and replaced whole (`load`).
 *
 * @module
 */

import { isNamed, SQLiteError } from "./errors.js"

const SQLITE_OK = 0, SQLITE_ERROR = 1, SQLITE_BUSY = 5, SQLITE_NOMEM = 7, SQLITE_IOERR = 10, SQLITE_CORRUPT = 11, SQLITE_CANTOPEN = 14, SQLITE_ROW = 100, SQLITE_DONE = 101
const TYPE_INTEGER = 1, TYPE_FLOAT = 2, TYPE_TEXT = 3, TYPE_BLOB = 4
const PREPARE_PERSISTENT = 1
const DESERIALIZE_FREE_ON_CLOSE = 1, DESERIALIZE_RESIZEABLE = 2

/** SQLite's name of a database that has no file, and ends with its worker. */
export const IN_MEMORY = ":memory:"

/** Statements kept prepared. */
const STATEMENT_CACHE_SIZE = 200
/** Text beyond this many characters crosses to Python as bytes, which is far cheaper. */
const LONG_TEXT = 10_000
/** What may lie beside a database's file and belong to it. */
const FILE_SUFFIXES = ["", "-wa0", "-wa1", "-wal", "-journal"]
/** How often a call is made again after the file system was asked, before SQLITE_BUSY is believed. */
const RETRIES = 10

const encoder = new TextEncoder()
// A text may begin with what looks like a byte order mark; it is part of the text.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * @typedef {null | number | string | { i: string } | { f: string } | { b: number }} Value
 * @typedef {{ pointer: number, names: (string | null)[], columns: string[] }} Prepared
 * @typedef {string | [Uint8Array, ...Uint8Array[]]} Reply
 * @typedef {Generator<Promise<unknown>, any, void>} Work  yields what has to be awaited before it can go on
 *
 * What a connection asks of its file layer (`coop.js`, `write-ahead.js`), and of `presence.js`:
 * @typedef {object} Store
 * @property {string} name
 * @property {() => Promise<void> | void} take
 * @property {() => void} giveBack
 * @property {() => void} abandon  let go of the store without touching its files, which are gone
 * @property {() => Promise<void>} settle
 * @property {() => void} close
 * @property {unknown} lastError
 * @property {boolean} isDoubtful
 * @typedef {{ others: boolean, onArrival: () => void, onNewFile: () => void, refresh: () => Promise<void> | void, leave: () => void }} Company
 * @typedef {{ isGone: boolean, look: () => void }} Whereabouts
 */

/** The file layer and the company of a database in memory. @type {Store} */
const NO_FILE = { name: "memory", take() {}, giveBack() {}, abandon() {}, async settle() {}, close() {}, lastError: null, isDoubtful: false }
/** @type {Company} */
const NO_COMPANY = { others: false, onArrival() {}, onNewFile() {}, refresh() {}, leave() {} }
/** @type {Whereabouts} */
const NOWHERE = { isGone: false, look() {} }

/** One open database. Python sends it one request at a time. */
export class Connection {
  /** The name under which a damaged database was set aside, in whose place this one is; empty where there was none. */
  setAside = ""
  /** What to do when a damaged part is come across. */
  onDamage = () => {}
  /** @type {any} */ #module
  /** @type {any} */ #api
  /** @type {Store} */ #vfs
  /** @type {Company} */ #presence
  /** @type {Whereabouts} */ #whereabouts
  #db
  #busy = false
  /** @type {Map<string, Prepared>} least recently used first */ #statements = new Map()
  /** @type {Uint8Array[]} */ #given = []
  /** @type {Uint8Array[]} */ #taken = []

  /**
   * @param {any} module @param {any} api @param {Store} vfs @param {number} db @param {Company} presence
   * @param {Whereabouts} whereabouts
   */
  constructor(module, api, vfs, db, presence, whereabouts) {
    this.#module = module
    this.#api = api
    this.#vfs = vfs
    this.#db = db
    this.#presence = presence
    this.#whereabouts = whereabouts
    presence.onArrival = () => this.#giveWay()
    presence.onNewFile = () => {
      whereabouts.isGone = true
      vfs.abandon()
    }
  }

  /** A new database without a file. @param {any} module @param {any} api */
  static async inMemory(module, api) {
    return new Connection(module, api, NO_FILE, await api.open_v2(IN_MEMORY), NO_COMPANY, NOWHERE)
  }

  /** Whether what this connection knows may differ from what is in the file, after an error: then open another. */
  get isDoubtful() {
    return this.#vfs.isDoubtful
  }

  /**
   * Run one request; see the top of this file. Errors of SQL are in the reply, never thrown.
   *
   * @param {string | Uint8Array} request
   * @param {...Uint8Array} blobs
   * @returns {Reply | Promise<Reply>}
   */
  execute(request, ...blobs) {
    const [mode, statements] = JSON.parse(typeof request === "string" ? request : decoder.decode(request))
    this.#given = blobs
    this.#taken = []
    const work = mode === "bare" ? this.#all(statements) : this.#transaction(mode, statements)
    return drive(this.#replied(this.#inTurn(work)))
  }

  /**
   * All of it at one moment, as the bytes of a SQLite file.
   * @returns {Uint8Array | Promise<Uint8Array>}
   */
  dump() {
    return drive(this.#inTurn(this.#dump()))
  }

  /**
   * Another database, in memory, that begins as this image (of no bytes: empty). It must be closed.
   * @param {Uint8Array} image @returns {Promise<Connection>}
   */
  async stage(image) {
    const staged = await Connection.inMemory(this.#module, this.#api)
    if (!image.length) return staged
    try {
      staged.#become(image)
      return staged
    } catch (error) {
      await staged.close()
      throw error
    }
  }

  /**
   * Replace everything by a sound image, in one transaction, unless the query `unless` finds rows here.
   * @param {Uint8Array} image @param {string} unless  @returns {Promise<boolean>} whether it was replaced
   */
  async load(image, unless) {
    const staged = await this.stage(image)
    try {
      return await drive(this.#inTurn(this.#replace(staged, unless)))
    } finally {
      await staged.close()
    }
  }

  /**
   * What is to be known of the storage: JSON with the names of Python's `StorageInfo`. A request that waits for the
   * store does not keep it waiting.
   * @returns {Promise<string>}
   */
  async describe() {
    const name = this.#fileName()
    const inMemory = !name
    return JSON.stringify({
      kind: inMemory ? "memory" : "opfs",
      vfs: inMemory ? "memory" : this.#vfs.name,
      bytes_used: inMemory ? this.#sizeInMemory() : await sizeOfFiles(name),
      quota: inMemory ? null : ((await navigator.storage.estimate()).quota ?? null),
      persisted: inMemory ? null : await navigator.storage.persisted(),
      sqlite_version: this.#api.libversion(),
    })
  }

  /**
   * Keep nothing from other tabs, not even from one that is yet to come: this worker may not hear it come. Resolves when
   * all is given back, for the browser frees no lock while the worker is busy.
   */
  async rest() {
    this.#giveWay()
    await this.#vfs.settle()
  }

  /** Close the file; the connection is of no use afterwards. */
  async close() {
    if (this.#whereabouts.isGone) {
      this.#vfs.abandon()
      return this.#presence.leave()
    }
    try {
      await this.#vfs.settle()
      for (const prepared of this.#statements.values()) this.#module._sqlite3_finalize(prepared.pointer)
      this.#statements.clear()
      await this.#api.close(this.#db)
    } finally {
      this.#vfs.close()
      this.#presence.leave()
    }
  }

  /** Bytes of a database that has no file. */
  #sizeInMemory() {
    const sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    const [[, [[size]]]] = /** @type {any} */ (drive(this.#all([[sql, []]])))
    return size
  }

  /** @returns {Work} */
  *#dump() {
    const module = this.#module
    yield* this.#one("BEGIN", [])
    const size = module._sqlite3_malloc(8)
    try {
      // Reading takes the lock, after which SQLite has nothing to wait for when it reads all pages.
      const [, [[pages]]] = yield* this.#one("PRAGMA page_count", [])
      // SQLite would write a first page where there is none.
      if (!pages) return new Uint8Array()
      const start = module._sqlite3_serialize(this.#db, 0, size, 0)
      const length = module.getValue(size, "i32")
      if (!start && length > 0) throw new SQLiteError(SQLITE_NOMEM, `no memory for a copy of ${length} bytes`)
      const image = module.HEAPU8.slice(start, start + Math.max(length, 0))
      module._sqlite3_free(start)
      return image
    } finally {
      module._sqlite3_free(size)
      yield* this.#one("ROLLBACK", [])
    }
  }

  /** The path of the file, empty where there is none. */
  #fileName() {
    return this.#module.UTF8ToString(this.#module._sqlite3_db_filename(this.#db, 0))
  }

  /** Take the place of a new database in memory. @param {Uint8Array} image */
  #become(image) {
    const module = this.#module
    const { length } = image
    const memory = module._sqlite3_malloc(length)
    if (!memory) throw new SQLiteError(SQLITE_NOMEM, `no memory for a database of ${length} bytes`)
    module.HEAPU8.set(image, memory)
    const flags = DESERIALIZE_FREE_ON_CLOSE | DESERIALIZE_RESIZEABLE
    // Each of the two 64-bit sizes is passed as its lower and its higher half.
    const code = module._sqlite3_deserialize(this.#db, 0, memory, length, 0, length, 0, flags)
    if (code !== SQLITE_OK) throw this.#error(code, "reading an image")
  }

  /** @param {Connection} staged @param {string} unless @returns {Work} */
  *#replace(staged, unless) {
    const module = this.#module
    for (let attempt = 0; ; attempt++) {
      yield* this.#one("BEGIN IMMEDIATE", [])
      // Up to the copy's lock nothing is awaited. Another tab gets a lock that was given back only while something
      // is, so it has either not been given back, or has to be waited for, and then all begins again.
      if (this.#lookAndRollBack(unless)) return false
      const code = this.#copy(staged)
      if (code === SQLITE_DONE) {
        yield* this.#patiently(() => SQLITE_OK, "")
        return true
      }
      if ((code & 0xff) !== SQLITE_BUSY || !module.retryOps.length || attempt >= RETRIES) {
        throw this.#error(code, "replacing the database")
      }
      const operations = module.retryOps
      module.retryOps = []
      yield Promise.all(operations)
    }
  }

  /** Whether the query finds rows; at once, and with the end of the transaction. @param {string} sql @returns {boolean} */
  #lookAndRollBack(sql) {
    const turns = []
    try {
      turns.push(this.#one(sql, []).next())
    } finally {
      turns.push(this.#one("ROLLBACK", []).next())
    }
    if (!turns.every(({ done }) => done)) throw new SQLiteError(SQLITE_BUSY, "a lock that was held had to be waited for")
    return turns[0].value[1].length > 0
  }

  /** Copy every page of another database here, in one transaction. @param {Connection} staged @returns {number} */
  #copy(staged) {
    const module = this.#module
    const main = module._sqlite3_malloc(5)
    module.stringToUTF8("main", main, 5)
    const backup = module._sqlite3_backup_init(this.#db, main, staged.#db, main)
    module._sqlite3_free(main)
    if (!backup) return module._sqlite3_errcode(this.#db)
    const code = module._sqlite3_backup_step(backup, -1)
    const ended = module._sqlite3_backup_finish(backup)
    return ended === SQLITE_OK ? code : ended
  }

  /**
   * Let other tabs have what was kept for the next request, unless a transaction is open. A tab that is alone keeps
   * it; where there are others, it is given back after each request, for nobody knows how busy this worker is next.
   */
  #giveWay() {
    if (this.#whereabouts.isGone) this.#vfs.abandon()
    else if (!this.#busy && this.#module._sqlite3_get_autocommit(this.#db)) this.#vfs.giveBack()
  }

  /** Work while the store is ours, and let others have it afterwards. @param {Work} work @returns {Work} */
  *#inTurn(work) {
    this.#busy = true
    let broken = false
    try {
      this.#whereabouts.look()
      if (this.#whereabouts.isGone) {
        throw new SQLiteError(SQLITE_CANTOPEN, "its file is gone, somebody has deleted this site's data; reload the page")
      }
      const known = this.#presence.refresh()
      if (known) yield known
      const taken = this.#vfs.take()
      if (taken) yield taken
      return yield* work
    } catch (error) {
      // What is opened anew may be whole again.
      broken = error instanceof SQLiteError && (error.code & 0xff) === SQLITE_IOERR
      throw error
    } finally {
      this.#busy = false
      if (broken || this.#presence.others || this.#whereabouts.isGone) this.#giveWay()
    }
  }

  /** @param {Work} work @returns {Work} */
  *#replied(work) {
    /** @type {unknown} */ let reply
    try {
      reply = yield* work
    } catch (error) {
      const known = error instanceof SQLiteError ? error : new SQLiteError(SQLITE_ERROR, String(error))
      reply = { error: [known.code, known.message] }
    }
    const text = JSON.stringify(reply)
    return text.length > LONG_TEXT || this.#taken.length ? [encoder.encode(text), ...this.#taken] : text
  }

  /** @param {"read" | "write"} mode @param {[string, any][]} statements @returns {Work} */
  *#transaction(mode, statements) {
    if (mode === "read" && statements.length === 1) return yield* this.#all(statements)
    yield* this.#one(mode === "read" ? "BEGIN" : "BEGIN IMMEDIATE", [])
    try {
      const results = yield* this.#all(statements)
      yield* this.#one("COMMIT", [])
      return results
    } catch (error) {
      // SQLite has rolled back by itself after some errors.
      if (!this.#module._sqlite3_get_autocommit(this.#db)) yield* this.#one("ROLLBACK", [])
      throw error
    }
  }

  /** @param {[string, any][]} statements @returns {Work} */
  *#all(statements) {
    const results = []
    for (const [sql, params] of statements) results.push(yield* this.#one(sql, params))
    return results
  }

  /** @param {string} sql @param {Value[] | Record<string, Value>} params @returns {Work} */
  *#one(sql, params) {
    const prepared = yield* this.#prepare(sql)
    const module = this.#module
    const changesBefore = module._sqlite3_total_changes(this.#db)
    try {
      this.#bindAll(prepared, params)
      const rows = []
      while ((yield* this.#patiently(() => module._sqlite3_step(prepared.pointer), sql)) === SQLITE_ROW) {
        // SQLite may have prepared the statement anew, for tables that have changed since.
        if (!rows.length) prepared.columns = this.#columns(prepared.pointer)
        rows.push(this.#row(prepared))
      }
      return [prepared.columns, rows, module._sqlite3_total_changes(this.#db) - changesBefore]
    } finally {
      module._sqlite3_reset(prepared.pointer)
      module._sqlite3_clear_bindings(prepared.pointer)
    }
  }

  /**
   * Make a call that may have to wait for the file system.
   * @param {() => number} call @param {string} sql @returns {Work}
   */
  *#patiently(call, sql) {
    const module = this.#module
    for (let attempt = 0; ; attempt++) {
      const code = call()
      if ((code & 0xff) === SQLITE_BUSY && module.retryOps.length && attempt < RETRIES) {
        const operations = module.retryOps
        module.retryOps = []
        yield Promise.all(operations)
        continue
      }
      if (module.pendingOps.length) {
        const operations = module.pendingOps
        module.pendingOps = []
        yield Promise.all(operations)
      }
      if (code !== SQLITE_OK && code !== SQLITE_ROW && code !== SQLITE_DONE) throw this.#error(code, sql)
      return code
    }
  }

  /** @param {string} sql @returns {Work} */
  *#prepare(sql) {
    const known = this.#statements.get(sql)
    if (known) {
      this.#statements.delete(sql)
      this.#statements.set(sql, known)
      return known
    }
    const module = this.#module
    const bytes = encoder.encode(sql)
    // The SQL, its zero, then two pointers that SQLite fills in: the statement and the rest of the text.
    const size = (bytes.length + 4) & ~3
    const text = module._sqlite3_malloc(size + 8)
    try {
      module.HEAPU8.set(bytes, text)
      module.HEAPU8[text + bytes.length] = 0
      const out = text + size
      yield* this.#patiently(
        () => module._sqlite3_prepare_v3(this.#db, text, bytes.length + 1, PREPARE_PERSISTENT, out, out + 4),
        sql,
      )
      const pointer = module.getValue(out, "*")
      const rest = decoder.decode(module.HEAPU8.subarray(module.getValue(out + 4, "*"), text + bytes.length))
      if (!pointer || rest.replace(/--.*$|\/\*[\s\S]*?\*\//gm, "").trim()) {
        if (pointer) module._sqlite3_finalize(pointer)
        throw new SQLiteError(SQLITE_ERROR, `give one SQL statement at a time, not: ${sql}`)
      }
      const prepared = { pointer, names: this.#parameterNames(pointer), columns: this.#columns(pointer) }
      this.#remember(sql, prepared)
      return prepared
    } finally {
      module._sqlite3_free(text)
    }
  }

  /** @param {string} sql @param {Prepared} prepared */
  #remember(sql, prepared) {
    this.#statements.set(sql, prepared)
    if (this.#statements.size > STATEMENT_CACHE_SIZE) {
      const [oldest, { pointer }] = /** @type {[string, Prepared]} */ (this.#statements.entries().next().value)
      this.#module._sqlite3_finalize(pointer)
      this.#statements.delete(oldest)
    }
  }

  /** @param {number} pointer @returns {(string | null)[]} */
  #parameterNames(pointer) {
    const module = this.#module
    return Array.from({ length: module._sqlite3_bind_parameter_count(pointer) }, (_, index) => {
      const name = module._sqlite3_bind_parameter_name(pointer, index + 1)
      return name ? module.UTF8ToString(name).slice(1) : null
    })
  }

  /** @param {number} pointer @returns {string[]} */
  #columns(pointer) {
    const module = this.#module
    return Array.from({ length: module._sqlite3_column_count(pointer) }, (_, index) =>
      module.UTF8ToString(module._sqlite3_column_name(pointer, index)),
    )
  }

  /** @param {Prepared} prepared @param {Value[] | Record<string, Value>} params */
  #bindAll({ pointer, names }, params) {
    if (Array.isArray(params)) {
      if (params.length !== names.length) {
        throw new SQLiteError(SQLITE_ERROR, `the statement takes ${names.length} parameters, ${params.length} were given`)
      }
      params.forEach((value, index) => this.#bind(pointer, index + 1, value))
      return
    }
    names.forEach((name, index) => {
      if (name === null || !Object.hasOwn(params, name)) {
        throw new SQLiteError(SQLITE_ERROR, `no value was given for parameter ${name === null ? index + 1 : `:${name}`}`)
      }
      this.#bind(pointer, index + 1, /** @type {Value} */ (params[name]))
    })
  }

  /** @param {number} pointer @param {number} index @param {Value} value */
  #bind(pointer, index, value) {
    const module = this.#module
    /** @type {number} */ let code
    if (value === null) {
      code = module._sqlite3_bind_null(pointer, index)
    } else if (typeof value === "string") {
      code = this.#bindBytes(module._sqlite3_bind_text, pointer, index, encoder.encode(value))
    } else if (typeof value === "number") {
      if (value === (value | 0)) code = module._sqlite3_bind_int(pointer, index, value)
      else if (Number.isInteger(value)) code = this.#bindInteger(pointer, index, BigInt(value))
      else code = module._sqlite3_bind_double(pointer, index, value)
    } else if ("i" in value) {
      code = this.#bindInteger(pointer, index, BigInt(value.i))
    } else if ("f" in value) {
      code = module._sqlite3_bind_double(pointer, index, Number(value.f))
    } else {
      const blob = /** @type {Uint8Array} */ (this.#given[value.b])
      code = blob.length
        ? this.#bindBytes(module._sqlite3_bind_blob, pointer, index, blob)
        : module._sqlite3_bind_zeroblob(pointer, index, 0)
    }
    if (code !== SQLITE_OK) throw this.#error(code, `parameter ${index}`)
  }

  /** @param {number} pointer @param {number} index @param {bigint} value */
  #bindInteger(pointer, index, value) {
    if (value !== BigInt.asIntN(64, value)) {
      throw new SQLiteError(SQLITE_ERROR, `parameter ${index}, ${value}, does not fit SQLite's 64-bit integers`)
    }
    return this.#module._sqlite3_bind_int64(pointer, index, Number(value & 0xffffffffn) | 0, Number(value >> 32n))
  }

  /** @param {Function} bind @param {number} pointer @param {number} index @param {Uint8Array} bytes */
  #bindBytes(bind, pointer, index, bytes) {
    const module = this.#module
    const memory = module._sqlite3_malloc(bytes.length || 1)
    if (!memory) throw new SQLiteError(SQLITE_ERROR, `no memory for a parameter of ${bytes.length} bytes`)
    module.HEAPU8.set(bytes, memory)
    return bind(pointer, index, memory, bytes.length, module._getSqliteFree())
  }

  /** @param {Prepared} prepared @returns {Value[]} */
  #row({ pointer, columns }) {
    return columns.map((_, index) => this.#cell(pointer, index))
  }

  /** @param {number} pointer @param {number} index @returns {Value} */
  #cell(pointer, index) {
    const module = this.#module
    switch (module._sqlite3_column_type(pointer, index)) {
      case TYPE_INTEGER: {
        const low = module._sqlite3_column_int64(pointer, index), high = module.getTempRet0()
        // Exact where it is safe, and without a `BigInt` for each number.
        const number = high * 2 ** 32 + (low >>> 0)
        return Number.isSafeInteger(number) ? number : { i: String((BigInt(high) << 32n) | BigInt(low >>> 0)) }
      }
      case TYPE_FLOAT: {
        const number = module._sqlite3_column_double(pointer, index)
        if (Number.isFinite(number) && !Number.isInteger(number)) return number
        return { f: Object.is(number, -0) ? "-0.0" : String(number) }
      }
      case TYPE_TEXT:
        return decoder.decode(this.#bytes(module._sqlite3_column_text, pointer, index))
      case TYPE_BLOB:
        this.#taken.push(this.#bytes(module._sqlite3_column_blob, pointer, index).slice())
        return { b: this.#taken.length - 1 }
      default:
        return null
    }
  }

  /** @param {Function} column @param {number} pointer @param {number} index @returns {Uint8Array} */
  #bytes(column, pointer, index) {
    const start = column(pointer, index)
    return this.#module.HEAPU8.subarray(start, start + this.#module._sqlite3_column_bytes(pointer, index))
  }

  /** @param {number} code @param {string} sql */
  #error(code, sql) {
    const module = this.#module
    const extended = module._sqlite3_extended_errcode(this.#db) || code
    if ((extended & 0xff) === SQLITE_CORRUPT) this.onDamage()
    let message = module.UTF8ToString(module._sqlite3_errmsg(this.#db))
    if ((extended & 0xff) === SQLITE_IOERR) message += `: ${this.#vfs.lastError}`
    return new SQLiteError(extended, `${message} (in: ${sql.trim().split("\n")[0]})`)
  }
}

/**
 * Run work to its end: at once if it never has to wait, else as a promise.
 * @param {Work} work
 */
function drive(work) {
  let turn = work.next()
  if (turn.done) return turn.value
  return (async () => {
    while (!turn.done) {
      try {
        await turn.value
      } catch (error) {
        turn = work.throw(error)
        continue
      }
      turn = work.next()
    }
    return turn.value
  })()
}

/** @param {string} name  of a database in OPFS @returns {Promise<number>} bytes */
async function sizeOfFiles(name) {
  const folders = name.split("/").filter(Boolean)
  const fileName = folders.pop()
  let folder = await navigator.storage.getDirectory()
  for (const each of folders) folder = await folder.getDirectoryHandle(each)
  let size = 0
  for (const suffix of FILE_SUFFIXES) {
    try {
      const handle = await folder.getFileHandle(fileName + suffix)
      size += (await handle.getFile()).size
    } catch (error) {
      if (!isNamed(error, "NotFoundError")) throw error
    }
  }
  return size
}

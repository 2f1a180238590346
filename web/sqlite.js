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
 * Values: null, numbers and text stand for themselves; `["i", text]` is an integer beyond 2**53,
 * `["f", text]` a float that JSON would make an integer or cannot write, `["b", n]` the n-th BLOB.
 *
 * After an error in a transaction it has been rolled back before the reply is given.
 *
 * @module
 */

const SQLITE_OK = 0, SQLITE_ERROR = 1, SQLITE_BUSY = 5, SQLITE_CANTOPEN = 14, SQLITE_ROW = 100, SQLITE_DONE = 101
const TYPE_INTEGER = 1, TYPE_FLOAT = 2, TYPE_TEXT = 3, TYPE_BLOB = 4
const OPEN_READWRITE_CREATE = 6
const PREPARE_PERSISTENT = 1

/** How long to try to open a file whose handles a page that has just gone may still hold. */
const OPEN_PATIENCE_MS = 5000
const OPEN_FIRST_PAUSE_MS = 20
/** Statements kept prepared. */
const STATEMENT_CACHE_SIZE = 200
/** Text beyond this many characters crosses to Python as bytes, which is far cheaper. */
const LONG_TEXT = 10_000
/** Bytes of a database's path, its companions' endings included; wa-sqlite's own limit is 64. */
const LONGEST_PATH = 512
/** How often a call is made again after the file system was asked, before SQLITE_BUSY is believed. */
const RETRIES = 10

const encoder = new TextEncoder()
// A text may begin with what looks like a byte order mark; it is part of the text.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * @typedef {null | number | string | ["i" | "f", string] | ["b", number]} Value
 * @typedef {{ pointer: number, names: (string | null)[], columns: string[] }} Prepared
 * @typedef {string | [Uint8Array, ...Uint8Array[]]} Reply
 * @typedef {Generator<Promise<unknown>, any, void>} Work  yields what has to be awaited before it can go on
 */

/** What SQLite said; `code` is its (extended) result code. */
export class SQLiteError extends Error {
  /** @param {number} code @param {string} message */
  constructor(code, message) {
    super(message)
    this.name = "SQLiteError"
    this.code = code
  }
}

/** The storage that durably needs is not there; the message is for the page's user. */
export class StorageUnavailable extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message)
    this.name = "StorageError"
  }
}

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
  if (encoder.encode(name).length > LONGEST_PATH - 16) {
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

/** One open database. Python sends it one request at a time. */
export class Connection {
  /** @type {any} */ #module
  /** @type {any} */ #api
  /** @type {any} */ #vfs
  #db
  /** @type {Map<string, Prepared>} least recently used first */ #statements = new Map()
  /** @type {Uint8Array[]} */ #given = []
  /** @type {Uint8Array[]} */ #taken = []

  /** @param {any} module @param {any} api @param {any} vfs @param {number} db */
  constructor(module, api, vfs, db) {
    this.#module = module
    this.#api = api
    this.#vfs = vfs
    this.#db = db
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
    return drive(this.#replied(work))
  }

  /** Close the file; the connection is of no use afterwards. */
  async close() {
    for (const prepared of this.#statements.values()) this.#module._sqlite3_finalize(prepared.pointer)
    this.#statements.clear()
    await this.#api.close(this.#db)
    this.#vfs.close()
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
    } else if (value[0] === "i") {
      code = this.#bindInteger(pointer, index, BigInt(value[1]))
    } else if (value[0] === "f") {
      code = module._sqlite3_bind_double(pointer, index, Number(value[1]))
    } else {
      const blob = /** @type {Uint8Array} */ (this.#given[Number(value[1])])
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
        const low = module._sqlite3_column_int64(pointer, index)
        const integer = (BigInt(module.getTempRet0()) << 32n) | BigInt(low >>> 0)
        const number = Number(integer)
        return Number.isSafeInteger(number) ? number : ["i", String(integer)]
      }
      case TYPE_FLOAT: {
        const number = module._sqlite3_column_double(pointer, index)
        if (Number.isFinite(number) && !Number.isInteger(number)) return number
        return ["f", Object.is(number, -0) ? "-0.0" : String(number)]
      }
      case TYPE_TEXT:
        return decoder.decode(this.#bytes(module._sqlite3_column_text, pointer, index))
      case TYPE_BLOB:
        this.#taken.push(this.#bytes(module._sqlite3_column_blob, pointer, index).slice())
        return ["b", this.#taken.length - 1]
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
    const message = module.UTF8ToString(module._sqlite3_errmsg(this.#db))
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

/**
 * The bridge in a worker of its own, for Python in a worker that has no JavaScript of ours: the wheel brings this file,
 * with all that it imports in one, and `durably/databases/bridge.py` starts it.
 *
 * It says `up` when it is ready to hear. The first message is SQLite itself, the bytes of its WebAssembly; every other one
 * a call, `[id, name, ...arguments]`, answered by `[id, undefined, value, isDoubtful]` or `[id, [code, sentence]]`, `code`
 * being SQLite's if it has one. A connection is known by its number. The calls are those of `sqlite.js` and `pulse.js`.
 *
 * @module
 */

import { bringSqlite, openDatabase } from "./opfs.js"
import { preparePulse, startPulse, stopPulse } from "./pulse.js"

/** @typedef {import("./sqlite.js").Connection} Connection */

const NAME = "durably-bridge"

/** @type {Map<number, Connection>} */ const connections = new Map()
let lastNumber = 0

/** @param {Connection} connection */
function keep(connection) {
  connections.set(++lastNumber, connection)
  return [lastNumber, connection.setAside]
}

/** @type {Record<string, (...given: any[]) => unknown>} */
const CALLS = {
  openDatabase: async (name, durability) => keep(await openDatabase(name, { durability })),
  startPulse,
  stopPulse,
}

/** What is asked of a connection. @type {Record<string, (connection: Connection, ...given: any[]) => unknown>} */
const CALLS_OF_CONNECTIONS = {
  execute: (connection, request, ...blobs) => connection.execute(request, ...blobs),
  dump: (connection) => connection.dump(),
  stage: async (connection, image) => keep(await connection.stage(image)),
  load: (connection, image, unless) => connection.load(image, unless),
  describe: (connection) => connection.describe(),
  rest: (connection) => connection.rest(),
}

/** @param {string} name @param {any[]} given */
async function answered(name, given) {
  if (name in CALLS) return [undefined, await CALLS[name](...given), false]
  const [number, ...rest] = given
  const connection = /** @type {Connection} */ (connections.get(number))
  if (name === "close") {
    connections.delete(number)
    return [undefined, await connection.close(), false]
  }
  const value = await CALLS_OF_CONNECTIONS[name](connection, ...rest)
  return [undefined, value, connection.isDoubtful]
}

/** @param {any} error @returns {[number | undefined, string]} */
function described(error) {
  return [typeof error?.code === "number" ? error.code : undefined, error instanceof Error ? error.message : String(error)]
}

// The pulse is a worker of this same file: there is but one.
if (self.name === NAME) {
  self.onmessage = ({ data: sqlite }) => {
    bringSqlite(sqlite)
    self.onmessage = async ({ data: [id, name, ...given] }) => {
      self.postMessage([id, ...(await answered(name, given).catch((error) => [described(error)]))])
    }
  }
  void preparePulse()
  self.postMessage("up")
}

/**
 * A database that SQLite finds damaged: it is looked for after an unclean end, and set aside, never deleted.
 *
 * @module
 */

import { isNamed, SQLiteError } from "./errors.js"

const SQLITE_CORRUPT = 11

/** What may lie beside a database's file and belong to it. */
export const COMPANIONS = ["-journal", "-wa0", "-wa1"]

/** Whether an error says that the file is damaged. @param {unknown} error */
export function isDamage(error) {
  return error instanceof SQLiteError && (error.code & 0xff) === SQLITE_CORRUPT
}

/** Throw if anything is wrong with the file's structure. @param {(sql: string) => Promise<unknown[][]>} query */
export async function checkSoundness(query) {
  const [[found]] = await query("SELECT quick_check FROM pragma_quick_check LIMIT 1")
  if (found !== "ok") throw new SQLiteError(SQLITE_CORRUPT, String(found))
}

/**
 * Give a database that nobody has open another name, under which it can be opened as well.
 *
 * @param {FileSystemDirectoryHandle} folder @param {string} fileName
 * @returns {Promise<string>} the name
 */
export async function setAside(folder, fileName) {
  const name = `${fileName}.corrupt-${new Date().toISOString().replaceAll(/[-:]/g, "")}`
  // The file last: without it, what is beside it would be taken for leftovers.
  for (const suffix of [...COMPANIONS, ""]) {
    try {
      const file = /** @type {any} */ (await folder.getFileHandle(fileName + suffix))
      await file.move(name + suffix)
    } catch (error) {
      if (!isNamed(error, "NotFoundError")) throw error
    }
  }
  return name
}

/**
 * The writes of a transaction to wa-sqlite's log, gathered into one.
 *
 * The layer writes each page in two calls, its header and its content: a dozen calls for a small commit, which take
 * several times as long as one call with all of it. So pages are kept until the header comes that ends them: of a commit,
 * after which other tabs read it, or of a file.
 *
 * @module
 */

/** Of a header in the log: its length in bytes, and what it begins with where a page follows. */
const HEADER_SIZE = 32, PAGE = 0

/** More than this is not kept. */
const MOST_BYTES = 1 << 20

/**
 * Gather what is written through this handle from now on.
 * @param {FileSystemSyncAccessHandle} handle
 * @returns {() => void} flushes what was written through it since it was last flushed, if there is any; `flush` itself also
 *   flushes what others have written
 */
export function gather(handle) {
  /** @type {FileSystemSyncAccessHandle} */ const prototype = Object.getPrototypeOf(handle)
  let kept = new Uint8Array(64 * 1024), length = 0, start = 0
  let isFlushed = false // what was written before this is not known

  function writeKept() {
    if (!length) return
    const bytes = kept.subarray(0, length)
    length = 0
    isFlushed = false
    if (prototype.write.call(handle, bytes, { at: start }) !== bytes.length) throw new Error("write failed")
  }

  /** @param {Uint8Array} bytes */
  function keep(bytes) {
    if (length + bytes.length > kept.length) {
      const larger = new Uint8Array(2 * (length + bytes.length))
      larger.set(kept.subarray(0, length))
      kept = larger
    }
    kept.set(bytes, length)
    length += bytes.length
  }

  handle.write = (data, { at = 0 } = {}) => {
    const bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data)
    if (at !== start + length || length + bytes.length > MOST_BYTES) writeKept()
    if (!length) start = at
    keep(bytes)
    if (bytes.length === HEADER_SIZE && bytes[0] !== PAGE) writeKept()
    return bytes.length
  }
  handle.read = (buffer, options) => {
    writeKept()
    return prototype.read.call(handle, buffer, options)
  }
  handle.getSize = () => {
    writeKept()
    return prototype.getSize.call(handle)
  }
  handle.truncate = (size) => {
    // A transaction is taken back: there may be no room for what it would have written.
    if (start >= size) length = 0
    writeKept()
    isFlushed = false
    prototype.truncate.call(handle, size)
  }
  handle.flush = () => {
    writeKept()
    prototype.flush.call(handle)
    isFlushed = true
  }
  handle.close = () => {
    length = 0 // of a transaction that has not ended
    prototype.close.call(handle)
  }
  return () => {
    if (length || !isFlushed) handle.flush()
  }
}

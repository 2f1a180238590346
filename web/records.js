/**
 * What a page gets from durably and gives to it: types only, as the HTTP API has them.
 *
 * @module
 */

/**
 * @typedef {"pending" | "running" | "completed" | "failed" | "cancelled"} Status
 *
 * @typedef {{ current: number, total: number | null, message: string | null }} Progress
 *
 * @typedef {object} Run
 * @property {string} id
 * @property {string} jobName
 * @property {Status} status
 * @property {any} payload
 * @property {any} output
 * @property {string | null} error
 * @property {Progress | null} progress
 * @property {Record<string, string>} labels
 * @property {number} priority
 * @property {number} completedStepCount
 * @property {number} currentStepIndex
 * @property {string | null} waitingFor  `sleep:NAME`, `signal:NAME` or `run:ID` while it only waits
 * @property {string} runAt  it is not begun before; while it sleeps, the moment at which it wakes up
 * @property {string} createdAt
 * @property {string | null} startedAt
 * @property {string | null} completedAt
 * @property {boolean} isTerminal
 * @property {boolean} isActive
 *
 * @typedef {"created" | "idempotent" | "coalesced"} Disposition  what `trigger` did: the last two, where the run was there already
 *
 * @typedef {object} Step
 * @property {string} name
 * @property {number} index
 * @property {"waiting" | "completed" | "failed" | "cancelled"} status
 * @property {any} output
 * @property {string | null} error
 * @property {number} attempt
 * @property {string} startedAt
 * @property {string | null} completedAt
 *
 * @typedef {object} Log
 * @property {number} id  its number in the run, from 1
 * @property {string | null} stepName
 * @property {"info" | "warning" | "error"} level
 * @property {string} message
 * @property {any} data
 * @property {string} createdAt
 *
 * @typedef {object} Job
 * @property {string} name
 * @property {Record<string, any>} schema  the JSON Schema of its payload; `{}` allows anything
 *
 * @typedef {object} StorageInfo
 * @property {"opfs" | "file" | "memory"} kind
 * @property {string} vfs
 * @property {number} bytesUsed
 * @property {number | null} quota  bytes that the browser gives the whole site
 * @property {boolean | null} persisted  whether the browser has promised not to clear the site's data
 * @property {string} sqliteVersion
 * @property {string} state  `persistent`, `best-effort`, `full`, `waiting for another tab`, `corrupt: set aside as NAME`
 *
 * @typedef {{ type: string, timestamp: string, sequence: number, runId: string | null, jobName: string | null, [fact: string]: any }} DurablyEvent
 *
 * @typedef {object} TriggerOptions
 * @property {string} [idempotencyKey]  one run per key and job, for ever
 * @property {string} [concurrencyKey]  one running run per key at a time
 * @property {"skip"} [coalesce]  a pending run of the job with the `concurrencyKey` is returned, if there is one
 * @property {Record<string, string>} [labels]
 *
 * @typedef {object} Abortable
 * @property {AbortSignal} [signal]  what ends it: then it rejects with the signal's reason
 *
 * @typedef {object} WaitOptions
 * @property {number | null} [timeout]  seconds; after them it rejects with a `TimeoutError`, and the run goes on; default: never
 * @property {(progress: Progress) => void} [onProgress]
 * @property {(event: DurablyEvent) => void} [onLog]  called with each `log:write` of the run
 */

export {}

/**
 * What the dashboard asks of a client: `Durably` of `durably.js` has it all, and so may anything else that is given
 * to the element.
 *
 * @typedef {import("../durably.js").Run} StoredRun
 * @typedef {import("../durably.js").Status} Status
 * @typedef {import("../durably.js").StorageInfo} StorageInfo
 * @typedef {import("../durably.js").DurablyEvent} DurablyEvent
 * @typedef {StoredRun & { waitingFor?: string | null, runAt?: string | null, priority?: number }} Run
 *
 * @typedef {object} Step
 * @property {string} name
 * @property {number} index
 * @property {"completed" | "failed" | "cancelled" | "waiting" | "running"} status
 * @property {unknown} output
 * @property {string | null} error
 * @property {number} attempt
 * @property {string} startedAt
 * @property {string | null} completedAt
 *
 * @typedef {object} Log
 * @property {"info" | "warning" | "error"} level
 * @property {string} message
 * @property {unknown} data
 * @property {string | null} stepName
 * @property {string} createdAt
 *
 * @typedef {{ name: string, schema: unknown }} Job
 * @typedef {{ status?: Status | Status[], jobName?: string | string[], limit?: number, offset?: number }} Filter
 * @typedef {{ idempotencyKey?: string, concurrencyKey?: string, labels?: Record<string, string> }} TriggerOptions
 *
 * @typedef {object} Client
 * @property {(filter?: Filter) => Promise<Run[]>} getRuns  newest first
 * @property {(runId: string) => Promise<Run | null>} getRun
 * @property {(runId: string) => Promise<Step[]>} getSteps
 * @property {(runId: string) => Promise<Log[]>} getLogs
 * @property {() => Promise<Job[]>} jobs
 * @property {() => Promise<StorageInfo>} storageInfo
 * @property {() => Promise<Blob>} export
 * @property {(jobName: string, input: any, options?: TriggerOptions) => Promise<Run>} trigger
 * @property {(runId: string) => Promise<unknown>} cancel
 * @property {(runId: string) => Promise<unknown>} retry
 * @property {(runId: string) => Promise<Run>} retrigger
 * @property {(runId: string) => Promise<unknown>} deleteRun
 * @property {(runId: string, name: string, payload?: any) => Promise<unknown>} signal
 * @property {(type: string, listener: (event: DurablyEvent) => void) => () => void} on
 * @property {() => void} [close]
 */

export {}

/**
 * What the dashboard asks of a client: `Durably` of `durably.js` has it all, and so may anything else that is given
 * to the element.
 *
 * @typedef {import("../records.js").Run} Run
 * @typedef {import("../records.js").Status} Status
 * @typedef {import("../records.js").Step} StoredStep
 * @typedef {Omit<StoredStep, "status"> & { status: StoredStep["status"] | "running" }} Step  the store has none at work
 * @typedef {Omit<import("../records.js").Log, "id">} Log  what an event told has no number
 * @typedef {import("../records.js").Job} Job
 * @typedef {import("../records.js").StorageInfo} StorageInfo
 * @typedef {import("../records.js").DurablyEvent} DurablyEvent
 * @typedef {import("../records.js").TriggerOptions} TriggerOptions
 * @typedef {{ status?: Status | Status[], jobName?: string | string[], limit?: number, offset?: number }} Filter
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
 * @property {(runId: string) => number | null} [begunAt]  when the page's own worker began with a run
 * @property {() => void} [close]
 */

export {}

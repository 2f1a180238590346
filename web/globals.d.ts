// What the type checker cannot find by itself: the globals of workers, and modules that lie elsewhere in the
// finished site than in this folder.

/** The global object of a dedicated worker: cast `globalThis` to it, by way of `unknown`. */
interface DedicatedWorkerGlobalScope extends EventTarget, WindowOrWorkerGlobalScope {
  readonly name: string;
  readonly location: WorkerLocation;
  readonly navigator: WorkerNavigator;
  onmessage: ((event: MessageEvent) => void) | null;
  onmessageerror: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown, transfer: Transferable[]): void;
  postMessage(message: unknown, options?: StructuredSerializeOptions): void;
  close(): void;
}

interface WorkerLocation {
  readonly href: string;
  readonly origin: string;
  readonly search: string;
}

interface WorkerNavigator extends NavigatorLocks, NavigatorStorage {
  readonly userAgent: string;
}

/** The global object of a service worker, as far as it is used here. */
interface ServiceWorkerGlobalScope extends EventTarget, WindowOrWorkerGlobalScope {
  readonly clients: Clients;
  readonly location: WorkerLocation;
  readonly navigator: WorkerNavigator;
  readonly registration: ServiceWorkerRegistration;
  skipWaiting(): Promise<void>;
  addEventListener(type: "install" | "activate", listener: (event: ExtendableEvent) => void): void;
  addEventListener(type: "fetch", listener: (event: FetchEvent) => void): void;
  addEventListener(type: "message", listener: (event: ExtendableMessageEvent) => void): void;
}

interface Client {
  postMessage(message: unknown, transfer: Transferable[]): void;
}

interface Clients {
  claim(): Promise<void>;
  matchAll(options: { type: "window"; includeUncontrolled: boolean }): Promise<Client[]>;
}

interface ExtendableEvent extends Event {
  waitUntil(work: Promise<unknown>): void;
}

interface ExtendableMessageEvent extends ExtendableEvent {
  readonly data: any;
  readonly source: Client | null;
  readonly ports: readonly MessagePort[];
}

interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

interface FileSystemFileHandle {
  /** With the mode that lets several handles be open at once; browsers without it ignore the argument. */
  createSyncAccessHandle(options?: {
    mode?: "readwrite" | "read-only" | "readwrite-unsafe";
  }): Promise<FileSystemSyncAccessHandle>;
}

interface FileSystemSyncAccessHandle {
  /** Absent where the browser knows no modes. */
  readonly mode?: "readwrite" | "read-only" | "readwrite-unsafe";
  close(): void;
  flush(): void;
  getSize(): number;
  read(buffer: AllowSharedBufferSource, options?: { at?: number }): number;
  truncate(newSize: number): void;
  write(buffer: AllowSharedBufferSource, options?: { at?: number }): number;
}

declare module "*/pyodide/pyodide.mjs" {
  export * from "pyodide";
}

declare module "*/durably/durably.js" {
  export * from "durably-web/durably.js";
}

declare module "*/durably/opfs.js" {
  export * from "durably-web/opfs.js";
}

declare module "*/wa-sqlite/dist/wa-sqlite.mjs" {
  /** Compile and start SQLite; the result goes to `Factory`. */
  export default function ModuleFactory(config?: object): Promise<unknown>;
}

declare module "*/wa-sqlite/src/sqlite-api.js" {
  export * from "@journeyapps/wa-sqlite";
}

declare module "*/wa-sqlite/src/sqlite-constants.js" {
  export * from "@journeyapps/wa-sqlite/src/sqlite-constants.js";
}

declare module "*/wa-sqlite/src/FacadeVFS.js" {
  export class FacadeVFS {
    constructor(name: string, module: unknown);
    readonly name: string;
    /** SQLite, whose memory the layer reads and writes. */
    _module: unknown;
    /** The length of a path in bytes, its end included. */
    mxPathname: number;
    isReady(): Promise<boolean>;
    close(): void;
    jOpen(path: string | null, id: number, flags: number, outFlags: DataView): number;
    jDelete(path: string, syncFolder: number): number;
    jAccess(path: string, flags: number, outThere: DataView): number;
    jClose(id: number): number;
    jRead(id: number, data: Uint8Array, at: number): number;
    jWrite(id: number, data: Uint8Array, at: number): number;
    jTruncate(id: number, size: number): number;
    jSync(id: number, flags: number): number;
    jFileSize(id: number, outSize: DataView): number;
    jLock(id: number, lock: number): number;
    jUnlock(id: number, lock: number): number;
    jFileControl(id: number, operation: number, argument: DataView): number;
    jDeviceCharacteristics(id: number): number;
  }
}

declare module "*/wa-sqlite/src/examples/OPFSWriteAheadVFS.js" {
  import { FacadeVFS } from "*/wa-sqlite/src/FacadeVFS.js";
  /** What the layer knows of a file; of a database's, all of it. */
  interface FileEntry {
    lockState?: number;
    writeHint?: "reserved" | "exclusive" | null;
    retryResult?: unknown;
    synchronous?: number;
    waHandles?: FileSystemSyncAccessHandle[];
    readLock?: { release(): void };
    writeLock?: { readonly mode: "shared" | "exclusive" | null; release(): void };
    writeAhead?: { isolateForWrite(): void; rejoin(): void; rollback(): void; isTransactionPending(): boolean; close(): void; checkpoint(options?: { isPassive: boolean }): Promise<void> };
  }
  export class OPFSWriteAheadVFS extends FacadeVFS {
    lastError: unknown;
    mapIdToFile: Map<number, FileEntry>;
    mapPathToFile: Map<string, FileEntry>;
    boundTempFiles: Map<string, FileSystemSyncAccessHandle>;
    unboundTempFiles: Set<FileSystemSyncAccessHandle>;
  }
}

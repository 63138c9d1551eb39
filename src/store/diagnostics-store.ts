import { mkdir } from "node:fs/promises";
import { dirname, extname } from "node:path";
import { Worker } from "node:worker_threads";
import { CjmError } from "../errors/index.ts";
import { DiagnosticsReader } from "./diagnostics-reader.ts";
import type {
  ChunkFilter,
  DiagnosticEntry,
  DiagnosticRecord,
  RecordFilter,
  Retention,
  RetentionResult,
  StoredChunk,
  StoredRecord,
  StreamChunk,
  ThreadReply,
  ThreadRequest,
} from "./diagnostics-records.ts";

const DEFAULT_CAPACITY = 50_000;
/** Characters that may wait; long lines fill the memory before their number does. */
const DEFAULT_CAPACITY_CHARACTERS = 64 * 1024 * 1024;
const MAX_BATCH = 5_000;
const MAX_BATCH_CHARACTERS = 8 * 1024 * 1024;
const MS_PER_DAY = 86_400_000;

export interface DiagnosticsStoreOptions {
  /** Applied to every message, traceback and line before it leaves this thread. */
  readonly redact?: (text: string) => string;
  /** Entries that may wait; beyond that the oldest are dropped and counted. @default 50000 */
  readonly capacity?: number;
  /** Characters of text that may wait, likewise. @default 64 Mi */
  readonly capacityCharacters?: number;
  /** @default the wall clock */
  readonly now?: () => Date;
}

/**
 * The disposable narrative: log records and raw output in `diagnostics.db`.
 *
 * A thread of its own writes it, so that a worker that prints without end costs the run loop no
 * more than the hand-over. Appends never wait and never fail; what could not be kept is counted in
 * `dropped` and told in a record. Close it with `await using`.
 */
export class DiagnosticsStore implements AsyncDisposable {
  readonly #thread: Worker;
  readonly #reader: DiagnosticsReader;
  readonly #redact: (text: string) => string;
  readonly #capacity: number;
  readonly #capacityCharacters: number;
  readonly #now: () => Date;
  readonly #retentions = new Map<number, PromiseWithResolvers<RetentionResult>>();
  #waiting: DiagnosticEntry[] = [];
  /** Entries before this position have been dropped or sent. */
  #head = 0;
  #waitingCharacters = 0;
  #inFlight = false;
  #sendScheduled = false;
  #dropped = 0;
  #droppedTold = 0;
  #failure: CjmError | undefined;
  #appended = 0;
  #nextRetention = 1;
  /** Each waits until this many of the appended entries are written or lost. */
  #flushes: { readonly upTo: number; readonly done: PromiseWithResolvers<void> }[] = [];

  private constructor(thread: Worker, reader: DiagnosticsReader, options: DiagnosticsStoreOptions) {
    this.#thread = thread;
    this.#reader = reader;
    this.#redact = options.redact ?? ((text) => text);
    this.#capacity = options.capacity ?? DEFAULT_CAPACITY;
    this.#capacityCharacters = options.capacityCharacters ?? DEFAULT_CAPACITY_CHARACTERS;
    this.#now = options.now ?? (() => new Date());
    thread.on("message", (reply: ThreadReply) => this.#onReply(reply));
    thread.on("error", (error) => this.#fail(error));
    thread.unref();
  }

  /**
   * Opens (making it if needed) `diagnostics.db` and starts its thread. A damaged file, or one of
   * another version, is moved aside: this store may be lost, and must not keep a host from starting.
   */
  static async open(
    path: string,
    options: DiagnosticsStoreOptions = {},
  ): Promise<DiagnosticsStore> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const thread = new Worker(threadEntry(), { workerData: path, execArgv: [] });
    const { replaced } = await firstReply(thread);
    const reader = DiagnosticsReader.open(path);
    if (reader === undefined) throw unwritable(`${path} has disappeared`);
    const store = new DiagnosticsStore(thread, reader, options);
    if (replaced !== null) store.#note(`${path} could not be used: ${replaced}`);
    return store;
  }

  /** Entries lost so far because the writer could not keep up or could not write. */
  get dropped(): number {
    return this.#dropped;
  }

  appendRecord(record: DiagnosticRecord): void {
    this.#append({
      kind: "record",
      row: [
        record.ts ?? this.#now().toISOString(),
        record.workerSessionId ?? null,
        record.jobId ?? null,
        record.level ?? "info",
        record.loggerName ?? "",
        this.#redact(record.message),
        typeof record.excText === "string" ? this.#redact(record.excText) : null,
      ],
    });
  }

  appendChunk(chunk: StreamChunk): void {
    this.#append({
      kind: "chunk",
      row: [
        chunk.ts ?? this.#now().toISOString(),
        chunk.workerSessionId ?? null,
        chunk.stream,
        this.#redact(chunk.content),
      ],
    });
  }

  /**
   * Resolves when everything appended before is in the database, or has been counted as dropped.
   *
   * @throws {CjmError} `STORE_REJECTED` if the thread has died.
   */
  async flush(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.#inFlight && this.#waitingCount === 0) return;
    const done = Promise.withResolvers<void>();
    this.#flushes.push({ upTo: this.#appended, done });
    this.#keepAlive();
    await done.promise;
  }

  /** Deletes what is older than the age, then the oldest until the size fits. */
  async applyRetention({ maxAgeDays, maxTotalMb }: Retention): Promise<RetentionResult> {
    if (this.#failure !== undefined) throw this.#failure;
    const id = this.#nextRetention;
    this.#nextRetention += 1;
    const done = Promise.withResolvers<RetentionResult>();
    this.#retentions.set(id, done);
    this.#keepAlive();
    const cutoff =
      maxAgeDays === undefined
        ? null
        : new Date(this.#now().getTime() - maxAgeDays * MS_PER_DAY).toISOString();
    const maxBytes = maxTotalMb === undefined ? null : maxTotalMb * 1024 * 1024;
    this.#post({ type: "retain", id, cutoff, maxBytes });
    return done.promise;
  }

  queryRecords(filter?: RecordFilter): Promise<readonly StoredRecord[]> {
    return this.#reader.queryRecords(filter);
  }

  queryChunks(filter?: ChunkFilter): Promise<readonly StoredChunk[]> {
    return this.#reader.queryChunks(filter);
  }

  /** Writes what is waiting, ends the thread and closes the database. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush().catch(() => undefined);
    await this.#reader[Symbol.asyncDispose]();
    if (this.#failure !== undefined) return;
    const ended = Promise.withResolvers<void>();
    this.#thread.once("exit", () => ended.resolve());
    this.#thread.ref();
    this.#failure = unwritable("the store is closed");
    this.#giveUp(this.#failure);
    this.#post({ type: "close" });
    await ended.promise;
  }

  get #waitingCount(): number {
    return this.#waiting.length - this.#head;
  }

  #append(entry: DiagnosticEntry): void {
    if (this.#failure !== undefined) {
      this.#dropped += 1;
      return;
    }
    this.#appended += 1;
    this.#waiting.push(entry);
    this.#waitingCharacters += lengthOf(entry);
    while (this.#isOverfull) this.#dropOldest();
    if (this.#inFlight || this.#sendScheduled) return;
    this.#sendScheduled = true;
    setImmediate(() => {
      this.#sendScheduled = false;
      if (!this.#inFlight) this.#send();
    });
  }

  get #isOverfull(): boolean {
    if (this.#waitingCount > this.#capacity) return true;
    return this.#waitingCharacters > this.#capacityCharacters && this.#waitingCount > 1;
  }

  #dropOldest(): void {
    const oldest = this.#waiting[this.#head];
    if (oldest !== undefined) this.#waitingCharacters -= lengthOf(oldest);
    this.#head += 1;
    this.#dropped += 1;
    if (this.#head <= this.#capacity) return;
    this.#waiting = this.#waiting.slice(this.#head);
    this.#head = 0;
  }

  /** One batch is under way at a time: what the thread cannot take waits here, where it is bounded. */
  #send(): void {
    if (this.#dropped > this.#droppedTold) {
      const lost = this.#dropped - this.#droppedTold;
      this.#droppedTold = this.#dropped;
      this.#note(`${lost} diagnostic entries were dropped: the writer could not keep up`);
    }
    const entries = this.#nextBatch();
    if (entries.length === 0) return;
    this.#head += entries.length;
    if (this.#waitingCount === 0) {
      this.#waiting = [];
      this.#head = 0;
    }
    this.#inFlight = true;
    this.#post({ type: "append", entries });
  }

  /** Handing a batch over copies it in this thread: its size bounds how long that takes. */
  #nextBatch(): readonly DiagnosticEntry[] {
    let end = this.#head;
    let characters = 0;
    while (end < Math.min(this.#waiting.length, this.#head + MAX_BATCH)) {
      const entry = this.#waiting[end];
      characters += entry === undefined ? 0 : lengthOf(entry);
      if (characters > MAX_BATCH_CHARACTERS && end > this.#head) break;
      if (entry !== undefined) this.#waitingCharacters -= lengthOf(entry);
      end += 1;
    }
    return this.#waiting.slice(this.#head, end);
  }

  #note(message: string): void {
    this.appendRecord({ level: "warning", loggerName: "cjm.diagnostics", message });
  }

  #post(request: ThreadRequest): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#thread.postMessage(request);
  }

  #onReply(reply: ThreadReply): void {
    if (reply.type === "retained") this.#onRetained(reply);
    if (reply.type !== "written") return;
    this.#inFlight = false;
    this.#dropped += reply.lost;
    this.#settleFlushes();
    this.#send();
  }

  #onRetained(reply: Extract<ThreadReply, { type: "retained" }>): void {
    const waiting = this.#retentions.get(reply.id);
    this.#retentions.delete(reply.id);
    this.#keepAlive();
    if (reply.result === null) waiting?.reject(unwritable(reply.reason ?? "unknown"));
    else waiting?.resolve(reply.result);
  }

  #settleFlushes(): void {
    const settled = this.#appended - this.#waitingCount;
    const isDone = ({ upTo }: { readonly upTo: number }): boolean => upTo <= settled;
    for (const { done } of this.#flushes.filter(isDone)) done.resolve();
    this.#flushes = this.#flushes.filter((flush) => !isDone(flush));
    this.#keepAlive();
  }

  /** The thread keeps the process alive only while somebody waits for it. */
  #keepAlive(): void {
    if (this.#flushes.length > 0 || this.#retentions.size > 0) this.#thread.ref();
    else this.#thread.unref();
  }

  #fail(error: unknown): void {
    this.#failure = unwritable(error instanceof Error ? error.message : String(error), error);
    this.#dropped += this.#waitingCount;
    this.#waiting = [];
    this.#waitingCharacters = 0;
    this.#head = 0;
    this.#giveUp(this.#failure);
  }

  #giveUp(failure: CjmError): void {
    for (const { done } of this.#flushes.splice(0)) done.reject(failure);
    for (const waiting of this.#retentions.values()) waiting.reject(failure);
    this.#retentions.clear();
  }
}

/** Characters of everything in a row that may be long. */
function lengthOf({ row }: DiagnosticEntry): number {
  let length = 0;
  for (const value of row) length += value?.length ?? 0;
  return length;
}

/** Beside this file and of its kind: `.ts` from source, `.js` from a build. */
function threadEntry(): URL {
  return new URL(`./diagnostics-thread${extname(import.meta.url)}`, import.meta.url);
}

function firstReply(thread: Worker): Promise<Extract<ThreadReply, { type: "ready" }>> {
  const { promise, resolve, reject } =
    Promise.withResolvers<Extract<ThreadReply, { type: "ready" }>>();
  thread.once("error", (error) => reject(unwritable(String(error), error)));
  thread.once("message", (reply: ThreadReply) => {
    if (reply.type === "ready") resolve(reply);
    else reject(unwritable("the thread did not start"));
  });
  return promise;
}

function unwritable(reason: string, cause?: unknown): CjmError {
  return new CjmError("STORE_REJECTED", `Diagnostics cannot be written: ${reason}`, { cause });
}

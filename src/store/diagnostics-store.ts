import { mkdir } from "node:fs/promises";
import { dirname, extname } from "node:path";
import { Worker } from "node:worker_threads";
import { CjmError } from "../errors/index.ts";
import { DiagnosticsReader } from "./diagnostics-reader.ts";
import type {
  ChunkFilter,
  DiagnosticEntry,
  DiagnosticRecord,
  FrameLines,
  OutputLines,
  RecordFilter,
  Retention,
  RetentionResult,
  StoredChunk,
  StoredRecord,
  StreamChunk,
  ThreadData,
  ThreadReply,
  ThreadRequest,
} from "./diagnostics-records.ts";
import { countOf, sizeOf } from "./diagnostics-rows.ts";

const DEFAULT_CAPACITY = 500_000;
/** Characters that may wait; long lines fill the memory before their number does. */
const DEFAULT_CAPACITY_CHARACTERS = 64 * 1024 * 1024;
/** Entries in one batch, each of which may be a chunk of many lines. */
const MAX_BATCH = 5_000;
const MAX_BATCH_CHARACTERS = 2 * 1024 * 1024;
/** What comes in less time after a batch waits for company: each batch is a commit. */
const BATCH_MS = 20;
/** Characters between two looks at the size, or a quarter of a small budget. */
const LOOK_AT_SIZE_EVERY = 64 * 1024 * 1024;
const MS_PER_DAY = 86_400_000;

export interface DiagnosticsStoreOptions {
  /** Values that are taken out of every message, traceback and line before it is written. */
  readonly secrets?: readonly string[];
  /** Lines and records that may wait; beyond that the oldest are dropped and counted. @default 500000 */
  readonly capacity?: number;
  /** Characters that may wait, likewise. @default 64 Mi */
  readonly capacityCharacters?: number;
  /** Size of the database in MiB that is kept to while it is written. @default none */
  readonly maxTotalMb?: number | undefined;
  /** @default the wall clock */
  readonly now?: () => Date;
}

/**
 * The disposable narrative: log records and raw output in `diagnostics.db`.
 *
 * A thread of its own parses, redacts and writes it, so that a worker that prints without end costs
 * the run loop no more than the hand-over of a chunk. Appends never wait and never fail; what could
 * not be kept is counted in `dropped` and told in a record. Close it with `await using`.
 */
export class DiagnosticsStore implements AsyncDisposable {
  readonly #thread: Worker;
  readonly #reader: DiagnosticsReader;
  readonly #capacity: number;
  readonly #capacityCharacters: number;
  readonly #maxTotalMb: number | undefined;
  readonly #now: () => Date;
  readonly #retentions = new Map<number, PromiseWithResolvers<RetentionResult>>();
  #waiting: DiagnosticEntry[] = [];
  /** Entries before this position have been dropped or sent. */
  #head = 0;
  #waitingLines = 0;
  #waitingCharacters = 0;
  #inFlight = false;
  #sendScheduled = false;
  #lastSent = 0;
  #sentSinceLook = 0;
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
    this.#capacity = options.capacity ?? DEFAULT_CAPACITY;
    this.#capacityCharacters = options.capacityCharacters ?? DEFAULT_CAPACITY_CHARACTERS;
    this.#maxTotalMb = options.maxTotalMb;
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
    const workerData: ThreadData = { path, secrets: options.secrets ?? [] };
    const thread = new Worker(threadEntry(), { workerData, execArgv: [] });
    const { replaced } = await firstReply(thread);
    const reader = DiagnosticsReader.open(path);
    if (reader === undefined) throw unwritable(`${path} has disappeared`);
    const store = new DiagnosticsStore(thread, reader, options);
    if (replaced !== null) store.#note(`${path} could not be used: ${replaced}`);
    return store;
  }

  /** Takes these values, too, out of everything that is appended from now on. */
  learn(secrets: readonly string[]): void {
    if (this.#failure === undefined) this.#post({ type: "learn", secrets });
  }

  /** Lines and records lost so far because the writer could not keep up or could not write. */
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
        record.message,
        record.excText ?? null,
      ],
    });
  }

  appendChunk({ ts, workerSessionId, stream, content }: StreamChunk): void {
    this.#append({
      kind: "chunk",
      row: [ts ?? this.#now().toISOString(), workerSessionId ?? null, stream, content],
    });
  }

  /** Takes over the memory of the lines; a line that is no log frame is kept as a warning. */
  appendFrames(frames: FrameLines): void {
    this.#append({ kind: "frames", ts: this.#now().toISOString(), ...frames });
  }

  /** Takes over the memory of the lines. */
  appendOutput(output: OutputLines): void {
    this.#append({ kind: "output", ts: this.#now().toISOString(), ...output });
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
    if (!this.#inFlight) this.#send();
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
    const count = countOf(entry);
    if (this.#failure !== undefined) {
      this.#dropped += count;
      return;
    }
    this.#appended += count;
    this.#waiting.push(entry);
    this.#waitingLines += count;
    this.#waitingCharacters += sizeOf(entry);
    while (this.#isOverfull) this.#dropOldest();
    if (!this.#inFlight) this.#schedule();
  }

  get #isOverfull(): boolean {
    if (this.#waitingLines <= this.#capacity && this.#waitingCharacters <= this.#capacityCharacters)
      return false;
    return this.#waitingCount > 1;
  }

  #dropOldest(): void {
    const oldest = this.#waiting[this.#head];
    if (oldest !== undefined) {
      this.#leave(oldest);
      this.#dropped += countOf(oldest);
    }
    this.#head += 1;
    // The array is shortened now and then, so that dropping is cheap and what was dropped can go.
    if (this.#head * 2 <= this.#waiting.length) return;
    this.#waiting = this.#waiting.slice(this.#head);
    this.#head = 0;
  }

  #leave(entry: DiagnosticEntry): void {
    this.#waitingLines -= countOf(entry);
    this.#waitingCharacters -= sizeOf(entry);
  }

  /** At once after a pause, else in company; a flush does not wait for it. */
  #schedule(): void {
    if (this.#sendScheduled) return;
    this.#sendScheduled = true;
    const send = (): void => {
      this.#sendScheduled = false;
      if (!this.#inFlight) this.#send();
    };
    const pauseMs = this.#lastSent + BATCH_MS - performance.now();
    if (pauseMs > 0) setTimeout(send, pauseMs);
    else setImmediate(send);
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
    this.#lastSent = performance.now();
    const moved = entries.flatMap((entry) => ("lines" in entry ? entry.lines.bytes.buffer : []));
    this.#post({ type: "append", entries }, moved);
    this.#keepSize();
  }

  /** Retention deletes old rows when a host starts; a flood would fill the disk until the next one does. */
  #keepSize(): void {
    const maxTotalMb = this.#maxTotalMb;
    if (maxTotalMb === undefined) return;
    const every = Math.min(LOOK_AT_SIZE_EVERY, (maxTotalMb * 1024 * 1024) / 4);
    if (this.#sentSinceLook < every) return;
    this.#sentSinceLook = 0;
    // A failure to write is told where it is counted: with the entries that are lost by it.
    this.applyRetention({ maxTotalMb }).catch(() => undefined);
  }

  /** Its size bounds what is lost with it, and how long a flush waits that comes after it. */
  #nextBatch(): readonly DiagnosticEntry[] {
    let end = this.#head;
    let characters = 0;
    while (end < Math.min(this.#waiting.length, this.#head + MAX_BATCH)) {
      const entry = this.#waiting[end];
      if (entry === undefined) break;
      characters += sizeOf(entry);
      if (characters > MAX_BATCH_CHARACTERS && end > this.#head) break;
      this.#leave(entry);
      this.#sentSinceLook += sizeOf(entry);
      end += 1;
    }
    return this.#waiting.slice(this.#head, end);
  }

  #note(message: string): void {
    this.appendRecord({ level: "warning", loggerName: "cjm.diagnostics", message });
  }

  #post(request: ThreadRequest, moved: readonly ArrayBuffer[] = []): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#thread.postMessage(request, moved);
  }

  #onReply(reply: ThreadReply): void {
    if (reply.type === "retained") this.#onRetained(reply);
    if (reply.type !== "written") return;
    this.#inFlight = false;
    this.#dropped += reply.lost;
    this.#settleFlushes();
    const isWaitedFor = this.#flushes.length > 0 || this.#waitingCharacters > MAX_BATCH_CHARACTERS;
    if (isWaitedFor || this.#dropped > this.#droppedTold) this.#send();
    else if (this.#waitingCount > 0) this.#schedule();
  }

  #onRetained(reply: Extract<ThreadReply, { type: "retained" }>): void {
    const waiting = this.#retentions.get(reply.id);
    this.#retentions.delete(reply.id);
    this.#keepAlive();
    if (reply.result === null) waiting?.reject(unwritable(reply.reason ?? "unknown"));
    else waiting?.resolve(reply.result);
  }

  #settleFlushes(): void {
    const settled = this.#appended - this.#waitingLines;
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
    this.#dropped += this.#waitingLines;
    this.#waiting = [];
    this.#waitingLines = 0;
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

import { readFileSync } from "node:fs";
import { CjmError } from "../errors/index.ts";
import { openProcessReader, type ProcessReader } from "../telemetry/index.ts";

/** What a process tree has done so far. */
interface Activity {
  readonly cpuMs: number;
  readonly rssBytes: number;
  /** Bytes read and written, the page cache included. */
  readonly ioBytes: number;
}

/** Growth below these is the idling of a runtime, not work. */
const WORK = { cpuShare: 0.01, cpuMs: 30, rssBytes: 1 << 20, ioBytes: 64 << 10 } as const;
const LOOKS_PER_THRESHOLD = 4;
const LONGEST_INTERVAL_MS = 1_000;

export interface StallWatchOptions {
  readonly pid: number;
  readonly capability: string;
  /** What the worker is doing, for the message. */
  readonly phase: string;
  readonly thresholdMs: number;
}

/**
 * Notices that a worker which loads something has stopped doing so: for `thresholdMs` it reported
 * no progress and its process tree neither used the CPU, nor read or wrote, nor grew.
 *
 * `signal` aborts then, with `PREFETCH_STALLED`. Dispose it to stop watching.
 */
export class StallWatch implements Disposable {
  readonly signal: AbortSignal;
  readonly #stalled = new AbortController();
  readonly #options: StallWatchOptions;
  readonly #reader: ProcessReader;
  readonly #timer: NodeJS.Timeout;
  #base: Activity | undefined;
  #lastWorkAt = performance.now();
  #isLooking = false;

  constructor(options: StallWatchOptions, reader: ProcessReader = openProcessReader()) {
    this.signal = this.#stalled.signal;
    this.#options = options;
    this.#reader = reader;
    const interval = Math.min(LONGEST_INTERVAL_MS, options.thresholdMs / LOOKS_PER_THRESHOLD);
    this.#timer = setInterval(() => void this.#look(), interval);
    this.#timer.unref();
  }

  /** The worker reported progress. */
  progressed(): void {
    this.#lastWorkAt = performance.now();
    this.#base = undefined;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      this.#judge(await this.#activity());
    } catch {
      // A tree that cannot be read is judged by its progress reports alone.
      this.#judge(this.#base);
    } finally {
      this.#isLooking = false;
    }
  }

  #judge(now: Activity | undefined): void {
    const idleMs = performance.now() - this.#lastWorkAt;
    const base = this.#base;
    if (base === undefined || now === undefined) {
      this.#base = now;
    } else if (isWork(base, now, idleMs)) {
      this.progressed();
      this.#base = now;
      return;
    }
    if (idleMs < this.#options.thresholdMs) return;
    const { capability, phase, thresholdMs } = this.#options;
    this[Symbol.dispose]();
    this.#stalled.abort(
      new CjmError(
        "PREFETCH_STALLED",
        `Worker of "${capability}" showed no progress in ${phase} for ${thresholdMs / 1_000} s`,
        { details: { capability, phase, thresholdMs } },
      ),
    );
  }

  async #activity(): Promise<Activity> {
    const tree = await this.#reader.tree(this.#options.pid);
    const activity = { cpuMs: 0, rssBytes: 0, ioBytes: 0 };
    for (const { pid, cpuMs, rssBytes } of tree) {
      activity.cpuMs += cpuMs;
      activity.rssBytes += rssBytes;
      activity.ioBytes += ioBytes(pid);
    }
    return activity;
  }
}

function isWork(base: Activity, now: Activity, elapsedMs: number): boolean {
  return (
    now.cpuMs - base.cpuMs >= Math.max(WORK.cpuMs, elapsedMs * WORK.cpuShare) ||
    now.ioBytes - base.ioBytes >= WORK.ioBytes ||
    now.rssBytes - base.rssBytes >= WORK.rssBytes
  );
}

/** 0 where the system does not say. */
function ioBytes(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/io`, "latin1");
    const sum = [...text.matchAll(/^[rw]char: (?<bytes>\d+)$/gmu)];
    return sum.reduce((bytes, match) => bytes + Number(match.groups?.["bytes"]), 0);
  } catch {
    return 0;
  }
}

/** How often each key has stalled since the host started. */
export class StallLedger {
  readonly #counts = new Map<string, number>();

  /** The error of a stall: what has stalled before will do so again, and is not tried again. */
  record(key: string, error: CjmError): CjmError {
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    if (count === 1) return error;
    return new CjmError(error.code, `${error.message}, for the ${ordinal(count)} time`, {
      cause: error,
      category: "fatal",
      details: error.details,
    });
  }
}

function ordinal(count: number): string {
  return count === 2 ? "second" : count === 3 ? "third" : `${count}th`;
}

import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CjmError } from "../errors/index.ts";
import type { Envelope } from "../protocol/index.ts";
import { compact } from "../util/compact.ts";
import type { Call, MemoryPeak, WorkerLogger } from "./capability.ts";
import type { FrameSink } from "./control-stream.ts";
import { beat } from "./heartbeat.ts";
import type { ProgressReports } from "./progress.ts";

/** Has `left` called if the host closes the connection before it has the answer. */
export type OnLeft = (left: () => void) => void;

/** What a call needs from the worker it runs in. */
export interface CallHost {
  readonly sink: FrameSink;
  readonly progress: ProgressReports;
  /** Sums over all calls of the worker. */
  readonly usage: Record<string, number>;
  readonly config: unknown;
  dataFolder(): string;
  createLog(jobId: string | undefined): WorkerLogger;
  invoke(call: RunningCall, action: string, input: unknown): Promise<unknown>;
}

/** The longest delay a timer can take. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** One call from its request to its answer. */
export class RunningCall implements Call {
  readonly envelope: Envelope;
  readonly config: unknown;
  readonly log: WorkerLogger;
  readonly jobId: string | undefined;
  readonly #host: CallHost;
  readonly #controller = new AbortController();
  readonly #deadline: NodeJS.Timeout | undefined;
  #outputFolder: string | undefined;
  #hasFolder = false;
  #progress = -1;
  #isOver = false;

  constructor(host: CallHost, envelope: Envelope) {
    this.#host = host;
    this.envelope = envelope;
    this.config = host.config;
    this.jobId = envelope.job_id ?? undefined;
    this.log = host.createLog(this.jobId);
    this.#outputFolder = envelope.output_folder ?? undefined;
    const deadlineMs = envelope.deadline_ms ?? Infinity;
    if (deadlineMs <= MAX_TIMER_MS) {
      this.#deadline = setTimeout(() => {
        this.abort(new CjmError("CAPABILITY_TIMEOUT", `deadline of ${deadlineMs} ms passed`));
      }, deadlineMs);
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get dataFolder(): string {
    return this.#host.dataFolder();
  }

  get outputFolder(): string {
    this.#outputFolder ??= mkdtempSync(join(tmpdir(), "cjm-output-"));
    // What a tool does behind a call that is over must not bring back what the host has removed.
    if (!this.#hasFolder && !this.#isOver) mkdirSync(this.#outputFolder, { recursive: true });
    this.#hasFolder = true;
    return this.#outputFolder;
  }

  abort(reason: CjmError): void {
    this.#controller.abort(reason);
  }

  readonly progress = (fraction: number, message = ""): void => {
    this.#progress = fraction;
    this.#report(message);
  };

  readonly usage = (units: Readonly<Record<string, number>>): void => {
    const totals = this.#host.usage;
    for (const [unit, amount] of Object.entries(units)) {
      totals[unit] = (totals[unit] ?? 0) + amount;
    }
    this.#host.sink.send(compact({ type: "usage" as const, job_id: this.jobId, units }));
  };

  readonly account = (eventType: string, payload: Readonly<Record<string, unknown>> = {}): void => {
    this.#host.sink.send(
      compact({ type: "account" as const, job_id: this.jobId, event_type: eventType, payload }),
    );
  };

  readonly memory = (peak: MemoryPeak): void => {
    this.#host.sink.send(
      compact({
        type: "memory" as const,
        job_id: this.jobId,
        gpu_peak_mb: peak.gpuPeakMb,
        host_peak_mb: peak.hostPeakMb,
      }),
    );
  };

  readonly heartbeat = <T>(message: string, work: () => Promise<T>): Promise<T> => {
    return beat(work, (elapsed) => {
      this.#report(`${message} (${elapsed} s)`);
    });
  };

  readonly invoke = (action: string, input: unknown): Promise<unknown> => {
    return this.#host.invoke(this, action, input);
  };

  /** What the tool still does behind a call that is over makes no progress of it. */
  #report(message: string): void {
    if (!this.#isOver) this.#host.progress.report(this.jobId, this.#progress, message);
  }

  /** Ends the call: no deadline passes any more. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    clearTimeout(this.#deadline);
  }
}

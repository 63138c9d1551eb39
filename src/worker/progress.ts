import { compact } from "../util/compact.ts";
import type { FrameSink } from "./control-stream.ts";

export interface Progress {
  readonly progress: number;
  readonly message: string;
}

interface Reported {
  latest: Progress;
  timer: NodeJS.Timeout | undefined;
  pending: boolean;
}

/** Keeps a job at ten frames in any second, the closing one included. */
const INTERVAL_MS = 125;
const NOTHING: Progress = { progress: 0, message: "" };

/** Progress per job: the latest state for whoever asks, frames at a bounded rate (last one wins). */
export class ProgressReports {
  readonly #sink: FrameSink;
  readonly #jobs = new Map<string | undefined, Reported>();
  #last: Progress = NOTHING;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** The latest of one job, or without an id the latest of all. */
  latest(jobId?: string): Progress {
    if (jobId === undefined) return this.#last;
    return this.#jobs.get(jobId)?.latest ?? NOTHING;
  }

  report(jobId: string | undefined, fraction: number, message: string): void {
    const latest = { progress: normalized(fraction), message };
    this.#last = latest;
    const job = this.#jobs.get(jobId);
    if (job?.timer !== undefined) {
      job.latest = latest;
      job.pending = true;
      return;
    }
    this.#emit(jobId, { latest, timer: undefined, pending: false });
  }

  /** Sends what still waits and forgets the job. */
  finish(jobId: string | undefined): void {
    const job = this.#jobs.get(jobId);
    if (job === undefined) return;
    clearTimeout(job.timer);
    if (job.pending) this.#send(jobId, job.latest);
    this.#jobs.delete(jobId);
  }

  #emit(jobId: string | undefined, job: Reported): void {
    this.#jobs.set(jobId, job);
    job.pending = false;
    this.#send(jobId, job.latest);
    job.timer = setTimeout(() => {
      job.timer = undefined;
      if (job.pending) this.#emit(jobId, job);
    }, INTERVAL_MS).unref();
  }

  #send(jobId: string | undefined, { progress, message }: Progress): void {
    this.#sink.send(compact({ type: "progress" as const, job_id: jobId, progress, message }));
  }
}

/** 0..1, or -1 where the amount of work is unknown. */
function normalized(fraction: number): number {
  return fraction >= 0 ? Math.min(1, fraction) : -1;
}

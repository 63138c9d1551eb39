import type { WorkerFrame } from "../protocol/index.ts";
import type { ExecutionEvents } from "../queue/executor.ts";

const MAX_UNITS = 100;

/** What a running call has reported so far. */
export interface ActiveCall {
  readonly events: ExecutionEvents;
  readonly usage: Record<string, number>;
  gpuPeakMb: number | null;
  hostPeakMb: number | null;
}

/** The calls that run in one worker, by job id; routes the worker's frames to them. */
export class ActiveCalls {
  readonly #calls = new Map<string, ActiveCall>();
  #idle: PromiseWithResolvers<void> | undefined;

  get size(): number {
    return this.#calls.size;
  }

  begin(jobId: string, events: ExecutionEvents): ActiveCall {
    const call: ActiveCall = { events, usage: {}, gpuPeakMb: null, hostPeakMb: null };
    this.#calls.set(jobId, call);
    return call;
  }

  end(jobId: string): void {
    this.#calls.delete(jobId);
    if (this.#calls.size > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** Resolves as soon as no call runs. */
  async idle(): Promise<void> {
    while (this.#calls.size > 0) {
      this.#idle ??= Promise.withResolvers<void>();
      await this.#idle.promise;
    }
  }

  /** Takes a frame that belongs to a call. A frame of a call that is over is late and dropped. */
  route(frame: WorkerFrame): void {
    if (!("job_id" in frame) || frame.job_id == null) return;
    const call = this.#calls.get(frame.job_id);
    if (call === undefined) return;
    switch (frame.type) {
      case "progress":
        call.events.progress(frame.progress, frame.message);
        return;
      case "account":
        call.events.account(frame.event_type, frame.payload);
        return;
      case "usage":
        addUsage(call, frame.units);
        return;
      case "memory":
        call.gpuPeakMb = higher(call.gpuPeakMb, frame.gpu_peak_mb);
        call.hostPeakMb = higher(call.hostPeakMb, frame.host_peak_mb);
        return;
      case "log":
        return;
    }
  }
}

/** Units are summed and never interpreted; a call has at most 100 of them, and finite ones. */
export function addUsage(call: ActiveCall, units: Readonly<Record<string, number>>): void {
  for (const [unit, amount] of Object.entries(units)) {
    const known = Object.hasOwn(call.usage, unit);
    if (!known && Object.keys(call.usage).length >= MAX_UNITS) continue;
    const sum = (known ? (call.usage[unit] ?? 0) : 0) + amount;
    if (Number.isFinite(sum) && unit !== "__proto__") call.usage[unit] = sum;
  }
}

function higher(known: number | null, reported: number | null | undefined): number | null {
  if (reported == null) return known;
  return Math.max(known ?? 0, reported);
}

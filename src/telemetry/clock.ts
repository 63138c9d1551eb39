import { setTimeout as sleep } from "node:timers/promises";

/** Time as telemetry uses it: monotonic, in milliseconds. */
export interface TelemetryClock {
  now(): number;
  /** Resolves after `ms`, or rejects when `signal` aborts. Must not keep the process alive. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const monotonicClock: TelemetryClock = {
  now: () => performance.now(),
  sleep: async (ms, signal) => {
    await sleep(ms, undefined, { ref: false, ...(signal && { signal }) });
  },
};

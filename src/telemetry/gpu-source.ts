import { monotonicClock, type TelemetryClock } from "./clock.ts";
import { sampleFromOriginal } from "./gpu-sample.ts";

/**
 * Where GPU samples come from: the host connects this to the monitor worker's `watch`.
 *
 * Several streams may be open at once for a moment, while the rate changes. Chunks are checked by the
 * reader, so an implementation passes on what the worker sent.
 */
export interface GpuSource {
  /** Chunks at about `hz`, until `signal` aborts or the worker ends. */
  watch(hz: number, signal: AbortSignal): AsyncIterable<unknown>;
}

/** The two questions a monitor of the original answers. */
export interface OriginalMonitor {
  getSystemStatus(): Promise<unknown>;
  listProcesses(): Promise<unknown>;
}

/** A monitor of the original asks its driver anew for every answer, so it is not asked faster. */
const ORIGINAL_MAX_HZ = 2;

/** A monitor that does not stream, asked again and again. */
export function pollingSource(
  monitor: OriginalMonitor,
  clock: TelemetryClock = monotonicClock,
): GpuSource {
  return {
    async *watch(hz, signal) {
      const periodMs = 1000 / Math.min(hz, ORIGINAL_MAX_HZ);
      while (!signal.aborted) {
        const [status, processes] = await Promise.all([
          monitor.getSystemStatus(),
          monitor.listProcesses(),
        ]);
        yield sampleFromOriginal(status, processes);
        await clock.sleep(periodMs, signal).catch(() => undefined);
      }
    },
  };
}

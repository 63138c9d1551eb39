import { makeGpu } from "../../../workers/gpu-monitor/gpu.ts";
import type { Gpu, Reading, Sample } from "../../../workers/gpu-monitor/model.ts";
import type { MonitorClock } from "../../../workers/gpu-monitor/monitor.ts";
import type { DeviceSource } from "../../../workers/gpu-monitor/sources/source.ts";

export const GIB = 1024 ** 3;

/** Time that passes only where something sleeps. */
export class ManualClock implements MonitorClock {
  ms = 0;
  now = (): number => this.ms;
  wallNow = (): Date => new Date(this.ms);
  sleep = (ms: number): Promise<void> => {
    this.ms += ms;
    return Promise.resolve();
  };
}

export function gpu(known: Partial<Gpu> = {}): Gpu {
  return makeGpu({
    uuid: "GPU-a",
    index: 0,
    vendor: "nvidia",
    name: "Test GPU",
    memory_total_bytes: 24 * GIB,
    memory_used_bytes: 4 * GIB,
    memory_free_bytes: 20 * GIB,
    processes: [],
    ...known,
  });
}

export function sample(gpus: readonly Gpu[], rest: Partial<Sample> = {}): Sample {
  return {
    type: "sample",
    source: "nvml",
    seq: 1,
    ts: "2026-01-01T00:00:00.000Z",
    monotonic_ms: 0,
    took_ms: 0,
    pid_namespace: null,
    driver: null,
    gpus: [...gpus],
    notes: [],
    ...rest,
  };
}

/** A source that answers what the test queued, then the last one for ever. */
export class QueuedSource implements DeviceSource {
  readonly name = "nvml";
  reads = 0;
  isClosed = false;
  readonly #readings: Reading[];

  constructor(...readings: readonly (readonly Gpu[])[]) {
    this.#readings = readings.map((gpus) => ({ gpus, driver: null, notes: [] }));
  }

  read(): Promise<Reading> {
    const reading = this.#readings[Math.min(this.reads, this.#readings.length - 1)];
    this.reads += 1;
    return reading === undefined
      ? Promise.reject(new Error("the driver is gone"))
      : Promise.resolve(reading);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.isClosed = true;
    return Promise.resolve();
  }
}

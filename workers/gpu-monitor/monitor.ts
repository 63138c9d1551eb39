import { setTimeout as sleep } from "node:timers/promises";
import { eventsBetween } from "./events.ts";
import { descendsFrom, pidNamespace, processFacts } from "./processes.ts";
import type { GpuProcess, MonitorEvent, Reading, Sample } from "./model.ts";
import type { DeviceSource } from "./sources/source.ts";

/** Whose a process is and what it is called is looked up again after this time. */
const HOLDERS_PERIOD_MS = 1_000;

export interface MonitorClock {
  /** Monotonic milliseconds. */
  now(): number;
  wallNow(): Date;
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: MonitorClock = {
  now: () => performance.now(),
  wallNow: () => new Date(),
  sleep: async (ms, signal) => {
    await sleep(ms, undefined, { ...(signal && { signal }) });
  },
};

/**
 * Reads one source for any number of watchers: readings that fall together are made once.
 *
 * Owns the source; dispose it with `await using`.
 */
export class Monitor implements AsyncDisposable {
  readonly #source: DeviceSource;
  readonly #hostPid: number;
  readonly #clock: MonitorClock;
  readonly #namespace = pidNamespace();
  readonly #holders = new Map<number, Pick<GpuProcess, "own" | "name">>();
  readonly #closed = new AbortController();
  #holdersReadMs = -Infinity;
  #sequence = 0;
  #last: Sample | undefined;
  #running: Promise<Sample> | undefined;

  /** `hostPid`: whose descendants count as own processes. */
  constructor(source: DeviceSource, hostPid: number, clock: MonitorClock = systemClock) {
    this.#source = source;
    this.#hostPid = hostPid;
    this.#clock = clock;
  }

  get sourceName(): DeviceSource["name"] {
    return this.#source.name;
  }

  /** A sample at most `maxAgeMs` old. @throws if the source as a whole fails. */
  sample(maxAgeMs = 0): Promise<Sample> {
    if (this.#last !== undefined && this.#clock.now() - this.#last.monotonic_ms < maxAgeMs) {
      return Promise.resolve(this.#last);
    }
    this.#running ??= this.#read().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Samples at `hz` and the events between them, until `stop` aborts or this is disposed. */
  async *watch(hz: number, stop: AbortSignal): AsyncGenerator<Sample | MonitorEvent, void> {
    const signal = AbortSignal.any([stop, this.#closed.signal]);
    const periodMs = 1000 / hz;
    const startMs = this.#clock.now();
    let before: Sample | undefined;
    while (!signal.aborted) {
      const sample = await this.sample(periodMs / 2);
      yield sample;
      yield* eventsBetween(before, sample);
      before = sample;
      // On a fixed grid, so that a slow reading delays one sample and not all that follow.
      const elapsedMs = this.#clock.now() - startMs;
      const nextMs = (Math.floor(elapsedMs / periodMs) + 1) * periodMs;
      await this.#clock.sleep(nextMs - elapsedMs, signal).catch(() => undefined);
    }
  }

  async #read(): Promise<Sample> {
    const startMs = this.#clock.now();
    const reading = await this.#source.read();
    const sample: Sample = {
      type: "sample",
      source: this.#source.name,
      seq: this.#sequence,
      ts: this.#clock.wallNow().toISOString(),
      monotonic_ms: startMs,
      took_ms: this.#clock.now() - startMs,
      pid_namespace: this.#namespace,
      driver: reading.driver,
      gpus: this.#withOwners(reading),
      notes: [...reading.notes],
    };
    this.#sequence += 1;
    this.#last = sample;
    return sample;
  }

  #withOwners({ gpus }: Reading): Sample["gpus"] {
    const nowMs = this.#clock.now();
    if (nowMs - this.#holdersReadMs >= HOLDERS_PERIOD_MS) {
      this.#holdersReadMs = nowMs;
      this.#holders.clear();
    }
    return gpus.map((gpu) => ({
      ...gpu,
      processes: gpu.processes?.map((process) => this.#withOwner(process)) ?? null,
    }));
  }

  #withOwner(process: GpuProcess): GpuProcess {
    const { pid } = process;
    const holder = this.#holders.get(pid) ?? {
      own: descendsFrom(pid, this.#hostPid),
      name: processFacts(pid)?.name ?? null,
    };
    this.#holders.set(pid, holder);
    return { ...process, own: process.own ?? holder.own, name: process.name ?? holder.name };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    // A driver must not be shut down under a reading.
    await this.#running?.catch(() => undefined);
    await this.#source[Symbol.asyncDispose]();
  }
}

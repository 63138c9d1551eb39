import { setTimeout as sleep } from "node:timers/promises";
import { eventsBetween } from "./events.ts";
import { descendsFrom, pidNamespace } from "./processes.ts";
import type { MonitorEvent, Reading, Sample } from "./model.ts";
import type { DeviceSource } from "./sources/source.ts";

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

  /** Samples at `hz` and the events between them, until `signal` aborts. */
  async *watch(hz: number, signal: AbortSignal): AsyncGenerator<Sample | MonitorEvent, void> {
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
    const owners = new Map<number, boolean | null>();
    const isOwn = (pid: number): boolean | null => {
      const own = owners.get(pid) ?? descendsFrom(pid, this.#hostPid);
      owners.set(pid, own);
      return own;
    };
    return gpus.map((gpu) => ({
      ...gpu,
      processes:
        gpu.processes?.map((process) => ({ ...process, own: process.own ?? isOwn(process.pid) })) ??
        null,
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source[Symbol.asyncDispose]();
  }
}

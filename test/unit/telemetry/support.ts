import type { TelemetryClock } from "../../../src/telemetry/clock.ts";
import type { GpuSource } from "../../../src/telemetry/index.ts";
import type { ProcessReader, ProcessReading } from "../../../src/telemetry/process-reader.ts";

export const GIB = 1024 ** 3;
export const MIB = 1024 ** 2;

/** A machine whose processes the test sets. */
export class FakeProcesses implements ProcessReader {
  namespace: string | null = "pid:[1]";
  readonly processes = new Map<
    number,
    { parent: number; rssBytes: number; cpuMs: number; inner?: number[]; cgroup?: string }
  >();
  pssShare: number | null = null;
  pssReads = 0;
  /** Called by every reading of shared pages, which may take its time. */
  whilePss: () => Promise<void> = () => Promise.resolve();

  add(
    pid: number,
    parent: number,
    rest: { rssBytes?: number; inner?: number[]; cgroup?: string } = {},
  ): void {
    this.processes.set(pid, { parent, rssBytes: 0, cpuMs: 0, ...rest });
  }
  set(pid: number, change: { rssBytes?: number; cpuMs?: number }): void {
    const process = this.processes.get(pid);
    if (process !== undefined) Object.assign(process, change);
  }
  /** How often a tree was searched for. */
  searches = 0;
  tree(rootPid: number): readonly ProcessReading[] {
    this.searches += 1;
    const isInTree = (pid: number): boolean => {
      if (pid === rootPid) return true;
      const parent = this.processes.get(pid)?.parent;
      return parent !== undefined && parent !== 0 && isInTree(parent);
    };
    return [...this.processes]
      .filter(([pid]) => isInTree(pid))
      .map(([pid, { parent, rssBytes, cpuMs }]) => ({
        pid,
        parent,
        startId: "1",
        rssBytes,
        cpuMs,
      }));
  }
  reread(known: readonly ProcessReading[]): readonly ProcessReading[] {
    return known.flatMap(({ pid, startId }) => {
      const process = this.processes.get(pid);
      if (process === undefined) return [];
      const { parent, rssBytes, cpuMs } = process;
      return [{ pid, startId, parent, rssBytes, cpuMs }];
    });
  }
  parent(pid: number): number | undefined {
    return this.processes.get(pid)?.parent;
  }
  namespacePids(pid: number): readonly number[] {
    return this.processes.get(pid)?.inner ?? [pid];
  }
  cgroup(pid: number): string | null {
    return this.processes.get(pid)?.cgroup ?? null;
  }
  async pssBytes(pid: number): Promise<number | null> {
    this.pssReads += 1;
    await this.whilePss();
    const rssBytes = this.processes.get(pid)?.rssBytes ?? 0;
    return this.pssShare === null ? null : rssBytes * this.pssShare;
  }
}

/** Time the test moves; sleepers wake when their moment has come. */
export class ManualClock implements TelemetryClock {
  #ms = 0;
  readonly #sleepers = new Set<{ readonly at: number; readonly wake: () => void }>();

  now(): number {
    return this.#ms;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const sleeper = { at: this.#ms + ms, wake: resolve };
    this.#sleepers.add(sleeper);
    const stop = (): void => {
      this.#sleepers.delete(sleeper);
      reject(new DOMException("stopped", "AbortError"));
    };
    if (signal?.aborted === true) stop();
    else signal?.addEventListener("abort", stop, { once: true });
    return promise;
  }
  /** Moves time and lets everything that was waiting for it run. */
  async advance(ms: number): Promise<void> {
    this.#ms += ms;
    for (const sleeper of this.#sleepers) {
      if (sleeper.at > this.#ms) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
    await settled();
  }
}

/** Everything that promises had to do is done; real I/O is not waited for. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) {
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

/** A monitor's stream that the test writes. */
export class ManualSource implements GpuSource {
  readonly openedHz: number[] = [];
  /** What a stream that wants a fresh reading begins with. */
  latest: unknown;
  readonly #streams = new Set<{ push: (item: { chunk: unknown } | { error: Error }) => void }>();

  get open(): number {
    return this.#streams.size;
  }
  async *watch(hz: number, signal: AbortSignal): AsyncGenerator<unknown, void> {
    if (hz === 100) {
      if (this.latest !== undefined) yield this.latest;
      return;
    }
    this.openedHz.push(hz);
    const items: ({ chunk: unknown } | { error: Error })[] = [];
    let wake = Promise.withResolvers<void>();
    const stream = {
      push: (item: { chunk: unknown } | { error: Error }): void => {
        items.push(item);
        wake.resolve();
      },
    };
    this.#streams.add(stream);
    signal.addEventListener("abort", () => wake.resolve(), { once: true });
    try {
      while (!signal.aborted) {
        const item = items.shift();
        if (item === undefined) {
          await wake.promise;
          wake = Promise.withResolvers<void>();
        } else if ("error" in item) throw item.error;
        else yield item.chunk;
      }
    } finally {
      this.#streams.delete(stream);
    }
  }
  async push(chunk: unknown): Promise<void> {
    this.latest = chunk;
    for (const stream of this.#streams) stream.push({ chunk });
    await settled();
  }
  async fail(error: Error): Promise<void> {
    for (const stream of this.#streams) stream.push({ error });
    await settled();
  }
}

export interface Held {
  readonly pid: number;
  readonly bytes: number | null;
}

/** One GPU of 24 GiB, as the monitor would send it. */
export function gpuSample(
  usedBytes: number,
  processes: readonly Held[] | null,
  rest: object = {},
): object {
  return {
    type: "sample",
    source: "nvml",
    pid_namespace: "pid:[1]",
    gpus: [
      {
        uuid: "GPU-a",
        index: 0,
        name: "Test GPU",
        memory_total_bytes: 24 * GIB,
        memory_used_bytes: usedBytes,
        memory_free_bytes: 24 * GIB - usedBytes,
        utilization_percent: 0,
        lost: false,
        processes: processes?.map(({ pid, bytes }) => ({ pid, memory_bytes: bytes })) ?? null,
      },
    ],
    ...rest,
  };
}

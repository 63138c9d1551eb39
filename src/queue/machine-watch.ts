import { stopOverLimit } from "./cancellation.ts";
import type { JobEntry } from "./job.ts";
import type { ResourceSnapshot } from "./resource-probe.ts";
import type { RunLoop } from "./run-loop.ts";

const SNAPSHOT_INTERVAL_MS = 1_000;

/** What one job's worker holds now, and the GPUs around it. Megabytes. */
export interface JobSnapshot {
  readonly ts: string;
  readonly instanceId: string;
  readonly vramMb: number;
  readonly ramMb: number;
  readonly gpus: ResourceSnapshot["gpus"];
}

/** Follows the measurements: tells the scheduler, holds jobs to their limits, tells subscribers. */
export class MachineWatch {
  readonly #loop: RunLoop;
  #last: ResourceSnapshot;
  #lastShownMs = -Infinity;
  #unsubscribe: () => void = () => undefined;

  constructor(loop: RunLoop) {
    this.#loop = loop;
    this.#last = loop.options.probe.snapshot();
  }

  /** Model of the GPUs as last seen; part of every profile key. */
  get gpuModel(): string | null {
    return this.#last.gpuModel;
  }

  start(): void {
    this.#look();
    this.#unsubscribe = this.#loop.options.probe.onChange(() => {
      this.#look();
    });
  }

  stop(): void {
    this.#unsubscribe();
  }

  /** What a running job's worker holds; null if it does not run or nothing measures it. */
  snapshotOf({ spec, planned }: JobEntry): JobSnapshot | null {
    const use = this.#last.instances.find(({ instanceId }) => instanceId === spec.instanceId);
    if (planned !== "running" || use === undefined) return null;
    return { ts: new Date().toISOString(), ...use, gpus: this.#last.gpus };
  }

  #look(): void {
    const snapshot = this.#loop.options.probe.snapshot();
    this.#last = snapshot;
    this.#enforceLimits(snapshot);
    this.#tellScheduler(snapshot);
    this.#tellSubscribers();
  }

  #enforceLimits({ instances }: ResourceSnapshot): void {
    for (const { instanceId, vramMb } of instances) {
      for (const entry of this.#loop.jobs.runningOn(instanceId)) {
        const { vramLimitMb } = entry.spec;
        if (vramLimitMb !== null && vramMb > vramLimitMb) stopOverLimit(this.#loop, entry);
      }
    }
  }

  #tellScheduler({ gpus, ramFreeMb, diskFreeMb, instances }: ResourceSnapshot): void {
    const loop = this.#loop;
    loop.run((unit) => {
      const now = loop.now();
      loop.step({ type: "telemetry", now, gpus, ramFreeMb, diskFreeMb, instances }, unit);
    });
  }

  #tellSubscribers(): void {
    const nowMs = performance.now();
    // A timer that comes a little early must not skip a whole second.
    if (nowMs - this.#lastShownMs < SNAPSHOT_INTERVAL_MS * 0.9) return;
    this.#lastShownMs = nowMs;
    for (const entry of this.#loop.jobs.running()) {
      const snapshot = this.snapshotOf(entry);
      if (snapshot === null) continue;
      this.#loop.events.liveness(entry, "resource_snapshot", { snapshot });
    }
  }
}

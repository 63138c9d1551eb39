import { statfsSync } from "node:fs";
import { freemem } from "node:os";
import type { CapabilityManager, JobMeter } from "../capability/index.ts";
import type { ExecutionOutcome, ResourceProbe, ResourceSnapshot } from "../queue/index.ts";
import {
  type GpuSource,
  type JobMeasurement,
  Telemetry,
  type TelemetrySnapshot,
} from "../telemetry/index.ts";
import { within } from "../util/wait.ts";

/** How often admission looks again for what changed outside. */
const REFRESH_MS = 1_000;
/** How long the first sample of a monitor is waited for. */
const FIRST_SAMPLE_MS = 3_000;
const MIB = 1024 * 1024;

/**
 * Connects the telemetry to the queue and to the executor: what the machine has, and what each job
 * used of it.
 */
export class MeasuredResources implements ResourceProbe, JobMeter, AsyncDisposable {
  readonly #telemetry: Telemetry;
  readonly #dataDir: string;
  readonly #listeners = new Set<() => void>();
  readonly #untrack: () => void;
  readonly #isMonitored: boolean;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    manager: CapabilityManager,
    options: { readonly dataDir: string; readonly monitor: string | undefined },
  ) {
    this.#dataDir = options.dataDir;
    this.#isMonitored = options.monitor !== undefined;
    this.#telemetry = new Telemetry(
      options.monitor === undefined ? {} : { source: monitorSource(manager, options.monitor) },
    );
    this.#untrack = manager.onInstanceChange((instance) => {
      const { pid } = instance;
      if (pid === null) this.#telemetry.untrackInstance(instance.spec.instanceId);
      else this.#telemetry.trackInstance(instance.spec.instanceId, pid);
    });
  }

  /**
   * Begins to sample; call it when the monitor is loaded. Resolves when the GPUs were seen, since a
   * job that is admitted before would be placed as on a machine without any; a monitor that says
   * nothing is not waited for long.
   */
  async start(): Promise<void> {
    const seen = Promise.withResolvers<void>();
    this.#telemetry.subscribe((notice) => {
      // Each of them: a limit is held, and a release seen, as soon as it is measured.
      this.#announce();
      if (notice.type === "gpu_sample") seen.resolve();
    });
    this.#telemetry.start();
    this.#timer = setInterval(() => {
      this.#announce();
    }, REFRESH_MS);
    this.#timer.unref();
    if (this.#isMonitored) await within(seen.promise, FIRST_SAMPLE_MS);
  }

  snapshot(): ResourceSnapshot {
    const { gpus, instances, ram, isLive } = this.#telemetry.snapshot();
    return {
      gpus: isLive ? gpus.flatMap(known) : null,
      gpuModel: gpus[0]?.name ?? null,
      ramFreeMb: Math.min(ram.availableMb, freemem() / MIB),
      diskFreeMb: freeDiskMb(this.#dataDir),
      instances: instances.map(({ instanceId, hostMb }) => ({
        instanceId,
        vramMb: gpus.reduce((sum, gpu) => sum + (gpu.instances[instanceId]?.mb ?? 0), 0),
        ramMb: hostMb ?? 0,
      })),
    };
  }

  /** The telemetry's own picture, with the running jobs' peaks so far. */
  measurements(): { snapshot: TelemetrySnapshot; jobs: JobMeasurement[] } {
    const snapshot = this.#telemetry.snapshot();
    const ids = snapshot.instances.flatMap(({ jobs }) => jobs);
    const jobs = ids.map((id) => this.#telemetry.usage(id)).filter((job) => job !== undefined);
    return { snapshot, jobs };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  begin(jobId: string, instanceId: string, pid: number): void {
    this.#telemetry.startJob(jobId, instanceId, pid);
  }

  async end(jobId: string): Promise<ExecutionOutcome["peaks"]> {
    const measured = await this.#telemetry.endJob(jobId);
    return {
      gpuMb: measured.gpuPeakMb ?? {},
      hostMb: measured.hostPeakMb,
      cpuPercent: measured.cpuPercentMean,
      isAlone: measured.aloneInInstance,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#untrack();
    await this.#telemetry[Symbol.asyncDispose]();
  }

  #announce(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** The monitor worker's `watch`; its life-cycle is the manager's, a sample is not a job. */
function monitorSource(manager: CapabilityManager, monitor: string): GpuSource {
  return {
    async *watch(hz, signal) {
      const { connection } = await manager.instance(monitor).ensureReady();
      yield* connection.stream(
        "/execute_stream",
        { kwargs: { action: "watch", hz }, envelope: {} },
        { signal },
      );
    },
  };
}

function known(gpu: {
  readonly uuid: string;
  readonly totalMb: number | null;
  readonly freeMb: number | null;
  readonly lost: boolean;
}): { uuid: string; totalMb: number; freeMb: number }[] {
  const { uuid, totalMb, freeMb, lost } = gpu;
  return lost || totalMb === null || freeMb === null ? [] : [{ uuid, totalMb, freeMb }];
}

function freeDiskMb(folder: string): number | null {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return (bavail * bsize) / MIB;
  } catch {
    return null;
  }
}

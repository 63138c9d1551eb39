import { freemem, totalmem } from "node:os";
import { add, attributeGpu, type Attribution, type GpuAttribution } from "./attribution.ts";
import { monotonicClock, type TelemetryClock } from "./clock.ts";
import { DeltaLedger } from "./delta-ledger.ts";
import { GpuFollower } from "./gpu-follower.ts";
import type { GpuEvent, GpuSample, GpuState } from "./gpu-sample.ts";
import type { GpuSource } from "./gpu-source.ts";
import { InstanceTracker, type TreeUse } from "./instance-tracker.ts";
import { JobTracker, type JobMeasurement } from "./job-tracker.ts";
import type { ProcessReader } from "./process-reader.ts";
import { openProcessReader } from "./pidusage-reader.ts";
import { RingBuffer } from "./ring-buffer.ts";
import { snapshotOf, type TelemetrySnapshot } from "./snapshot.ts";

/** Loading, and memory that comes back, are watched at the active rate too. */
const LINGER_MS = 5_000;

const ENOUGH_SAMPLES = 2;
const FRESH_LIMIT_MS = 300;

export interface TelemetryOptions {
  /** Absent: no monitor, GPU fields are unknown. */
  readonly source?: GpuSource;
  /** @default the reader that fits this system */
  readonly processes?: ProcessReader;
  readonly clock?: TelemetryClock;
  /** While a job runs, and shortly after one ended or an instance came or went. @default 10 */
  readonly activeHz?: number;
  /** @default 1 */
  readonly idleHz?: number;
  /** Snapshots kept. @default 600 */
  readonly historySize?: number;
}

/** What telemetry tells; listeners must not throw. */
export type TelemetryNotice =
  | { readonly type: "gpu_sample"; readonly snapshot: TelemetrySnapshot }
  | { readonly type: "gpu_event"; readonly event: GpuEvent }
  | { readonly type: "monitor_lost"; readonly error: unknown };

/**
 * Measures what instances and jobs use: process trees by looking, GPUs by following the monitor.
 *
 * The host owns it, tells it of spawns and jobs, and disposes it. Without a source, or while it is
 * silent, GPU numbers are unknown (`snapshot().isLive`, `gpuPeakMb: null`), never 0.
 */
export class Telemetry implements AsyncDisposable {
  readonly #clock: TelemetryClock;
  readonly #reader: ProcessReader;
  readonly #hostCgroup: string | null;
  readonly #follower: GpuFollower | undefined;
  readonly #rates: { readonly active: number; readonly idle: number };
  readonly #instances = new Map<string, InstanceTracker>();
  readonly #jobs = new Map<string, JobTracker>();
  readonly #ledgers = new Map<string, DeltaLedger>();
  readonly #history: RingBuffer<TelemetrySnapshot>;
  readonly #listeners = new Set<(notice: TelemetryNotice) => void>();
  readonly #stop = new AbortController();
  #wake = new AbortController();
  #loop: Promise<void> | undefined;
  #activeUntilMs = -Infinity;
  #nextLookMs = -Infinity;
  #gpus: readonly { readonly state: GpuState; readonly attribution: GpuAttribution }[] = [];
  #sample: { readonly value: GpuSample; readonly atMs: number } | undefined;

  constructor(options: TelemetryOptions = {}) {
    this.#clock = options.clock ?? monotonicClock;
    this.#reader = options.processes ?? openProcessReader();
    this.#hostCgroup = this.#reader.cgroup(process.pid);
    this.#rates = { active: options.activeHz ?? 10, idle: options.idleHz ?? 1 };
    this.#history = new RingBuffer(options.historySize ?? 600);
    if (options.source !== undefined) {
      const listener = {
        sample: (sample: GpuSample) => this.#onSample(sample),
        event: (event: GpuEvent) => this.#notify({ type: "gpu_event", event }),
        broken: (error: unknown) => this.#notify({ type: "monitor_lost", error }),
      };
      this.#follower = new GpuFollower(options.source, listener, this.#clock);
    }
  }

  /** Begins sampling; dispose to end it. */
  start(): void {
    this.#loop ??= this.#run();
    this.#follower?.follow(this.#gpuRate());
  }

  /**
   * Counts the tree under `rootPid` (as this host sees it) as this instance from now on.
   *
   * Call it right after the spawn: what a device without pids shows while the instance loads is put
   * on its account. A second call with another pid starts anew.
   */
  trackInstance(instanceId: string, rootPid: number): void {
    if (this.#instances.get(instanceId)?.rootPid === rootPid) return;
    this.untrackInstance(instanceId);
    const tracker = new InstanceTracker({ instanceId, rootPid }, this.#reader, {
      hostCgroup: this.#hostCgroup,
      clock: this.#clock,
    });
    this.#instances.set(instanceId, tracker);
    this.#hurry();
  }

  untrackInstance(instanceId: string): void {
    if (!this.#instances.delete(instanceId)) return;
    for (const ledger of this.#ledgers.values()) ledger.forget(instanceId);
    this.#hurry();
  }

  /** Begins to measure a job. Jobs that overlap in an instance all count as not alone. */
  startJob(jobId: string, instanceId: string, rootPid: number): void {
    this.trackInstance(instanceId, rootPid);
    const instance = this.#instances.get(instanceId);
    if (instance === undefined || this.#jobs.has(jobId)) {
      throw new TypeError(`Job ${jobId} is measured already`);
    }
    this.#jobs.set(jobId, new JobTracker(jobId, instance, this.#clock.now()));
    instance.jobs.add(jobId);
    for (const id of instance.jobs) this.#jobs.get(id)?.shared(instance.jobs.size);
    this.#hurry();
  }

  /**
   * Ends it. A job so short that the stream hardly saw it is looked at once more: what it loaded is
   * mostly still there, and calling it nothing would admit the next one beside too much.
   */
  async endJob(jobId: string): Promise<JobMeasurement> {
    const job = this.#jobs.get(jobId);
    if (job === undefined) throw new TypeError(`Job ${jobId} is not measured`);
    const endMs = this.#clock.now();
    const hasGpus = this.#isLive() && this.#gpus.length > 0;
    if (hasGpus && job.gpuSamples < ENOUGH_SAMPLES) await this.#follower?.readOnce(FRESH_LIMIT_MS);
    job.looked(await job.instance.glance(this.#clock.now()));
    this.#jobs.delete(jobId);
    job.instance.jobs.delete(jobId);
    job.instance.hasRun = true;
    this.#activeUntilMs = this.#clock.now() + LINGER_MS;
    return job.finish(endMs);
  }

  /** What a running job was measured to need so far; undefined if it is not measured. */
  usage(jobId: string): JobMeasurement | undefined {
    return this.#jobs.get(jobId)?.finish(this.#clock.now());
  }

  snapshot(): TelemetrySnapshot {
    return snapshotOf({
      nowMs: this.#clock.now(),
      isLive: this.#isLive(),
      sample: this.#sample,
      gpus: this.#gpus,
      instances: [...this.#instances.values()],
      ram: { totalBytes: totalmem(), availableBytes: freemem() },
    });
  }

  /** One snapshot for every GPU sample, oldest first. */
  history(): readonly TelemetrySnapshot[] {
    return this.#history.toArray();
  }

  /** Own it with `using`: leaving the scope unsubscribes. */
  subscribe(listener: (notice: TelemetryNotice) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#wake.abort();
    await this.#follower?.[Symbol.asyncDispose]();
    await this.#loop;
    await Promise.all([...this.#instances.values()].map((instance) => instance.settle()));
  }

  #rate(): number {
    const isActive = this.#jobs.size > 0 || this.#clock.now() < this.#activeUntilMs;
    return isActive ? this.#rates.active : this.#rates.idle;
  }

  /** A monitor that has no GPU to tell of is only asked whether that is still so. */
  #gpuRate(): number {
    const hasNone = this.#isLive() && this.#gpus.length === 0;
    return hasNone ? this.#rates.idle : this.#rate();
  }

  /** Looks soon, and for a while at the active rate. */
  #hurry(): void {
    const nowMs = this.#clock.now();
    this.#activeUntilMs = nowMs + LINGER_MS;
    if (this.#loop === undefined) return;
    this.#follower?.follow(this.#gpuRate());
    // A thousand jobs in a second are not a thousand looks.
    if (this.#nextLookMs - nowMs > 1000 / this.#rates.active) this.#wake.abort();
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      this.#wake = new AbortController();
      const startMs = this.#clock.now();
      await this.#lookAtTrees(startMs);
      this.#follower?.follow(this.#gpuRate());
      const restMs = 1000 / this.#rate() - (this.#clock.now() - startMs);
      this.#nextLookMs = this.#clock.now() + Math.max(1, restMs);
      await this.#clock.sleep(Math.max(1, restMs), this.#wake.signal).catch(() => undefined);
    }
  }

  async #lookAtTrees(nowMs: number): Promise<void> {
    const uses = new Map<InstanceTracker, TreeUse>();
    for (const instance of this.#instances.values()) {
      uses.set(instance, await instance.look(nowMs));
    }
    for (const job of this.#jobs.values()) {
      const use = uses.get(job.instance);
      if (use !== undefined) job.looked(use);
    }
  }

  #onSample(sample: GpuSample): void {
    const atMs = this.#clock.now();
    this.#sample = { value: sample, atMs };
    const instances = [...this.#instances.values()];
    const context = {
      trees: instances.map((instance) => instance.tree()),
      isOurNamespace: (sample.pid_namespace ?? this.#reader.namespace) === this.#reader.namespace,
      parent: (pid: number) => this.#reader.parent(pid),
      cgroup: (pid: number) => this.#reader.cgroup(pid),
    };
    this.#gpus = sample.gpus.map((state) => ({
      state,
      attribution: this.#withDelta(attributeGpu(state, context), instances),
    }));
    for (const instance of instances) instance.sampled(held(instance.instanceId, this.#gpus));
    const uuids = sample.gpus.filter(({ lost }) => !lost).map(({ uuid }) => uuid);
    for (const job of this.#jobs.values()) job.sampled(job.instance.gpu, uuids);
    const snapshot = this.snapshot();
    this.#history.push(snapshot);
    this.#notify({ type: "gpu_sample", snapshot });
  }

  /** Where holders are not known, the difference around a lease stands in. */
  #withDelta(known: GpuAttribution, instances: readonly InstanceTracker[]): GpuAttribution {
    if (known.residualBytes === null) return known;
    const ledger = this.#ledgers.get(known.uuid) ?? new DeltaLedger();
    this.#ledgers.set(known.uuid, ledger);
    const active = instances.filter((instance) => instance.isActive);
    ledger.observe(
      known.residualBytes,
      active.map(({ instanceId }) => instanceId),
    );
    if (!known.isIncomplete) return known;
    const all = new Map(known.instances);
    for (const { instanceId } of instances) {
      const bytes = ledger.heldBy(instanceId);
      if (bytes > 0) all.set(instanceId, add(all.get(instanceId), bytes, "delta"));
    }
    return { ...known, instances: all };
  }

  #isLive(): boolean {
    if (this.#sample === undefined || this.#follower === undefined) return false;
    return this.#clock.now() - this.#sample.atMs <= staleAfterMs(this.#rates.idle);
  }

  #notify(notice: TelemetryNotice): void {
    for (const listener of this.#listeners) listener(notice);
  }
}

/** Two missed samples at the slowest rate, and time for a slow reading. */
function staleAfterMs(idleHz: number): number {
  return 2_000 / idleHz + 1_000;
}

function held(
  instanceId: string,
  gpus: readonly { readonly attribution: GpuAttribution }[],
): ReadonlyMap<string, Attribution> {
  const all = new Map<string, Attribution>();
  for (const { attribution } of gpus) {
    const own = attribution.instances.get(instanceId);
    if (own !== undefined) all.set(attribution.uuid, own);
  }
  return all;
}

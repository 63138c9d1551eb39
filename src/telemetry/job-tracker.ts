import type { Attribution, AttributionMethod } from "./attribution.ts";
import type { InstanceTracker, TreeUse } from "./instance-tracker.ts";

const MIB = 1024 * 1024;

/** What one job was measured to need. Megabytes are MiB. */
export interface JobMeasurement {
  readonly jobId: string;
  readonly instanceId: string;
  readonly durationMs: number;
  /** Looks at the process tree, and GPU samples, while it ran. */
  readonly samples: number;
  readonly gpuSamples: number;
  /** Highest VRAM of the instance's tree by GPU UUID; null if no GPU sample came, which is not 0. */
  readonly gpuPeakMb: Readonly<Record<string, number>> | null;
  /** The least sure way that contributed to a peak above 0. */
  readonly gpuMethod: AttributionMethod | null;
  readonly gpuConfidence: number | null;
  /** Highest resident memory of the tree; null if it was gone before it could be looked at. */
  readonly hostPeakMb: number | null;
  readonly hostMethod: "rss" | "pss";
  /** 100 is one core all the time; null if the job was too short to tell. */
  readonly cpuPercentMean: number | null;
  /** No other job ran in the instance meanwhile, so the peaks are this job's alone. */
  readonly aloneInInstance: boolean;
  /** Most jobs that ran in the instance at once meanwhile, this one counted. */
  readonly concurrentJobs: number;
}

/** Collects the peaks of one running job. */
export class JobTracker {
  readonly jobId: string;
  readonly instance: InstanceTracker;
  gpuSamples = 0;
  #concurrentJobs = 1;
  #samples = 0;
  #gpuPeaks = new Map<string, Attribution>();
  #hostPeak: TreeUse | undefined;
  #firstUse: TreeUse | undefined;
  #lastUse: TreeUse | undefined;
  readonly #startMs: number;

  constructor(jobId: string, instance: InstanceTracker, startMs: number) {
    this.jobId = jobId;
    this.instance = instance;
    this.#startMs = startMs;
  }

  /** `jobs` run in the instance now. */
  shared(jobs: number): void {
    this.#concurrentJobs = Math.max(this.#concurrentJobs, jobs);
  }

  looked(use: TreeUse): void {
    if (use.processes === 0) return;
    this.#samples += 1;
    this.#firstUse ??= use;
    this.#lastUse = use;
    if (use.bytes > (this.#hostPeak?.bytes ?? -1)) this.#hostPeak = use;
  }

  sampled(held: ReadonlyMap<string, Attribution>, uuids: readonly string[]): void {
    this.gpuSamples += 1;
    for (const uuid of uuids) {
      const now = held.get(uuid) ?? NOTHING;
      const peak = this.#gpuPeaks.get(uuid);
      if (peak === undefined || now.bytes > peak.bytes) this.#gpuPeaks.set(uuid, now);
    }
  }

  finish(endMs: number): JobMeasurement {
    const used = [...this.#gpuPeaks.values()].filter(({ bytes }) => bytes > 0);
    const [leastSure] = used.toSorted((a, b) => a.confidence - b.confidence);
    const peaks = [...this.#gpuPeaks].map(([uuid, { bytes }]) => [uuid, bytes / MIB] as const);
    return {
      jobId: this.jobId,
      instanceId: this.instance.instanceId,
      durationMs: endMs - this.#startMs,
      samples: this.#samples,
      gpuSamples: this.gpuSamples,
      gpuPeakMb: this.gpuSamples === 0 ? null : Object.fromEntries(peaks),
      gpuMethod: leastSure?.method ?? null,
      gpuConfidence: leastSure?.confidence ?? null,
      hostPeakMb: this.#hostPeak === undefined ? null : this.#hostPeak.bytes / MIB,
      hostMethod: this.#hostPeak?.method ?? "rss",
      cpuPercentMean: this.#cpuPercentMean(),
      aloneInInstance: this.#concurrentJobs === 1,
      concurrentJobs: this.#concurrentJobs,
    };
  }

  #cpuPercentMean(): number | null {
    if (this.#firstUse === undefined || this.#lastUse === undefined) return null;
    const elapsedMs = this.#lastUse.atMs - this.#firstUse.atMs;
    if (elapsedMs <= 0) return null;
    return ((this.#lastUse.cpuMs - this.#firstUse.cpuMs) / elapsedMs) * 100;
  }
}

const NOTHING: Attribution = { bytes: 0, method: "pid", confidence: 1 };

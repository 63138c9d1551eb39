import { addToQuantile, emptyQuantile, quantileOf, type Quantile } from "./quantile.ts";

/** What a profile belongs to. */
export interface ProfileKeyParts {
  readonly capability: string;
  /** As `major.minor.patch`; a patch does not change the key. */
  readonly version: string;
  /** Hash of the config without the fields that say `resource: false`. */
  readonly configHash: string;
  /** As made by {@link inputBucket}; null when the size of the input is unknown. */
  readonly bucket: number | null;
  /** Null on a machine without a GPU. */
  readonly gpuModel: string | null;
}

/** Mean, maximum and 95th percentile of values that are not kept. */
export interface Distribution {
  readonly count: number;
  readonly mean: number;
  readonly max: number;
  readonly p95: Quantile;
}

/** What runs of one key were measured to need. Plain JSON; never holds raw samples. */
export interface ResourceProfile {
  readonly key: ProfileKeyParts;
  /** Runs, whatever their end. */
  readonly count: number;
  readonly successes: number;
  /** Successful runs that were alone in their instance: the runs that measure. */
  readonly measuredRuns: number;
  /** Peak VRAM in MB of runs that were alone in their instance. */
  readonly vramPeakMb: Distribution;
  /** Peak host RAM in MB of runs that were alone in their instance. */
  readonly ramPeakMb: Distribution;
  /** Of successful runs, without loading. */
  readonly durationMs: Distribution;
  readonly loadMs: Distribution;
  readonly cpuPercentMean: number;
  /** Runs that `cpuPercentMean` is the mean of. */
  readonly cpuSamples: number;
  /** Sums of what the calls reported; units are not interpreted. */
  readonly usageTotals: Readonly<Record<string, number>>;
  /** Wall clock, milliseconds since 1970. */
  readonly lastSeenMs: number;
  readonly driver: string | null;
  /** A run that ended out of memory held this much VRAM in MB: the key needs more. 0 when none did. */
  readonly vramLowerBoundMb: number;
}

/**
 * One finished run. Amounts that were not measured are null; where a monitor watches the GPUs, a key
 * without a VRAM measurement goes on running alone, so a run that used none must say 0.
 */
export interface ResourceSample {
  readonly key: ProfileKeyParts;
  readonly outcome: "completed" | "failed" | "cancelled" | "out_of_memory";
  /** Whether the job was alone in its instance all the time; only then its peaks are its own. */
  readonly alone: boolean;
  readonly vramPeakMb: number | null;
  readonly ramPeakMb: number | null;
  readonly durationMs: number;
  /** When this run had to load its instance. */
  readonly loadMs: number | null;
  readonly cpuPercent: number | null;
  readonly usage: Readonly<Record<string, number>>;
  readonly seenAtMs: number;
  readonly driver: string | null;
}

const P95 = 0.95;
const BORROW_FACTOR = 1.25;
const SEPARATOR = "|";

/** Rounds the size of an input to the nearest power of two; unknown or not positive is its own bucket. */
export function inputBucket(size: number | null | undefined): number | null {
  if (size === null || size === undefined || !Number.isFinite(size) || size <= 0) return null;
  return 2 ** Math.round(Math.log2(size));
}

/** The text a profile is stored and found under. */
export function profileKey(parts: ProfileKeyParts): string {
  return [
    parts.capability,
    majorMinor(parts.version),
    parts.configHash,
    parts.bucket ?? "",
    parts.gpuModel ?? "",
  ].join(SEPARATOR);
}

/**
 * The GPU model for the keys of a machine: all of its models where they differ, since a job is placed
 * after its key is made. The peaks of such a key are the highest on any of them.
 */
export function machineGpuModel(models: readonly string[]): string | null {
  const distinct = [...new Set(models)].sort();
  return distinct.length === 0 ? null : distinct.join(" + ");
}

/** The parts of a key that `profileKey` made; null for any other text. */
export function parseProfileKey(key: string): ProfileKeyParts | null {
  const [capability, version, configHash, bucket, ...model] = key.split(SEPARATOR);
  if (
    capability === undefined ||
    version === undefined ||
    configHash === undefined ||
    bucket === undefined ||
    model.length === 0
  ) {
    return null;
  }
  const gpuModel = model.join(SEPARATOR);
  return {
    capability,
    version,
    configHash,
    bucket: bucket === "" ? null : Number(bucket),
    gpuModel: gpuModel === "" ? null : gpuModel,
  };
}

/**
 * The profile with one more run in it; null starts one.
 *
 * A run that was not alone adds to counts, usage and duration, never to the peaks. A run that ended
 * out of memory only raises the lower bound.
 */
export function foldSample(
  profile: ResourceProfile | null,
  sample: ResourceSample,
): ResourceProfile {
  const before = profile ?? emptyProfile(sample.key);
  const succeeded = sample.outcome === "completed";
  const outOfMemory = sample.outcome === "out_of_memory";
  const peaksCount = sample.alone && !outOfMemory;
  return {
    key: before.key,
    count: before.count + 1,
    successes: before.successes + (succeeded ? 1 : 0),
    measuredRuns: before.measuredRuns + (succeeded && sample.alone ? 1 : 0),
    vramPeakMb: fold(before.vramPeakMb, peaksCount ? sample.vramPeakMb : null),
    ramPeakMb: fold(before.ramPeakMb, peaksCount ? sample.ramPeakMb : null),
    durationMs: fold(before.durationMs, succeeded ? sample.durationMs : null),
    loadMs: fold(before.loadMs, sample.loadMs),
    ...foldCpu(before, sample.cpuPercent),
    usageTotals: addUsage(before.usageTotals, sample.usage),
    lastSeenMs: Math.max(before.lastSeenMs, sample.seenAtMs),
    driver: sample.driver ?? before.driver,
    vramLowerBoundMb: outOfMemory
      ? Math.max(before.vramLowerBoundMb, sample.vramPeakMb ?? 0)
      : before.vramLowerBoundMb,
  };
}

/** Whether a successful run alone in its instance has measured this key. */
export function isMeasured(profile: ResourceProfile): boolean {
  return profile.measuredRuns > 0;
}

export function p95Of(distribution: Distribution): number | null {
  return quantileOf(distribution.p95);
}

export interface BorrowedPeak {
  readonly fromKey: string;
  readonly vramMb: number;
  readonly ramMb: number;
}

/**
 * A stand-in for a key that was never measured: the peak of its nearest measured key x 1.25.
 *
 * Nearest: same capability, config and GPU model; first the same version with the smallest larger
 * bucket, then the newest earlier version with the same or a larger bucket. Null when there is none:
 * a smaller input says nothing about a larger one.
 */
export function borrowPeak(
  parts: ProfileKeyParts,
  relatives: Iterable<ResourceProfile>,
): BorrowedPeak | null {
  let best: ResourceProfile | null = null;
  for (const profile of relatives) {
    if (!mayLend(profile, parts)) continue;
    if (best === null || nearer(profile.key, best.key) < 0) best = profile;
  }
  if (best === null) return null;
  return {
    fromKey: profileKey(best.key),
    vramMb: Math.max(best.vramPeakMb.max, best.vramLowerBoundMb) * BORROW_FACTOR,
    ramMb: best.ramPeakMb.max * BORROW_FACTOR,
  };
}

function mayLend(profile: ResourceProfile, parts: ProfileKeyParts): boolean {
  const { key } = profile;
  if (!isMeasured(profile) || profile.vramPeakMb.count === 0) return false;
  if (key.capability !== parts.capability || key.configHash !== parts.configHash) return false;
  if (key.gpuModel !== parts.gpuModel) return false;
  const byVersion = compareVersions(key.version, parts.version);
  if (byVersion > 0) return false;
  if (key.bucket === null || parts.bucket === null) {
    return byVersion < 0 && key.bucket === parts.bucket;
  }
  return byVersion === 0 ? key.bucket > parts.bucket : key.bucket >= parts.bucket;
}

/** Negative when `a` is nearer: the newer version first, then the smaller bucket. */
function nearer(a: ProfileKeyParts, b: ProfileKeyParts): number {
  return compareVersions(b.version, a.version) || (a.bucket ?? 0) - (b.bucket ?? 0);
}

function compareVersions(a: string, b: string): number {
  const [aMajor = 0, aMinor = 0] = majorMinor(a).split(".").map(Number);
  const [bMajor = 0, bMinor = 0] = majorMinor(b).split(".").map(Number);
  return aMajor - bMajor || aMinor - bMinor;
}

function majorMinor(version: string): string {
  return version.split(".").slice(0, 2).join(".");
}

function emptyProfile(key: ProfileKeyParts): ResourceProfile {
  return {
    key: { ...key, version: majorMinor(key.version) },
    count: 0,
    successes: 0,
    measuredRuns: 0,
    vramPeakMb: emptyDistribution(),
    ramPeakMb: emptyDistribution(),
    durationMs: emptyDistribution(),
    loadMs: emptyDistribution(),
    cpuPercentMean: 0,
    cpuSamples: 0,
    usageTotals: {},
    lastSeenMs: 0,
    driver: null,
    vramLowerBoundMb: 0,
  };
}

function emptyDistribution(): Distribution {
  return { count: 0, mean: 0, max: 0, p95: emptyQuantile(P95) };
}

function fold(before: Distribution, value: number | null): Distribution {
  if (value === null) return before;
  const count = before.count + 1;
  return {
    count,
    mean: before.mean + (value - before.mean) / count,
    max: Math.max(before.max, value),
    p95: addToQuantile(before.p95, value),
  };
}

function foldCpu(
  { cpuPercentMean, cpuSamples }: ResourceProfile,
  percent: number | null,
): Pick<ResourceProfile, "cpuPercentMean" | "cpuSamples"> {
  if (percent === null) return { cpuPercentMean, cpuSamples };
  const count = cpuSamples + 1;
  return {
    cpuPercentMean: cpuPercentMean + (percent - cpuPercentMean) / count,
    cpuSamples: count,
  };
}

function addUsage(
  totals: Readonly<Record<string, number>>,
  usage: Readonly<Record<string, number>>,
): Readonly<Record<string, number>> {
  const sums = { ...totals };
  for (const [unit, amount] of Object.entries(usage)) sums[unit] = (sums[unit] ?? 0) + amount;
  return sums;
}

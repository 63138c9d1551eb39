import {
  foldSample,
  inputBucket,
  parseProfileKey,
  profileKey,
  type ResourceProfile,
} from "../scheduler/index.ts";
import type { ProfileRecord } from "../store/index.ts";
import type { ExecutionOutcome, InstanceFacts } from "./executor.ts";
import type { JobEntry } from "./job.ts";

/** The measured needs of every profile key, as the store keeps them. */
export class ProfileBook {
  readonly #profiles = new Map<string, ResourceProfile>();

  constructor(records: readonly ProfileRecord[]) {
    for (const record of records) {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by this class only
      this.#profiles.set(record.key, record.body as unknown as ResourceProfile);
    }
  }

  all(): Iterable<[string, ResourceProfile]> {
    return this.#profiles;
  }

  /** The key of a job of this instance; `size` is the caller's measure of its input, if there is one. */
  keyOf(facts: InstanceFacts, size: number | null, gpuModel: string | null): string {
    return profileKey({
      capability: facts.capability,
      version: facts.version,
      configHash: facts.resourceConfigHash,
      bucket: inputBucket(size),
      gpuModel,
    });
  }

  /** Adds what one attempt was measured to need; without an outcome it ran out of memory. */
  fold(
    entry: JobEntry,
    outcome: ExecutionOutcome | null,
  ): { key: string; profile: ResourceProfile; record: ProfileRecord } | undefined {
    const key = entry.spec.profileKey;
    const parts = parseProfileKey(key);
    const attempt = entry.attemptNow;
    if (attempt === null || parts === null) return undefined;
    const loadMs = attempt.loadMs ?? 0;
    const profile = foldSample(this.#profiles.get(key) ?? null, {
      key: parts,
      durationMs: Math.max(0, performance.now() - attempt.startedMs - loadMs),
      loadMs,
      seenAtMs: Date.now(),
      driver: null,
      ...(outcome === null ? OUT_OF_MEMORY : measured(outcome)),
    });
    this.#profiles.set(key, profile);
    return { key, profile, record: recordOf(key, profile) };
  }
}

const OUT_OF_MEMORY = {
  outcome: "out_of_memory",
  alone: true,
  vramPeakMb: null,
  ramPeakMb: null,
  cpuPercent: null,
  usage: {},
} as const;

function measured({ peaks, usage }: ExecutionOutcome) {
  const gpuPeaks = Object.values(peaks.gpuMb);
  return {
    outcome: "completed",
    alone: peaks.isAlone,
    vramPeakMb: gpuPeaks.length === 0 ? null : Math.max(...gpuPeaks),
    ramPeakMb: peaks.hostMb,
    cpuPercent: peaks.cpuPercent,
    usage,
  } as const;
}

function recordOf(key: string, profile: ResourceProfile): ProfileRecord {
  return {
    key,
    capability: profile.key.capability,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a profile is plain JSON
    body: profile as unknown as Readonly<Record<string, unknown>>,
    updatedAt: new Date().toISOString(),
  };
}

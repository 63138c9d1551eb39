import {
  foldSample,
  inputBucket,
  parseProfileKey,
  profileKey,
  type ResourceProfile,
  type ResourceSample,
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
    const { peaks } = attempt;
    const profile = foldSample(this.#profiles.get(key) ?? null, {
      key: parts,
      durationMs: Math.max(0, performance.now() - attempt.startedMs - loadMs),
      loadMs: loadMs > 0 ? loadMs : null,
      seenAtMs: Date.now(),
      driver: null,
      ...(outcome === null ? outOfMemory(peaks) : measured(outcome)),
    });
    this.#profiles.set(key, profile);
    return { key, profile, record: recordOf(key, profile) };
  }
}

type Measured = Pick<
  ResourceSample,
  "outcome" | "alone" | "vramPeakMb" | "ramPeakMb" | "cpuPercent" | "usage"
>;

/** What it held when it ran out bounds from below what it needs. */
function outOfMemory(peaks: ExecutionOutcome["peaks"] | null): Measured {
  return {
    outcome: "out_of_memory",
    alone: peaks?.isAlone ?? true,
    vramPeakMb: peaks?.isAlone === true ? vramPeak(peaks) : null,
    ramPeakMb: null,
    cpuPercent: null,
    usage: {},
  };
}

function vramPeak({ gpuMb }: ExecutionOutcome["peaks"]): number | null {
  const peaks = Object.values(gpuMb);
  return peaks.length === 0 ? null : Math.max(...peaks);
}

function measured({ peaks, usage }: ExecutionOutcome): Measured {
  return {
    outcome: "completed",
    alone: peaks.isAlone,
    vramPeakMb: vramPeak(peaks),
    ramPeakMb: peaks.hostMb,
    cpuPercent: peaks.cpuPercent,
    usage,
  };
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

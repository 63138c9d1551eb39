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

  /** Adds what one attempt was measured to need. */
  fold(
    entry: JobEntry,
    outcome: ExecutionOutcome | null,
    run: { readonly how: "completed" | "out_of_memory"; readonly now: number },
  ): { key: string; profile: ResourceProfile; record: ProfileRecord } | undefined {
    const key = entry.spec.profileKey;
    const attempt = entry.attemptNow;
    if (attempt === null) return undefined;
    const loadMs = attempt.loadMs ?? 0;
    const gpuPeaks = Object.values(outcome?.peaks.gpuMb ?? {});
    const profile = foldSample(this.#profiles.get(key) ?? null, {
      key: parseProfileKey(key),
      outcome: run.how,
      alone: outcome?.peaks.isAlone ?? true,
      vramPeakMb: gpuPeaks.length === 0 ? null : Math.max(...gpuPeaks),
      ramPeakMb: outcome?.peaks.hostMb ?? null,
      durationMs: Math.max(0, performance.now() - attempt.startedMs - loadMs),
      loadMs,
      cpuPercent: outcome?.peaks.cpuPercent ?? null,
      usage: outcome?.usage ?? {},
      seenAtMs: Date.now(),
    });
    this.#profiles.set(key, profile);
    const record = {
      key,
      capability: entry.spec.capability,
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a profile is plain JSON
      body: profile as unknown as Readonly<Record<string, unknown>>,
      updatedAt: new Date().toISOString(),
    };
    return { key, profile, record };
  }
}

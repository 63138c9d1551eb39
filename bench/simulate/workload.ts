import { foldSample, profileKey, type ResourceProfile } from "../../src/scheduler/index.ts";

/** Jobs of one profile key. Amounts are MB and milliseconds. */
export interface JobKind {
  readonly key: string;
  readonly profile: ResourceProfile;
}

/** What a job will really need and take, in arrays by job: a million small objects would be slow. */
export interface Workload {
  readonly kinds: readonly JobKind[];
  readonly kindOf: Uint8Array;
  readonly trueMb: Float64Array;
  readonly durationMs: Float64Array;
}

export interface WorkloadOptions {
  readonly jobs: number;
  readonly kinds: number;
  /** Share by which true sizes and durations lie around their kind's nominal ones. */
  readonly noise: number;
  readonly seed: number;
}

const WARM_UP_RUNS = 64;
const VRAM_MB = [2000, 48_000] as const;
const DURATION_MS = [20_000, 400_000] as const;

/** Sizes and durations spread evenly over their orders of magnitude; every kind equally frequent. */
export function makeWorkload({ jobs, kinds: count, noise, seed }: WorkloadOptions): Workload {
  const random = mulberry32(seed);
  const around = (nominal: number): number => nominal * (1 - noise + 2 * noise * random());
  const nominal = Array.from({ length: count }, () => ({
    vramMb: logUniform(random, VRAM_MB),
    durationMs: logUniform(random, DURATION_MS),
  }));
  const kinds = nominal.map(({ vramMb, durationMs }, i) => {
    const profile = measure(i, () => ({ vramMb: around(vramMb), durationMs: around(durationMs) }));
    return { key: profileKey(profile.key), profile };
  });
  const kindOf = new Uint8Array(jobs);
  const trueMb = new Float64Array(jobs);
  const durationMs = new Float64Array(jobs);
  for (let job = 0; job < jobs; job++) {
    const kind = Math.floor(random() * count);
    kindOf[job] = kind;
    trueMb[job] = Math.ceil(around(nominal[kind]?.vramMb ?? 0));
    durationMs[job] = Math.ceil(around(nominal[kind]?.durationMs ?? 0));
  }
  return { kinds, kindOf, trueMb, durationMs };
}

/** The profile with one more run of a kind in it. */
export function learn(
  profile: ResourceProfile | null,
  key: ResourceProfile["key"],
  run: { readonly vramMb: number; readonly durationMs: number },
): ResourceProfile {
  return foldSample(profile, {
    key,
    outcome: "completed",
    alone: true,
    vramPeakMb: run.vramMb,
    ramPeakMb: 0,
    durationMs: run.durationMs,
    loadMs: null,
    cpuPercent: null,
    usage: {},
    seenAtMs: 0,
    driver: null,
  });
}

function measure(kind: number, run: () => { vramMb: number; durationMs: number }): ResourceProfile {
  const key = {
    capability: `kind-${kind}`,
    version: "1.0",
    configHash: "",
    bucket: null,
    gpuModel: "simulated",
  };
  let profile = learn(null, key, run());
  for (let i = 1; i < WARM_UP_RUNS; i++) profile = learn(profile, key, run());
  return profile;
}

function logUniform(random: () => number, [low, high]: readonly [number, number]): number {
  return low * (high / low) ** random();
}

/** Mulberry32 of T. Ettinger: 32 bits of state, good enough to draw sizes, equal on every machine. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

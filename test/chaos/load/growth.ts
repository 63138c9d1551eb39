import { readdirSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** What the process held, right after a garbage collection. */
export interface Sample {
  readonly atMs: number;
  readonly rssMb: number;
  readonly heapMb: number;
  /** Memory of buffers, outside the heap. */
  readonly externalMb: number;
  readonly descriptors: number;
  readonly threads: number;
}

export type Measure = Exclude<keyof Sample, "atMs">;
export const MEASURES: readonly Measure[] = [
  "rssMb",
  "heapMb",
  "externalMb",
  "descriptors",
  "threads",
];

const SAMPLE_MS = 5_000;
const MB = 1_048_576;

/** V8's own collection, so that what is measured next is held by somebody. */
function garbageCollection(): () => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
}

/** Adds a sample every few seconds until the timer is cleared. */
export function startSampling(samples: Sample[]): NodeJS.Timeout {
  const startedAt = performance.now();
  const collectGarbage = garbageCollection();
  return setInterval(() => {
    collectGarbage();
    const { rss, heapUsed, external } = process.memoryUsage();
    samples.push({
      atMs: performance.now() - startedAt,
      rssMb: rss / MB,
      heapMb: heapUsed / MB,
      externalMb: external / MB,
      descriptors: readdirSync("/proc/self/fd").length,
      threads: readdirSync("/proc/self/task").length,
    });
  }, SAMPLE_MS);
}

/**
 * Growth a minute over the last two thirds of the samples; the first third warms up.
 *
 * The median of the slopes between all pairs (Theil 1950, Sen 1968): up to 29 % of the samples may be
 * anything without moving it.
 */
export function slopePerMinute(samples: readonly Sample[], measure: Measure): number {
  const late = samples.slice(Math.floor(samples.length / 3));
  const slopes = late.flatMap((to, index) =>
    late
      .slice(0, index)
      .map((from) => ((to[measure] - from[measure]) / (to.atMs - from.atMs)) * 60_000),
  );
  return slopes.toSorted((a, b) => a - b)[Math.floor(slopes.length / 2)] ?? 0;
}

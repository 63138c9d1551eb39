import { expect, test } from "vitest";
import { rm } from "node:fs/promises";
import { crashAndResume, runHost } from "../support/crash-oracle.ts";
import { newDataDir } from "../support/queue-host.ts";

/** `CJM_CHAOS_KILLS` random moments; the seed is printed, and `CJM_CHAOS_SEED` repeats it. */
const KILLS = Number(process.env["CJM_CHAOS_KILLS"] ?? 200);
const SEED = Number(process.env["CJM_CHAOS_SEED"] ?? Date.now() % 2 ** 31);

test(
  `a host killed at ${KILLS} random moments loses and repeats nothing`,
  { timeout: 3_600_000 },
  async () => {
    console.log(`seed ${SEED}`);
    const random = mulberry32(SEED);
    const dataDir = await newDataDir();
    const startedMs = performance.now();
    const expected = (await runHost(dataDir)).printed;
    const wholeMs = performance.now() - startedMs;
    await rm(dataDir, { recursive: true, force: true });
    const wrong: string[] = [];
    let killed = 0;
    while (killed < KILLS) {
      const kills = Array.from({ length: 1 + Math.floor(random() * 3) }, () => ({
        afterMs: random() * wholeMs,
      }));
      const crash = await crashAndResume(kills, expected);
      killed += kills.length;
      wrong.push(...crash.problems.map((problem) => `${JSON.stringify(kills)}: ${problem}`));
    }
    expect(wrong).toEqual([]);
  },
);

/** T. Ettinger's generator: 32 bits of state are enough to choose moments. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

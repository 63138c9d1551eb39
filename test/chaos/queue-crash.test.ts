import { expect, test } from "vitest";
import { rm } from "node:fs/promises";
import { crashAndResume, runHost } from "../support/crash-oracle.ts";
import { newDataDir } from "../support/queue-host.ts";
import { CHAOS_SEED, report, timeOf } from "./support/long-form.ts";
import { randomFrom } from "./support/random.ts";

/** At most this many random moments, in this part's share of the time. */
const KILLS = Number(process.env["CJM_CHAOS_KILLS"] ?? 200);

test(
  `a host killed at up to ${KILLS} random moments loses and repeats nothing`,
  { timeout: 3_600_000 },
  async () => {
    const random = randomFrom(CHAOS_SEED);
    const dataDir = await newDataDir();
    const startedMs = performance.now();
    const expected = (await runHost(dataDir)).printed;
    const wholeMs = performance.now() - startedMs;
    await rm(dataDir, { recursive: true, force: true });
    const wrong: string[] = [];
    const endsAt = performance.now() + timeOf("queue-crash");
    let killed = 0;
    while (killed < KILLS && performance.now() < endsAt) {
      const kills = Array.from({ length: 1 + Math.floor(random() * 3) }, () => ({
        afterMs: random() * wholeMs,
      }));
      const crash = await crashAndResume(kills, expected);
      killed += kills.length;
      wrong.push(...crash.problems.map((problem) => `${JSON.stringify(kills)}: ${problem}`));
    }
    report("queue kills", { killed });
    expect(wrong).toEqual([]);
  },
);

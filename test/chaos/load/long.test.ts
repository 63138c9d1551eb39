import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect, test } from "vitest";
import { CHAOS_SEED, report, timeOf } from "../support/long-form.ts";
import { MEASURES, slopePerMinute } from "./growth.ts";
import type { LoadTally } from "./mixed-load.ts";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));

/**
 * What may grow a minute once it is warm. The heap is the sharp measure: a kilobyte held for each job
 * is more than this at the ten to thirty jobs a second that the lanes do. Resident memory also holds
 * what the allocators keep, which wanders by some megabytes.
 */
const MOST = { rssMb: 2, heapMb: 0.25, externalMb: 0.25, descriptors: 0.5, threads: 0.1 } as const;
/** A process that warms up says nothing about its growth. */
const LONG_ENOUGH_MS = 10 * 60_000;

test("mixed load leaks nothing, sticks nowhere and is all in the journal", async () => {
  const args = ["-C", "@cjm/source", MAIN, String(CHAOS_SEED), String(timeOf("load"))];
  const { stdout } = await execa(process.execPath, args, { stderr: "inherit" });
  const tally = JSON.parse(stdout) as LoadTally;
  const { samples } = tally;
  const last = samples.at(-1);
  const growth = Object.fromEntries(
    MEASURES.map((measure) => [measure, Number(slopePerMinute(samples, measure).toFixed(3))]),
  );
  const isJudged = timeOf("load") >= LONG_ENOUGH_MS;
  report("load", {
    minutes: Number(((last?.atMs ?? 0) / 60_000).toFixed(1)),
    jobs: tally.submitted,
    ends: tally.ends,
    journal: tally.journal,
    last,
  });
  report("load, growth a minute", { ...growth, isJudged });
  expect(tally.wrong).toEqual([]);
  expect(tally.journal).toMatchObject({ submitted: tally.submitted, ...tally.ends });
  if (!isJudged) return;
  const grown = MEASURES.filter((measure) => (growth[measure] ?? 0) > MOST[measure]);
  expect(grown).toEqual([]);
});

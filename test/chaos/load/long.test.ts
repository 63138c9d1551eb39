import { expect, test } from "vitest";
import { CHAOS_SEED, report, shareOfTime } from "../support/long-form.ts";
import { mixedLoad, slopePerMinute } from "./mixed-load.ts";

/** What a long run may grow: a heap that is not yet full of garbage is no leak. */
const RSS_MB_PER_MINUTE = 10;

test("mixed load leaks nothing, sticks nowhere and is all in the journal", async () => {
  const endsAt = performance.now() + shareOfTime(0.4);
  const tally = await mixedLoad(CHAOS_SEED, () => performance.now() >= endsAt);
  const rssSlope = slopePerMinute(tally.samples, ({ rssMb }) => rssMb);
  const descriptorSlope = slopePerMinute(tally.samples, ({ descriptors }) => descriptors);
  const last = tally.samples.at(-1);
  report("load", {
    minutes: Number(((last?.atMs ?? 0) / 60_000).toFixed(1)),
    jobs: tally.submitted,
    ends: tally.ends,
    journal: tally.journal,
    rssMb: Math.round(last?.rssMb ?? 0),
    rssMbPerMinute: Number(rssSlope.toFixed(2)),
    descriptors: last?.descriptors,
    descriptorsPerMinute: Number(descriptorSlope.toFixed(2)),
  });
  expect(tally.wrong).toEqual([]);
  expect(tally.journal).toMatchObject({ submitted: tally.submitted, ...tally.ends });
  // A few minutes of a process that warms up say nothing about its growth.
  if (shareOfTime(0.4) < 5 * 60_000) return;
  expect(rssSlope).toBeLessThan(RSS_MB_PER_MINUTE);
  expect(descriptorSlope).toBeLessThan(1);
});

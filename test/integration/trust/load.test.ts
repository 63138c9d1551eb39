import { expect, test } from "vitest";
import { mixedLoad } from "../../chaos/load/mixed-load.ts";

const LIMIT = { timeout: 60_000 };

test("mixed jobs on eight lanes: the journal counts what the model counts", LIMIT, async () => {
  const tally = await mixedLoad(11, (done) => done >= 150);
  expect(tally.wrong).toEqual([]);
  expect(tally.ends.completed).toBeGreaterThan(60);
  expect(tally.ends.cancelled).toBeGreaterThan(10);
  expect(tally.ends.failed).toBeGreaterThan(10);
  expect(tally.journal).toMatchObject({ submitted: tally.submitted, ...tally.ends });
});

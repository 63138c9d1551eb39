import { describe, expect, test } from "vitest";
import { rm } from "node:fs/promises";
import { crashAndResume, runHost } from "../../support/crash-oracle.ts";
import { DISK_FAULTS, diskFor } from "../../chaos/faults/disks.ts";
import { newDataDir } from "../../support/queue-host.ts";

const isLongForm = process.env["CJM_CRASH_ALL"] === "1";
/** Enough to pass every kind of unit; the long form takes each in turn until none is left. */
const SAMPLED = [1, 2, 4, 7, 11, 16, 24, 33, 45, 60, 76];
const MORE_THAN_THERE_ARE = 1_000;
const ABOUT_ALL = 90;

async function reference(): Promise<unknown> {
  const dataDir = await newDataDir();
  try {
    return (await runHost(dataDir)).printed;
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
}

describe("a host that is killed at a commit", () => {
  test(
    "ends as if it had not been, with nothing run again that was over",
    { timeout: isLongForm ? 3_600_000 : 120_000 },
    async () => {
      const expected = await reference();
      expect(expected).toMatchObject({
        reference: { status: "completed" },
        cancelled: { status: "cancelled" },
      });
      const units = isLongForm
        ? Array.from({ length: MORE_THAN_THERE_ARE }, (_, n) => n + 1)
        : SAMPLED;
      const wrong: string[] = [];
      let kills = 0;
      for (const unit of units) {
        const whens = isLongForm
          ? (["before", "after"] as const)
          : ([unit % 2 === 0 ? "before" : "after"] as const);
        let wasKilled = false;
        for (const when of whens) {
          const crash = await crashAndResume([{ when, unit }], expected);
          wasKilled ||= crash.wasKilled;
          kills += crash.wasKilled ? 1 : 0;
          wrong.push(...crash.problems.map((problem) => `${when} unit ${unit}: ${problem}`));
        }
        if (isLongForm && !wasKilled) break;
      }
      console.log(`killed at ${kills} commits`);
      expect(wrong).toEqual([]);
      expect(kills).toBeGreaterThan(SAMPLED.length / 2);
    },
  );

  test("survives being killed again while it resumes", { timeout: 60_000 }, async () => {
    const crash = await crashAndResume(
      [
        { when: "after", unit: 20 },
        { when: "before", unit: 3 },
        { when: "after", unit: 9 },
      ],
      await reference(),
    );
    expect(crash).toEqual({ problems: [], wasKilled: true });
  });

  test.skipIf(!isLongForm).each(DISK_FAULTS)(
    "ends as if its disk had not been %s",
    { timeout: 3_600_000 },
    async (when) => {
      const expected = await reference();
      const wrong: string[] = [];
      for (let unit = 1; unit <= ABOUT_ALL; unit += 1) {
        using disk = diskFor([when]);
        const { problems } = await crashAndResume([{ when, unit }], expected, disk);
        wrong.push(...problems.map((problem) => `unit ${unit}: ${problem}`));
      }
      expect(wrong).toEqual([]);
    },
  );
});

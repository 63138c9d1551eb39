import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { crashAndResume, runHost } from "../../support/crash-oracle.ts";
import { newDataDir } from "../../support/queue-host.ts";
import { CHAOS_SEED, report, timeOf } from "../support/long-form.ts";
import { below, pick, randomFrom } from "../support/random.ts";
import { damagedJournals } from "./damage.ts";
import { DISK_FAULTS, diskFor } from "./disks.ts";

const DAMAGES = Number(process.env["CJM_CHAOS_DAMAGES"] ?? 5_000);
/** More than the reference work has units; one beyond them is no fault. */
const UNITS = 130;
const FAULTS = [...(["before", "after", "past", "future"] as const), ...DISK_FAULTS];

describe(`faults, seed ${CHAOS_SEED}`, () => {
  test("at any commit, one after another, lose and repeat nothing", async () => {
    const random = randomFrom(CHAOS_SEED);
    const dataDir = await newDataDir();
    const expected = (await runHost(dataDir)).printed;
    await rm(dataDir, { recursive: true });
    const endsAt = performance.now() + timeOf("faults");
    const faults: Record<string, number> = {};
    const wrong: string[] = [];
    while (performance.now() < endsAt) {
      const plan = Array.from({ length: 1 + below(random, 3) }, () => {
        const when = pick(random, FAULTS);
        faults[when] = (faults[when] ?? 0) + 1;
        return { when, unit: 1 + below(random, UNITS) };
      });
      using disk = diskFor(plan.map(({ when }) => when));
      const { problems } = await crashAndResume(plan, expected, disk);
      wrong.push(...problems.map((problem) => `${JSON.stringify(plan)}: ${problem}`));
    }
    report("faults", faults);
    expect(wrong).toEqual([]);
  });

  test(`${DAMAGES} damaged journals are refused by name or whole`, async () => {
    const folder = await mkdtemp(join(tmpdir(), "cjm-damage-"));
    const { refused, readable, faults } = await damagedJournals(folder, CHAOS_SEED, DAMAGES);
    await rm(folder, { recursive: true });
    report("damaged journals", { refused, readable });
    expect(faults).toEqual([]);
  });
});

import { spawn } from "node:child_process";
import { describe, expect, test } from "vitest";
import { cgroupPlace, probeCage, SESSION_VARIABLE } from "../../../src/process/index.ts";
import { CHAOS_SEED, isMachineOurs, quantile, report, timeOf } from "../support/long-form.ts";
import { type KillTally, playScene, type SceneCage } from "./scene.ts";

const { cage: strongest } = await probeCage();
const hasCgroups = "place" in (await cgroupPlace());
const KILLS = Number(process.env["CJM_CHAOS_KILLS"] ?? 1_000);
/** Scenes at a time; with more than one, each measures the others' load too. */
const LANES = Number(process.env["CJM_CHAOS_LANES"] ?? 1);
/** The longest that anybody lives on, for nearly all kills. */
const P99_MS = 250;

/** Half of the scenes with the cage that this machine has, the rest with what weaker ones have. */
const CAGES: readonly SceneCage[] = hasCgroups
  ? ["auto", "auto", "cgroup", "group"]
  : ["auto", "auto", "group"];

const livedFor = (values: readonly number[]) => ({
  count: values.length,
  p50: quantile(values, 0.5),
  p99: quantile(values, 0.99),
  max: quantile(values, 1),
});

describe(`orphans, seed ${CHAOS_SEED}`, () => {
  test.skipIf(strongest !== "pidns")("random kills leave nobody and nothing", async () => {
    const tally: KillTally = { kills: 0, byMoment: {}, byCage: {}, goneMs: {}, foundMs: [] };
    const startedAt = performance.now();
    const endsAt = startedAt + timeOf("orphans");
    const wrong: string[] = [];
    let scene = 0;
    // As another data directory's worker looks: nobody may touch it.
    const stranger = spawn("sleep", ["100000"], {
      env: { PATH: process.env["PATH"], [SESSION_VARIABLE]: `${"0".repeat(16)}-00000000-0` },
      stdio: "ignore",
    });
    const lane = async (): Promise<void> => {
      while (tally.kills < KILLS && performance.now() < endsAt) {
        const seed = CHAOS_SEED + scene;
        scene += 1;
        await playScene(seed, CAGES, tally).catch((error: unknown) => {
          wrong.push(`scene of seed ${seed}: ${String(error)}`);
        });
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    const isStrangerThere = stranger.exitCode === null && stranger.signalCode === null;
    stranger.kill("SIGKILL");
    const { kills, byMoment, byCage, goneMs, foundMs } = tally;
    const all = livedFor(Object.values(goneMs).flat());
    const isJudged = isMachineOurs();
    const secondsAKill = Number(((performance.now() - startedAt) / 1_000 / kills).toFixed(2));
    report("orphans", { kills, scenes: scene, byMoment, byCage, secondsAKill });
    report("orphans, ms alive", {
      ...all,
      byKilled: Object.fromEntries(
        Object.entries(goneMs).map(([whose, values]) => [whose, livedFor(values)]),
      ),
      foundByNextHost: quantile(foundMs, 0.99),
      isJudged,
    });
    expect(wrong).toEqual([]);
    expect(isStrangerThere).toBe(true);
    if (isJudged) expect(all.p99).toBeLessThanOrEqual(P99_MS);
  });
});

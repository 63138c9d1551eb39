import { describe, expect, test } from "vitest";
import { killExactly, probeCage } from "../../../src/process/index.ts";
import { startCli, temporaryFolder } from "../../support/cli.ts";
import { CHAOS_SEED, isMachineOurs, quantile, report, shareOfTime } from "../support/long-form.ts";
import { below, pick, randomFrom } from "../support/random.ts";
import { emptied, Nest } from "./nest.ts";

const { cage: strongest } = await probeCage();
const KILLS = Number(process.env["CJM_CHAOS_KILLS"] ?? 1_000);
const KINDS = [
  "fork",
  "double-fork",
  "setsid",
  "ignore-term",
  "stopped",
  "holds-pipes",
  "forks-on",
];
const MOMENTS = ["ready", "mid-spawn", "mid-evict", "worker", "child"] as const;

/** How often the next host is started too, to see what it leaves: it takes as long as the kill. */
const NEXT_HOSTS = 0.2;
/** The longest that anybody lives on, for nearly all kills. */
const P99_MS = 250;

describe(`orphans, seed ${CHAOS_SEED}`, () => {
  test.skipIf(strongest !== "pidns")("random kills leave nobody", async () => {
    const random = randomFrom(CHAOS_SEED);
    const endsAt = performance.now() + shareOfTime(0.25);
    const goneMs: number[] = [];
    const byMoment: Record<string, number> = {};
    while (goneMs.length < KILLS && performance.now() < endsAt) {
      const moment = pick(random, MOMENTS);
      byMoment[moment] = (byMoment[moment] ?? 0) + 1;
      const kinds = KINDS.filter(() => random() < 0.6);
      await using nest = await Nest.create({
        cage: "auto",
        kinds: [...kinds, "no-environment"],
        isStubborn: random() < 0.3,
      });
      goneMs.push(...(await killAt(nest, moment, random)));
      if (random() < NEXT_HOSTS) {
        await using next = nest.start("stop");
        await next.until("stopped");
        expect(await nest.leftovers(), moment).toEqual([]);
      }
      expect((await nest.cages()).every((cage) => cage === "pidns")).toBe(true);
      expect(await nest.marked(), moment).toEqual([]);
    }
    const [p50, p99, max] = [0.5, 0.99, 1].map((q) => quantile(goneMs, q));
    const isJudged = isMachineOurs();
    report("orphans", { kills: goneMs.length, byMoment, p50, p99, max, isJudged });
    if (isJudged) expect(p99).toBeLessThanOrEqual(P99_MS);
  });

  test("install-all killed at random leaves no process", async () => {
    const random = randomFrom(CHAOS_SEED);
    const endsAt = performance.now() + shareOfTime(0.05);
    let kills = 0;
    do {
      await using nest = await Nest.create({ cage: "auto", kinds: ["fork"] });
      await using data = await temporaryFolder();
      const child = startCli(["install-all", "--only", "sandbox"], { dataDir: data.path });
      await new Promise((resolve) => setTimeout(resolve, random() * 3_000));
      const tree = nest.treeOf(child.pid ?? 0);
      child.kill("SIGKILL");
      await child;
      kills += 1;
      await emptied(nest, tree);
    } while (performance.now() < endsAt);
    report("install kills", { kills });
  });
});

/** One kill at one moment; answers how long the killed one's descendants lived on. */
async function killAt(
  nest: Nest,
  moment: (typeof MOMENTS)[number],
  random: () => number,
): Promise<number[]> {
  await using host = nest.start(moment === "mid-evict" ? "evict" : "wait");
  await host.until(moment === "mid-spawn" ? "opened" : "ready");
  if (moment === "mid-evict") await host.until("evicting");
  await new Promise((resolve) => setTimeout(resolve, random() * 400));
  const family = host.family();
  if (moment === "child" && family.length > 0) {
    // Whoever it is, its worker or its host must cope; both end below.
    killExactly(pick(random, family));
  }
  if (moment === "worker") {
    const pids = (await host.until("ready"))["pids"] as number[];
    const pid = pids[below(random, pids.length)] ?? 0;
    const tree = nest.treeOf(pid);
    process.kill(pid, "SIGKILL");
    const since = performance.now();
    await nest.ended(tree);
    const ms = performance.now() - since;
    return [ms, await emptied(nest, await host.kill())];
  }
  return [await emptied(nest, await host.kill())];
}

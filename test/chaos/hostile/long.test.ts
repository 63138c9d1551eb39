import { monitorEventLoopDelay } from "node:perf_hooks";
import { describe, expect, test } from "vitest";
import { Workbench } from "../../integration/process/support.ts";
import { CHAOS_SEED, isMachineOurs, quantile, report } from "../support/long-form.ts";
import { pick, randomFrom } from "../support/random.ts";
import { ENDING_CASES } from "./hostile-worker.ts";
import {
  mutatedBodies,
  mutatedFrames,
  newTally,
  randomOutput,
  recordedBodies,
} from "./in-process.ts";
import { outcome, startHostile, stillAnswers } from "./over-sockets.ts";

const IN_PROCESS = Number(process.env["CJM_CHAOS_INPUTS"] ?? 1_000_000);
const OVER_SOCKETS = Number(process.env["CJM_CHAOS_ANSWERS"] ?? 10_000);
const AT_ONCE = 64;
/** The HTTP client's own cost: one error for each header over its limit, one push for each chunk. */
const COSTLY = new Set(["endless headers", "one endless header", "endless chunks"]);
const MB = 1024 * 1024;

/** Longest the event loop was held while `work` ran, and how much the process grew. */
async function watched(work: () => Promise<void>): Promise<{ blockedMs: number; grownMb: number }> {
  globalThis.gc?.();
  const before = process.memoryUsage.rss();
  let peak = before;
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, 20);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await work();
  delay.disable();
  clearInterval(timer);
  return {
    blockedMs: Math.ceil(delay.max / 1e6),
    grownMb: Math.round((Math.max(peak, process.memoryUsage.rss()) - before) / MB),
  };
}

describe(`hostile bytes, seed ${CHAOS_SEED}`, () => {
  test(`${IN_PROCESS} inputs in process`, async () => {
    const tally = newTally();
    const half = IN_PROCESS / 2;
    await recordedBodies(tally);
    const cost = await watched(async () => {
      for (let done = 0; done < half; done += 10_000) {
        await mutatedBodies(tally, CHAOS_SEED + done, 10_000);
        mutatedFrames(tally, CHAOS_SEED + done, 10_000);
      }
      await randomOutput(tally, CHAOS_SEED, 64 * MB);
    });
    const { values, errors, frames, notes, lines } = tally;
    report("hostile in process", { inputs: IN_PROCESS, values, errors, frames, notes, lines });
    report("hostile in process, memory", { grownMb: cost.grownMb });
    expect(tally.faults).toEqual([]);
    expect(cost.grownMb).toBeLessThan(512);
  });

  test(`${OVER_SOCKETS} answers over a socket`, async () => {
    await using bench = await Workbench.create();
    const connection = await startHostile(bench);
    const random = randomFrom(CHAOS_SEED);
    const codes: Record<string, number> = {};
    let left = OVER_SOCKETS;
    const lane = async (): Promise<void> => {
      while (left > 0) {
        left -= 1;
        const name = random() < 0.9 ? "mutated" : pick(random, ENDING_CASES);
        const code = await outcome(connection, { case: name, seed: CHAOS_SEED + left });
        codes[code] = (codes[code] ?? 0) + 1;
      }
    };
    const cost = await watched(async () => {
      await Promise.all(Array.from({ length: AT_ONCE }, lane));
    });
    report("hostile over sockets", { answers: OVER_SOCKETS, codes, ...cost });
    expect(await stillAnswers(connection)).toBe(true);
    expect(codes["WORKER_EXITED"]).toBe(undefined);
    expect(cost.grownMb).toBeLessThan(512);
    await connection.kill();
  });

  test("one flood at a time holds the event loop for a moment only", async () => {
    await using bench = await Workbench.create();
    const connection = await startHostile(bench);
    const blocked: Record<string, number> = {};
    for (const name of ENDING_CASES) {
      const runs: number[] = [];
      for (let run = 0; run < 5; run += 1) {
        const { blockedMs } = await watched(async () => {
          await outcome(connection, { case: name });
        });
        runs.push(blockedMs);
      }
      // The median: what another program on the machine takes is not the reader's doing.
      blocked[name] = quantile(runs, 0.5);
    }
    const isJudged = isMachineOurs();
    report("hostile floods, ms blocked", { ...blocked, isJudged });
    if (isJudged)
      expect(
        Object.entries(blocked).filter(([name, ms]) => ms > (COSTLY.has(name) ? 500 : 50)),
      ).toEqual([]);
    await connection.kill();
  });
});

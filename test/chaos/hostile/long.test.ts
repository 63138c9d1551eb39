import { describe, expect, test } from "vitest";
import { Workbench } from "../../integration/process/support.ts";
import { CHAOS_SEED, isMachineOurs, quantile, report } from "../support/long-form.ts";
import { type LoopHold, loopHold } from "../support/loop-hold.ts";
import { pick, randomFrom } from "../support/random.ts";
import { ENDING_CASES } from "./hostile-worker.ts";
import {
  mutatedBodies,
  mutatedFrames,
  newTally,
  randomOutput,
  recordedBodies,
} from "./in-process.ts";
import { outcome, startHostile, stillAnswers, streamOutcome } from "./over-sockets.ts";

const IN_PROCESS = Number(process.env["CJM_CHAOS_INPUTS"] ?? 1_000_000);
const OVER_SOCKETS = Number(process.env["CJM_CHAOS_ANSWERS"] ?? 10_000);
const AT_ONCE = 64;
/** The longest that one turn of the event loop may take, in CPU time: others use the machine too. */
const HELD_MS = 50;
const RUNS = 3;
const FLOODS = ["endless headers", "one endless header", "endless chunks", "1 GB body"];
const MB = 1024 * 1024;

/** How much the process grew at most while `work` ran. */
async function grownMb(work: () => Promise<void>): Promise<number> {
  globalThis.gc?.();
  const before = process.memoryUsage.rss();
  let peak = before;
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, 20);
  await work();
  clearInterval(timer);
  return Math.round((Math.max(peak, process.memoryUsage.rss()) - before) / MB);
}

describe(`hostile bytes, seed ${CHAOS_SEED}`, () => {
  test(`${IN_PROCESS} inputs in process`, async () => {
    const tally = newTally();
    const half = IN_PROCESS / 2;
    await recordedBodies(tally);
    const grown = await grownMb(async () => {
      for (let done = 0; done < half; done += 10_000) {
        await mutatedBodies(tally, CHAOS_SEED + done, 10_000);
        mutatedFrames(tally, CHAOS_SEED + done, 10_000);
      }
      await randomOutput(tally, CHAOS_SEED, 64 * MB);
    });
    const { values, errors, frames, notes, lines } = tally;
    report("hostile in process", { inputs: IN_PROCESS, values, errors, frames, notes, lines });
    report("hostile in process, memory", { grownMb: grown });
    expect(tally.faults).toEqual([]);
    expect(grown).toBeLessThan(512);
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
    const grown = await grownMb(async () => {
      await Promise.all(Array.from({ length: AT_ONCE }, lane));
    });
    report("hostile over sockets", { answers: OVER_SOCKETS, codes, grownMb: grown });
    expect(await stillAnswers(connection)).toBe(true);
    expect(codes["WORKER_EXITED"]).toBe(undefined);
    expect(grown).toBeLessThan(512);
    await connection.kill();
  });

  test("no flood holds the event loop", async () => {
    await using bench = await Workbench.create();
    const connection = await startHostile(bench);
    const held: Record<string, number> = {};
    const longest: Record<string, number> = {};
    const note = async (name: string, work: () => Promise<unknown>): Promise<void> => {
      const runs: LoopHold[] = [];
      for (let run = 0; run < RUNS; run += 1) runs.push(await loopHold(work));
      // The median: a collection of what other tests have left is not the reader's doing.
      held[name] = quantile(
        runs.map(({ cpuMs }) => cpuMs),
        0.5,
      );
      longest[name] = quantile(
        runs.map(({ wallMs }) => wallMs),
        1,
      );
    };
    for (const name of ENDING_CASES) {
      await note(name, () => outcome(connection, { case: name }));
      await note(`${name}, streamed`, () => streamOutcome(connection, { case: name }));
    }
    const all = Array.from({ length: AT_ONCE }, (_, index) => FLOODS[index % FLOODS.length]);
    await note(`${AT_ONCE} at once`, () =>
      Promise.all(all.map((name) => outcome(connection, { case: name }))),
    );
    report("hostile floods, CPU ms in one turn, median", held);
    report("hostile floods, ms in one turn, longest", longest);
    const tooLong = (ms: Record<string, number>): unknown =>
      Object.entries(ms).filter(([, each]) => each > HELD_MS);
    expect(tooLong(held)).toEqual([]);
    // On the wall there is what others took, too.
    if (isMachineOurs()) expect(tooLong(longest)).toEqual([]);
    await connection.kill();
  });
});

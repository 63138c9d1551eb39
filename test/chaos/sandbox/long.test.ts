import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findProgram } from "../../../workers/sandbox/languages.ts";
import { ABUSE_CASES } from "../../integration/sandbox/abuse-cases.ts";
import { leftovers } from "../../integration/sandbox/leaks.ts";
import { Bench } from "../../integration/sandbox/support.ts";

const REPEATS = Number(process.env["SANDBOX_REPEATS"] ?? 20);
const RUNS = Number(process.env["SANDBOX_RUNS"] ?? 1_000);
const MB = 1_048_576;

const BACKENDS = [
  { isolation: "bubblewrap", program: "bwrap" },
  { isolation: "nsjail", program: "nsjail" },
] as const;

for (const { isolation, program } of BACKENDS) {
  const isMissing = findProgram(program) === undefined;
  const why = isMissing ? ` (skipped: no "${program}" on PATH)` : "";

  describe.skipIf(isMissing)(`${isolation} for long${why}`, () => {
    let bench: Bench;
    beforeAll(async () => {
      bench = await Bench.open();
    });
    afterAll(() => bench[Symbol.asyncDispose]());

    test(`${RUNS} runs, four at a time, leave nothing`, { timeout: 600_000 }, async () => {
      const one = () => bench.run({ language: "command", argv: ["true"], isolation });
      await Promise.all([one(), one(), one(), one()]);
      const before = await leftovers(bench.workbench);
      let left = RUNS;
      const lane = async (): Promise<void> => {
        while (left > 0) {
          left -= 1;
          const { status } = await one();
          if (status !== "ok") throw new Error(`a run ended with ${status}`);
        }
      };

      await Promise.all([lane(), lane(), lane(), lane()]);

      expect(await leftovers(bench.workbench)).toEqual(before);
    });

    test("a writer of 1 GB costs the worker its cap and 10 MB", { timeout: 120_000 }, async () => {
      const outputBytes = 4 * MB;
      await bench.run({ code: "print('warm')", isolation });
      globalThis.gc?.();
      const before = process.memoryUsage.rss();
      let peak = before;
      const timer = setInterval(() => {
        peak = Math.max(peak, process.memoryUsage.rss());
      }, 5);
      const result = await bench.run({
        code: "import os\nc = b'x' * (1 << 20)\nfor _ in range(1024):\n  left = c\n  while left: left = left[os.write(1, left):]",
        limits: { output_bytes: outputBytes, wall_ms: 60_000 },
        isolation,
      });
      clearInterval(timer);
      console.log(`${isolation}: peak RSS grew by ${((peak - before) / MB).toFixed(1)} MB`);
      expect(result).toMatchObject({ status: "output_limit", exit_code: 0 });
      // Once as it came, once joined; the text and the copy on the way out are the result itself.
      expect(peak - before).toBeLessThan(outputBytes + 10 * MB);
    });

    test.for(ABUSE_CASES)(
      `${REPEATS} times the same: $name`,
      { timeout: 600_000 },
      async ({ input, status }) => {
        const seen = new Map<string, number>();
        for (let index = 0; index < REPEATS; index += 1) {
          const result = await bench.run({ ...input, isolation });
          seen.set(result.status, (seen.get(result.status) ?? 0) + 1);
        }
        expect(Object.fromEntries(seen)).toEqual({ [status]: REPEATS });
      },
    );
  });
}

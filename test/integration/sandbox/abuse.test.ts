import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findProgram } from "../../../workers/sandbox/languages.ts";
import { ABUSE_CASES } from "./abuse-cases.ts";
import { leftovers, type Leftovers } from "./leaks.ts";
import { Bench } from "./support.ts";

process.env["SANDBOX_TEST_SECRET"] = "do not leak";

const BACKENDS = [
  { isolation: "bubblewrap", program: "bwrap" },
  { isolation: "nsjail", program: "nsjail" },
] as const;

for (const { isolation, program } of BACKENDS) {
  const isMissing = findProgram(program) === undefined;
  const why = isMissing ? ` (skipped: no "${program}" on PATH)` : "";

  describe.skipIf(isMissing)(`abuse in ${isolation}${why}`, () => {
    let bench: Bench;
    let before: Leftovers;
    beforeAll(async () => {
      bench = await Bench.open();
      await bench.run({ isolation, language: "command", argv: ["true"] });
      before = await leftovers(bench.workbench);
    });
    afterAll(async () => {
      const after = await leftovers(bench.workbench);
      await bench[Symbol.asyncDispose]();
      expect(after).toEqual(before);
    });

    test.for(ABUSE_CASES)("$name: $status", async ({ input, status, result = {} }) => {
      const { status: seen, ...rest } = await bench.run({ ...input, isolation });

      expect({ status: seen, stderr: rest.stderr.slice(0, 500) }).toMatchObject({ status });
      expect(rest).toMatchObject(result);
      expect(rest.isolation.backend).toBe(isolation);
    });
  });
}

import { describe, expect, test } from "vitest";
import { OOD_TASKS } from "../../../workers/evaluation/ood-tasks.ts";
import { Bench } from "../sandbox/support.ts";

describe("our out-of-distribution tasks, in a jail", () => {
  test(
    "are passed by their solutions and by nothing that cheats",
    { timeout: 45_000 },
    async () => {
      await using bench = await Bench.open();
      const checked = await Promise.all(
        OOD_TASKS.map(async ({ id, function: name, cases, language, solution = "" }) => {
          const place = { function: name, cases, language, isolation: "auto" as const };
          const [solved, empty, ended] = await Promise.all([
            bench.check({ ...place, code: solution }),
            bench.check({ ...place, code: `def ${name}(*_): pass` }),
            bench.check({ ...place, code: `import os\ndef ${name}(*_): os._exit(0)` }),
          ]);
          return { id, verdicts: [solved, empty, ended].map((one) => one.all_passed) };
        }),
      );
      expect(checked).toEqual(OOD_TASKS.map(({ id }) => ({ id, verdicts: [true, false, false] })));
      expect(checked.length).toBeGreaterThanOrEqual(10);
    },
  );
});

import { describe, expect, test } from "vitest";
import { judgeTests } from "../../../workers/sandbox/test-verdict.ts";

describe("judgeTests", () => {
  const declared = [
    { name: "a", many: false },
    { name: "b", many: true },
  ];
  const report = (name: string, outcome = "passed") => ({ name, outcome, message: "" });
  const ok = { status: "ok", message: "exited with 0" } as const;

  test("passes when every declared test passed once and the harness came to its end", () => {
    const reports = [report("a"), report("b"), report("b"), report("", "done")];
    expect(judgeTests(declared, reports, ok)).toMatchObject({
      passed: 2,
      total: 2,
      all_passed: true,
    });
  });

  test.for([
    ["a test is missing", [report("a"), report("", "done")]],
    ["a test is extra", [report("a"), report("b"), report("c"), report("", "done")]],
    ["a test is reported twice", [report("a"), report("a"), report("b"), report("", "done")]],
    ["a test is skipped", [report("a", "skipped"), report("b"), report("", "done")]],
    ["a line was forged", [report("", "forged"), report("a"), report("b"), report("", "done")]],
    ["the end is missing", [report("a"), report("b")]],
  ] as const)("does not pass when %s", ([, reports]) => {
    expect(judgeTests(declared, reports, ok).all_passed).toBe(false);
  });

  test("does not pass when there is nothing to pass or the process ended badly", () => {
    expect(judgeTests([], [report("", "done")], ok).all_passed).toBe(false);
    const failed = { status: "nonzero", message: "exited with 1" } as const;
    const reports = [report("a"), report("b"), report("", "done")];
    expect(judgeTests(declared, reports, failed).all_passed).toBe(false);
  });
});

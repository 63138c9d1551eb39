import type { DeclaredTest } from "./node-test-names.ts";
import type { RunOutput } from "./schemas.ts";
import type { TestResult, TestsOutput } from "./tests-schema.ts";

/** One report of a harness; `outcome` is whatever it said. */
export interface TestReport {
  readonly name: string;
  readonly outcome: string;
  readonly message: string;
}

const OUTCOMES = ["passed", "failed", "error", "skipped", "tampered"] as const;

/**
 * Judges what a harness reported against the tests the source declares.
 *
 * A declared test without a report is missing, one reported twice or not declared is extra, and
 * nothing passes as a whole unless the harness came to its end, reported nothing else and its
 * process ended well.
 */
export function judgeTests(
  declared: readonly DeclaredTest[],
  reports: readonly TestReport[],
  run: Pick<RunOutput, "status" | "message">,
): Pick<TestsOutput, "passed" | "total" | "all_passed" | "tests" | "message"> {
  const named = reports.filter(({ name }) => name !== "");
  const tests = [...declared.map((test) => resultOf(test, named)), ...extras(declared, named)];
  const passed = tests.filter(({ outcome }) => outcome === "passed").length;
  const problem = problemOf(declared, reports, run);
  const total = tests.length;
  const isWhole = problem === undefined && total > 0 && passed === total;
  return {
    tests,
    passed,
    total,
    all_passed: isWhole,
    message: problem ?? `${passed} of ${total} tests passed`,
  };
}

function problemOf(
  declared: readonly DeclaredTest[],
  reports: readonly TestReport[],
  run: Pick<RunOutput, "status" | "message">,
): string | undefined {
  if (declared.length === 0) return "the test file declares no test";
  const loadError = reports.find(({ outcome }) => outcome === "load_error");
  if (loadError !== undefined) return `the tests could not be loaded: ${loadError.message}`;
  if (reports.some(({ outcome }) => outcome === "forged")) {
    return "something that is not the test runner wrote to its channel";
  }
  if (run.status !== "ok") return `the test process ${run.message}`;
  const isDone = reports.at(-1)?.outcome === "done";
  return isDone ? undefined : "the test process ended before its tests did";
}

function resultOf({ name, many }: DeclaredTest, reports: readonly TestReport[]): TestResult {
  const mine = reports.filter((report) => report.name === name);
  const [first] = mine;
  if (first === undefined) return { name, outcome: "missing" };
  if (mine.length > 1 && !many) {
    return { name, outcome: "extra", message: `reported ${mine.length} times` };
  }
  const worst = mine.find(({ outcome }) => outcome !== "passed") ?? first;
  return { name, ...outcomeOf(worst) };
}

function outcomeOf({ outcome, message }: TestReport): Omit<TestResult, "name"> {
  const known = OUTCOMES.find((each) => each === outcome) ?? "error";
  return message === "" ? { outcome: known } : { outcome: known, message };
}

function extras(declared: readonly DeclaredTest[], reports: readonly TestReport[]): TestResult[] {
  const names = new Set(declared.map(({ name }) => name));
  return reports
    .filter(({ name }) => !names.has(name))
    .map(({ name }) => ({ name, outcome: "extra", message: "the test file does not declare it" }));
}

import type { RunOutput } from "./schemas.ts";

/**
 * What a Python program with unittest classes printed about its tests; undefined where it printed
 * no such report. A program can print one without a test, so it is a reading and no verdict.
 */
export function readPrintedTests(
  code: string,
  { stderr }: Pick<RunOutput, "stderr">,
): RunOutput["printed_tests"] {
  if (!hasUnittestClasses(code)) return undefined;
  const counted = countTestResults(stderr);
  return counted.total === 0 ? undefined : { ...counted, failed: extractFailedTests(stderr) };
}

/** How many of a unittest run's tests passed, read from what it printed; nothing found is 0 of 0. */
export function countTestResults(stderr: string): { passed: number; total: number } {
  const total = numberAfter(/Ran (?<n>\d+) test/u, stderr);
  const failed =
    numberAfter(/failures=(?<n>\d+)/u, stderr) + numberAfter(/errors=(?<n>\d+)/u, stderr);
  return { passed: Math.max(0, total - failed), total };
}

function numberAfter(pattern: RegExp, text: string): number {
  return Number(pattern.exec(text)?.groups?.["n"] ?? 0);
}

const MAX_FAILED_NAMES = 5;

/** The first five lines of a unittest run that name a failure, joined by `"; "`. */
export function extractFailedTests(stderr: string): string {
  return stderr
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line.startsWith("FAIL:") || line.startsWith("ERROR:"))
    .slice(0, MAX_FAILED_NAMES)
    .join("; ");
}

/** True where Python source defines a class whose bases name TestCase. */
export function hasUnittestClasses(code: string): boolean {
  return /class\s+\w+\s*\(.*\bTestCase\b.*\)/u.test(code);
}

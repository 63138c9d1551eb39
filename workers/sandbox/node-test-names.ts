/** A test as its source names it. */
export interface DeclaredTest {
  readonly name: string;
  /** True for a test that runs once per parameter. */
  readonly many: boolean;
}

interface OpenSuite {
  readonly name: string;
  readonly depth: number;
}

const CALL =
  /(?<![\w$.])(?<kind>test|it|describe|suite)(?:\.(?:only|skip|todo))?\s*\(\s*(?<quote>["'`])/uy;

/**
 * Names of node:test tests, read from the source without running it: nested names joined by " > ".
 *
 * Comments and strings are skipped. Only names that are literals can be read; a test whose name is
 * computed is not declared, and its result will be an extra one.
 */
export function readNodeTestNames(source: string): DeclaredTest[] {
  const tests: DeclaredTest[] = [];
  let suites: OpenSuite[] = [];
  let depth = 0;
  let index = 0;
  while (index < source.length) {
    CALL.lastIndex = index;
    const call = CALL.exec(source);
    if (call !== null) {
      const literal = endOfString(source, index + call[0].length - 1);
      const name = textOf(source.slice(index + call[0].length, literal - 1));
      const path = [...suites.map((suite) => suite.name), name].join(" > ");
      const isSuite = ["describe", "suite"].includes(call.groups?.["kind"] ?? "");
      if (isSuite) suites.push({ name, depth });
      else tests.push({ name: path, many: false });
      depth += 1;
      index = literal;
      continue;
    }
    const character = source[index] ?? "";
    if (character === "(") depth += 1;
    if (character === ")") {
      depth -= 1;
      suites = suites.filter((suite) => suite.depth < depth);
    }
    index = nextIndex(source, index);
  }
  return tests;
}

/** Steps over a whole comment, string or character. */
function nextIndex(source: string, index: number): number {
  const two = source.slice(index, index + 2);
  if (two === "//") return orEnd(source, source.indexOf("\n", index));
  if (two === "/*") return orEnd(source, source.indexOf("*/", index + 2), 2);
  return /["'`]/u.test(two[0] ?? "") ? endOfString(source, index) : index + 1;
}

function orEnd(source: string, found: number, length = 1): number {
  return found === -1 ? source.length : found + length;
}

/** The index after the closing quote of the string that opens at `start`. */
function endOfString(source: string, start: number): number {
  const quote = source[start];
  let index = start + 1;
  while (index < source.length && source[index] !== quote) index += source[index] === "\\" ? 2 : 1;
  return Math.min(index + 1, source.length);
}

/** The text of a literal's inside; escapes other than of quotes are rare in names and kept. */
function textOf(inside: string): string {
  return inside.replaceAll(/\\(?<quote>["'`\\])/gu, "$<quote>");
}

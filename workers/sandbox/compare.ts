/** How an answer is compared with what was expected. */
export interface Comparison {
  /** For text: every byte, without white space at line ends and at the end, or word by word. */
  readonly text: "exact" | "trim" | "tokens";
  /** Largest difference of two numbers that are taken as equal, relative to the larger or absolute. */
  readonly tolerance: number;
}

/** True where two JSON values are the same; numbers within the tolerance. */
export function sameValue(got: unknown, expected: unknown, comparison: Comparison): boolean {
  if (typeof got === "number" && typeof expected === "number") {
    return sameNumber(got, expected, comparison.tolerance);
  }
  if (Array.isArray(got) && Array.isArray(expected)) {
    return (
      got.length === expected.length &&
      got.every((item, index) => sameValue(item, expected[index], comparison))
    );
  }
  if (isObject(got) && isObject(expected)) return sameMembers(got, expected, comparison);
  return got === expected;
}

function sameMembers(
  got: Readonly<Record<string, unknown>>,
  expected: Readonly<Record<string, unknown>>,
  comparison: Comparison,
): boolean {
  const names = Object.keys(expected);
  return (
    Object.keys(got).length === names.length &&
    names.every(
      (name) => Object.hasOwn(got, name) && sameValue(got[name], expected[name], comparison),
    )
  );
}

function sameNumber(got: number, expected: number, tolerance: number): boolean {
  const scale = Math.max(1, Math.abs(got), Math.abs(expected));
  return got === expected || Math.abs(got - expected) <= tolerance * scale;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** True where printed text is what was expected. */
export function sameText(got: string, expected: string, comparison: Comparison): boolean {
  if (comparison.text === "exact") return got === expected;
  if (comparison.text === "trim") return trimLines(got) === trimLines(expected);
  const words = got.split(/\s+/u).filter(Boolean);
  const wanted = expected.split(/\s+/u).filter(Boolean);
  return (
    words.length === wanted.length &&
    words.every((word, index) => sameWord(word, wanted[index] ?? "", comparison.tolerance))
  );
}

function trimLines(text: string): string {
  return text.replaceAll(/[^\S\n]+$/gmu, "").trimEnd();
}

function sameWord(got: string, expected: string, tolerance: number): boolean {
  if (got === expected) return true;
  const [a, b] = [Number(got), Number(expected)];
  return tolerance > 0 && Number.isFinite(a) && Number.isFinite(b) && sameNumber(a, b, tolerance);
}

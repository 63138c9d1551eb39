import { refuse } from "./fault.ts";

/** Differences of decimal fractions are a little off: 0.12 - 0.1 is below 0.02. */
const ROUNDING = 1e-9;

/** Out-of-distribution minus in-distribution: negative where what was learned does not carry over. */
export function generalizationDelta(inDistribution: number, outOfDistribution: number): number {
  return outOfDistribution - inDistribution;
}

const QUALITY_OF_DELTA = 0.1;

/** The pass rate, raised or lowered by a tenth of the generalization delta, within 0 and 1. */
export function adapterQuality(rate: number, delta: number | null): number {
  return Math.min(1, Math.max(0, rate + QUALITY_OF_DELTA * (delta ?? 0)));
}

export interface KillSwitch {
  readonly pass: boolean;
  readonly delta: number;
  /** Null where the base scores 0: no gain is relative to nothing. */
  readonly relative_delta: number | null;
}

/**
 * An adapter must beat its base by the share `threshold` of the base's score, and must beat it at
 * all: nothing against nothing does not pass.
 */
export function killSwitch(base: number, adapter: number, threshold: number): KillSwitch {
  return {
    pass: adapter > base && adapter >= base * (1 + threshold) - ROUNDING,
    delta: adapter - base,
    relative_delta: base === 0 ? null : (adapter - base) / base,
  };
}

/** What the second round must show. */
export interface Round2Limits {
  /** Benchmarks that must improve. @default 4 */
  readonly improved: number;
  /** What counts as an improvement, absolute. @default 0.02 */
  readonly gain: number;
  /** Largest loss of any benchmark, absolute. @default 0.01 */
  readonly regression: number;
}

export interface Round2 {
  readonly pass: boolean;
  readonly improved: number;
  readonly max_regression: number;
  readonly benchmarks: readonly { readonly benchmark: string; readonly delta: number }[];
}

type Scores = Readonly<Record<string, number>>;

/**
 * Whether enough benchmarks improve and none gets much worse.
 *
 * @throws {CjmError} naming every benchmark that only one side has.
 */
export function round2Gate(before: Scores, after: Scores, limits: Round2Limits): Round2 {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const missing = names.filter(
    (name) => !Object.hasOwn(before, name) || !Object.hasOwn(after, name),
  );
  if (missing.length > 0) throw refuse(`Only one side has: ${missing.join(", ")}`, missing);
  const benchmarks = names.map((benchmark) => {
    return { benchmark, delta: (after[benchmark] ?? 0) - (before[benchmark] ?? 0) };
  });
  const improved = benchmarks.filter(({ delta }) => delta >= limits.gain - ROUNDING).length;
  const maxRegression = Math.max(0, ...benchmarks.map(({ delta }) => -delta));
  return {
    pass: improved >= limits.improved && maxRegression <= limits.regression + ROUNDING,
    improved,
    max_regression: maxRegression,
    benchmarks,
  };
}

import { refuse } from "./fault.ts";
import { mean, type Tally } from "./pass-at-k.ts";

export interface Comparison {
  /** Mean over the tasks of b's pass rate minus a's. */
  readonly difference: number;
  readonly interval: readonly [low: number, high: number];
  readonly tasks: number;
  /** Tasks at which b is better, worse, the same. */
  readonly wins: number;
  readonly losses: number;
  readonly ties: number;
  /** `undecided`: the interval holds 0. */
  readonly verdict: "better" | "worse" | "undecided";
}

/**
 * Two candidates on the same tasks, task by task.
 *
 * The interval is the adjusted Wald interval for paired proportions (Bonett and Price, Journal of
 * Educational and Behavioral Statistics 37, 2012): one task is added that b wins and one that it
 * loses, so that two tasks without a difference prove nothing. For pass rates between 0 and 1 it is
 * wider than need be.
 *
 * @throws {CjmError} naming the tasks that only one of them has, or has twice.
 */
export function compare(a: readonly Tally[], b: readonly Tally[], confidence: number): Comparison {
  const [left, right] = [ratesOf(a, "a"), ratesOf(b, "b")];
  const alone = [...left.keys(), ...right.keys()].filter(
    (task) => !left.has(task) || !right.has(task),
  );
  if (alone.length > 0) throw refuse(`Not on the same tasks: ${[...new Set(alone)].join(", ")}`);
  if (left.size === 0) throw refuse("There is no task to compare on", ["a", "b"]);
  const differences = [...left].map(([task, rate]) => (right.get(task) ?? 0) - rate);
  const interval = adjustedWald(differences, confidence);
  const wins = differences.filter((difference) => difference > 0).length;
  const losses = differences.filter((difference) => difference < 0).length;
  return {
    difference: mean(differences),
    interval,
    tasks: differences.length,
    wins,
    losses,
    ties: differences.length - wins - losses,
    verdict: verdictOf(interval),
  };
}

function verdictOf([low, high]: readonly [number, number]): Comparison["verdict"] {
  if (low > 0) return "better";
  return high < 0 ? "worse" : "undecided";
}

function adjustedWald(differences: readonly number[], confidence: number): [number, number] {
  const adjusted = [...differences, 1, -1];
  const center = mean(adjusted);
  const variance = mean(adjusted.map((value) => value * value)) - center * center;
  const half = normalQuantile((1 + confidence) / 2) * Math.sqrt(variance / adjusted.length);
  return [Math.max(-1, center - half), Math.min(1, center + half)];
}

function ratesOf(tallies: readonly Tally[], side: string): Map<string, number> {
  const rates = new Map<string, number>();
  for (const { task, n, c } of tallies) {
    if (n < 1 || c > n)
      throw refuse(`${side}: task "${task}" has ${c} right answers of ${n}`, [side]);
    if (rates.has(task)) throw refuse(`${side}: task "${task}" is there twice`, [side]);
    rates.set(task, c / n);
  }
  return rates;
}

/** Inverse of the normal distribution for p above 0.5, by bisection of {@link normalTail}. */
export function normalQuantile(p: number): number {
  let [low, high] = [0, 40];
  for (let step = 0; step < 100; step += 1) {
    const middle = (low + high) / 2;
    if (1 - normalTail(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/**
 * P(Z > z) for z >= 0: complementary error function by Numerical Recipes' Chebyshev fit (Press et al.,
 * 3rd ed., 6.2.2), relative error below 1.2e-7.
 */
function normalTail(z: number): number {
  const x = z / Math.SQRT2;
  const t = 2 / (2 + x);
  const series = ERFC.reduceRight((sum, coefficient) => coefficient + t * sum, 0);
  return (t * Math.exp(-x * x + series)) / 2;
}

const ERFC = [
  -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
  -0.82215223, 0.17087277,
];

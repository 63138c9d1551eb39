import { refuse } from "./fault.ts";

/** How one task went: `c` of `n` answers were right. */
export interface Tally {
  readonly task: string;
  readonly n: number;
  readonly c: number;
}

/**
 * The probability that at least one of `k` answers is right, unbiased, from `n` answers of which `c`
 * are right: `1 - C(n-c, k) / C(n, k)` as a product, without large binomials (Chen et al., Evaluating
 * Large Language Models Trained on Code, 2021).
 *
 * @throws {CjmError} where there is no such estimate: no answers, fewer than `k`, or more right ones
 *   than answers. None of these is a 0 or a 1.
 */
export function passAtK({ n, c }: { readonly n: number; readonly c: number }, k: number): number {
  const isCount = [n, c, k].every((value) => Number.isInteger(value) && value >= 0);
  if (!isCount || k < 1) throw refuse(`pass@${k} of ${c} in ${n}: counts from 0 and a k from 1`);
  if (c > n) throw refuse(`${c} right answers of ${n}`, ["c"]);
  if (k > n) throw refuse(`pass@${k} cannot be estimated from ${n} answers`, ["k"]);
  if (n - c < k) return 1;
  let allWrong = 1;
  for (let i = 0; i < k; i += 1) allWrong *= (n - c - i) / (n - i);
  return 1 - allWrong;
}

/** pass@k over tasks. */
export interface PassAtK {
  readonly k: number;
  /** Mean over the tasks; null where a task has too few answers, or there is no task. */
  readonly value: number | null;
  /** Tasks with fewer than `k` answers. */
  readonly too_few: readonly string[];
}

/** The mean of each task's pass@k: a task counts once, however often it was answered. */
export function meanPassAtK(tallies: readonly Tally[], k: number): PassAtK {
  const tooFew = tallies.filter(({ n }) => n < k).map(({ task }) => task);
  if (tooFew.length > 0 || tallies.length === 0) return { k, value: null, too_few: tooFew };
  return { k, value: mean(tallies.map((tally) => passAtK(tally, k))), too_few: [] };
}

/** The share of right answers, each task counting once; null without an answer. */
export function passRate(tallies: readonly Tally[]): number | null {
  const answered = tallies.filter(({ n }) => n > 0);
  return answered.length === 0 ? null : mean(answered.map(({ n, c }) => c / n));
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * A running estimate of one quantile in constant space.
 *
 * The P² algorithm of R. Jain and I. Chlamtac, "The P² algorithm for dynamic calculation of
 * quantiles and histograms without storing observations", Communications of the ACM 28(10), 1985.
 * Five markers; exact while fewer than five values were seen. Plain data, so it can be stored.
 */
export interface Quantile {
  readonly p: number;
  readonly count: number;
  /** Heights of the five markers; while `count` < 5 the values themselves, sorted. */
  readonly heights: readonly number[];
  /** Positions of the markers, counted from 1. */
  readonly positions: readonly number[];
}

const MARKERS = 5;

export function emptyQuantile(p: number): Quantile {
  return { p, count: 0, heights: [], positions: [1, 2, 3, 4, 5] };
}

/** The sketch with one more value. */
export function addToQuantile(sketch: Quantile, value: number): Quantile {
  const count = sketch.count + 1;
  if (sketch.count < MARKERS) {
    const heights = [...sketch.heights, value].sort((a, b) => a - b);
    return { ...sketch, count, heights };
  }
  const heights = [...sketch.heights];
  const positions = [...sketch.positions];
  const cell = insertIntoCells(heights, value);
  for (let i = cell + 1; i < MARKERS; i++) positions[i] = at(positions, i) + 1;
  const { p } = sketch;
  const fractions = [0, p / 2, p, (1 + p) / 2, 1];
  for (let i = 1; i < MARKERS - 1; i++) {
    adjust(heights, positions, i, 1 + (count - 1) * at(fractions, i));
  }
  return { p, count, heights, positions };
}

/** The estimate; null before the first value. */
export function quantileOf(sketch: Quantile): number | null {
  if (sketch.count === 0) return null;
  if (sketch.count > MARKERS) return at(sketch.heights, 2);
  const rank = Math.ceil(sketch.p * sketch.count) - 1;
  return at(sketch.heights, Math.max(0, rank));
}

/** Index of the cell that holds the value; the outer markers follow the extremes. */
function insertIntoCells(heights: number[], value: number): number {
  if (value < at(heights, 0)) {
    heights[0] = value;
    return 0;
  }
  if (value >= at(heights, 4)) {
    heights[4] = value;
    return 3;
  }
  return heights.findLastIndex((height) => height <= value);
}

function adjust(heights: number[], positions: number[], i: number, desired: number): void {
  const position = at(positions, i);
  const gap = desired - position;
  const mayRise = gap >= 1 && at(positions, i + 1) - position > 1;
  const mayFall = gap <= -1 && at(positions, i - 1) - position < -1;
  if (!mayRise && !mayFall) return;
  const step = mayRise ? 1 : -1;
  const parabolic = parabola(heights, positions, i, step);
  const fits = at(heights, i - 1) < parabolic && parabolic < at(heights, i + 1);
  heights[i] = fits ? parabolic : line(heights, positions, i, step);
  positions[i] = position + step;
}

function parabola(q: readonly number[], n: readonly number[], i: number, d: number): number {
  const [below, here, above] = [at(n, i - 1), at(n, i), at(n, i + 1)];
  const rise = ((here - below + d) * (at(q, i + 1) - at(q, i))) / (above - here);
  const fall = ((above - here - d) * (at(q, i) - at(q, i - 1))) / (here - below);
  return at(q, i) + (d / (above - below)) * (rise + fall);
}

function line(q: readonly number[], n: readonly number[], i: number, d: number): number {
  return at(q, i) + (d * (at(q, i + d) - at(q, i))) / (at(n, i + d) - at(n, i));
}

function at(values: readonly number[], index: number): number {
  return values[index] ?? 0;
}

import { symmetricEigen, type Eigen } from "./eigen.ts";
import {
  apply,
  gram,
  multiplySquare,
  thin,
  transpose,
  transposeSquare,
  type Thin,
} from "./thin.ts";

/** How many singular values to keep: so many, or as few as hold that share of the energy. */
export interface RankTarget {
  readonly rank: number;
  /** Share of the sum of squared singular values, 0..1. */
  readonly energy?: number | undefined;
}

/** `b * a` is the best approximation of its rank. */
export interface LowRank {
  /** rank x in */
  readonly a: Thin;
  /** out x rank */
  readonly b: Thin;
  readonly rank: number;
  /** Squared Frobenius norm of the whole product. */
  readonly totalEnergy: number;
  readonly keptEnergy: number;
}

/** Singular values below this share of the largest are rounding of the inputs, not content. */
const NUMERICAL_ZERO = 3e-8;
const EIGEN_FLOOR = 1e-16;

/**
 * The best low-rank form of `b^T * a`, where a is R x in and b is R x out (both with R rows).
 *
 * Exact: both sides are brought to an orthonormal basis through their R x R Gram matrices, the core
 * between them is decomposed, and nothing of size out x in is ever formed. This is the QR form
 * (`B = Q_B R_B`, `A^T = Q_A R_A`, SVD of `R_B R_A^T`) with symmetric square roots as R. Each side
 * carries the square root of the singular values, so neither loses range in 16 bits.
 */
export function recompress(
  a: Thin,
  b: Thin,
  target: RankTarget,
  grams: Grams = { a: gram(a), b: gram(b) },
): LowRank {
  const n = a.rows;
  const left = root(symmetricEigen(grams.b, n), n);
  const right = root(symmetricEigen(grams.a, n), n);
  // core = D_B^1/2 V_B^T V_A D_A^1/2
  const core = multiplySquare(left.rows, transposeSquare(right.rows, n), n);
  const { values, vectors } = symmetricEigen(multiplySquare(transposeSquare(core, n), core, n), n);
  const energies = Float64Array.from(values, (value) => Math.max(0, value));
  const totalEnergy = energies.reduce((sum, value) => sum + value, 0);
  const rank = rankFor(energies, target);
  const used = usable(energies, Math.min(rank, n));
  const q = transposeSquare(vectors, n);
  const toA = scaleRows(
    multiplySquare(q, right.inverseRows, n),
    n,
    (j) => (energies[j] ?? 0) ** 0.25,
  );
  const projected = multiplySquare(transposeSquare(core, n), left.inverseRows, n);
  const toB = scaleRows(multiplySquare(q, projected, n), n, (j) => (energies[j] ?? 0) ** -0.25);
  const keptEnergy = energies.subarray(0, used).reduce((sum, value) => sum + value, 0);
  return {
    a: pad(apply(toA, used, a), rank),
    b: transpose(pad(apply(toB, used, b), rank)),
    rank,
    totalEnergy,
    keptEnergy,
  };
}

/** `a a^T` and `b b^T`, for a caller that has them already. */
export interface Grams {
  readonly a: Float64Array;
  readonly b: Float64Array;
}

interface Root {
  /** `D^1/2 V^T` */
  readonly rows: Float64Array;
  /** `D^-1/2 V^T` */
  readonly inverseRows: Float64Array;
}

/**
 * Square root of a Gram matrix. Tiny eigenvalues are raised to a floor instead of dropped: the two
 * forms stay inverse to each other, so the product they bracket stays exact.
 */
function root({ values, vectors }: Eigen, n: number): Root {
  const floor = Math.max((values[0] ?? 0) * EIGEN_FLOOR, Number.MIN_VALUE * 2 ** 52);
  const roots = Float64Array.from(values, (value) => Math.sqrt(Math.max(value, floor)));
  const rows = transposeSquare(vectors, n);
  return {
    rows: scaleRows(rows, n, (j) => roots[j] ?? 0),
    inverseRows: scaleRows(rows, n, (j) => 1 / (roots[j] ?? 1)),
  };
}

function scaleRows(x: Float64Array, n: number, factor: (row: number) => number): Float64Array {
  return Float64Array.from(x, (value, index) => value * factor(Math.floor(index / n)));
}

/** The number of singular values that the target asks for; at least one. */
export function rankFor(energies: Float64Array, { rank, energy }: RankTarget): number {
  if (energy === undefined) return rank;
  const total = energies.reduce((sum, value) => sum + value, 0);
  let kept = 0;
  for (let j = 0; j < Math.min(rank, energies.length); j += 1) {
    kept += energies[j] ?? 0;
    if (kept >= energy * total) return j + 1;
  }
  return rank;
}

function usable(energies: Float64Array, rank: number): number {
  const least = (energies[0] ?? 0) * NUMERICAL_ZERO ** 2;
  let used = 0;
  while (used < rank && (energies[used] ?? 0) > least) used += 1;
  return used;
}

/** The same rows with zero rows behind them. */
export function pad(x: Thin, rows: number): Thin {
  if (x.rows === rows) return x;
  const out = thin(rows, x.columns);
  out.values.set(x.values);
  return out;
}

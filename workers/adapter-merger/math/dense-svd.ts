import { symmetricEigen } from "./eigen.ts";
import { pad, rankFor, type LowRank, type RankTarget } from "./factored.ts";
import type { Arena, Matrix } from "./gemm.ts";
import { fillNormal, type StreamKey } from "./random.ts";
import { apply, gram, orthonormaliseRows, thin, transpose, type Thin } from "./thin.ts";

/** How near the best approximation must come, and what that costs. */
export interface Effort {
  /** Directions that are searched beyond the rank. */
  readonly oversampling: number;
  /** Each multiplies the gap between wanted and unwanted singular values by itself twice. */
  readonly powerSteps: number;
}

/** Within about a thousandth of the energy that the best approximation keeps. */
export const NEAR_BEST: Effort = { oversampling: 8, powerSteps: 2 };
/** For the numbers of a tool that decomposes the matrix completely. */
export const CONVERGED: Effort = { oversampling: 32, powerSteps: 8 };
/** Up to this smaller side every direction is kept, which is exact and needs no search. */
const COMPLETE_SIDE = 128;

/**
 * Best low-rank approximation of a dense matrix by randomised subspace iteration; exact (to
 * rounding) for a smaller side of up to 128 and when the search covers it. The random start comes from `key`, so the same
 * matrix gives the same bytes.
 *
 * Source: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithm 4.4 and
 * 5.1; `rank` columns and the kept energy follow from the small Gram matrix of the projection.
 *
 * @param m out x in, left as it is; work space comes from the same arena
 * @param totalEnergy squared Frobenius norm of `m`
 */
export function lowRankOfDense(
  arena: Arena,
  m: Matrix,
  options: {
    readonly key: StreamKey;
    readonly target: RankTarget;
    readonly totalEnergy: number;
    readonly effort: Effort;
  },
): LowRank {
  const { target, totalEnergy, effort } = options;
  const smaller = Math.min(m.rows, m.columns);
  const isComplete = smaller <= COMPLETE_SIDE;
  const width = isComplete ? smaller : Math.min(smaller, target.rank + effort.oversampling);
  const steps = width === smaller ? 0 : effort.powerSteps;
  const padded = Math.ceil(width / 8) * 8;
  const work = {
    tall: arena.matrix(m.rows, padded),
    start: arena.matrix(m.columns, padded),
    rows: arena.matrix(Math.ceil(width / 4) * 4, m.rows),
    wide: arena.matrix(Math.ceil(width / 4) * 4, m.columns),
  };
  const basis = findBasis(arena, m, work, { width, steps, key: options.key });
  const projected = leftProduct(arena, m, work, basis);
  return factors(basis, projected, { target, totalEnergy });
}

interface Work {
  readonly tall: Matrix;
  readonly start: Matrix;
  readonly rows: Matrix;
  readonly wide: Matrix;
}

/** Orthonormal rows (width x out) that span the leading left singular vectors. */
function findBasis(
  arena: Arena,
  m: Matrix,
  work: Work,
  { width, steps, key }: { width: number; steps: number; key: StreamKey },
): Thin {
  const random = thin(width, m.columns);
  fillNormal(key, random.values);
  let basis = rightProduct(arena, m, work, random);
  for (let step = 0; step < steps; step += 1) {
    orthonormaliseRows(basis, 1);
    const back = leftProduct(arena, m, work, basis);
    orthonormaliseRows(back, 1);
    basis = rightProduct(arena, m, work, back);
  }
  orthonormaliseRows(basis, 2);
  return basis;
}

/** `(m * x^T)^T`, width x out. */
function rightProduct(arena: Arena, m: Matrix, { tall, start }: Work, x: Thin): Thin {
  const columns = start.values().fill(0);
  for (let row = 0; row < x.rows; row += 1) {
    for (let k = 0; k < x.columns; k += 1) {
      columns[k * start.columns + row] = x.values[row * x.columns + k] ?? 0;
    }
  }
  tall.values().fill(0);
  arena.multiply(tall, m, start);
  const out = thin(x.rows, m.rows);
  const product = tall.values();
  for (let row = 0; row < m.rows; row += 1) {
    for (let j = 0; j < x.rows; j += 1) {
      out.values[j * m.rows + row] = product[row * tall.columns + j] ?? 0;
    }
  }
  return out;
}

/** `x * m`, width x in. */
function leftProduct(arena: Arena, m: Matrix, { rows, wide }: Work, x: Thin): Thin {
  rows.values().fill(0).set(x.values);
  wide.values().fill(0);
  arena.multiply(wide, rows, m);
  const out = thin(x.rows, m.columns);
  out.values.set(wide.values().subarray(0, out.values.length));
  return out;
}

/** From `m = basis^T * projected` to the factors of its leading singular values. */
function factors(
  basis: Thin,
  projected: Thin,
  { target, totalEnergy }: { target: RankTarget; totalEnergy: number },
): LowRank {
  const n = projected.rows;
  const { values, vectors } = symmetricEigen(gram(projected), n);
  const energies = Float64Array.from(values, (value) => Math.max(0, value));
  const rank = energyRank(energies, target, totalEnergy);
  const least = (energies[0] ?? 0) * 1e-14;
  const used = energies.subarray(0, rank).filter((value) => value > least).length;
  const side = (power: number): Float64Array => {
    const out = new Float64Array(used * n);
    for (let j = 0; j < used; j += 1) {
      const factor = (energies[j] ?? 0) ** power;
      for (let i = 0; i < n; i += 1) out[j * n + i] = (vectors[i * n + j] ?? 0) * factor;
    }
    return out;
  };
  return {
    a: pad(apply(side(-0.25), used, projected), rank),
    b: transpose(pad(apply(side(0.25), used, basis), rank)),
    rank,
    totalEnergy,
    keptEnergy: energies.subarray(0, used).reduce((sum, value) => sum + value, 0),
  };
}

/** The energy target counts against the whole matrix, not against what the projection caught. */
function energyRank(energies: Float64Array, target: RankTarget, totalEnergy: number): number {
  if (target.energy === undefined) return target.rank;
  const caught = energies.reduce((sum, value) => sum + value, 0);
  const share = caught === 0 ? 1 : (target.energy * totalEnergy) / caught;
  return rankFor(energies, { rank: target.rank, energy: share });
}

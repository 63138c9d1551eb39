import { describe, expect, test } from "vitest";
import {
  CONVERGED,
  lowRankOfDense,
  NEAR_BEST,
  type Effort,
} from "../../../workers/adapter-merger/math/dense-svd.ts";
import { symmetricEigen } from "../../../workers/adapter-merger/math/eigen.ts";
import { recompress, type LowRank } from "../../../workers/adapter-merger/math/factored.ts";
import { Arena } from "../../../workers/adapter-merger/math/gemm.ts";
import {
  fillNormal,
  randomWords,
  streamKey,
  threefry,
} from "../../../workers/adapter-merger/math/random.ts";
import { MagnitudeSelect } from "../../../workers/adapter-merger/math/select.ts";
import {
  stackRows,
  thin,
  transpose,
  type Thin,
} from "../../../workers/adapter-merger/math/thin.ts";

function normal(rows: number, columns: number, name: string): Thin {
  const out = thin(rows, columns);
  fillNormal(streamKey(1, "test", name), out.values);
  return out;
}

/** `b * a` in float64. */
function product(b: Thin, a: Thin): Float64Array {
  const out = new Float64Array(b.rows * a.columns);
  for (let i = 0; i < b.rows; i += 1) {
    for (let k = 0; k < a.rows; k += 1) {
      for (let j = 0; j < a.columns; j += 1) {
        out[i * a.columns + j] =
          at(out, i * a.columns + j) +
          at(b.values, i * b.columns + k) * at(a.values, k * a.columns + j);
      }
    }
  }
  return out;
}

function at(values: ArrayLike<number>, index: number): number {
  return values[index] ?? NaN;
}

function norm(values: ArrayLike<number>): number {
  return Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));
}

function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  return norm(Array.from(want, (value, i) => value - (got[i] ?? NaN))) / norm(want);
}

describe("Threefry", () => {
  test("gives the published answers for zero, all-ones and pi", () => {
    const out = new Uint32Array(2);
    const answer = (
      word: number,
      key: readonly [number, number],
      counter: readonly [number, number],
    ) => {
      threefry({ low: key[0], high: key[1] }, { low: counter[0], high: counter[1] }, out);
      return out[word];
    };
    const ones = [0xffffffff, 0xffffffff] as const;
    const key = [0x13198a2e, 0x03707344] as const;
    const counter = [0x243f6a88, 0x85a308d3] as const;
    expect([0, 1].map((word) => answer(word, [0, 0], [0, 0]))).toEqual([0x6b200159, 0x99ba4efe]);
    expect([0, 1].map((word) => answer(word, ones, ones))).toEqual([0x1cb996fc, 0xbb002be7]);
    expect([0, 1].map((word) => answer(word, key, counter))).toEqual([0xc4923a9c, 0x483df7a0]);
  });

  test("gives the same words for an element however the stream is cut", () => {
    const key = streamKey(7, "sha256:a", "layer.lora_A");
    const whole = new Uint32Array(101);
    randomWords(key, 0, whole);
    const part = new Uint32Array(50);
    randomWords(key, 33, part);
    expect([...part]).toEqual([...whole.subarray(33, 83)]);
  });

  test("keeps the share it is asked for", () => {
    const words = new Uint32Array(200_000);
    randomWords(streamKey(3, "x", "y"), 0, words);
    const kept = words.filter((word) => word < 0.3 * 2 ** 32).length / words.length;
    expect(Math.abs(kept - 0.3)).toBeLessThan(0.005);
  });
});

test("MagnitudeSelect finds exactly the k largest, the lower index first among equals", () => {
  const values = Float32Array.from([3, -1, 0.5, -3, 3, 0, 1, -0]);
  const bits = new Uint32Array(values.buffer);
  for (let rank = 1; rank <= values.length; rank += 1) {
    const select = new MagnitudeSelect(rank);
    select.countUpper(bits.subarray(0, 5));
    select.countUpper(bits.subarray(5));
    select.countLower(bits.subarray(0, 5));
    select.countLower(bits.subarray(5));
    const { bits: limit, ties } = select.threshold();
    const sorted = [...values].map(Math.abs).sort((a, b) => b - a);
    const limitValue = new Float32Array(Uint32Array.of(limit).buffer)[0];
    expect(limitValue).toBe(sorted[rank - 1]);
    expect(ties).toBe(rank - sorted.filter((value) => value > (limitValue ?? 0)).length);
  }
});

test.for([1, 2, 3, 17, 48])("symmetricEigen decomposes a %i x %i matrix", (n) => {
  const x = normal(n, n + 3, `eigen-${n}`);
  const matrix = product(x, transpose(x));
  const { values, vectors } = symmetricEigen(matrix, n);
  for (let j = 0; j < n; j += 1) {
    for (let i = 0; i < n; i += 1) {
      let sum = 0;
      for (let k = 0; k < n; k += 1) sum += at(matrix, i * n + k) * at(vectors, k * n + j);
      expect(Math.abs(sum - at(values, j) * at(vectors, i * n + j))).toBeLessThan(
        1e-11 * at(values, 0),
      );
    }
  }
});

describe("recompress", () => {
  test("is exact at full rank, with equal, dependent and differently scaled inputs", () => {
    const [a1, a2] = [normal(16, 96, "a1"), normal(16, 96, "a2")];
    const [b1, b2] = [normal(16, 64, "b1"), normal(16, 64, "b2")];
    b2.values.forEach((value, i) => (b2.values[i] = value * 1e-4));
    for (const [as, bs] of [
      [
        [a1, a2],
        [b1, b2],
      ],
      [
        [a1, a1],
        [b1, b1],
      ],
      [
        [a1, a2, a1],
        [b1, b2, b2],
      ],
    ] as const) {
      const a = stackRows(as, 96);
      const b = stackRows(bs, 64);
      const out = recompress(a, b, { rank: a.rows });
      expect(relativeError(product(out.b, out.a), product(transpose(b), a))).toBeLessThan(5e-7);
      expect(out.keptEnergy / out.totalEnergy).toBeCloseTo(1, 10);
    }
  });

  test("keeps the energy it reports when it truncates, and no less than the optimum", () => {
    const a = normal(24, 50, "ta");
    const b = normal(24, 40, "tb");
    const exact = product(transpose(b), a);
    const { values } = symmetricEigen(product2(exact, 40, 50), 40);
    const out = recompress(a, b, { rank: 8 });
    const kept = norm(product(out.b, out.a)) ** 2;
    expect(kept).toBeCloseTo(out.keptEnergy, 0);
    const optimum = values.subarray(0, 8).reduce((sum, value) => sum + value, 0);
    expect(out.keptEnergy / optimum).toBeCloseTo(1, 6);
    expect(out.totalEnergy / norm(exact) ** 2).toBeCloseTo(1, 6);
  });

  test("gives zeros for zeros", () => {
    const out = recompress(thin(4, 6), thin(4, 5), { rank: 4 });
    expect(norm(out.a.values)).toBe(0);
    expect(norm(out.b.values)).toBe(0);
  });
});

/** `x x^T` of an m x n matrix given flat. */
function product2(x: Float64Array, m: number, n: number): Float64Array {
  const out = new Float64Array(m * m);
  for (let i = 0; i < m; i += 1) {
    for (let j = 0; j < m; j += 1) {
      for (let k = 0; k < n; k += 1)
        out[i * m + j] = at(out, i * m + j) + at(x, i * n + k) * at(x, j * n + k);
    }
  }
  return out;
}

describe("Arena", () => {
  test.for([
    [4, 8, 16],
    [5, 9, 300],
    [3, 7, 1],
    [13, 40, 513],
  ] as const)("multiplies %i x %i over %i with float32 steps in order", ([m, n, k]) => {
    const arena = new Arena();
    const a = arena.matrix(m, k);
    const b = arena.matrix(k, n);
    const c = arena.matrix(m, n);
    a.values().set(normal(m, k, "a").values);
    b.values().set(normal(k, n, "b").values);
    arena.multiply(c, a, b);
    const [av, bv] = [a.values(), b.values()];
    const want = Float32Array.from({ length: m * n }, (_, index) => {
      let sum = 0;
      for (let step = 0; step < k; step += 1) {
        const factor = at(bv, step * n + (index % n));
        sum = Math.fround(sum + Math.fround(at(av, Math.floor(index / n) * k + step) * factor));
      }
      return sum;
    });
    expect([...c.values()]).toEqual([...want]);
  });
});

describe("lowRankOfDense", () => {
  test("recovers a matrix of lower rank and comes near the optimum for a full one", () => {
    const arena = new Arena();
    const exact = normal(150, 180, "dense");
    const m = arena.matrix(150, 180);
    m.values().set(exact.values);
    const totalEnergy = norm(exact.values) ** 2;
    const key = streamKey(0, "svd", "dense");
    const run = (rank: number, effort: Effort): LowRank =>
      lowRankOfDense(arena, m, { key, target: { rank }, totalEnergy, effort });
    const full = run(150, NEAR_BEST);
    expect(relativeError(product(full.b, full.a), exact.values)).toBeLessThan(1e-6);
    const { values } = symmetricEigen(product2(Float64Array.from(exact.values), 150, 180), 150);
    const optimum = values.subarray(0, 20).reduce((sum, value) => sum + value, 0);
    const near = run(20, NEAR_BEST);
    expect(near.keptEnergy / optimum).toBeGreaterThan(0.95);
    expect(norm(product(near.b, near.a)) ** 2 / near.keptEnergy).toBeCloseTo(1, 4);
    expect(run(20, CONVERGED).keptEnergy / optimum).toBeGreaterThan(0.9999);
  });
});

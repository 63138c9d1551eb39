import { Arena } from "../math/gemm.ts";
import { CONVERGED, lowRankOfDense, NEAR_BEST } from "../math/dense-svd.ts";
import { recompress, type Grams, type LowRank } from "../math/factored.ts";
import { streamKey, type StreamKey } from "../math/random.ts";
import { gram, stackRows, thin, transpose, type Thin } from "../math/thin.ts";
import { roundTo } from "../safetensors/dtype.ts";
import { SafetensorsFile } from "../safetensors/reader.ts";
import { TensorSink } from "../safetensors/writer.ts";
import { denseVectors } from "./dense-vectors.ts";
import type { AdapterMergeSpec, ModuleJob, ModuleReport } from "./jobs.ts";
import { Buffers, loadFactors, type Factors, type Inputs } from "./module-io.ts";
import { positionOf, slerpFactors } from "./slerp.ts";
import {
  counterDraws,
  mergeVectors,
  vectorsInMemory,
  type Draws,
  type VectorMerge,
  type VectorStats,
} from "./vector-merge.ts";

/** Makes the random words of one tensor from the streams of its inputs. */
export type DrawSource = (keys: readonly StreamKey[], tensor: string) => Draws;

/** Merges one module after the other into the output; what one merge thread owns. */
export class AdapterTask implements Disposable {
  readonly #spec: AdapterMergeSpec;
  readonly #inputs: Inputs;
  readonly #sink: TensorSink;
  readonly #drawsFor: DrawSource;
  #arena: Arena | undefined;

  constructor(spec: AdapterMergeSpec, drawsFor: DrawSource = counterDraws) {
    this.#spec = spec;
    this.#drawsFor = drawsFor;
    this.#sink = new TensorSink(spec.layout);
    const files = spec.files.map(({ path }) => SafetensorsFile.open(path));
    this.#inputs = { spec, files, buffers: new Buffers() };
  }

  run(job: ModuleJob): ModuleReport {
    const nonFinite: string[] = [];
    const factors = loadFactors(this.#inputs, job, nonFinite);
    if (nonFinite.length > 0 && this.#spec.space !== "cat" && this.#spec.space !== "tensors") {
      return this.#poison(job, factors, nonFinite);
    }
    const report = this.#merge(job, factors);
    return { ...report, non_finite: nonFinite };
  }

  [Symbol.dispose](): void {
    this.#sink[Symbol.dispose]();
    for (const file of this.#inputs.files) file[Symbol.dispose]();
  }

  #merge(job: ModuleJob, factors: readonly Factors[]): ModuleReport {
    const { space } = this.#spec;
    if (space === "cat") return this.#concatenate(job, factors);
    if (space === "tensors") return this.#mergeTensors(job, factors);
    return space === "dense" ? this.#mergeDense(job, factors) : this.#combineFactors(job, factors);
  }

  /** A decomposition of NaN has no meaning: the whole module is NaN, and is named. */
  #poison(job: ModuleJob, factors: readonly Factors[], nonFinite: readonly string[]): ModuleReport {
    const a = thin(job.rank, job.inputs);
    const b = thin(job.outputs, job.rank);
    a.values.fill(NaN);
    b.values.fill(NaN);
    this.#write(job, a, b);
    return { ...emptyReport(job, factors), non_finite: nonFinite };
  }

  /** A factor of the result, to be filled completely. */
  #output(side: "a" | "b", rows: number, columns: number): Thin {
    return { rows, columns, values: this.#inputs.buffers.take(`${side} out`, rows * columns) };
  }

  #write(job: ModuleJob, a: Thin, b: Thin): void {
    this.#sink.writeFloats(job.aOut, 0, a.values);
    this.#sink.writeFloats(job.bOut, 0, b.values);
  }

  #concatenate(job: ModuleJob, factors: readonly Factors[]): ModuleReport {
    let row = 0;
    const b = this.#output("b", job.outputs, job.rank);
    for (const { source, a, b: own } of factors) {
      this.#scaleForCat(a.values, job, source);
      this.#sink.writeFloats(job.aOut, row * job.inputs, a.values);
      copyColumns(own, b, row);
      row += source.rank;
    }
    this.#sink.writeFloats(job.bOut, 0, b.values);
    return { ...emptyReport(job, factors), energy_kept: 1 };
  }

  /** peft multiplies by the weight and then by the scaling, rounding to the dtype each time. */
  #scaleForCat(values: Float32Array, job: ModuleJob, source: Factors["source"]): void {
    if (this.#spec.isPeft) {
      scale(values, source.weight);
      roundTo(job.dtypeA, values);
      scale(values, source.scaling);
    } else {
      scale(values, source.weight * source.scaling * job.lambda);
    }
  }

  #combineFactors(job: ModuleJob, factors: readonly Factors[]): ModuleReport {
    const a = stackRows(
      factors.map((own) => own.a),
      job.inputs,
    );
    const b = stackRows(
      factors.map((own) => transpose(own.b)),
      job.outputs,
    );
    const grams = { a: gram(a), b: gram(b) };
    const inner = innerProducts(factors, grams);
    const weights = this.#linearWeights(factors, inner);
    const scales = factors.flatMap(({ source }, i) => {
      const factor = (weights[i] ?? 0) * source.scaling * job.lambda;
      return Array.from({ length: source.rank }, () => factor);
    });
    for (const [row, factor] of scales.entries()) {
      scale(b.values.subarray(row * job.outputs, (row + 1) * job.outputs), factor);
    }
    const target = { rank: job.rank, energy: job.energy };
    const merged = recompress(a, b, target, { a: grams.a, b: scaledGram(grams.b, scales) });
    this.#write(job, merged.a, merged.b);
    const norms = factors.map((_, i) => Math.sqrt(Math.max(0, inner(i, i))));
    return { ...lowRankReport(job, merged), input_norms: norms };
  }

  #linearWeights(factors: readonly Factors[], inner: InnerProduct): readonly number[] {
    const weights = factors.map(({ source }) => source.weight);
    if (this.#spec.isSlerp && factors.length === 2) {
      const [first = 1, second = 0] = weights;
      const position = this.#spec.position ?? positionOf([first, second]);
      return slerpFactors({ xx: inner(0, 0), yy: inner(1, 1), xy: inner(0, 1) }, position);
    }
    if (this.#spec.rules.divisor !== "total_weight") return weights;
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return Math.abs(total) < 1e-8 ? weights : weights.map((weight) => weight / total);
  }

  #mergeDense(job: ModuleJob, factors: readonly Factors[]): ModuleReport {
    this.#arena ??= new Arena();
    const arena = this.#arena;
    arena.reset();
    const norms = factors.map(
      (own) => Math.sqrt(productEnergy(own.a, transpose(own.b))) * Math.abs(own.source.scaling),
    );
    const dense = arena.matrix(job.outputs, job.inputs);
    const vectors = denseVectors(arena, job, factors);
    const settings = this.#settings(job, factors, job.name);
    const stats = mergeVectors(vectors, settings, (start, values) => {
      dense.values().set(values, start);
    });
    const merged = lowRankOfDense(arena, dense, {
      key: streamKey(this.#spec.seed, "svd", job.name),
      target: { rank: job.rank, energy: job.energy },
      totalEnergy: stats.energy,
      effort: this.#spec.isPeft ? CONVERGED : NEAR_BEST,
    });
    this.#write(job, merged.a, merged.b);
    return { ...lowRankReport(job, merged), ...signReport([stats]), input_norms: norms };
  }

  /** A and B each on their own, as peft and Rune do it. */
  #mergeTensors(job: ModuleJob, factors: readonly Factors[]): ModuleReport {
    const a = this.#output("a", job.rank, job.inputs);
    const b = this.#output("b", job.outputs, job.rank);
    const stats = (["a", "b"] as const).map((side) => {
      const out = side === "a" ? a : b;
      const name = side === "a" ? job.aOut : job.bOut;
      const tensors = factors.map((own) => own[side].values);
      const settings = this.#settings(job, factors, name);
      const weights = factors.map(({ source }) => this.#sideWeight(source, side));
      const merge = {
        ...settings,
        weights,
        lambda: 1,
        dtype: side === "a" ? job.dtypeA : job.dtypeB,
      };
      return mergeVectors(vectorsInMemory(tensors, 1), merge, (start, values) => {
        out.values.set(values, start);
      });
    });
    this.#write(job, a, b);
    return { ...emptyReport(job, factors), ...signReport(stats) };
  }

  #sideWeight({ weight, scaling }: Factors["source"], side: "a" | "b"): number {
    if (this.#spec.isRune) return 1;
    const root = Math.sqrt(Math.abs(weight * scaling));
    return side === "a" && weight * scaling < 0 ? -root : root;
  }

  #settings(job: ModuleJob, factors: readonly Factors[], tensor: string): VectorMerge {
    const { rules, gamma, epsilon, seed, files } = this.#spec;
    const keys = factors.map(({ source }) =>
      streamKey(seed, files[source.adapter]?.stream ?? "", tensor),
    );
    return {
      rules,
      gamma,
      epsilon,
      weights: factors.map(({ source }) => source.weight),
      densities: factors.map(({ source }) => source.density),
      lambda: job.lambda,
      dtype: "F32",
      draws: this.#drawsFor(keys, tensor),
      // The factors were checked when they were read; what overflows here is caught in the output.
      onNonFinite: () => undefined,
    };
  }
}

function copyColumns(from: Thin, to: Thin, column: number): void {
  for (let row = 0; row < from.rows; row += 1) {
    for (let j = 0; j < from.columns; j += 1) {
      to.values[row * to.columns + column + j] = from.values[row * from.columns + j] ?? 0;
    }
  }
}

function scale(values: Float32Array, factor: number): void {
  if (factor === 1) return;
  for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) * factor;
}

/** Squared Frobenius norm of `bRows^T * a`, from the Gram matrices of both. */
function productEnergy(a: Thin, bRows: Thin): number {
  const [left, right] = [gram(a), gram(bRows)];
  return Math.max(
    0,
    left.reduce((sum, value, i) => sum + value * (right[i] ?? 0), 0),
  );
}

/** Inner product of the deltas of two inputs, by their position. */
type InnerProduct = (x: number, y: number) => number;

/** `<B_x A_x, B_y A_y>` is the sum of the products of the entries of two Gram blocks. */
function innerProducts(factors: readonly Factors[], grams: Grams): InnerProduct {
  const total = factors.reduce((sum, { source }) => sum + source.rank, 0);
  const starts: number[] = [];
  let next = 0;
  for (const { source } of factors) {
    starts.push(next);
    next += source.rank;
  }
  return (x, y) => {
    const [left, right] = [factors[x]?.source, factors[y]?.source];
    if (left === undefined || right === undefined) throw new RangeError("No such input");
    let sum = 0;
    for (let i = 0; i < left.rank; i += 1) {
      for (let j = 0; j < right.rank; j += 1) {
        const at = ((starts[x] ?? 0) + i) * total + (starts[y] ?? 0) + j;
        sum += (grams.a[at] ?? 0) * (grams.b[at] ?? 0);
      }
    }
    return sum * left.scaling * right.scaling;
  };
}

/** The Gram matrix of rows that were each multiplied by a number. */
function scaledGram(values: Float64Array, scales: readonly number[]): Float64Array {
  const n = scales.length;
  return values.map(
    (value, at) => value * (scales[Math.floor(at / n)] ?? 0) * (scales[at % n] ?? 0),
  );
}

function emptyReport(job: ModuleJob, factors: readonly Factors[]): ModuleReport {
  return {
    module: job.name,
    rank: job.rank,
    energy_kept: null,
    norm: null,
    input_norms: factors.map(() => null),
    sign_conflict: null,
    kept_mass: factors.map(() => null),
    non_finite: [],
  };
}

function lowRankReport(job: ModuleJob, merged: LowRank): ModuleReport {
  const { totalEnergy, keptEnergy } = merged;
  return {
    ...emptyReport(job, []),
    rank: merged.rank,
    energy_kept: totalEnergy === 0 ? 1 : Math.min(1, keptEnergy / totalEnergy),
    norm: Math.sqrt(keptEnergy),
    kept_mass: job.sources.map(() => null),
  };
}

function signReport(
  stats: readonly VectorStats[],
): Pick<ModuleReport, "sign_conflict" | "kept_mass"> {
  const present = stats.reduce((sum, part) => sum + part.present, 0);
  const conflicting = stats.reduce((sum, part) => sum + part.conflicting, 0);
  const inputs = stats[0]?.mass ?? [];
  return {
    sign_conflict: present === 0 ? 0 : conflicting / present,
    kept_mass: inputs.map((_, input) => {
      const total = stats.reduce((sum, { mass }) => sum + (mass[input]?.total ?? 0), 0);
      const kept = stats.reduce((sum, { mass }) => sum + (mass[input]?.kept ?? 0), 0);
      return total === 0 ? 1 : kept / total;
    }),
  };
}

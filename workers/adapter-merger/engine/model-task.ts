import { streamKey } from "../math/random.ts";
import { MergeFault } from "../fault.ts";
import { elementBytes, isFloatDtype, roundTo, type Dtype } from "../safetensors/dtype.ts";
import { elementCount, type TensorInfo } from "../safetensors/header.ts";
import { SafetensorsFile } from "../safetensors/reader.ts";
import { TensorSink, type FileLayout } from "../safetensors/writer.ts";
import type { Rules } from "./rules.ts";
import { positionOf, slerpFactors } from "./slerp.ts";
import { counterDraws, mergeVectors, type VectorMerge, type VectorSet } from "./vector-merge.ts";

const CHUNK = 1 << 18;
const COPY_BYTES = 1 << 20;

/** One tensor of a full model, merged or copied. */
export interface TensorJob {
  readonly name: string;
  readonly weights: readonly number[];
  readonly densities: readonly number[];
  readonly lambda: number;
}

/** One shard of the output; plain data, so that it can go to a thread. */
export interface ModelMergeSpec {
  readonly kind: "models";
  readonly rules: Rules;
  readonly isSlerp: boolean;
  readonly position?: number | undefined;
  readonly gamma: number;
  readonly epsilon: number;
  readonly seed: number;
  readonly allowsNonFinite: boolean;
  readonly hasBase: boolean;
  /** Per model (the base last, if there is one): the file of each tensor of this shard. */
  readonly models: readonly {
    readonly stream: string;
    readonly files: ReadonlyMap<string, string>;
  }[];
  readonly layout: FileLayout;
}

/** What is reported about one tensor. */
export interface TensorReport {
  readonly tensor: string;
  readonly merged: boolean;
  readonly norm: number | null;
  readonly sign_conflict: number | null;
  readonly kept_mass: readonly number[];
  readonly non_finite: readonly string[];
}

/** Merges the tensors of one shard chunk by chunk; what one merge thread owns. */
export class ModelTask {
  readonly #spec: ModelMergeSpec;
  readonly #sink: TensorSink;
  readonly #open = new Map<string, SafetensorsFile>();

  constructor(spec: ModelMergeSpec) {
    this.#spec = spec;
    this.#sink = new TensorSink(spec.layout);
  }

  run(job: TensorJob): TensorReport {
    const sources = this.#spec.models.map(({ files }) => this.#source(files, job.name));
    const inputs = this.#spec.hasBase ? sources.slice(0, -1) : sources;
    const base = this.#spec.hasBase ? sources.at(-1) : undefined;
    const [first] = inputs;
    if (first === undefined) throw new TypeError("No model to merge");
    if (!isFloatDtype(first.info.dtype)) return this.#copyEqual(job, sources);
    return this.#spec.isSlerp ? this.#slerp(job, inputs) : this.#merge(job, inputs, base);
  }

  #source(files: ReadonlyMap<string, string>, name: string): Source {
    const path = files.get(name);
    if (path === undefined) throw new TypeError(`No file holds ${name}`);
    const file = this.#open.get(path) ?? SafetensorsFile.open(path);
    this.#open.set(path, file);
    return { file, info: file.tensor(name) };
  }

  #merge(job: TensorJob, inputs: readonly Source[], base: Source | undefined): TensorReport {
    const [first] = inputs;
    const dtype = first?.info.dtype ?? "F32";
    const shape = first?.info.shape ?? [];
    const { rules, gamma, epsilon, seed, models } = this.#spec;
    const vectors = new DeltaVectors(inputs, base, shape, rules);
    const nonFinite: string[] = [];
    const keys = models.map(({ stream }) => streamKey(seed, stream, job.name));
    const merge: VectorMerge = {
      rules,
      gamma,
      epsilon,
      weights: job.weights,
      densities: job.densities,
      lambda: job.lambda,
      dtype: isFloatDtype(dtype) ? dtype : "F32",
      draws: counterDraws(keys),
      onNonFinite: (input) => {
        this.#refuseNonFinite(job.name, inputs[input]);
        nonFinite.push(job.name);
      },
    };
    const stats = mergeVectors(vectors, merge, (start, values) => {
      vectors.addBase(start, values);
      this.#sink.writeFloats(job.name, start, values);
    });
    return {
      tensor: job.name,
      merged: true,
      norm: Number.isFinite(stats.energy) ? Math.sqrt(stats.energy) : null,
      sign_conflict: stats.present === 0 ? 0 : stats.conflicting / stats.present,
      kept_mass: stats.mass.map(({ total, kept }) => (total === 0 ? 1 : kept / total)),
      non_finite: [...new Set(nonFinite)],
    };
  }

  #refuseNonFinite(tensor: string, source: Source | undefined): void {
    if (this.#spec.allowsNonFinite) return;
    const path = source?.file.path ?? "";
    const message = `Tensor "${tensor}" of ${path} (or of the base) holds NaN or infinity`;
    throw new MergeFault("FILE_INVALID", "non_finite", message, { tensor, path });
  }

  /** Interpolates the weights themselves, not deltas: once for the angle, once for the result. */
  #slerp(job: TensorJob, inputs: readonly Source[]): TensorReport {
    const [x, y] = inputs;
    if (x === undefined || y === undefined) throw new TypeError("Slerp needs two models");
    const length = elementCount(x.info.shape);
    const [left, right] = [new Float32Array(CHUNK), new Float32Array(CHUNK)];
    const products = { xx: 0, yy: 0, xy: 0 };
    const walk = (see: (start: number, a: Float32Array, b: Float32Array) => void): void => {
      for (let start = 0; start < length; start += CHUNK) {
        const [a, b] = [left, right].map((chunk) => chunk.subarray(0, length - start));
        if (a === undefined || b === undefined) return;
        x.file.readFloats(x.info, start, a);
        y.file.readFloats(y.info, start, b);
        see(start, a, b);
      }
    };
    walk((_, a, b) => addProducts(products, a, b));
    if (!Number.isFinite(products.xx)) this.#refuseNonFinite(job.name, x);
    if (!Number.isFinite(products.yy)) this.#refuseNonFinite(job.name, y);
    const [first = 1, second = 0] = job.weights;
    const position = this.#spec.position ?? positionOf([first, second]);
    const [p, q] = slerpFactors(products, position);
    let energy = 0;
    walk((start, a, b) => {
      for (let i = 0; i < a.length; i += 1) {
        a[i] = p * (a[i] ?? 0) + q * (b[i] ?? 0);
        energy += (a[i] ?? 0) ** 2;
      }
      this.#sink.writeFloats(job.name, start, a);
    });
    const norm = Number.isFinite(energy) ? Math.sqrt(energy) : null;
    const named = norm === null ? [job.name] : [];
    return {
      tensor: job.name,
      merged: true,
      norm,
      sign_conflict: null,
      kept_mass: [],
      non_finite: named,
    };
  }

  /** Tensors that are no floats (position ids, quantised blocks) must agree and are copied. */
  #copyEqual(job: TensorJob, sources: readonly Source[]): TensorReport {
    const [first, ...others] = sources;
    if (first === undefined) throw new TypeError("No model to merge");
    const bytes = elementCount(first.info.shape) * elementBytes(first.info.dtype);
    const chunk = Buffer.alloc(Math.min(bytes, COPY_BYTES));
    const other = Buffer.alloc(chunk.length);
    for (let from = 0; from < bytes; from += COPY_BYTES) {
      const part = chunk.subarray(0, bytes - from);
      first.file.readBytes(first.info, from, part);
      for (const { file, info } of others) {
        const same = other.subarray(0, part.length);
        file.readBytes(info, from, same);
        if (!part.equals(same)) refuseDifferent(job.name, first.info.dtype, file.path);
      }
      this.#sink.writeBytes(job.name, from, part);
    }
    return {
      tensor: job.name,
      merged: false,
      norm: null,
      sign_conflict: null,
      kept_mass: [],
      non_finite: [],
    };
  }
}

function refuseDifferent(tensor: string, dtype: Dtype, path: string): never {
  const message = `Tensor "${tensor}" is ${dtype} and differs in ${path}: it can only be copied`;
  throw new MergeFault("CAPABILITY_INPUT", "dtype", message, { tensor, path });
}

interface Source {
  readonly file: SafetensorsFile;
  readonly info: TensorInfo;
}

/** `model - base` for every model, read piece by piece; without a base, the models themselves. */
class DeltaVectors implements VectorSet {
  readonly inputs: number;
  readonly length: number;
  readonly rowLength: number;
  readonly chunkLength: number;
  readonly #models: readonly Source[];
  readonly #base: Source | undefined;
  readonly #rules: Rules;
  #baseValues = new Float32Array(0);
  #baseStart = -1;

  constructor(
    models: readonly Source[],
    base: Source | undefined,
    shape: readonly number[],
    rules: Rules,
  ) {
    this.#models = models;
    this.#base = base;
    this.#rules = rules;
    this.inputs = models.length;
    this.length = elementCount(shape);
    this.rowLength = rules.prune === "della" ? (shape.at(-1) ?? 1) : 1;
    const rows = Math.max(1, Math.floor(CHUNK / Math.max(1, this.rowLength)));
    this.chunkLength = Math.max(1, rows * this.rowLength);
  }

  load(input: number, start: number, out: Float32Array): void {
    const model = this.#models[input];
    if (model === undefined) throw new RangeError(`No input ${input}`);
    model.file.readFloats(model.info, start, out);
    if (this.#base === undefined) return;
    const base = this.#baseAt(this.#base, start, out.length);
    for (let i = 0; i < out.length; i += 1) out[i] = (out[i] ?? 0) - (base[i] ?? 0);
    this.#round(model.info.dtype, out);
  }

  addBase(start: number, values: Float32Array): void {
    if (this.#base === undefined) return;
    const base = this.#baseAt(this.#base, start, values.length);
    for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) + (base[i] ?? 0);
  }

  #round(dtype: Dtype, values: Float32Array): void {
    if (this.#rules.isRoundedPerStep && isFloatDtype(dtype)) roundTo(dtype, values);
  }

  /** The base of a chunk is asked for once per model; it is read once. */
  #baseAt(base: Source, start: number, length: number): Float32Array {
    if (this.#baseStart === start && this.#baseValues.length === length) return this.#baseValues;
    if (this.#baseValues.length !== length) this.#baseValues = new Float32Array(length);
    base.file.readFloats(base.info, start, this.#baseValues);
    this.#baseStart = start;
    return this.#baseValues;
  }
}

function addProducts(
  products: { xx: number; yy: number; xy: number },
  a: Float32Array,
  b: Float32Array,
): void {
  let [xx, yy, xy] = [0, 0, 0];
  for (let i = 0; i < a.length; i += 1) {
    const [x, y] = [a[i] ?? 0, b[i] ?? 0];
    xx += x * x;
    yy += y * y;
    xy += x * y;
  }
  products.xx += xx;
  products.yy += yy;
  products.xy += xy;
}

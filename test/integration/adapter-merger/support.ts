import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { z } from "zod";
import type { Call } from "../../../src/worker/index.ts";
import { mergeAdapters } from "../../../workers/adapter-merger/actions/merge.ts";
import { mergeModels } from "../../../workers/adapter-merger/actions/merge-models.ts";
import { planMerge } from "../../../workers/adapter-merger/actions/plan.ts";
import type { MergerConfig } from "../../../workers/adapter-merger/config.ts";
import { fillNormal, streamKey } from "../../../workers/adapter-merger/math/random.ts";
import type { FloatDtype } from "../../../workers/adapter-merger/safetensors/dtype.ts";
import { SafetensorsFile } from "../../../workers/adapter-merger/safetensors/reader.ts";
import { createFile, TensorSink } from "../../../workers/adapter-merger/safetensors/writer.ts";
import {
  mergeInputSchema,
  mergeModelsInputSchema,
} from "../../../workers/adapter-merger/schemas.ts";

/** A temporary folder that is gone when its owner's scope ends. */
export class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "adapter-merger-"));

  in(...parts: readonly string[]): string {
    return join(this.path, ...parts);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

export interface Tensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
  readonly dtype?: FloatDtype;
}

export function tensor(
  shape: readonly number[],
  values: readonly number[] | Float32Array,
  dtype: FloatDtype = "F32",
): Tensor {
  return { shape, values: Float32Array.from(values), dtype };
}

/** Normal numbers that depend on the name only. */
export function normal(shape: readonly number[], name: string, dtype: FloatDtype = "F32"): Tensor {
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
  fillNormal(streamKey(0, "fixture", name), values);
  return { shape, values, dtype };
}

export function writeTensors(path: string, tensors: Readonly<Record<string, Tensor>>): void {
  mkdirSync(dirname(path), { recursive: true });
  const specs = Object.entries(tensors).map(([name, { shape, dtype }]) => {
    return { name, dtype: dtype ?? "F32", shape };
  });
  using sink = new TensorSink(createFile(path, specs, { format: "pt" }));
  for (const [name, { values }] of Object.entries(tensors)) {
    sink.writeFloats(name, 0, Float32Array.from(values));
  }
}

export interface AdapterFixture {
  /** By module: A (rank x in) and B (out x rank). */
  readonly modules: Readonly<Record<string, { readonly a: Tensor; readonly b: Tensor }>>;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly extra?: Readonly<Record<string, Tensor>>;
}

export function factorNames(module: string): { readonly a: string; readonly b: string } {
  const prefix = `base_model.model.${module}`;
  return { a: `${prefix}.lora_A.weight`, b: `${prefix}.lora_B.weight` };
}

export function writeAdapter(folder: string, { modules, config, extra }: AdapterFixture): string {
  const tensors = Object.entries(modules).flatMap(([module, { a, b }]) => {
    const names = factorNames(module);
    return [[names.a, a] as const, [names.b, b] as const];
  });
  writeTensors(join(folder, "adapter_model.safetensors"), {
    ...Object.fromEntries(tensors),
    ...extra,
  });
  const [first] = Object.values(modules);
  const rank = first?.a.shape[0] ?? 1;
  const full = {
    peft_type: "LORA",
    base_model_name_or_path: "tiny",
    r: rank,
    lora_alpha: 2 * rank,
    target_modules: [...new Set(Object.keys(modules).map((name) => name.split(".").at(-1)))],
    ...config,
  };
  writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(full));
  return folder;
}

/** An adapter of normal numbers for modules that are all `outputs x inputs`. */
export function normalAdapter(
  folder: string,
  options: {
    readonly seed: string;
    readonly rank?: number;
    readonly modules?: readonly string[];
    readonly outputs?: number;
    readonly inputs?: number;
    readonly dtype?: FloatDtype;
    readonly config?: Readonly<Record<string, unknown>>;
  },
): string {
  const {
    seed,
    rank = 4,
    modules = ["layers.0.q_proj", "layers.0.v_proj"],
    outputs = 24,
    inputs = 32,
  } = options;
  const entries = modules.map((module) => {
    const a = normal([rank, inputs], `${seed}/${module}/a`, options.dtype);
    const b = normal([outputs, rank], `${seed}/${module}/b`, options.dtype);
    return [module, { a, b }] as const;
  });
  return writeAdapter(folder, {
    modules: Object.fromEntries(entries),
    ...(options.config === undefined ? {} : { config: options.config }),
  });
}

export interface RecordedCall extends Call<MergerConfig> {
  readonly steps: readonly (readonly [fraction: number, message: string])[];
  readonly accounts: readonly string[];
}

let outputs = 0;

/** A call as the SDK makes one; every call has an output folder of its own. */
export function makeCall(
  folder: Folder,
  options: {
    readonly signal?: AbortSignal;
    readonly config?: Partial<MergerConfig>;
    readonly onProgress?: (message: string) => void;
  } = {},
): RecordedCall {
  outputs += 1;
  const steps: [number, string][] = [];
  const accounts: string[] = [];
  const silent = (): void => undefined;
  const dataFolder = folder.in("data");
  mkdirSync(dataFolder, { recursive: true });
  return {
    config: { threads: 1, cache_entries: 8, cache_mb: 1000, ...options.config },
    envelope: { control: {} },
    signal: options.signal ?? new AbortController().signal,
    dataFolder,
    outputFolder: folder.in("out", String(outputs)),
    log: { debug: silent, info: silent, warning: silent, error: silent },
    progress: (fraction, message = "") => {
      steps.push([fraction, message]);
      options.onProgress?.(message);
    },
    account: (type) => void accounts.push(type),
    usage: silent,
    memory: silent,
    heartbeat: (_, work) => work(),
    invoke: () => Promise.reject(new TypeError("No other action here")),
    steps,
    accounts,
  };
}

type MergeResult = Awaited<ReturnType<typeof mergeAdapters>>;

export function merge(
  input: z.input<typeof mergeInputSchema>,
  call: Call<MergerConfig>,
): Promise<MergeResult> {
  return mergeAdapters(mergeInputSchema.parse(input), call);
}

export function plan(
  input: z.input<typeof mergeInputSchema>,
  call: Call<MergerConfig>,
): ReturnType<typeof planMerge> {
  return planMerge(mergeInputSchema.parse(input), call);
}

export function mergeCheckpoints(
  input: z.input<typeof mergeModelsInputSchema>,
  call: Call<MergerConfig>,
): ReturnType<typeof mergeModels> {
  return mergeModels(mergeModelsInputSchema.parse(input), call);
}

/** The delta of one module of an adapter folder, out x in, in float64. */
export function deltaOf(folder: string, module: string): Float64Array {
  const config = readJson(join(folder, "adapter_config.json"));
  using file = SafetensorsFile.open(join(folder, "adapter_model.safetensors"));
  const names = factorNames(module);
  const [a, b] = [file.floats(names.a), file.floats(names.b)];
  const rank = file.tensor(names.a).shape[0] ?? 0;
  const alphas = (config["alpha_pattern"] ?? {}) as Record<string, number>;
  const pattern = Object.keys(alphas).find((key) =>
    new RegExp(`^(.*\\.)?(${key})$`, "u").test(module),
  );
  const alpha = pattern === undefined ? Number(config["lora_alpha"]) : (alphas[pattern] ?? 0);
  const scaling = alpha / (config["use_rslora"] === true ? Math.sqrt(rank) : rank);
  return multiply(b, a, rank).map((value) => value * scaling);
}

export function readJson(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
}

/** `b * a` with the given inner dimension. */
export function multiply(b: Float32Array, a: Float32Array, rank: number): Float64Array {
  const [outputs_, inputs] = [b.length / rank, a.length / rank];
  const out = new Float64Array(outputs_ * inputs);
  for (let i = 0; i < outputs_; i += 1) {
    for (let k = 0; k < rank; k += 1) {
      const factor = b[i * rank + k] ?? 0;
      for (let j = 0; j < inputs; j += 1) {
        out[i * inputs + j] = (out[i * inputs + j] ?? 0) + factor * (a[k * inputs + j] ?? 0);
      }
    }
  }
  return out;
}

export function combine(deltas: readonly Float64Array[], weights: readonly number[]): Float64Array {
  const length = deltas[0]?.length ?? 0;
  return Float64Array.from({ length }, (_, i) =>
    deltas.reduce((sum, delta, at) => sum + (weights[at] ?? 0) * (delta[i] ?? 0), 0),
  );
}

export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let [error, size] = [0, 0];
  for (let i = 0; i < want.length; i += 1) {
    error += ((got[i] ?? NaN) - (want[i] ?? 0)) ** 2;
    size += (want[i] ?? 0) ** 2;
  }
  return Math.sqrt(error / size);
}

/** Names of everything below a folder that is not a folder, sorted; none where there is no folder. */
export function filesBelow(path: string): string[] {
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openAdapter } from "../../../workers/adapter-merger/adapter/open.ts";
import { outputConfig } from "../../../workers/adapter-merger/adapter/output-config.ts";
import { planAdapters } from "../../../workers/adapter-merger/adapter/plan.ts";
import type { Recipe } from "../../../workers/adapter-merger/adapter/recipe.ts";
import { AdapterTask } from "../../../workers/adapter-merger/engine/adapter-task.ts";
import { METHODS, type Method } from "../../../workers/adapter-merger/engine/rules.ts";
import { roundTo } from "../../../workers/adapter-merger/safetensors/dtype.ts";
import { SafetensorsFile } from "../../../workers/adapter-merger/safetensors/reader.ts";
import { createFile } from "../../../workers/adapter-merger/safetensors/writer.ts";
import {
  factorNames,
  Folder,
  multiply,
  tensor,
  writeAdapter,
} from "../../integration/adapter-merger/support.ts";
import { dtypeOf, replay, VECTORS, type MergeVector, type StoredTensor } from "./vectors.ts";

const cases = VECTORS.filter(({ fn }) => fn.startsWith("LoraModel"));
const refused = cases.filter(({ expected_error: error }) => error !== undefined);
const merged = cases.filter(({ expected_error: error }) => error === undefined);

function stored({ shape, data, dtype }: StoredTensor): ReturnType<typeof tensor> {
  return tensor(shape, data, dtypeOf({ shape, data, dtype }));
}

function methodOf(name: string | undefined): Method {
  const found = METHODS.find((method) => method === name);
  if (found === undefined) throw new Error(`No method ${name}`);
  return found;
}

function recipeOf(vector: MergeVector, overrides: Partial<Recipe> = {}): Recipe {
  return {
    method: methodOf(vector.combination_type),
    compatibility: "peft",
    weights: vector.weights ?? [],
    densities: vector.adapters.map(() => vector.density ?? 1),
    lambda: 1,
    rank: vector.svd_rank,
    seed: 0,
    vote: vector.majority_sign_method ?? "total",
    gamma: 0.01,
    epsilon: 0.1,
    dtype: "auto",
    allowsMissing: false,
    allowsNonFinite: false,
    overrides: [],
    ...overrides,
  };
}

interface Merged {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly rank: number;
  readonly config: Readonly<Record<string, unknown>>;
  readonly delta: Float64Array;
}

/** Runs the real module merge over adapter files, with the recorded masks as its random numbers. */
function run(folder: Folder, vector: MergeVector, overrides: Partial<Recipe> = {}): Merged {
  const recipe = recipeOf(vector, overrides);
  const adapters = vector.adapters.map((lora, i) =>
    openAdapter(
      writeAdapter(folder.in(String(i)), {
        modules: { m: { a: stored(lora.lora_A), b: stored(lora.lora_B) } },
        config: { r: lora.r, lora_alpha: lora.lora_alpha, use_rslora: lora.rslora ?? false },
      }),
    ),
  );
  const plan = planAdapters(adapters, recipe, 1);
  const path = join(folder.in("out"), "adapter_model.safetensors");
  mkdirSync(folder.in("out"));
  const masks = vector.intermediates?.masks_in_call_order ?? [];
  const isDense = masks.length === adapters.length;
  const spec = {
    ...plan.spec,
    layout: createFile(path, plan.tensors, {}),
    files: adapters.map(({ weightsPath }, i) => ({ path: weightsPath, stream: String(i) })),
  };
  using task = new AdapterTask(spec, (_, name) => {
    const isSecond = !isDense && name.includes("lora_B");
    return replay(masks.slice(isSecond ? adapters.length : 0));
  });
  const reports = plan.jobs.map((job) => task.run(job));
  using file = SafetensorsFile.open(path);
  const names = factorNames("m");
  const [a, b] = [file.floats(names.a), file.floats(names.b)];
  const rank = file.tensor(names.a).shape[0] ?? 0;
  const config = outputConfig(adapters, recipe, reports);
  const alpha = Number(config["lora_alpha"]);
  const scaling = alpha / (config["use_rslora"] === true ? Math.sqrt(rank) : rank);
  return { a, b, rank, config, delta: multiply(b, a, rank).map((value) => value * scaling) };
}

function farthest(got: ArrayLike<number>, want: readonly number[]): number {
  return want.reduce((worst, value, i) => Math.max(worst, Math.abs((got[i] ?? NaN) - value)), 0);
}

describe("adapters merged with peft's numbers", () => {
  test.for(merged)("$id", (vector) => {
    using folder = new Folder();
    const { expected } = vector;
    const got = run(folder, vector);
    expect(got.rank).toBe(expected.r);
    expect(got.config).toMatchObject({ r: expected.r, lora_alpha: expected.lora_alpha });
    const isDeltaOnly = vector.combination_type?.endsWith("svd") === true;
    if (!isDeltaOnly) {
      expect(farthest(got.a, expected.lora_A.data)).toBeLessThanOrEqual(vector.tolerance_abs);
      expect(farthest(got.b, expected.lora_B.data)).toBeLessThanOrEqual(vector.tolerance_abs);
    }
    const delta = Float32Array.from(got.delta);
    roundTo(dtypeOf(expected.delta), delta);
    expect(farthest(delta, expected.delta.data)).toBeLessThanOrEqual(vector.tolerance_abs);
  });

  test.for(refused)("$id is refused", (vector) => {
    using folder = new Folder();
    expect(() => run(folder, vector)).toThrow("needs equal ones");
  });

  test.for(merged.filter(({ combination_type: type }) => type === "linear" || type === "cat"))(
    "$id: this tool's own linear merge gives the exact delta instead",
    (vector) => {
      using folder = new Folder();
      const method = vector.combination_type === "cat" ? "cat" : "linear";
      const got = run(folder, vector, { compatibility: "none", method, dtype: "F32" });
      const want = vector.exact_weighted_delta;
      const tolerance = want.dtype === "float32" ? 2e-6 : 0.01;
      expect(farthest(got.delta, want.data)).toBeLessThan(tolerance);
    },
  );
});

describe("limits that the tools themselves have", () => {
  const vector = merged.find(({ id }) => id === "lora-ties-d0.5");
  test.for([
    { compatibility: "peft", densities: [-0.1, 0.5], problem: "is negative" },
    { compatibility: "mergekit", densities: [0, 0.5], problem: "would leave nothing" },
    { compatibility: "mergekit", densities: [0.01, 0.5], problem: "nothing of m would be left" },
    { compatibility: "none", densities: [1.5, 0.5], problem: "is above 1" },
    { compatibility: "rune", densities: [1.5, 0.5], problem: "is above 1" },
    { compatibility: "none", densities: [0, 0.5], problem: "would leave nothing" },
    { compatibility: "none", weights: [0, 0], problem: "all are zero" },
    { compatibility: "none", rank: 5, problem: "above the 3 x 4 of m" },
    { compatibility: "rune", method: "linear", problem: 'rune has no "linear"' },
    { compatibility: "none", method: "slerp", weights: [1, -1], problem: "a sum that is not zero" },
  ] as const)("$compatibility refuses what $problem", ({ problem, ...overrides }) => {
    using folder = new Folder();
    if (vector === undefined) throw new Error("The vector is missing");
    expect(() => run(folder, vector, overrides)).toThrow(problem);
  });

  test("peft takes a density of 0 and of more than 1, and drops all or nothing", () => {
    if (vector === undefined) throw new Error("The vector is missing");
    using folder = new Folder();
    expect(run(folder, vector, { densities: [0, 0] }).a.every((value) => value === 0)).toBe(true);
    using other = new Folder();
    expect(run(other, vector, { densities: [2, 2] }).a.some((value) => value !== 0)).toBe(true);
  });
});

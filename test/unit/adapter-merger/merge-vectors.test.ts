import { describe, expect, test } from "vitest";
import { rulesFor, type Method } from "../../../workers/adapter-merger/engine/rules.ts";
import {
  mergeVectors,
  vectorsInMemory,
  type VectorMerge,
  type VectorSet,
} from "../../../workers/adapter-merger/engine/vector-merge.ts";
import { roundTo } from "../../../workers/adapter-merger/safetensors/dtype.ts";
import { dtypeOf, replay, VECTORS, type MergeVector } from "./vectors.ts";

const METHOD_OF: readonly (readonly [RegExp, Method])[] = [
  [/dare_linear|dare_merge/u, "dare_linear"],
  [/dare_ties/u, "dare_ties"],
  [/breadcrumbs/u, "breadcrumbs"],
  [/ties/u, "ties"],
  [/magnitude_prune/u, "magnitude_prune"],
  [/task_arithmetic/u, "task_arithmetic"],
];

function methodOf(fn: string): Method {
  const found = METHOD_OF.find(([pattern]) => pattern.test(fn));
  if (found === undefined) throw new Error(`No method for ${fn}`);
  return found[1];
}

/** `model - base`, as mergekit sees its inputs. */
function deltas(vector: MergeVector, base: Float32Array): VectorSet {
  const memory = vectorsInMemory(
    vector.inputs.map(({ data }) => Float32Array.from(data)),
    1,
    3,
  );
  if (base.length === 0) return memory;
  return {
    ...memory,
    load(input, start, out): void {
      memory.load(input, start, out);
      for (const [i, value] of out.entries()) out[i] = value - (base[start + i] ?? 0);
    },
  };
}

function densitiesOf(vector: MergeVector): readonly number[] {
  const common = vector.density ?? 1 - (vector.drop_rate ?? 0);
  return vector.densities ?? vector.inputs.map(() => common);
}

function run(vector: MergeVector): Float32Array {
  const base = Float32Array.from(vector.base?.data ?? []);
  const vectors = deltas(vector, base);
  const out = new Float32Array(vectors.length);
  const dtypes = vector.inputs.map(dtypeOf);
  const { lambda = 1, gamma = 0.01, majority_sign_method: vote = "total" } = vector;
  const merge: VectorMerge = {
    rules: rulesFor(methodOf(vector.fn), vector.impl, {
      vote,
      isNormalized: vector.normalize,
      isRescaled: vector.rescale,
    }),
    weights: vector.weights ?? vector.inputs.map(() => 1),
    densities: densitiesOf(vector),
    lambda,
    gamma,
    epsilon: 0.1,
    dtype: dtypes[0] ?? "F32",
    draws: replay(vector.intermediates?.masks ?? []),
    onNonFinite: (input) => {
      throw new Error(`input ${input} is not finite`);
    },
  };
  mergeVectors(vectors, merge, (start, values) => out.set(values, start));
  return base.length === 0 ? out : out.map((value, i) => value + (base[i] ?? 0));
}

const functionLevel = VECTORS.filter(
  ({ fn, expected_error: error }) => !fn.startsWith("LoraModel") && error === undefined,
);

describe("the recorded outputs of peft, mergekit and Rune", () => {
  test("are all covered here and in the LoRA-level suite", () => {
    expect(VECTORS).toHaveLength(68);
    expect(functionLevel).toHaveLength(47);
  });

  test.for(functionLevel)("$id", (vector) => {
    const got = run(vector);
    const { expected } = vector;
    const dtype = dtypeOf(expected);
    roundTo(dtype, got);
    if (vector.tolerance_abs === 0) {
      if (dtype === "F32") {
        expect([...new Uint32Array(got.buffer)].map(hex)).toEqual(expected.bits_u32_hex);
      } else {
        expect([...got]).toEqual(expected.data);
      }
    }
    for (const [i, value] of expected.data.entries()) {
      expect(Math.abs((got[i] ?? NaN) - value)).toBeLessThanOrEqual(vector.tolerance_abs || 1e-6);
    }
  });
});

function hex(word: number): string {
  return word.toString(16).padStart(8, "0");
}

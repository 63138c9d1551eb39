import { describe, expect, test } from "vitest";
import { rulesFor, type Method } from "../../../workers/adapter-merger/engine/rules.ts";
import {
  mergeVectors,
  vectorsInMemory,
  type VectorSet,
} from "../../../workers/adapter-merger/engine/vector-merge.ts";
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

function run(vector: MergeVector): Float32Array {
  const tensors = vector.inputs.map(({ data }) => Float32Array.from(data));
  const base = Float32Array.from(vector.base?.data ?? []);
  const memory = vectorsInMemory(tensors, 1, 3);
  const deltas: VectorSet = {
    ...memory,
    load(input, start, out): void {
      memory.load(input, start, out);
      if (base.length === 0) return;
      for (let i = 0; i < out.length; i += 1) out[i] = (out[i] ?? 0) - (base[start + i] ?? 0);
    },
  };
  const density = vector.density ?? (vector.drop_rate === undefined ? 1 : 1 - vector.drop_rate);
  const out = new Float32Array(tensors[0]?.length ?? 0);
  const first = vector.inputs[0];
  mergeVectors(
    deltas,
    {
      rules: rulesFor(methodOf(vector.fn), vector.impl, {
        vote: vector.majority_sign_method ?? "total",
        isNormalized: vector.normalize,
        isRescaled: vector.rescale,
      }),
      weights: vector.weights ?? tensors.map(() => 1),
      densities: vector.densities ?? tensors.map(() => density),
      lambda: vector.lambda ?? 1,
      gamma: vector.gamma ?? 0.01,
      epsilon: 0.1,
      dtype: first === undefined ? "F32" : dtypeOf(first),
      draws: replay(vector.intermediates?.masks ?? []),
      onNonFinite: (input) => {
        throw new Error(`input ${input} is not finite`);
      },
    },
    (start, values) => out.set(values, start),
  );
  if (base.length > 0) for (let i = 0; i < out.length; i += 1) out[i] = (out[i] ?? 0) + (base[i] ?? 0);
  return out;
}

const functionLevel = VECTORS.filter(
  ({ fn, expected_error: error }) => !fn.startsWith("LoraModel") && error === undefined,
);

describe("the recorded outputs of peft, mergekit and Rune", () => {
  test("are all covered here and in the LoRA-level suite", () => {
    expect(VECTORS).toHaveLength(68);
    expect(functionLevel).toHaveLength(46);
  });

  test.for(functionLevel)("$id", (vector) => {
    const got = run(vector);
    const { expected } = vector;
    if (vector.tolerance_abs === 0) {
      if (dtypeOf(expected) === "F32") {
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

import { readFileSync } from "node:fs";
import type { Draws } from "../../../workers/adapter-merger/engine/vector-merge.ts";
import type { FloatDtype } from "../../../workers/adapter-merger/safetensors/dtype.ts";

export interface StoredTensor {
  readonly shape: readonly number[];
  readonly dtype: "float32" | "bfloat16" | "float16";
  readonly data: readonly number[];
  readonly bits_u32_hex?: readonly string[];
  readonly bits_u16_hex?: readonly string[];
}

export interface LoraVector {
  readonly r: number;
  readonly lora_alpha: number;
  readonly scaling: number;
  readonly lora_A: StoredTensor;
  readonly lora_B: StoredTensor;
  readonly rslora?: boolean;
}

/** One recorded case; which members it has depends on the tool and the function. */
export interface MergeVector {
  readonly id: string;
  readonly impl: "peft" | "rune" | "mergekit";
  readonly fn: string;
  readonly inputs: readonly StoredTensor[];
  readonly base?: StoredTensor;
  readonly adapters: readonly LoraVector[];
  readonly weights?: readonly number[];
  readonly density?: number;
  readonly densities?: readonly number[];
  readonly drop_rate?: number;
  readonly majority_sign_method?: "total" | "frequency";
  readonly combination_type?: string;
  readonly svd_rank?: number;
  readonly normalize?: boolean;
  readonly rescale?: boolean;
  readonly lambda?: number;
  readonly gamma?: number;
  readonly intermediates?: {
    readonly masks?: readonly (readonly number[])[];
    readonly masks_in_call_order?: readonly (readonly number[])[];
  };
  readonly expected: StoredTensor & LoraVector & { readonly delta: StoredTensor };
  readonly exact_weighted_delta: StoredTensor;
  readonly expected_error?: readonly [string, string];
  readonly tolerance_abs: number;
}

interface VectorFile {
  readonly cases: readonly MergeVector[];
}

const file = new URL("../../fixtures/merge/merge_vectors.json", import.meta.url);
export const VECTORS = (JSON.parse(readFileSync(file, "utf8")) as VectorFile).cases;

export function dtypeOf(tensor: StoredTensor): FloatDtype {
  if (tensor.dtype === "float32") return "F32";
  return tensor.dtype === "bfloat16" ? "BF16" : "F16";
}

/** Words that make a random prune draw exactly the recorded masks. */
export function replay(masks: readonly (readonly number[])[]): Draws {
  return {
    fill(input, start, out): void {
      for (let i = 0; i < out.length; i += 1) {
        out[i] = masks[input]?.[start + i] === 1 ? 0 : 0xffffffff;
      }
    },
  };
}

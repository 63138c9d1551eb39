import { join } from "node:path";
import { z } from "cjm-substrate/worker";
import { refuse } from "../fault.ts";
import { f32, text, u32, type GgufValue } from "./format.ts";
import { readJson } from "./tokenizer.ts";

const ARCHITECTURES = new Set(["LlamaForCausalLM", "MistralForCausalLM"]);

const ropeSchema = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().optional(),
  factor: z.number().default(8),
  low_freq_factor: z.number().default(1),
  high_freq_factor: z.number().default(4),
  original_max_position_embeddings: z.number().default(8192),
});
export const configSchema = z.looseObject({
  architectures: z.array(z.string()).min(1),
  hidden_size: z.int().positive(),
  intermediate_size: z.int().positive(),
  num_hidden_layers: z.int().positive(),
  num_attention_heads: z.int().positive(),
  num_key_value_heads: z.int().positive().nullish(),
  head_dim: z.int().positive().nullish(),
  max_position_embeddings: z.int().positive(),
  rms_norm_eps: z.number(),
  rope_theta: z.number().nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  vocab_size: z.int().positive(),
  hidden_act: z.string().default("silu"),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  bos_token_id: z.int().nullish(),
  eos_token_id: z.union([z.int(), z.array(z.int())]).nullish(),
  pad_token_id: z.int().nullish(),
});

export interface LlamaShape {
  readonly heads: number;
  readonly keyHeads: number;
  readonly headSize: number;
  readonly layers: number;
  readonly vocabSize: number;
  readonly theta: number;
  readonly rope: z.output<typeof ropeSchema> | undefined;
  readonly config: z.output<typeof configSchema>;
}

/**
 * Reads `config.json` of a Llama-family model.
 *
 * @throws {CjmError} `model_unsupported` for another architecture or one of its variants that the
 * conversion would get wrong
 */
export async function readLlamaConfig(folder: string): Promise<LlamaShape> {
  const path = join(folder, "config.json");
  const config = await readJson(path, configSchema);
  const [architecture = ""] = config.architectures;
  if (!ARCHITECTURES.has(architecture)) {
    const known = [...ARCHITECTURES].join(", ");
    throw refuse("model_unsupported", `${path}: ${architecture} is none of ${known}`);
  }
  checkVariant(path, config);
  const rope = config.rope_parameters ?? config.rope_scaling ?? undefined;
  return {
    heads: config.num_attention_heads,
    keyHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headSize: config.head_dim ?? config.hidden_size / config.num_attention_heads,
    layers: config.num_hidden_layers,
    vocabSize: config.vocab_size,
    theta: config.rope_theta ?? rope?.rope_theta ?? 10_000,
    rope,
    config,
  };
}

function checkVariant(path: string, config: z.output<typeof configSchema>): void {
  const odd = [
    config.hidden_act === "silu" ? "" : `hidden_act ${config.hidden_act}`,
    config.attention_bias === true ? "attention_bias" : "",
    config.mlp_bias === true ? "mlp_bias" : "",
  ].filter((what) => what !== "");
  if (odd.length > 0) throw refuse("model_unsupported", `${path} has ${odd.join(", ")}`);
}

/** The model's shape as GGUF metadata of architecture `llama`. */
export function shapeMetadata(shape: LlamaShape, path: string): (readonly [string, GgufValue])[] {
  const { config } = shape;
  return [
    ["llama.vocab_size", u32(shape.vocabSize)],
    ["llama.context_length", u32(config.max_position_embeddings)],
    ["llama.embedding_length", u32(config.hidden_size)],
    ["llama.block_count", u32(shape.layers)],
    ["llama.feed_forward_length", u32(config.intermediate_size)],
    ["llama.attention.head_count", u32(shape.heads)],
    ["llama.attention.head_count_kv", u32(shape.keyHeads)],
    ["llama.attention.key_length", u32(shape.headSize)],
    ["llama.attention.value_length", u32(shape.headSize)],
    ["llama.attention.layer_norm_rms_epsilon", f32(config.rms_norm_eps)],
    ["llama.rope.dimension_count", u32(shape.headSize)],
    ["llama.rope.freq_base", f32(shape.theta)],
    ...linearScaling(shape, path),
  ];
}

function linearScaling({ rope }: LlamaShape, path: string): (readonly [string, GgufValue])[] {
  const type = rope?.rope_type ?? rope?.type ?? "default";
  if (type === "default" || type === "llama3") return [];
  if (type === "linear" && rope !== undefined) {
    return [
      ["llama.rope.scaling.type", text("linear")],
      ["llama.rope.scaling.factor", f32(rope.factor)],
    ];
  }
  throw refuse("model_unsupported", `${path} has rope scaling ${type}`);
}

/**
 * Divisors of the rotary frequencies of Llama 3.1 and later, for the tensor `rope_freqs.weight`;
 * undefined for other models. Source: `_compute_llama3_parameters` in transformers.
 */
export function ropeFactors({ rope, headSize, theta }: LlamaShape): Float32Array | undefined {
  if (rope === undefined || (rope.rope_type ?? rope.type) !== "llama3") return undefined;
  const { factor, low_freq_factor: low, high_freq_factor: high } = rope;
  const length = rope.original_max_position_embeddings;
  return Float32Array.from({ length: headSize / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / headSize);
    if (wavelength < length / high) return 1;
    if (wavelength > length / low) return factor;
    const smooth = (length / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

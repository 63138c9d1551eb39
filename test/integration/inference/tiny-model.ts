import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { convertModel } from "../../../workers/inference/gguf/convert-model.ts";

/** A Llama of 60 thousand random weights that no training has touched: real arithmetic, no sense. */
export const TINY = {
  hidden: 64,
  heads: 4,
  keyHeads: 2,
  layers: 2,
  inner: 96,
  context: 512,
} as const;

export const SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"] as const;
const MERGES = [
  ["h", "e"],
  ["l", "l"],
  ["he", "ll"],
  ["hell", "o"],
  ["Ġ", "w"],
  ["t", "h"],
] as const;
const TEMPLATE =
  "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/** Numbers that look random and are the same on every machine: mulberry32, then Box-Muller. */
export function gaussians(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 1) / 4294967297;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** GPT-2's letters for the 256 bytes. */
function byteLetters(): string[] {
  const isPlain = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let extra = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCodePoint(isPlain(byte) ? byte : 256 + extra++),
  );
}

export interface SafetensorsEntry {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, SafetensorsEntry>>,
): Promise<void> {
  const header: Record<string, unknown> = {};
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + bytes.byteLength] };
    offset += bytes.byteLength;
    parts.push(bytes);
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  await writeFile(path, Buffer.concat([length, json, ...parts]));
}

export interface TinyOptions {
  readonly seed?: number;
  readonly layers?: number;
  readonly hidden?: number;
  readonly chat?: boolean;
  /**
   * Only letters of ASCII and the line feed, so that every text is whole characters, and special
   * tokens that are rarely chosen, so that texts are long. @default false
   */
  readonly ascii?: boolean;
  readonly context?: number;
}

const isAscii = (byte: number): boolean => byte === 10 || (byte >= 32 && byte < 127);

/** Writes a Hugging Face folder. */
export async function writeTinyFolder(folder: string, options: TinyOptions = {}): Promise<string> {
  const { seed = 1, layers = TINY.layers, hidden = TINY.hidden, chat = true } = options;
  const letters = byteLetters().filter((_, byte) => options.ascii !== true || isAscii(byte));
  await mkdir(folder, { recursive: true });
  const tokens = [...SPECIAL, ...letters, ...MERGES.map((pair) => pair.join(""))];
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: hidden,
    intermediate_size: TINY.inner,
    num_hidden_layers: layers,
    num_attention_heads: TINY.heads,
    num_key_value_heads: TINY.keyHeads,
    max_position_embeddings: options.context ?? TINY.context,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    vocab_size: tokens.length,
    hidden_act: "silu",
    tie_word_embeddings: false,
    bos_token_id: 0,
    eos_token_id: 1,
  };
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizerJson(tokens)));
  const settings = { add_bos_token: true, ...(chat ? { chat_template: TEMPLATE } : {}) };
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(settings));
  const random = gaussians(seed);
  const weights = modelTensors({ hidden, layers, vocabulary: tokens.length }, random);
  if (options.ascii === true) weights["lm_head.weight"]?.values.fill(0, 0, SPECIAL.length * hidden);
  await writeSafetensors(join(folder, "model.safetensors"), weights);
  return folder;
}

const BYTE_LEVEL = {
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: true,
} as const;

function tokenizerJson(tokens: readonly string[]): unknown {
  // The tokenizers library reads no file that lacks one of these.
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  return {
    version: "1.0",
    added_tokens: SPECIAL.map((content, id) => ({ id, content, special: true, ...plain })),
    normalizer: null,
    pre_tokenizer: BYTE_LEVEL,
    decoder: BYTE_LEVEL,
    model: { type: "BPE", vocab, merges: MERGES.map((pair) => pair.join(" ")) },
  };
}

function modelTensors(
  { hidden, layers, vocabulary }: Readonly<Record<"hidden" | "layers" | "vocabulary", number>>,
  random: () => number,
): Record<string, SafetensorsEntry> {
  const tensors: Record<string, SafetensorsEntry> = {};
  const add = (name: string, shape: readonly number[], scale: number): void => {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length: count }, () => random() * scale);
    tensors[`${name}.weight`] = { shape, values };
  };
  const norm = (name: string): void => {
    tensors[`${name}.weight`] = { shape: [hidden], values: new Float32Array(hidden).fill(1) };
  };
  const keys = (hidden / TINY.heads) * TINY.keyHeads;
  const scale = 1 / Math.sqrt(hidden);
  add("model.embed_tokens", [vocabulary, hidden], 1);
  for (let layer = 0; layer < layers; layer += 1) {
    const at = `model.layers.${layer}`;
    add(`${at}.self_attn.q_proj`, [hidden, hidden], scale);
    add(`${at}.self_attn.k_proj`, [keys, hidden], scale);
    add(`${at}.self_attn.v_proj`, [keys, hidden], scale);
    add(`${at}.self_attn.o_proj`, [hidden, hidden], scale);
    add(`${at}.mlp.gate_proj`, [TINY.inner, hidden], scale);
    add(`${at}.mlp.up_proj`, [TINY.inner, hidden], scale);
    add(`${at}.mlp.down_proj`, [hidden, TINY.inner], 1 / Math.sqrt(TINY.inner));
    norm(`${at}.input_layernorm`);
    norm(`${at}.post_attention_layernorm`);
  }
  norm("model.norm");
  add("lm_head", [vocabulary, hidden], scale * 1.5);
  return tensors;
}

/** Writes a GGUF file by way of a Hugging Face folder beside it. */
export async function writeTinyModel(folder: string, options: TinyOptions = {}): Promise<string> {
  await mkdir(folder, { recursive: true });
  const source = await writeTinyFolder(join(folder, "tiny"), options);
  const { path } = await convertModel(source, join(folder, "tiny.gguf"));
  return path;
}

/** Writes a PEFT folder with an adapter of the attention of a tiny model. */
export async function writeTinyAdapter(
  folder: string,
  options: { readonly seed?: number; readonly hidden?: number; readonly strength?: number } = {},
): Promise<string> {
  const { seed = 7, hidden = TINY.hidden, strength = 0.3 } = options;
  await mkdir(folder, { recursive: true });
  const rank = 4;
  const random = gaussians(seed);
  const keys = (hidden / TINY.heads) * TINY.keyHeads;
  const tensors: Record<string, SafetensorsEntry> = {};
  const some = (shape: readonly [number, number], scale: number): SafetensorsEntry => ({
    shape,
    values: Float32Array.from({ length: shape[0] * shape[1] }, () => random() * scale),
  });
  const outputs = { q_proj: hidden, k_proj: keys, v_proj: keys, o_proj: hidden };
  for (let layer = 0; layer < TINY.layers; layer += 1) {
    for (const [name, size] of Object.entries(outputs)) {
      const at = `base_model.model.model.layers.${layer}.self_attn.${name}`;
      tensors[`${at}.lora_A.weight`] = some([rank, hidden], 1 / Math.sqrt(hidden));
      tensors[`${at}.lora_B.weight`] = some([size, rank], strength);
    }
  }
  await writeSafetensors(join(folder, "adapter_model.safetensors"), tensors);
  const config = {
    peft_type: "LORA",
    base_model_name_or_path: "tiny",
    r: rank,
    lora_alpha: 8,
    target_modules: Object.keys(outputs),
  };
  await writeFile(join(folder, "adapter_config.json"), JSON.stringify(config));
  return folder;
}

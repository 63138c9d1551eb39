import { join } from "node:path";
import { z, type CjmError } from "cjm-substrate/worker";
import { refuse } from "../fault.ts";
import { headCount } from "./convert-model.ts";
import { f32, text, type GgufValue, type TensorInfo } from "./format.ts";
import { llamaModule } from "./llama-names.ts";
import { permuteHeads } from "./permute.ts";
import { numberOf, textOf, type GgufHeader } from "./read.ts";
import { readCheckpoint, type SourceTensor } from "./safetensors.ts";
import { readJson } from "./tokenizer.ts";
import { writeGguf, type TensorSource, type WriteOptions } from "./write.ts";

const patternSchema = z.record(z.string(), z.number()).nullish();
export const peftConfigSchema = z.looseObject({
  peft_type: z.string().default("LORA"),
  base_model_name_or_path: z.string().nullish(),
  r: z.int().positive(),
  lora_alpha: z.number(),
  use_rslora: z.boolean().nullish(),
  use_dora: z.boolean().nullish(),
  fan_in_fan_out: z.boolean().nullish(),
  bias: z.string().nullish(),
  lora_bias: z.boolean().nullish(),
  modules_to_save: z.array(z.string()).nullish(),
  rank_pattern: patternSchema,
  alpha_pattern: patternSchema,
});
export type PeftConfig = z.output<typeof peftConfigSchema>;

/**
 * Converts a PEFT LoRA adapter of a Llama-family model to a LoRA GGUF file, in F32.
 *
 * llama.cpp scales by `alpha / rank` with one alpha for all modules; what a module has otherwise
 * (rsLoRA, alpha and rank patterns) is multiplied into its B.
 *
 * @param base header of the GGUF model that the adapter is for
 * @returns sha256 of the file
 * @throws {CjmError} `adapter_invalid` for what a LoRA GGUF cannot hold, `adapter_mismatch` for
 * shapes that the base has not
 */
export async function convertLora(
  folder: string,
  path: string,
  base: GgufHeader,
  options: WriteOptions = {},
): Promise<string> {
  const config = await readPeftConfig(folder);
  const architecture = textOf(base.metadata, "general.architecture");
  if (architecture !== "llama") {
    throw refuse(
      "model_unsupported",
      `Adapters of ${architecture ?? "no architecture"} models cannot be converted`,
    );
  }
  const pairs = pairsOf(folder, await readCheckpoint(folder, "adapter_model.safetensors"));
  const target = targetOf(base);
  const tensors = pairs.flatMap((pair) => converted(pair, config, target));
  const metadata = new Map<string, GgufValue>([
    ["general.type", text("adapter")],
    ["general.architecture", text(architecture)],
    ["adapter.type", text("lora")],
    ["adapter.lora.alpha", f32(config.lora_alpha)],
  ]);
  return await writeGguf(path, { metadata, tensors }, options);
}

/** @throws {CjmError} `adapter_invalid`, naming what this conversion cannot keep */
export async function readPeftConfig(folder: string): Promise<PeftConfig> {
  const path = join(folder, "adapter_config.json");
  const config = await readJson(path, peftConfigSchema);
  const odd = [
    config.peft_type === "LORA" ? "" : `peft_type ${config.peft_type}`,
    config.use_dora === true ? "use_dora" : "",
    config.fan_in_fan_out === true ? "fan_in_fan_out" : "",
    config.lora_bias === true ? "lora_bias" : "",
    (config.bias ?? "none") === "none" ? "" : `bias ${config.bias}`,
    (config.modules_to_save ?? []).length === 0 ? "" : "modules_to_save",
  ].filter((what) => what !== "");
  if (odd.length === 0) return config;
  throw invalid(`${path} has ${odd.join(", ")}: only plain LoRA can be converted`);
}

const invalid = (message: string): CjmError => refuse("adapter_invalid", message);

interface Pair {
  readonly module: string;
  readonly a: SourceTensor;
  readonly b: SourceTensor;
}

function pairsOf(folder: string, tensors: ReadonlyMap<string, SourceTensor>): Pair[] {
  const pairs: Pair[] = [];
  for (const a of tensors.values()) {
    const [, module] = /^(?:base_model\.model\.)?(.+)\.lora_A\.weight$/u.exec(a.name) ?? [];
    if (module === undefined) continue;
    const b = tensors.get(a.name.replace(/\.lora_A\.weight$/u, ".lora_B.weight"));
    if (b === undefined) throw invalid(`${folder} has ${a.name} without its lora_B`);
    pairs.push({ module, a, b });
  }
  if (pairs.length === 0) throw invalid(`${folder} holds no LoRA tensors`);
  if (pairs.length * 2 === tensors.size) return pairs;
  const known = new Set(pairs.flatMap(({ a, b }) => [a.name, b.name]));
  const other = [...tensors.keys()].find((name) => !known.has(name));
  throw invalid(`${folder} has tensor ${other}, which is no part of a plain LoRA`);
}

interface Target {
  readonly heads: number;
  readonly keyHeads: number;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

function targetOf({ metadata, tensors }: GgufHeader): Target {
  const heads = numberOf(metadata, "llama.attention.head_count") ?? 0;
  return {
    heads,
    keyHeads: numberOf(metadata, "llama.attention.head_count_kv") ?? heads,
    tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])),
  };
}

function converted({ module, a, b }: Pair, config: PeftConfig, target: Target): TensorSource[] {
  const name = llamaModule(module);
  if (name === undefined || name.name === "token_embd") {
    throw invalid(`${module} is no module whose adapter can be converted`);
  }
  const [rank = 0, inputs = 0] = a.shape;
  const [outputs = 0] = b.shape;
  checkFit({ module, a, b }, target.tensors.get(`${name.name}.weight`));
  const heads = headCount(target, name.heads);
  const factor = config.lora_alpha === 0 ? 1 : (scaling(module, config) * rank) / config.lora_alpha;
  const valuesOfB = async (): Promise<Float32Array> => {
    const values = await b.read();
    if (factor !== 1)
      for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) * factor;
    return heads === undefined ? values : permuteHeads(values, outputs, heads);
  };
  const common = { type: "F32" } as const;
  return [
    { ...common, name: `${name.name}.weight.lora_a`, dimensions: [inputs, rank], values: a.read },
    {
      ...common,
      name: `${name.name}.weight.lora_b`,
      dimensions: [rank, outputs],
      values: valuesOfB,
    },
  ];
}

function checkFit({ module, a, b }: Pair, weight: TensorInfo | undefined): void {
  const [rank, inputs] = a.shape;
  const [outputs, rankOfB] = b.shape;
  const [width, height] = weight?.dimensions ?? [];
  if (rank === rankOfB && width === inputs && height === outputs && inputs !== undefined) return;
  const has = weight === undefined ? "no such tensor" : `${height} x ${width}`;
  const message = `${module} of the adapter is ${outputs} x ${inputs}; the model has ${has}`;
  throw refuse("adapter_mismatch", message);
}

/** What PEFT multiplies B·A of a module with. */
function scaling(module: string, config: PeftConfig): number {
  const rank = patterned(module, config.rank_pattern) ?? config.r;
  const alpha = patterned(module, config.alpha_pattern) ?? config.lora_alpha;
  return alpha / (config.use_rslora === true ? Math.sqrt(rank) : rank);
}

/** The value of the first pattern that ends the module's name, as PEFT matches them. */
function patterned(module: string, patterns: PeftConfig["rank_pattern"]): number | undefined {
  for (const [pattern, value] of Object.entries(patterns ?? {})) {
    if (new RegExp(`^(?:.*\\.)?${pattern}$`, "u").test(module)) return value;
  }
  return undefined;
}

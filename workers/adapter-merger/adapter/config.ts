import { readFileSync, statSync } from "node:fs";
import { z } from "cjm-substrate/worker";
import { MergeFault } from "../fault.ts";

const CONFIG_MAX_BYTES = 4 * 1024 * 1024;

const targetsSchema = z.union([z.string(), z.array(z.string())]).nullish();

/** What of an `adapter_config.json` decides about a merge; other members are carried along. */
const adapterConfigSchema = z.looseObject({
  peft_type: z.string().default("LORA"),
  base_model_name_or_path: z.string().nullish(),
  revision: z.string().nullish(),
  r: z.int().positive(),
  lora_alpha: z.number(),
  use_rslora: z.boolean().nullish(),
  use_dora: z.boolean().nullish(),
  bias: z.string().nullish(),
  lora_bias: z.boolean().nullish(),
  fan_in_fan_out: z.boolean().nullish(),
  modules_to_save: z.array(z.string()).nullish(),
  target_modules: targetsSchema,
  exclude_modules: targetsSchema,
  rank_pattern: z.record(z.string(), z.int().positive()).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
  init_lora_weights: z.union([z.boolean(), z.string()]).nullish(),
});
export type AdapterConfig = z.output<typeof adapterConfigSchema>;

/** @throws {MergeFault} `FILE_INVALID` naming every wrong member */
export function readAdapterConfig(path: string): AdapterConfig {
  if (statSync(path).size > CONFIG_MAX_BYTES) {
    throw new MergeFault("FILE_INVALID", "config", `${path} is larger than 4 MiB`);
  }
  let raw: unknown;
  try {
    raw = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new MergeFault("FILE_INVALID", "config", `${path} is not JSON: ${why}`);
  }
  const parsed = adapterConfigSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw new MergeFault("FILE_INVALID", "config", `${path}:\n${z.prettifyError(parsed.error)}`);
}

/** Initialisations that also change the base weights: the delta alone is not what was trained. */
const CHANGES_BASE = /^(?:pissa|olora|corda|lora_ga|loftq)/u;
/** Members that switch on a variant whose delta is not `scaling * B A`. */
const VARIANTS = [
  "target_parameters",
  "layer_replication",
  "trainable_token_indices",
  "use_qalora",
  "use_bdlora",
  "arrow_config",
  "alora_invocation_tokens",
  "kasa_config",
  "monteclora_config",
  "velora_config",
];

/** What of a config cannot be merged, in words; empty when all of it can. */
export function configRefusals(config: AdapterConfig): readonly string[] {
  const refusals: string[] = [];
  if (config.peft_type !== "LORA") refusals.push(`peft_type ${config.peft_type} is not LORA`);
  if (config.use_dora === true) refusals.push("use_dora: magnitudes cannot be merged as deltas");
  if ((config.bias ?? "none") !== "none") refusals.push(`bias "${config.bias}" is trained`);
  if (config.lora_bias === true) refusals.push("lora_bias is trained");
  const saved = config.modules_to_save ?? [];
  if (saved.length > 0) refusals.push(`modules_to_save: ${saved.join(", ")}`);
  const init = config.init_lora_weights;
  if (typeof init === "string" && CHANGES_BASE.test(init)) {
    refusals.push(`init_lora_weights "${init}" changes the base weights; convert it to LoRA first`);
  }
  for (const name of VARIANTS) if (isSwitchedOn(config[name])) refusals.push(`${name} is set`);
  return refusals;
}

function isSwitchedOn(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return false;
  return !Array.isArray(value) || value.length > 0;
}

/** Rank and alpha of one module, by the first pattern that matches the end of its name. */
export function moduleScale(
  config: AdapterConfig,
  module: string,
): { readonly rank: number; readonly alpha: number } {
  return {
    rank: patterned(config.rank_pattern, module) ?? config.r,
    alpha: patterned(config.alpha_pattern, module) ?? config.lora_alpha,
  };
}

function patterned(
  patterns: Readonly<Record<string, number>> | null | undefined,
  module: string,
): number | undefined {
  for (const [pattern, value] of Object.entries(patterns ?? {})) {
    if (toRegExp(pattern).test(module)) return value;
  }
  return undefined;
}

function toRegExp(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:.*\\.)?(?:${pattern})$`, "u");
  } catch {
    throw new MergeFault("FILE_INVALID", "config", `"${pattern}" is not a valid module pattern`);
  }
}

/** What a LoRA delta is multiplied by: `alpha / r`, or `alpha / sqrt(r)` for rsLoRA. */
export function scalingOf(config: AdapterConfig, module: string, rank: number): number {
  const { alpha } = moduleScale(config, module);
  return alpha / (config.use_rslora === true ? Math.sqrt(rank) : rank);
}

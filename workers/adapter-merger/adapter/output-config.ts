import type { ModuleReport } from "../engine/jobs.ts";
import type { AdapterConfig } from "./config.ts";
import type { OpenedAdapter } from "./open.ts";
import type { Recipe } from "./recipe.ts";

/** Members that say where adapters sit; they are kept only if all inputs agree on them. */
const PLACEMENT = ["target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"];

/**
 * The `adapter_config.json` of a merged adapter: that of the first input with the new ranks.
 *
 * Scaling is folded into the factors, so alpha equals rank everywhere and rsLoRA is off; for peft
 * compatibility `use_rslora` stays as the first input has it, which is that tool's fault.
 */
export function outputConfig(
  adapters: readonly OpenedAdapter[],
  recipe: Recipe,
  modules: readonly Pick<ModuleReport, "module" | "rank">[],
): Readonly<Record<string, unknown>> {
  const [first] = adapters;
  if (first === undefined) throw new TypeError("No adapter");
  const { config } = first;
  if (recipe.compatibility === "rune") return { ...config, inference_mode: true };
  const rank = commonRank(modules);
  const others = Object.fromEntries(
    modules
      .filter((module) => module.rank !== rank)
      .map((module) => [pattern(module.module), module.rank]),
  );
  const keepsFault = recipe.compatibility === "peft" && config.use_rslora === true;
  return {
    ...config,
    ...placement(
      adapters.map((adapter) => adapter.config),
      modules,
    ),
    r: rank,
    lora_alpha: rank,
    rank_pattern: others,
    alpha_pattern: others,
    use_rslora: keepsFault,
    init_lora_weights: true,
    inference_mode: true,
  };
}

/** The rank that most modules have; the others are named in the patterns. */
function commonRank(modules: readonly Pick<ModuleReport, "rank">[]): number {
  const counts = new Map<number, number>();
  for (const { rank } of modules) counts.set(rank, (counts.get(rank) ?? 0) + 1);
  const [best] = [...counts].sort(([a, x], [b, y]) => y - x || b - a);
  return best?.[0] ?? 1;
}

/** A pattern is a regular expression, matched against the end of a module's name. */
function pattern(module: string): string {
  return module.replaceAll(/[.*+?^${}()|[\]\\]/gu, "\\$&");
}

function placement(
  configs: readonly AdapterConfig[],
  modules: readonly Pick<ModuleReport, "module">[],
): Readonly<Record<string, unknown>> {
  const kept = configs.map((config) =>
    JSON.stringify(PLACEMENT.map((name) => comparable(config[name]))),
  );
  const isCommon = new Set(kept).size === 1 && configs[0]?.target_modules != null;
  if (isCommon) return {};
  const names = modules.map(({ module }) => module);
  return { ...Object.fromEntries(PLACEMENT.map((name) => [name, null])), target_modules: names };
}

/** peft saves sets as lists in no fixed order. */
function comparable(value: unknown): unknown {
  return Array.isArray(value) ? value.map(String).sort() : (value ?? null);
}

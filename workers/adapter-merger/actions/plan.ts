import { mkdir, statfs } from "node:fs/promises";
import type { Call, z } from "cjm-substrate/worker";
import { openAdapter } from "../adapter/open.ts";
import type { MergerConfig } from "../config.ts";
import { elementCount } from "../safetensors/header.ts";
import { pathOf, type FolderInput } from "../output/inputs.ts";
import type { inspectOutputSchema, MergeInput, planOutputSchema } from "../schemas.ts";
import { diskNeeded, prepareMerge } from "./merge.ts";

/** What a merge would do and need. Reads headers and configs only. */
export async function planMerge(
  input: MergeInput,
  call: Call<MergerConfig>,
): Promise<z.input<typeof planOutputSchema>> {
  const prepared = prepareMerge(input, call.config);
  const { plan, notes } = prepared;
  await mkdir(call.outputFolder, { recursive: true });
  const { bavail, bsize } = await statfs(call.outputFolder);
  return {
    space: plan.space,
    modules: plan.jobs.map(({ name, inputs, outputs, sources, rank }) => {
      return { module: name, inputs, outputs, ranks: sources.map((source) => source.rank), rank };
    }),
    output_bytes: plan.outputBytes,
    disk_bytes: diskNeeded(prepared),
    memory_bytes: Math.ceil(plan.memoryBytes),
    disk_free_bytes: bavail * bsize,
    notes: [...notes],
  };
}

/** What one adapter is. Reads header and config only. */
export function inspectAdapter(path: FolderInput): z.input<typeof inspectOutputSchema> {
  const { config, modules, sizeBytes } = openAdapter(pathOf(path));
  const all = [...modules.values()];
  return {
    base_model: config.base_model_name_or_path ?? null,
    rank: config.r,
    alpha: config.lora_alpha,
    rslora: config.use_rslora === true,
    parameters: all.reduce(
      (sum, { a, b }) => sum + elementCount(a.shape) + elementCount(b.shape),
      0,
    ),
    bytes: sizeBytes,
    modules: all.map(({ module, rank, inputs, outputs, scaling, dtypeA }) => {
      return { module, rank, inputs, outputs, scaling, dtype: dtypeA };
    }),
  };
}

import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { dirRef, type Call, type z } from "cjm-substrate/worker";
import { CONFIG_NAME, openAdapter, WEIGHTS_NAME, type OpenedAdapter } from "../adapter/open.ts";
import { outputConfig } from "../adapter/output-config.ts";
import { planAdapters, threadsFor, type AdapterPlan } from "../adapter/plan.ts";
import type { Recipe } from "../adapter/recipe.ts";
import type { MergerConfig } from "../config.ts";
import { runJobs } from "../engine/pool.ts";
import type { ModuleReport } from "../engine/jobs.ts";
import { ResultCache } from "../output/cache.ts";
import { compactRanks } from "../output/compact-ranks.ts";
import { hashValue, stableJson } from "../output/hashing.ts";
import { inputHashes, pathOf, verifyFiles, Witness } from "../output/inputs.ts";
import { requireDisk, Staging } from "../output/staging.ts";
import { createFile } from "../safetensors/writer.ts";
import type { MergeInput, mergeOutputSchema } from "../schemas.ts";
import { VERSION } from "../version.ts";
import { adapterRecipe, recipeNotes } from "./recipe.ts";
import { adapterSummary, type Summary } from "./summary.ts";

type MergeOutput = z.input<typeof mergeOutputSchema>;

const RESULT_NAME = "merged";
const FILES = [WEIGHTS_NAME, CONFIG_NAME] as const;
const ADAPTER_METADATA = { format: "pt" } as const;
/** Config, report and provenance. */
const SIDE_BYTES = 16e6;

interface Prepared {
  readonly adapters: readonly OpenedAdapter[];
  readonly recipe: Recipe;
  readonly plan: AdapterPlan;
  readonly threads: number;
  readonly notes: readonly string[];
}

/** Everything that can go wrong before a tensor is read goes wrong here. */
export function prepareMerge(input: MergeInput, config: MergerConfig): Prepared {
  const recipe = adapterRecipe(input);
  const adapters = input.adapters.map(({ path }) => openAdapter(pathOf(path)));
  const threads = input.threads ?? config.threads;
  const plan = planAdapters(adapters, recipe, threads);
  const isRslora = adapters[0]?.config.use_rslora === true;
  const notes = recipeNotes(recipe, isRslora);
  return { adapters, recipe, plan, threads: threadsFor(plan.space, threads), notes };
}

/** Disk that a merge needs at its peak: with an energy target the file is rewritten once. */
export function diskNeeded({ plan, recipe }: Pick<Prepared, "plan" | "recipe">): number {
  return plan.outputBytes * (recipe.energy === undefined ? 1 : 2) + SIDE_BYTES;
}

/** Merges LoRA adapters into `call.outputFolder`; a repeated recipe answers from the cache. */
export async function mergeAdapters(
  input: MergeInput,
  call: Call<MergerConfig>,
): Promise<MergeOutput> {
  const startedMs = performance.now();
  const prepared = prepareMerge(input, call.config);
  const witness = await Witness.of(
    prepared.adapters.flatMap(({ weightsPath, configPath }) => [weightsPath, configPath]),
  );
  const hashes = await Promise.all(
    input.adapters.map(({ path }) => inputHashes(path, FILES, call.signal)),
  );
  const recipeHash = hashValue({
    tool: "adapter-merger",
    version: VERSION,
    recipe: prepared.recipe,
    inputs: hashes,
  });
  const cache = new ResultCache(call.dataFolder, call.config);
  await mkdir(call.outputFolder, { recursive: true });
  const timing = {
    input_bytes: prepared.adapters.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    output_bytes: prepared.plan.outputBytes,
    threads: prepared.threads,
  };
  const hit = await cache.take(recipeHash, call.outputFolder, RESULT_NAME);
  if (hit !== undefined) {
    call.account("cache_hit", { recipe_hash: recipeHash, sha256: hit.reference.data.sha256 });
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by this function; the SDK validates the answer
    const { report } = hit.answer as { report: Summary };
    const seconds = (performance.now() - startedMs) / 1000;
    return {
      adapter: hit.reference,
      recipe_hash: recipeHash,
      cache_hit: true,
      report,
      timing: { ...timing, seconds },
    };
  }
  for (const { path } of input.adapters) await verifyFiles(path, FILES, call.signal);
  await requireDisk(call.outputFolder, diskNeeded(prepared));
  const provenance = { recipe_hash: recipeHash, inputs: hashes };
  await using staging = await Staging.open(call.outputFolder, RESULT_NAME);
  const report = await fill(staging, prepared, { call, provenance });
  await witness.requireUnchanged();
  const adapter = await dirRef(await staging.commit());
  await cache.keep(recipeHash, adapter, { report });
  const seconds = (performance.now() - startedMs) / 1000;
  return {
    adapter,
    recipe_hash: recipeHash,
    cache_hit: false,
    report,
    timing: { ...timing, seconds },
  };
}

interface Provenance {
  readonly recipe_hash: string;
  readonly inputs: readonly Readonly<Record<string, string>>[];
}

/** Writes every file of the result. */
async function fill(
  staging: Staging,
  prepared: Prepared,
  { call, provenance }: { call: Call<MergerConfig>; provenance: Provenance },
): Promise<Summary> {
  const { adapters, recipe, plan, notes } = prepared;
  const modules = await writeWeights(staging.folder, prepared, { call, provenance });
  const summary = adapterSummary(modules, adapters.length, notes);
  staging.write(
    CONFIG_NAME,
    `${JSON.stringify(outputConfig(adapters, recipe, modules), undefined, 2)}\n`,
  );
  staging.write("merge_report.json", `${stableJson({ space: plan.space, summary, modules }, 1)}\n`);
  const versions = { tool: "adapter-merger", version: VERSION };
  staging.write(
    "merge_provenance.json",
    `${stableJson({ ...versions, recipe, ...provenance }, 1)}\n`,
  );
  return summary;
}

async function writeWeights(
  folder: string,
  { plan, adapters, recipe, threads }: Prepared,
  { call, provenance }: { call: Call<MergerConfig>; provenance: Provenance },
): Promise<readonly ModuleReport[]> {
  const path = join(folder, WEIGHTS_NAME);
  const layout = createFile(path, plan.tensors, ADAPTER_METADATA);
  const streams = streamNames(provenance.inputs.map((hashes) => hashes[WEIGHTS_NAME] ?? ""));
  const files = adapters.map(({ weightsPath }, i) => ({
    path: weightsPath,
    stream: streams[i] ?? "",
  }));
  let done = 0;
  const modules = await runJobs<ModuleReport>(plan.jobs, {
    spec: { ...plan.spec, layout, files },
    threads,
    signal: call.signal,
    onDone: (_, { module }) => {
      done += 1;
      call.progress(done / plan.jobs.length, `merged ${module} (${done} of ${plan.jobs.length})`);
    },
  });
  if (recipe.energy === undefined) return modules;
  const spool = `${path}.spool`;
  await rename(path, spool);
  compactRanks({ ...layout, path: spool }, path, {
    tensors: plan.tensors,
    jobs: plan.jobs,
    modules,
  });
  await rm(spool);
  return modules;
}

/** The same weights given twice must not draw the same random numbers. */
export function streamNames(hashes: readonly string[]): readonly string[] {
  return hashes.map((hash, i) => {
    const earlier = hashes.slice(0, i).filter((other) => other === hash).length;
    return earlier === 0 ? hash : `${hash}#${earlier}`;
  });
}

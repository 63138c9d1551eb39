import { copyFile, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { dirRef, type Call, type z } from "cjm-substrate/worker";
import type { Recipe } from "../adapter/recipe.ts";
import type { MergerConfig } from "../config.ts";
import type { TensorReport } from "../engine/model-task.ts";
import { runJobs } from "../engine/pool.ts";
import { INDEX_NAME, openModel, sideFiles, type OpenedModel } from "../model/open.ts";
import { PartialMerge } from "../model/partial.ts";
import { planModels, type ModelPlan, type ShardPlan } from "../model/plan.ts";
import { linkOrCopy, ResultCache } from "../output/cache.ts";
import { hashFile, hashValue, stableJson } from "../output/hashing.ts";
import { inputHashes, pathOf, verifyFiles, Witness, type FolderInput } from "../output/inputs.ts";
import { requireDisk, Staging } from "../output/staging.ts";
import { encodeHeader } from "../safetensors/header.ts";
import { createFile } from "../safetensors/writer.ts";
import type { MergeModelsInput, mergeModelsOutputSchema } from "../schemas.ts";
import { VERSION } from "../version.ts";
import { streamNames } from "./merge.ts";
import { modelRecipe, recipeNotes } from "./recipe.ts";
import { modelSummary, type Summary } from "./summary.ts";

type MergeModelsOutput = z.input<typeof mergeModelsOutputSchema>;
type Hashes = Readonly<Record<string, string>>;

const RESULT_NAME = "merged";
const METADATA = { format: "pt" } as const;
const SIDE_BYTES = 64e6;
const TORCH_DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

interface Merge {
  readonly call: Call<MergerConfig>;
  readonly recipe: Recipe;
  readonly plan: ModelPlan;
  readonly hashes: readonly Hashes[];
  readonly recipeHash: string;
  readonly threads: number;
  readonly witness: Witness;
}

/**
 * Merges full checkpoints into `call.outputFolder`, shard by shard. A call with the recipe of an
 * interrupted one continues behind its last complete shard.
 */
export async function mergeModels(
  input: MergeModelsInput,
  call: Call<MergerConfig>,
): Promise<MergeModelsOutput> {
  const startedMs = performance.now();
  const { merge, folders } = await prepare(input, call);
  const { plan, recipe, recipeHash, threads } = merge;
  const cache = new ResultCache(call.dataFolder, call.config);
  await mkdir(call.outputFolder, { recursive: true });
  const answer = (
    model: MergeModelsOutput["model"],
    rest: Pick<MergeModelsOutput, "cache_hit" | "report" | "resumed_shards">,
  ): MergeModelsOutput => ({
    model,
    recipe_hash: recipeHash,
    ...rest,
    timing: {
      seconds: (performance.now() - startedMs) / 1000,
      input_bytes: plan.inputs.reduce((sum, { bytes }) => sum + bytes, 0),
      output_bytes: plan.outputBytes,
      threads,
    },
  });
  const hit = await cache.take(recipeHash, call.outputFolder, RESULT_NAME);
  if (hit !== undefined) {
    call.account("cache_hit", { recipe_hash: recipeHash, sha256: hit.reference.data.sha256 });
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by this function; the SDK validates the answer
    const { report } = hit.answer as { report: Summary };
    return answer(hit.reference, { cache_hit: true, report, resumed_shards: 0 });
  }
  for (const [i, folder] of folders.entries()) {
    await verifyFiles(folder, plan.inputs[i]?.files ?? [], call.signal);
  }
  const partial = await PartialMerge.open(call.dataFolder, recipeHash);
  const { reports, resumed } = await writeShards(merge, partial);
  const report = modelSummary(reports, recipe.weights.length, recipeNotes(recipe, false));
  await using staging = await Staging.open(call.outputFolder, RESULT_NAME);
  await assemble(staging, merge, { partial, reports, report });
  const model = await dirRef(await staging.commit());
  await cache.keep(recipeHash, model, { report });
  await partial.remove();
  return answer(model, { cache_hit: false, report, resumed_shards: resumed });
}

async function prepare(
  input: MergeModelsInput,
  call: Call<MergerConfig>,
): Promise<{ merge: Merge; folders: readonly FolderInput[] }> {
  const recipe = modelRecipe(input);
  const models = input.models.map(({ path }) => openModel(pathOf(path)));
  const base = input.base === undefined ? undefined : openModel(pathOf(input.base));
  const opened = base === undefined ? models : [...models, base];
  const witness = await Witness.of(
    opened.flatMap(({ folder, files }) => files.map((name) => join(folder, name))),
  );
  const plan = planModels(models, base, { recipe, shardBytes: input.max_shard_mb * 1e6 });
  const folders = input.models.map(({ path }) => path);
  if (input.base !== undefined) folders.push(input.base);
  const hashes: Hashes[] = [];
  for (const [i, folder] of folders.entries()) {
    call.progress(-1, `hashing ${pathOf(folder)}`);
    hashes.push(await inputHashes(folder, plan.inputs[i]?.files ?? [], call.signal));
  }
  const sides = await sideHashes(plan.reference, call.signal);
  const recipeHash = hashValue({
    tool: "adapter-merger/models",
    version: VERSION,
    recipe,
    max_shard_mb: input.max_shard_mb,
    inputs: hashes,
    sides,
  });
  const threads = input.threads ?? call.config.threads;
  return { merge: { call, recipe, plan, hashes, recipeHash, threads, witness }, folders };
}

async function sideHashes({ folder }: OpenedModel, signal: AbortSignal): Promise<Hashes> {
  const entries: [string, string][] = [];
  for (const name of sideFiles(folder))
    entries.push([name, await hashFile(join(folder, name), signal)]);
  return Object.fromEntries(entries);
}

async function writeShards(
  merge: Merge,
  partial: PartialMerge,
): Promise<{ reports: readonly TensorReport[]; resumed: number }> {
  const { plan, call } = merge;
  const total = plan.shards.reduce((sum, { jobs }) => sum + jobs.length, 0);
  const reports: TensorReport[] = [];
  let resumed = 0;
  await requireDisk(partial.folder, await missingBytes(plan, partial));
  for (const shard of plan.shards) {
    const earlier = await partial.completed(shard.name, shardSize(shard));
    if (earlier !== undefined) resumed += 1;
    const before = reports.length;
    const onDone = (done: number, tensor: string): void => {
      call.progress((before + done) / total, `merged ${tensor} (${before + done} of ${total})`);
    };
    reports.push(...(earlier ?? (await writeShard(merge, { shard, partial, onDone }))));
    call.progress(reports.length / total, `${shard.name} is complete`);
  }
  return { reports, resumed };
}

async function missingBytes(plan: ModelPlan, partial: PartialMerge): Promise<number> {
  let bytes = SIDE_BYTES;
  for (const shard of plan.shards) {
    const isThere = (await partial.completed(shard.name, shardSize(shard))) !== undefined;
    if (!isThere) bytes += shard.bytes;
  }
  return bytes;
}

function shardSize({ tensors }: ShardPlan): number {
  const { bytes, dataBytes } = encodeHeader(tensors, METADATA);
  return bytes.length + dataBytes;
}

async function writeShard(
  { plan, call, hashes, threads, witness }: Merge,
  {
    shard,
    partial,
    onDone,
  }: {
    shard: ShardPlan;
    partial: PartialMerge;
    onDone: (done: number, tensor: string) => void;
  },
): Promise<readonly TensorReport[]> {
  const layout = createFile(await partial.start(shard.name), shard.tensors, METADATA);
  const streams = streamNames(hashes.map((files) => hashValue(files)));
  const models = plan.inputs.map(({ tensors }, i) => ({
    stream: streams[i] ?? "",
    files: new Map(shard.tensors.map(({ name }) => [name, tensors.get(name)?.path ?? ""])),
  }));
  let done = 0;
  const reports = await runJobs<TensorReport>(shard.jobs, {
    spec: { ...plan.spec, layout, models },
    threads,
    signal: call.signal,
    onDone: (_, { tensor }) => {
      done += 1;
      onDone(done, tensor);
    },
  });
  // A mark must never vouch for bytes of inputs that another recipe hash names.
  await witness.requireUnchanged();
  await partial.complete(shard.name, reports);
  return reports;
}

/** Links the shards and writes everything beside them. */
async function assemble(
  staging: Staging,
  { plan, recipe, recipeHash, hashes }: Merge,
  {
    partial,
    reports,
    report,
  }: { partial: PartialMerge; reports: readonly TensorReport[]; report: Summary },
): Promise<void> {
  for (const { name } of plan.shards) {
    await linkOrCopy(join(partial.folder, name), join(staging.folder, name));
  }
  if (plan.shards.length > 1) staging.write(INDEX_NAME, indexText(plan));
  const { folder } = plan.reference;
  for (const name of sideFiles(folder)) {
    if (name === "config.json" && recipe.dtype !== "auto") {
      staging.write(name, await configText(join(folder, name), TORCH_DTYPES[recipe.dtype]));
    } else {
      await copyFile(join(folder, name), join(staging.folder, name));
    }
  }
  staging.write("merge_report.json", `${stableJson({ summary: report, tensors: reports }, 1)}\n`);
  const provenance = {
    tool: "adapter-merger",
    version: VERSION,
    recipe,
    recipe_hash: recipeHash,
    inputs: hashes,
  };
  staging.write("merge_provenance.json", `${stableJson(provenance, 1)}\n`);
}

function indexText({ shards, outputBytes }: ModelPlan): string {
  const entries = shards.flatMap(({ name, tensors }) =>
    tensors.map((tensor) => [tensor.name, name] as const),
  );
  const index = { metadata: { total_size: outputBytes }, weight_map: Object.fromEntries(entries) };
  return `${stableJson(index, 2)}\n`;
}

async function configText(path: string, dtype: string): Promise<string> {
  const config: unknown = JSON.parse(await readFile(path, "utf8"));
  if (typeof config !== "object" || config === null) return `${JSON.stringify(config)}\n`;
  const key = "dtype" in config ? "dtype" : "torch_dtype";
  return `${JSON.stringify({ ...config, [key]: dtype }, undefined, 2)}\n`;
}

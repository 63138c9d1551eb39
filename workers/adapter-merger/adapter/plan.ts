import { MergeFault } from "../fault.ts";
import type { AdapterMergeSpec, ModuleJob, ModuleSource } from "../engine/jobs.ts";
import { rulesFor } from "../engine/rules.ts";
import { elementBytes } from "../safetensors/dtype.ts";
import { elementCount, type TensorSpec } from "../safetensors/header.ts";
import { findMismatches } from "./compatible.ts";
import type { LoraModule, OpenedAdapter } from "./open.ts";
import { numbersFor, recipeProblems, spaceOf, type Recipe, type Space } from "./recipe.ts";

/** Everything about a merge that can be known without reading a tensor. */
export interface AdapterPlan {
  readonly space: Space;
  readonly jobs: readonly ModuleJob[];
  readonly tensors: readonly TensorSpec[];
  readonly spec: Omit<AdapterMergeSpec, "layout" | "files">;
  readonly outputBytes: number;
  readonly memoryBytes: number;
}

/** The most that a WebAssembly memory can hold of one dense delta. */
const DENSE_MAX_BYTES = 4e9;
/** Node, its threads and their chunks. */
const BASE_BYTES = 120e6;
const DENSE_THREADS = 4;

/**
 * Checks a recipe against adapters and lays the output out.
 *
 * @throws {MergeFault} `CAPABILITY_INPUT` with every problem found, `CAPABILITY_RESOURCE` for a
 * delta that cannot be held
 */
export function planAdapters(
  adapters: readonly OpenedAdapter[],
  asked: Recipe,
  threads: number,
): AdapterPlan {
  const recipe = effectiveRecipe(asked, adapters.length);
  refuse(recipeProblems(recipe, adapters.length), "recipe", "The recipe cannot be used");
  const mismatches = findMismatches(comparable(adapters, recipe), recipe.allowsMissing);
  const list = mismatches.map(({ adapter, what }) => `adapters[${adapter}]: ${what}`);
  refuse(list, "incompatible", "The adapters do not fit together");
  const space = spaceOf(recipe);
  const names = moduleNames(adapters, recipe);
  const jobs = names.map((name) => planModule(name, { adapters, recipe, space }));
  refuse(
    jobs.flatMap((job) => job.problems),
    "rank",
    "The recipe does not fit the modules",
  );
  const plain = jobs.map(({ job }) => job);
  const tensors = jobs.flatMap(({ tensors: specs }) => specs);
  const outputBytes = tensors.reduce(
    (sum, { dtype, shape }) => sum + elementBytes(dtype) * elementCount(shape),
    0,
  );
  return {
    space,
    jobs: plain,
    tensors,
    spec: specOf(recipe, space, adapters.length),
    outputBytes,
    memoryBytes: memoryNeeded(plain, space, threads),
  };
}

/** Rune looks up the names of its first adapter and never sees what else the others hold. */
function comparable(adapters: readonly OpenedAdapter[], recipe: Recipe): readonly OpenedAdapter[] {
  if (recipe.compatibility !== "rune") return adapters;
  const names = adapters[0]?.modules ?? new Map<string, LoraModule>();
  return adapters.map((adapter) => {
    const modules = [...adapter.modules].filter(([name]) => names.has(name));
    return { ...adapter, modules: new Map(modules) };
  });
}

function refuse(problems: readonly string[], reason: string, title: string): void {
  if (problems.length === 0) return;
  const shown = problems.slice(0, 50).map((problem) => `- ${problem}`);
  if (problems.length > shown.length) shown.push(`- and ${problems.length - shown.length} more`);
  const message = `${title}:\n${shown.join("\n")}`;
  throw new MergeFault("CAPABILITY_INPUT", reason, message, { problems: problems.slice(0, 1000) });
}

/** peft merges a single adapter linearly, whatever it was asked for. */
function effectiveRecipe(recipe: Recipe, adapters: number): Recipe {
  const isForced = recipe.compatibility === "peft" && adapters === 1;
  return isForced ? { ...recipe, method: "linear", rank: undefined } : recipe;
}

function specOf(recipe: Recipe, space: Space, adapters: number): AdapterPlan["spec"] {
  const { method, compatibility, vote, isNormalized, isRescaled } = recipe;
  return {
    kind: "adapters",
    space,
    rules: rulesFor(method, compatibility, { vote, isNormalized, isRescaled }),
    isPeft: compatibility === "peft",
    isRune: compatibility === "rune",
    isSlerp: method === "slerp" && adapters === 2,
    position: recipe.position,
    gamma: recipe.gamma,
    epsilon: recipe.epsilon,
    seed: recipe.seed,
    allowsNonFinite: recipe.allowsNonFinite,
  };
}

/** Rune takes the names of its first adapter; the others take all. */
function moduleNames(adapters: readonly OpenedAdapter[], recipe: Recipe): readonly string[] {
  const sources = recipe.compatibility === "rune" ? adapters.slice(0, 1) : adapters;
  return [...new Set(sources.flatMap(({ modules }) => [...modules.keys()]))].sort();
}

interface Context {
  readonly adapters: readonly OpenedAdapter[];
  readonly recipe: Recipe;
  readonly space: Space;
}

interface PlannedModule {
  readonly job: ModuleJob;
  readonly tensors: readonly TensorSpec[];
  readonly problems: readonly string[];
}

function planModule(name: string, { adapters, recipe, space }: Context): PlannedModule {
  const held = adapters.flatMap(({ modules }, adapter) => {
    const module = modules.get(name);
    return module === undefined ? [] : [{ adapter, module }];
  });
  const [first] = held;
  if (first === undefined) throw new TypeError(`No adapter has ${name}`);
  const { module } = first;
  const numbers = numbersFor(recipe, module.module);
  const sources = held.map(({ adapter, module: own }) => source(adapter, own, numbers));
  const ranks = held.map(({ module: own }) => own.rank);
  const rank = outputRank(module, ranks, { space, recipe, asked: numbers.rank });
  const dtypeA = recipe.dtype === "auto" ? module.dtypeA : recipe.dtype;
  const dtypeB = recipe.dtype === "auto" ? outputDtypeB(module, recipe) : recipe.dtype;
  const job: ModuleJob = {
    name: module.module,
    inputs: module.inputs,
    outputs: module.outputs,
    sources,
    lambda: numbers.lambda,
    rank,
    energy: recipe.energy,
    aOut: module.a.name,
    bOut: module.b.name,
    dtypeA,
    dtypeB,
  };
  const shapeA = [rank, ...module.a.shape.slice(1)];
  const shapeB = [module.outputs, rank, ...module.b.shape.slice(2)];
  const tensors = [
    { name: module.a.name, dtype: dtypeA, shape: shapeA },
    { name: module.b.name, dtype: dtypeB, shape: shapeB },
  ];
  return {
    job,
    tensors,
    problems: moduleProblems(job, { ranks, recipe, space, asked: numbers.rank }),
  };
}

/** peft casts both factors to the dtype of A. */
function outputDtypeB(module: LoraModule, { compatibility }: Recipe): LoraModule["dtypeB"] {
  return compatibility === "peft" ? module.dtypeA : module.dtypeB;
}

function source(
  adapter: number,
  module: LoraModule,
  numbers: { weights: readonly number[]; densities: readonly number[] },
): ModuleSource {
  return {
    adapter,
    aName: module.a.name,
    bName: module.b.name,
    rank: module.rank,
    scaling: module.scaling,
    weight: numbers.weights[adapter] ?? 1,
    density: numbers.densities[adapter] ?? 1,
  };
}

function outputRank(
  { inputs, outputs }: LoraModule,
  ranks: readonly number[],
  { space, recipe, asked }: { space: Space; recipe: Recipe; asked: number | undefined },
): number {
  if (space === "tensors") return ranks[0] ?? 1;
  const sum = ranks.reduce((total, rank) => total + rank, 0);
  if (space === "cat") return sum;
  if (asked !== undefined) return asked;
  if (recipe.compatibility === "peft") return Math.max(...ranks);
  return Math.min(sum, inputs, outputs);
}

function moduleProblems(
  job: ModuleJob,
  {
    ranks,
    recipe,
    space,
    asked,
  }: { ranks: readonly number[]; recipe: Recipe; space: Space; asked: number | undefined },
): string[] {
  const problems: string[] = [];
  const { name, inputs, outputs } = job;
  if (asked !== undefined && asked > Math.min(inputs, outputs)) {
    problems.push(`rank: ${asked} is above the ${outputs} x ${inputs} of ${name}`);
  }
  if (space === "tensors" && new Set(ranks).size > 1) {
    problems.push(
      `${name} has ranks ${ranks.join(", ")}: "${recipe.method}" needs equal ones here`,
    );
  }
  if (space !== "dense") return problems;
  if (inputs * outputs * 4 > DENSE_MAX_BYTES) {
    const message = `The dense delta of ${name} (${outputs} x ${inputs}) does not fit 4 GB; use compat "peft"`;
    throw new MergeFault("CAPABILITY_RESOURCE", "matrix_too_large", message, { module: name });
  }
  if (recipe.compatibility === "mergekit" && recipe.method !== "slerp") {
    const empty = job.sources.filter(({ density }) => Math.trunc(density * inputs * outputs) === 0);
    if (empty.length > 0) problems.push(`densities: nothing of ${name} would be left`);
  }
  return problems;
}

/** Threads that may hold a dense delta at the same time. */
export function threadsFor(space: Space, threads: number): number {
  return space === "dense" ? Math.min(threads, DENSE_THREADS) : threads;
}

function memoryNeeded(jobs: readonly ModuleJob[], space: Space, threads: number): number {
  const perJob = jobs.map((job) => {
    const { inputs, outputs, sources, rank } = job;
    const ranks = sources.reduce((sum, source_) => sum + source_.rank, 0);
    const factors = (ranks + 3 * rank) * (inputs + outputs) * 4;
    return space === "dense" ? factors + inputs * outputs * 4 : factors;
  });
  const largest = perJob.sort((a, b) => b - a).slice(0, threadsFor(space, threads));
  return BASE_BYTES + largest.reduce((sum, bytes) => sum + bytes, 0);
}

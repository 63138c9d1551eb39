import { MergeFault } from "../fault.ts";
import type { ModelMergeSpec, TensorJob } from "../engine/model-task.ts";
import { rulesFor } from "../engine/rules.ts";
import { numbersFor, recipeProblems, type Recipe } from "../adapter/recipe.ts";
import { elementBytes, isFloatDtype, type Dtype } from "../safetensors/dtype.ts";
import { elementCount, type TensorInfo, type TensorSpec } from "../safetensors/header.ts";
import { modelMismatches, SINGLE_NAME, type OpenedModel } from "./open.ts";

/** One output file and what goes into it. */
export interface ShardPlan {
  readonly name: string;
  readonly tensors: readonly TensorSpec[];
  readonly jobs: readonly TensorJob[];
  readonly bytes: number;
}

export interface ModelPlan {
  /** The inputs in the order in which the threads number them: the base is last. */
  readonly inputs: readonly OpenedModel[];
  readonly reference: OpenedModel;
  readonly shards: readonly ShardPlan[];
  readonly outputBytes: number;
  readonly spec: Omit<ModelMergeSpec, "layout" | "models">;
}

const BASELESS = new Set<string>(["linear", "slerp"]);

/**
 * Checks a recipe against checkpoints and divides the output into files.
 *
 * @throws {MergeFault} `CAPABILITY_INPUT` with every problem found
 */
export function planModels(
  models: readonly OpenedModel[],
  base: OpenedModel | undefined,
  options: { readonly recipe: Recipe; readonly shardBytes: number },
): ModelPlan {
  const { recipe } = options;
  const [first] = models;
  if (first === undefined) throw new TypeError("No model");
  const reference = base ?? first;
  const problems = [...recipeProblems(recipe, models.length), ...baseProblems(recipe, base)];
  refuse(problems.length > 0 ? problems : modelMismatches(reference, models));
  const shards = divide(reference, options);
  return {
    inputs: base === undefined ? models : [...models, base],
    reference,
    shards,
    outputBytes: shards.reduce((sum, { bytes }) => sum + bytes, 0),
    spec: specOf(recipe, base !== undefined),
  };
}

function baseProblems({ method }: Recipe, base: OpenedModel | undefined): readonly string[] {
  if (BASELESS.has(method)) return base === undefined ? [] : [`base: "${method}" takes none`];
  return base === undefined ? [`base: "${method}" merges differences to a base`] : [];
}

function refuse(problems: readonly string[]): void {
  if (problems.length === 0) return;
  const shown = problems.slice(0, 50).map((problem) => `- ${problem}`);
  if (problems.length > shown.length) shown.push(`- and ${problems.length - shown.length} more`);
  const message = `The checkpoints cannot be merged:\n${shown.join("\n")}`;
  throw new MergeFault("CAPABILITY_INPUT", "incompatible", message, {
    problems: problems.slice(0, 1000),
  });
}

function specOf(recipe: Recipe, hasBase: boolean): ModelPlan["spec"] {
  const { method, compatibility, vote, isRescaled } = recipe;
  // A sum of whole checkpoints is only a checkpoint again if the weights are shares.
  const isNormalized = recipe.isNormalized ?? (method === "linear" ? true : undefined);
  return {
    kind: "models",
    rules: rulesFor(method, compatibility, { vote, isNormalized, isRescaled }),
    isSlerp: method === "slerp",
    position: recipe.position,
    gamma: recipe.gamma,
    epsilon: recipe.epsilon,
    seed: recipe.seed,
    allowsNonFinite: recipe.allowsNonFinite,
    hasBase,
  };
}

/** Fills files in the order of the reference; a file holds at least one tensor. */
function divide(
  reference: OpenedModel,
  { recipe, shardBytes }: { readonly recipe: Recipe; readonly shardBytes: number },
): readonly ShardPlan[] {
  const groups: TensorSpec[][] = [];
  let room = 0;
  for (const { info } of reference.tensors.values()) {
    const spec = { name: info.name, dtype: outputDtype(info, recipe), shape: info.shape };
    const bytes = bytesOf(spec);
    const group = groups.at(-1);
    if (group === undefined || bytes > room) {
      groups.push([spec]);
      room = shardBytes - bytes;
    } else {
      group.push(spec);
      room -= bytes;
    }
  }
  return groups.map((tensors, i) => ({
    name: groups.length === 1 ? SINGLE_NAME : shardName(i + 1, groups.length),
    tensors,
    jobs: tensors.map(({ name }) => {
      const { weights, densities, lambda } = numbersFor(recipe, name);
      return { name, weights, densities, lambda };
    }),
    bytes: tensors.reduce((sum, spec) => sum + bytesOf(spec), 0),
  }));
}

function bytesOf({ dtype, shape }: TensorSpec): number {
  return elementCount(shape) * elementBytes(dtype);
}

function shardName(number: number, count: number): string {
  const digits = (value: number): string => String(value).padStart(5, "0");
  return `model-${digits(number)}-of-${digits(count)}.safetensors`;
}

function outputDtype({ dtype }: TensorInfo, recipe: Recipe): Dtype {
  return recipe.dtype === "auto" || !isFloatDtype(dtype) ? dtype : recipe.dtype;
}

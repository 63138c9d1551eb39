import type { Compatibility, Method, Vote } from "../engine/rules.ts";
import type { FloatDtype } from "../safetensors/dtype.ts";

/** What to do, without the inputs' places: two equal recipes on equal inputs give equal bytes. */
export interface Recipe {
  readonly method: Method;
  readonly compatibility: Compatibility;
  readonly weights: readonly number[];
  readonly densities: readonly number[];
  readonly lambda: number;
  readonly rank?: number | undefined;
  readonly energy?: number | undefined;
  readonly seed: number;
  readonly vote: Vote;
  readonly isNormalized?: boolean | undefined;
  readonly isRescaled?: boolean | undefined;
  readonly gamma: number;
  readonly epsilon: number;
  /** Slerp: 0 is the first adapter, 1 the second. */
  readonly position?: number | undefined;
  readonly dtype: FloatDtype | "auto";
  readonly allowsMissing: boolean;
  readonly allowsNonFinite: boolean;
  readonly overrides: readonly Override[];
}

/** Other numbers for the modules whose name matches; the last match wins, member by member. */
export interface Override {
  /** Regular expression, searched for in the module's name. */
  readonly modules: string;
  readonly weights?: readonly number[] | undefined;
  readonly densities?: readonly number[] | undefined;
  readonly lambda?: number | undefined;
  readonly rank?: number | undefined;
}

export type ModuleNumbers = Pick<Recipe, "weights" | "densities" | "lambda" | "rank">;

/** The numbers for one module. */
export function numbersFor(recipe: Recipe, module: string): ModuleNumbers {
  const { weights, densities, lambda, rank } = recipe;
  return recipe.overrides
    .filter(({ modules }) => new RegExp(modules, "u").test(module))
    .reduce<ModuleNumbers>(
      (numbers, override) => ({
        weights: override.weights ?? numbers.weights,
        densities: override.densities ?? numbers.densities,
        lambda: override.lambda ?? numbers.lambda,
        rank: override.rank ?? numbers.rank,
      }),
      { weights, densities, lambda, rank },
    );
}

const DENSE_IN_PEFT = /_svd$/u;
const PEFT_METHODS = new Set<Method>([
  "linear",
  "cat",
  "svd",
  "ties",
  "ties_svd",
  "dare_linear",
  "dare_linear_svd",
  "dare_ties",
  "dare_ties_svd",
  "magnitude_prune",
  "magnitude_prune_svd",
]);
const MERGEKIT_METHODS = new Set<Method>([
  "linear",
  "task_arithmetic",
  "ties",
  "dare_linear",
  "dare_ties",
  "della",
  "della_linear",
  "breadcrumbs",
  "breadcrumbs_ties",
  "slerp",
]);
const RUNE_METHODS = new Set<Method>(["ties", "dare_linear"]);
const KNOWN: Readonly<Record<Compatibility, ReadonlySet<Method> | undefined>> = {
  none: undefined,
  peft: PEFT_METHODS,
  mergekit: MERGEKIT_METHODS,
  rune: RUNE_METHODS,
};
const PRUNES = /^(?:ties|dare|magnitude_prune|della|breadcrumbs)/u;

/** In what form the adapters of a recipe are merged. */
export type Space = "cat" | "factored" | "dense" | "tensors";

export function spaceOf({ method, compatibility }: Recipe): Space {
  if (method === "cat") return "cat";
  if (compatibility === "rune") return "tensors";
  if (compatibility === "peft" && method !== "svd" && !DENSE_IN_PEFT.test(method)) return "tensors";
  return PRUNES.test(method) ? "dense" : "factored";
}

/** Every reason why the numbers of a recipe make no sense, by the input field they came from. */
export function recipeProblems(recipe: Recipe, adapters: number): readonly string[] {
  const problems: string[] = [];
  const { method, compatibility } = recipe;
  if (KNOWN[compatibility]?.has(method) === false) {
    problems.push(`method: ${compatibility} has no "${method}"`);
  }
  if (method === "slerp" && adapters !== 2) {
    problems.push(`adapters: slerp takes exactly two, not ${adapters}`);
  }
  if (recipe.rank !== undefined && recipe.energy !== undefined) {
    problems.push("energy: give a rank or an energy, not both");
  }
  const space = spaceOf(recipe);
  if ((space === "cat" || space === "tensors") && (recipe.rank ?? recipe.energy) !== undefined) {
    problems.push(`rank: "${method}" decides the rank by itself here`);
  }
  if (compatibility !== "none" && recipe.energy !== undefined) {
    problems.push(`energy: ${compatibility} has no energy target`);
  }
  for (const [at, { weights, densities, modules }] of recipe.overrides.entries()) {
    if (!isPattern(modules)) problems.push(`overrides[${at}].modules: not a regular expression`);
    if ((weights ?? recipe.weights).length !== adapters)
      problems.push(`overrides[${at}].weights: one per adapter`);
    if ((densities ?? recipe.densities).length !== adapters)
      problems.push(`overrides[${at}].densities: one per adapter`);
    problems.push(
      ...numberProblems(
        { ...recipe, weights: weights ?? recipe.weights, densities: densities ?? recipe.densities },
        `overrides[${at}].`,
      ),
    );
  }
  problems.push(...numberProblems(recipe, ""));
  return problems;
}

function numberProblems(recipe: Recipe, prefix: string): string[] {
  const problems: string[] = [];
  const { weights, compatibility, method } = recipe;
  if (weights.some((weight) => !Number.isFinite(weight)))
    problems.push(`${prefix}weights: not finite`);
  if (compatibility === "none" && weights.every((weight) => weight === 0)) {
    problems.push(`${prefix}weights: all are zero, the result would be empty`);
  }
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (method === "slerp" && recipe.position === undefined && total === 0) {
    problems.push(`${prefix}weights: slerp needs a sum that is not zero`);
  }
  if (PRUNES.test(method)) {
    for (const [at, density] of recipe.densities.entries()) {
      const problem = densityProblem(recipe, density);
      if (problem !== undefined) problems.push(`${prefix}densities[${at}]: ${density} ${problem}`);
    }
  }
  return problems;
}

/** Each tool's own limits: peft takes 0 and more than 1, Rune 0, the others neither. */
function densityProblem(
  { compatibility, method, epsilon }: Recipe,
  density: number,
): string | undefined {
  if (!Number.isFinite(density) || density < 0) return "is negative or not a number";
  if (compatibility === "peft") return undefined;
  if (density > 1) return "is above 1";
  const allowsZero = compatibility === "rune" && method === "ties";
  if (density === 0 && !allowsZero) return "would leave nothing";
  const isDella = method === "della" || method === "della_linear";
  if (isDella && density < 1 && (density + epsilon >= 1 || density - epsilon <= 0)) {
    return `and epsilon ${epsilon} leave the range 0..1`;
  }
  return undefined;
}

function isPattern(text: string): boolean {
  try {
    return new RegExp(text, "u").source !== "";
  } catch {
    return false;
  }
}

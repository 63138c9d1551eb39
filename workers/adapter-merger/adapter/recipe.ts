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
  return [
    ...methodProblems(recipe, adapters),
    ...rankProblems(recipe),
    ...recipe.overrides.flatMap((override, at) =>
      overrideProblems(recipe, override, { adapters, at }),
    ),
    ...numberProblems(recipe, ""),
  ];
}

function methodProblems({ method, compatibility }: Recipe, adapters: number): string[] {
  const problems: string[] = [];
  if (KNOWN[compatibility]?.has(method) === false) {
    problems.push(`method: ${compatibility} has no "${method}"`);
  }
  if (method === "slerp" && adapters !== 2) {
    problems.push(`adapters: slerp takes exactly two, not ${adapters}`);
  }
  return problems;
}

function rankProblems(recipe: Recipe): string[] {
  const { rank, energy, method, compatibility } = recipe;
  if (rank === undefined && energy === undefined) return [];
  const problems: string[] = [];
  const space = spaceOf(recipe);
  if (rank !== undefined && energy !== undefined) {
    problems.push("energy: give a rank or an energy, not both");
  }
  if (space === "cat" || space === "tensors") {
    problems.push(`rank: "${method}" decides the rank by itself here`);
  }
  if (compatibility !== "none" && energy !== undefined) {
    problems.push(`energy: ${compatibility} has no energy target`);
  }
  return problems;
}

function overrideProblems(
  recipe: Recipe,
  override: Override,
  { adapters, at }: { adapters: number; at: number },
): string[] {
  const prefix = `overrides[${at}].`;
  const { modules, weights = recipe.weights, densities = recipe.densities } = override;
  const problems: string[] = [];
  if (!isPattern(modules)) problems.push(`${prefix}modules: not a regular expression`);
  if (weights.length !== adapters) problems.push(`${prefix}weights: one per adapter`);
  if (densities.length !== adapters) problems.push(`${prefix}densities: one per adapter`);
  if (override.rank !== undefined && ["cat", "tensors"].includes(spaceOf(recipe))) {
    problems.push(`${prefix}rank: "${recipe.method}" decides the rank by itself here`);
  }
  return [...problems, ...numberProblems({ ...recipe, weights, densities }, prefix)];
}

function numberProblems(recipe: Recipe, prefix: string): string[] {
  const { weights, compatibility, method, densities } = recipe;
  const problems: string[] = [];
  if (compatibility === "none" && weights.every((weight) => weight === 0)) {
    problems.push(`${prefix}weights: all are zero, the result would be empty`);
  }
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (method === "slerp" && recipe.position === undefined && total === 0) {
    problems.push(`${prefix}weights: slerp needs a sum that is not zero`);
  }
  if (!PRUNES.test(method)) return problems;
  for (const [at, density] of densities.entries()) {
    const problem = densityProblem(recipe, density);
    if (problem !== undefined) problems.push(`${prefix}densities[${at}]: ${density} ${problem}`);
  }
  return problems;
}

/** Each tool's own limits: peft takes 0 and more than 1, Rune's TIES 0, the others neither. */
function densityProblem(recipe: Recipe, density: number): string | undefined {
  const { compatibility, method } = recipe;
  if (density < 0) return "is negative";
  if (compatibility === "peft") return undefined;
  if (density > 1) return "is above 1";
  const allowsZero = compatibility === "rune" && method === "ties";
  if (density === 0 && !allowsZero) return "would leave nothing";
  return method.startsWith("della") ? dellaProblem(density, recipe.epsilon) : undefined;
}

function dellaProblem(density: number, epsilon: number): string | undefined {
  const fits = density === 1 || (density + epsilon < 1 && density - epsilon > 0);
  return fits ? undefined : `and epsilon ${epsilon} leave the range 0..1`;
}

function isPattern(text: string): boolean {
  try {
    return new RegExp(text, "u").source !== "";
  } catch {
    return false;
  }
}

import type { Recipe } from "../adapter/recipe.ts";
import type { MergeInput, MergeModelsInput } from "../schemas.ts";

const DTYPES = { auto: "auto", float32: "F32", float16: "F16", bfloat16: "BF16" } as const;

/** What both kinds of merge can be told. */
type Common = Pick<
  MergeInput,
  | "compat"
  | "density"
  | "dtype"
  | "epsilon"
  | "gamma"
  | "lambda"
  | "majority_sign"
  | "method"
  | "nonfinite"
  | "normalize"
  | "rescale"
  | "seed"
  | "t"
>;

interface Weighted {
  readonly weight: number;
  readonly density?: number | undefined;
}

function commonRecipe(
  input: Common,
  sources: readonly Weighted[],
): Omit<Recipe, "overrides" | "allowsMissing"> {
  return {
    method: input.method,
    compatibility: input.compat,
    weights: sources.map(({ weight }) => weight),
    densities: sources.map(({ density }) => density ?? input.density),
    lambda: input.lambda,
    seed: input.seed,
    vote: input.majority_sign,
    isNormalized: input.normalize,
    isRescaled: input.rescale,
    gamma: input.gamma,
    epsilon: input.epsilon,
    position: input.t,
    dtype: DTYPES[input.dtype],
    allowsNonFinite: input.nonfinite === "propagate",
  };
}

export function adapterRecipe(input: MergeInput): Recipe {
  return {
    ...commonRecipe(input, input.adapters),
    rank: input.rank,
    energy: input.energy,
    allowsMissing: input.missing_modules === "zero",
    overrides: input.overrides,
  };
}

export function modelRecipe(input: MergeModelsInput): Recipe {
  return { ...commonRecipe(input, input.models), allowsMissing: false, overrides: input.overrides };
}

/** What a reader must know about numbers that follow another tool. */
export function recipeNotes(recipe: Recipe, isRslora: boolean): readonly string[] {
  const { compatibility, method } = recipe;
  const notes: string[] = [];
  if (compatibility === "peft") {
    if (recipe.weights.length === 1)
      notes.push(
        "peft: one adapter is merged linearly; the method and density asked for are ignored",
      );
    if (!/cat|svd/u.test(method))
      notes.push(
        "peft: A and B are merged apart; the cross terms B_i A_j make the delta differ from the weighted sum",
      );
    if (isRslora)
      notes.push(
        "peft: use_rslora is kept while alpha becomes the rank, so the delta is scaled by sqrt(rank)",
      );
    if (recipe.densities.some((density) => density > 1))
      notes.push("peft: a density above 1 prunes nothing");
  }
  if (compatibility === "rune") {
    notes.push("Rune: A and B are merged apart; alpha, weights and lambda are ignored");
    if (method === "ties")
      notes.push(
        "Rune: entries equal to the threshold all survive, and a tied vote takes the mean of all survivors",
      );
  }
  if (compatibility === "mergekit") {
    notes.push(
      "mergekit: weights take part in the election of signs; survivors of a random prune keep the sum of magnitudes",
    );
  }
  return notes;
}

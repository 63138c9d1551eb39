/** Merge methods by the names their users know. */
export const METHODS = [
  "linear",
  "task_arithmetic",
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
  "della",
  "della_linear",
  "breadcrumbs",
  "breadcrumbs_ties",
  "slerp",
] as const;
export type Method = (typeof METHODS)[number];

/** Whose numbers to reproduce; `none` is this tool's own definition. */
export const COMPATIBILITIES = ["none", "peft", "mergekit", "rune"] as const;
export type Compatibility = (typeof COMPATIBILITIES)[number];

export type Vote = "total" | "frequency";

/** A merge of equally long vectors, taken apart into the choices in which the tools differ. */
export interface Rules {
  readonly prune: "none" | "magnitude" | "random" | "della" | "breadcrumbs";
  /** `at_least_one`: Rune keeps everything that reaches the threshold, and never nothing. */
  readonly keep: "exact" | "at_least_one";
  readonly rescale: "none" | "density" | "l1" | "probability";
  readonly vote: "none" | Vote;
  /** Whether weights take part in the election of the sign. */
  readonly isVoteWeighted: boolean;
  /** What a vote that cancels out elects. */
  readonly onTie: "plus" | "mean";
  readonly divisor: "none" | "count" | "weight" | "total_weight" | "inputs";
  /** Rounds after every step to the dtype of the inputs, as a tool that computes in it does. */
  readonly isRoundedPerStep: boolean;
}

const OWN: Rules = {
  prune: "none",
  keep: "exact",
  rescale: "none",
  vote: "none",
  isVoteWeighted: true,
  onTie: "plus",
  divisor: "none",
  isRoundedPerStep: false,
};

type Sparse = "magnitude" | "random" | "della" | "breadcrumbs";

const SPARSE: Readonly<Partial<Record<Method, Sparse>>> = {
  ties: "magnitude",
  ties_svd: "magnitude",
  magnitude_prune: "magnitude",
  magnitude_prune_svd: "magnitude",
  dare_linear: "random",
  dare_linear_svd: "random",
  dare_ties: "random",
  dare_ties_svd: "random",
  della: "della",
  della_linear: "della",
  breadcrumbs: "breadcrumbs",
  breadcrumbs_ties: "breadcrumbs",
};
const ELECTS = new Set<Method>(["ties", "ties_svd", "dare_ties", "dare_ties_svd", "della", "breadcrumbs_ties"]);

export interface RuleOptions {
  readonly vote: Vote;
  /** Divide by the weights that agree (elections) or by all weights (sums); absent: the tool's default. */
  readonly isNormalized?: boolean | undefined;
  /** False keeps survivors of a random or DELLA prune as they are. @default true */
  readonly isRescaled?: boolean | undefined;
}

/** How `method` merges vectors under `compatibility`. */
export function rulesFor(method: Method, compatibility: Compatibility, options: RuleOptions): Rules {
  const rules = toolRules(method, compatibility, options);
  return options.isRescaled === false ? { ...rules, rescale: "none" } : rules;
}

function toolRules(method: Method, compatibility: Compatibility, options: RuleOptions): Rules {
  const prune = SPARSE[method] ?? "none";
  const elects = ELECTS.has(method);
  if (compatibility === "peft") return peftRules(prune, elects, options);
  if (compatibility === "rune") return runeRules(method);
  if (compatibility === "mergekit") return mergekitRules(method, prune, options);
  return {
    ...OWN,
    prune,
    rescale: rescaleOf(prune),
    vote: elects ? options.vote : "none",
    divisor: divisorOf(elects, options.isNormalized ?? elects),
  };
}

function rescaleOf(prune: Rules["prune"]): Rules["rescale"] {
  if (prune === "random") return "density";
  return prune === "della" ? "probability" : "none";
}

function divisorOf(elects: boolean, isNormalized: boolean): Rules["divisor"] {
  if (!isNormalized) return "none";
  return elects ? "weight" : "total_weight";
}

function peftRules(prune: Rules["prune"], elects: boolean, { vote }: RuleOptions): Rules {
  return {
    ...OWN,
    prune,
    rescale: prune === "random" ? "density" : "none",
    vote: elects ? vote : "none",
    isVoteWeighted: false,
    divisor: elects ? "count" : "none",
  };
}

function runeRules(method: Method): Rules {
  if (method === "ties") {
    return {
      ...OWN,
      prune: "magnitude",
      keep: "at_least_one",
      vote: "frequency",
      isVoteWeighted: false,
      onTie: "mean",
      divisor: "count",
    };
  }
  return { ...OWN, prune: "random", rescale: "density", divisor: "inputs" };
}

/** mergekit sums by default and divides only for `ties` and `linear`. */
function mergekitRules(method: Method, prune: Rules["prune"], options: RuleOptions): Rules {
  const elects = ELECTS.has(method);
  const isNormalized = options.isNormalized ?? (method === "ties" || method === "linear");
  return {
    ...OWN,
    prune,
    rescale: prune === "random" || prune === "della" ? "l1" : "none",
    vote: elects ? "total" : "none",
    divisor: divisorOf(elects, isNormalized),
    isRoundedPerStep: true,
  };
}

import type { SequenceEvaluateOptions, Token, LlamaModel } from "node-llama-cpp";
import type { TextRequest } from "../engine.ts";
import { NEUTRAL } from "../task/parameters.ts";
import type { Library } from "./library.ts";

/** The parameters of one call with every absent one replaced by its neutral value. */
export interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly repetition: number;
  readonly presence: number;
  readonly frequency: number;
  readonly seed: number;
  /** The sampler leaves the model's distribution as it is, so that it can be read behind it. */
  readonly isRaw: boolean;
}

export function samplingOf({ parameters }: TextRequest, drawSeed: () => number): Sampling {
  const given = (name: keyof typeof NEUTRAL): number => parameters[name] ?? NEUTRAL[name];
  const numbers = {
    temperature: given("temperature"),
    topP: given("top_p"),
    topK: given("top_k"),
    minP: given("min_p"),
    repetition: given("repetition_penalty"),
    presence: given("presence_penalty"),
    frequency: given("frequency_penalty"),
  };
  const isConstrained = parameters.json_schema !== undefined || parameters.grammar !== undefined;
  const isRaw = !isConstrained && leavesRaw(numbers);
  return { ...numbers, seed: parameters.seed ?? drawSeed(), isRaw };
}

function leavesRaw(numbers: Omit<Sampling, "seed" | "isRaw">): boolean {
  const { temperature, topP, topK, minP, repetition, presence, frequency } = numbers;
  if (repetition !== 1 || presence !== 0 || frequency !== 0) return false;
  const isFiltered = topP !== 1 || topK !== 0 || minP !== 0;
  return temperature === 0 || (temperature === 1 && !isFiltered);
}

/** Tokens of a running generation, as the penalties see them. */
export interface Seen {
  readonly prompt: readonly Token[];
  readonly counts: ReadonlyMap<Token, number>;
}

/**
 * Options of node-llama-cpp for a sampling.
 *
 * Its own penalty sampler sees one set of tokens, so it serves the repetition penalty (prompt and
 * text); presence and frequency, which see the text only, are biases of the logits.
 */
export function evaluateOptions(
  { TokenBias }: Library,
  model: LlamaModel,
  sampling: Sampling,
  seen: Seen,
): SequenceEvaluateOptions {
  const { temperature, topP, topK, minP, repetition, presence, frequency, seed } = sampling;
  const options: SequenceEvaluateOptions = { temperature, topP, topK, minP, seed };
  if (repetition !== 1) {
    const prompt = new Set(seen.prompt);
    options.repeatPenalty = {
      penalty: repetition,
      punishTokens: () => [...new Set([...prompt, ...seen.counts.keys()])],
    };
  }
  if (presence !== 0 || frequency !== 0) {
    options.tokenBias = () => {
      const bias = TokenBias.for(model);
      for (const [token, count] of seen.counts) {
        bias.set(token, { logit: -presence - frequency * count });
      }
      return bias;
    };
  }
  return options;
}

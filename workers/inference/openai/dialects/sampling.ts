import type { TextRequest } from "../../engine.ts";
import { NEUTRAL, type ParameterName } from "../../task/parameters.ts";
import type { Refused } from "./dialect.ts";

type Given = TextRequest["parameters"];

/** Parameters with every neutral value filled in, as they are sent. */
export interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly repetition: number;
  readonly presence: number;
  readonly frequency: number;
  readonly maxTokens: number;
}

/** What a caller left out is neutral; it is sent all the same where a server has defaults of its own. */
export function samplingOf(given: Given): Sampling {
  return {
    temperature: given.temperature ?? NEUTRAL.temperature,
    topP: given.top_p ?? NEUTRAL.top_p,
    topK: given.top_k ?? NEUTRAL.top_k,
    minP: given.min_p ?? NEUTRAL.min_p,
    repetition: given.repetition_penalty ?? NEUTRAL.repetition_penalty,
    presence: given.presence_penalty ?? NEUTRAL.presence_penalty,
    frequency: given.frequency_penalty ?? NEUTRAL.frequency_penalty,
    maxTokens: given.max_tokens ?? NEUTRAL.max_tokens,
  };
}

/** The seed to send: the caller's, or one drawn here so that the text can be had again; none if greedy. */
export function seedOf(given: Given): number | null {
  if (given.temperature === 0) return null;
  return given.seed ?? Math.floor(Math.random() * 0x1_0000_0000);
}

/** Limits of a server's values that the task does not have. */
export interface ValueLimits {
  readonly maxStops: number;
  readonly maxLogprobs: number;
  readonly truncates: boolean;
  /** Whether vectors and texts of several adapters, or other scales than 1, are possible. */
  readonly adapterScales: boolean;
}

export function refusedValues(request: TextRequest, limits: ValueLimits): readonly Refused[] {
  const { adapters, overflow, parameters, stop } = request;
  const refused: Refused[] = [];
  const refuse = (field: string, why: string): void => {
    refused.push({ field, why });
  };
  if (stop.length > limits.maxStops) refuse("stop", `at most ${limits.maxStops} texts`);
  if ((parameters.logprobs ?? 0) > limits.maxLogprobs) {
    refuse("logprobs", `at most ${limits.maxLogprobs}`);
  }
  if (overflow === "truncate" && !limits.truncates) {
    refuse("context_overflow", "it cannot say how much it would drop");
  }
  if (!limits.adapterScales && adapters.length > 1) refuse("adapters", "one at a time");
  if (!limits.adapterScales && adapters.some(({ scale }) => scale !== 1)) {
    refuse("adapters", "scale 1 only");
  }
  return refused;
}

/** A kind's parameters, with what the operator adds and takes away. */
export function parameterSet(
  promised: readonly ParameterName[],
  config: {
    readonly also_honours: readonly ParameterName[];
    readonly does_not_honour: readonly ParameterName[];
  },
): ReadonlySet<ParameterName> {
  const honoured = new Set([...promised, ...config.also_honours]);
  for (const name of config.does_not_honour) honoured.delete(name);
  return honoured;
}

/** Leaves out the fields that have no value. */
export function present(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
